package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// rootCommand wires the commands; each lives in a file of its own.
func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "sluice",
		Short: "An API gateway whose routes follow Consul and etcd",
		Long: "Sluice proxies HTTP and gRPC to services that register themselves in Consul,\n" +
			"over routes that operators put into etcd. It follows both without restarts.",
		Example:       "  sluice serve -c sluice.yaml\n  sluice explain GET http://localhost:8080/orders/1\n  sluice switch orders green --wait",
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("unknown command %q; known are %s", args[0], strings.Join(commandNames(cmd), ", "))}
			}
			return cmd.Help()
		},
		Args: cobra.ArbitraryArgs,
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.SetHelpCommand(helpCommand())
	root.AddCommand(serveCommand(), checkCommand(), getCommand(), explainCommand(), switchCommand(), versionCommand(), healthcheckCommand())
	return root
}

// helpCommand is cobra's, except that it refuses names that are no command.
func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "help [COMMAND]",
		Short:   "Help about a command",
		Long:    "Shows what a command does and takes, as --help behind it does.",
		Example: "  sluice help switch",
		RunE: func(cmd *cobra.Command, names []string) error {
			of, rest, err := cmd.Root().Find(names)
			if err != nil || len(rest) > 0 {
				return usageError{fmt.Errorf("unknown command %q; known are %s", strings.Join(names, " "), strings.Join(commandNames(cmd.Root()), ", "))}
			}
			return of.Help()
		},
	}
}

func commandNames(cmd *cobra.Command) []string {
	var names []string
	for _, c := range cmd.Commands() {
		if !c.Hidden {
			names = append(names, c.Name())
		}
	}
	return names
}

// args wraps an argument check so that its errors count as usage.
func args(check cobra.PositionalArgs, hint string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, a []string) error {
		if err := check(cmd, a); err != nil {
			return usageError{errors.New("usage: " + cmd.CommandPath() + " " + hint)}
		}
		return nil
	}
}
