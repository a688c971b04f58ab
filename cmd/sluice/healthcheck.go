package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func healthcheckCommand() *cobra.Command {
	var f adminFlags
	cmd := &cobra.Command{
		Use:     "healthcheck",
		Short:   "Ask a gateway's /livez: for containers without a shell",
		Example: "  sluice healthcheck\n  sluice healthcheck --admin 127.0.0.1:8081",
		Args:    args(cobra.NoArgs, "[--admin ADDRESS]"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := f.client()
			if err != nil {
				return err
			}
			if _, err := c.get(cmd.Context(), "/livez", nil); err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), "ok")
			return err
		},
	}
	f.register(cmd)
	return cmd
}
