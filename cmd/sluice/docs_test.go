package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// documentedCommands finds the command lines that the pages show: lines of
// fenced blocks, and code within a sentence, that begin with sluice.
func documentedCommands(t *testing.T) map[string]string {
	t.Helper()
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	inline := regexp.MustCompile("`([^`]+)`")
	line := regexp.MustCompile(`^(?:bin/)?sluice( [a-z].*)$`)
	out := map[string]string{}
	for _, page := range append(pages, "../../README.md", "../../CHANGELOG.md") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		fenced := false
		for l := range strings.Lines(string(text)) {
			l = strings.TrimSpace(l)
			var candidates []string
			switch {
			case strings.HasPrefix(l, "```"):
				fenced = !fenced
			case fenced:
				candidates = []string{l}
			default:
				for _, m := range inline.FindAllStringSubmatch(l, -1) {
					candidates = append(candidates, m[1])
				}
			}
			for _, c := range candidates {
				if m := line.FindStringSubmatch(c); m != nil {
					out[m[1][1:]] = filepath.Base(page)
				}
			}
		}
	}
	return out
}

// words splits a command line as a shell does where nothing but single quotes
// is special.
func words(s string) []string {
	var out []string
	for _, m := range regexp.MustCompile(`(?:'[^']*'|[^ '])+`).FindAllString(s, -1) {
		out = append(out, strings.ReplaceAll(m, "'", ""))
	}
	return out
}

func TestEveryCommandLineInTheDocsIsAccepted(t *testing.T) {
	commands := documentedCommands(t)
	if len(commands) < 5 {
		t.Fatalf("found only %d command lines", len(commands))
	}
	for command, page := range commands {
		if err := accepted(rootCommand(), words(command)); err != nil {
			t.Errorf("%s: sluice %s: %v", page, command, err)
		}
	}
}

func TestEveryExampleOfTheHelpIsAccepted(t *testing.T) {
	root := rootCommand()
	for _, cmd := range append(root.Commands(), root) {
		lines := strings.Split(cmd.Example, "\n")
		for _, l := range lines {
			_, command, ok := strings.Cut(l, "sluice ")
			if !ok {
				t.Errorf("%s --help has no example that begins with sluice: %q", cmd.CommandPath(), l)
				continue
			}
			if err := accepted(rootCommand(), words(command)); err != nil {
				t.Errorf("%s --help: %q: %v", cmd.CommandPath(), l, err)
			}
		}
	}
}

// accepted says whether a command line names a command, flags and as many
// arguments as the command takes; it runs nothing.
func accepted(root *cobra.Command, line []string) error {
	cmd, rest, err := root.Find(line)
	if err != nil {
		return err
	}
	if cmd == root {
		return usageError{pflag.ErrHelp}
	}
	if err := cmd.ParseFlags(rest); err != nil {
		return err
	}
	return cmd.ValidateArgs(cmd.Flags().Args())
}
