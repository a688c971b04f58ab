package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strings"
	"text/tabwriter"

	"github.com/sluice-gateway/sluice/routing"
	"github.com/spf13/cobra"
)

func explainCommand() *cobra.Command {
	var f adminFlags
	var output string
	var headers []string
	cmd := &cobra.Command{
		Use:   "explain METHOD URL",
		Short: "Say which route a request would take, and why",
		Long: "Asks a running gateway, which answers from the table and the code that serve:\n" +
			"the route that wins and why, the ones that do not, the plugins in order, the\n" +
			"instances, and the key and revision the route came from.",
		Example: "  sluice explain GET http://localhost:8080/orders/1\n" +
			"  sluice explain GET http://api.example.com/orders/1 -H 'X-Canary: yes' -o json",
		Args: args(cobra.ExactArgs(2), "METHOD URL"),
		RunE: func(cmd *cobra.Command, a []string) error {
			if output != "text" && output != "json" {
				return usageError{fmt.Errorf("-o: %q is not one of text, json", output)}
			}
			if err := checkQuestion(a[0], a[1], headers); err != nil {
				return usageError{err}
			}
			query := url.Values{"method": {strings.ToUpper(a[0])}, "url": {a[1]}, "header": headers}
			c, err := f.client()
			if err != nil {
				return err
			}
			body, err := c.get(cmd.Context(), "/api/v1/explain", query)
			if err != nil {
				return err
			}
			if output == "json" {
				return printJSON(cmd.OutOrStdout(), "", body)
			}
			var e routing.Explanation
			if err := json.Unmarshal(body, &e); err != nil {
				return fmt.Errorf("read the gateway's answer: %w", err)
			}
			return printExplanation(cmd.OutOrStdout(), e, a[1])
		},
	}
	f.register(cmd)
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	cmd.Flags().StringArrayVarP(&headers, "header", "H", nil, "a request header, 'Name: value'; repeatable")
	return cmd
}

// checkQuestion refuses what no client could send. The path is left as it is:
// how the gateway reads it is part of the answer.
func checkQuestion(method, target string, headers []string) error {
	if !isToken(method) {
		return fmt.Errorf("%q is not a method such as GET", method)
	}
	if !strings.HasPrefix(target, "/") {
		scheme, rest, _ := strings.Cut(target, "://")
		host, _, _ := strings.Cut(rest, "/")
		host, _, _ = strings.Cut(host, "?")
		u, err := url.Parse("http://" + host)
		if (scheme != "http" && scheme != "https") || err != nil || u.Hostname() == "" || u.User != nil {
			return fmt.Errorf("%q is not a URL such as http://api.example.com/orders/1 or /orders/1", target)
		}
	}
	for _, h := range headers {
		if name, _, ok := strings.Cut(h, ":"); !ok || !isToken(strings.TrimSpace(name)) {
			return fmt.Errorf("-H: %q is not 'Name: value'", h)
		}
	}
	return nil
}

// sentPath is the path of target as it stands there.
func sentPath(target string) string {
	if _, rest, ok := strings.Cut(target, "://"); ok && !strings.HasPrefix(target, "/") {
		i := strings.IndexAny(rest, "/?")
		if i < 0 {
			return ""
		}
		target = rest[i:]
	}
	path, _, _ := strings.Cut(target, "?")
	return path
}

// isToken says whether s can be a method or a header's name (RFC 9110, 5.6.2).
func isToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r)
	})
}

// printExplanation writes e for people; sent is the URL that was asked about.
func printExplanation(w io.Writer, e routing.Explanation, sent string) error {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	line := func(name string, cells ...any) {
		if text := join(cells...); text != "" {
			fmt.Fprintf(t, "%s\t%s\n", name, text)
		}
	}
	path := e.NormalisedPath
	if path == "" { // refused: what was sent is what there is to see
		path = sentPath(sent)
	}
	line("request", e.Method+" "+e.Host+path)
	line("matched as", e.MatchedPath)
	line("outcome", e.Outcome)
	line("refused", e.Refusal)
	if a := e.Answer; a != nil {
		line("answer", fmt.Sprintf("%d %s: %s", a.Status, a.Code, a.Detail))
	}
	line("allow", strings.Join(e.Allow, ", "))
	if r := e.Winner; r != nil {
		line("route", fmt.Sprintf("%s (%s)", r.Name, r.State))
		line("matches", strings.TrimSpace(strings.Join(r.Hosts, ",")+" "+r.Path))
		line("why", r.Why)
		line("from", fmt.Sprintf("%s %s revision %d", r.Source, r.Key, r.Revision))
	}
	for _, p := range e.Params {
		line("parameter", p.Name+" = "+p.Value)
	}
	for _, l := range e.Losers {
		line("not", fmt.Sprintf("%s (%s): %s", l.Name, l.Key, l.Reason))
	}
	line("plugins", strings.Join(e.Plugins, " → "))
	line("forwarded as", e.ForwardPath)
	line("location", e.Location)
	line("service", e.Service)
	line("pinned to", e.Subset)
	for _, s := range e.Shares {
		line("share", fmt.Sprintf("%s %d (%d instances)", s.Subset, s.Weight, s.Instances))
	}
	for _, i := range e.Instances {
		state := i.State
		if i.Reason != "" {
			state += ": " + i.Reason
		}
		line("instance", fmt.Sprintf("%s %s weight %d %s (%s)", i.ID, i.Address, i.Weight, list(i.Tags), state))
	}
	line("table", fmt.Sprintf("generation %d, etcd revision %d", e.Generation, e.Revision))
	return t.Flush()
}
