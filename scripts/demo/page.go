package main

import (
	"fmt"
	"io"
	"strings"
)

// printPage shows what runs and what to try.
func printPage(out io.Writer, s *stack, steps []step) {
	fmt.Fprintf(out, `
Sluice runs. Try these in another terminal; Ctrl-C here stops everything.

  gateway  %-28s admin  %s
  Consul   %-28s etcd   %s
  logs     %s

    cd %s
`, s.url(s.ports.gateway), s.url(s.ports.admin), s.url(s.ports.consul)+"/ui", s.url(s.ports.etcd), s.dir, quote(s.root))
	if e := s.exports(); e != nil {
		fmt.Fprintf(out, "    %s\n", exportLine(e))
	}
	for _, st := range steps {
		if st.title != "" {
			fmt.Fprintf(out, "\n%s\n", st.title)
		}
		note := ""
		if st.stays {
			note = "   # in a third terminal"
			if e := s.exports(); e != nil {
				note += ", exports first"
			}
		}
		fmt.Fprintf(out, "    %s%s\n", st.command, note)
	}
	fmt.Fprintln(out)
}

// exportLine sets variables in a shell.
func exportLine(vars []string) string { return "export " + strings.Join(vars, " ") }

// quote makes one shell word of a path.
func quote(path string) string {
	if strings.ContainsAny(path, " '\"$`\\*?[]{}()<>|&;#~!\t\n") {
		return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
	}
	return path
}
