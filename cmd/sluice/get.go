package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/sluice-gateway/sluice/admin"
	"github.com/sluice-gateway/sluice/routing"
	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
)

// kinds is what get can list.
func kinds() []string { return []string{"routes", "services", "instances", "problems", "status"} }

func getCommand() *cobra.Command {
	var f adminFlags
	var output string
	cmd := &cobra.Command{
		Use:   "get routes|services|instances|problems|status [NAME]",
		Short: "Read the live table of a gateway",
		Example: "  sluice get routes\n  sluice get instances orders\n" +
			"  sluice get problems -o json\n  sluice get status --admin 127.0.0.1:8081",
		Args: args(cobra.RangeArgs(1, 2), "routes|services|instances|problems|status [NAME]"),
		RunE: func(cmd *cobra.Command, a []string) error {
			if !slices.Contains(kinds(), a[0]) {
				return usageError{fmt.Errorf("get: %q is not one of %s", a[0], strings.Join(kinds(), ", "))}
			}
			if a[0] == "status" && len(a) == 2 {
				return usageError{errors.New("get: status takes no NAME: it is that of the gateway that --admin names")}
			}
			print, ok := printers()[output]
			if !ok {
				return usageError{fmt.Errorf("-o: %q is not one of table, json, yaml", output)}
			}
			c, err := f.client()
			if err != nil {
				return err
			}
			query := url.Values{}
			if len(a) == 2 {
				query.Set("name", a[1])
			}
			body, err := c.get(cmd.Context(), "/api/v1/"+a[0], query)
			if err != nil {
				return err
			}
			if len(a) == 2 && empty(body) {
				if err := c.known(cmd.Context(), a[0], query); err != nil {
					return err
				}
			}
			return print(cmd.OutOrStdout(), a[0], body)
		},
	}
	f.register(cmd)
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table, json or yaml")
	return cmd
}

// known says why a list about the name in query is empty, or nil where that
// is an answer: a service may have no instance, and a good document no problem.
func (c *adminClient) known(ctx context.Context, kind string, query url.Values) error {
	switch kind {
	case "problems":
		return nil
	case "instances":
		body, err := c.get(ctx, "/api/v1/services", query)
		if err != nil || !empty(body) {
			return err
		}
		kind = "services"
	}
	return fmt.Errorf("no %s %q", strings.TrimSuffix(kind, "s"), query.Get("name"))
}

// empty says whether body is a list without items.
func empty(body []byte) bool {
	var l struct{ Items []json.RawMessage }
	return json.Unmarshal(body, &l) == nil && len(l.Items) == 0
}

type printer func(w io.Writer, kind string, body []byte) error

func printers() map[string]printer {
	return map[string]printer{"table": printTable, "json": printJSON, "yaml": printYAML}
}

func printJSON(w io.Writer, _ string, body []byte) error {
	_, err := w.Write(body)
	return err
}

func printYAML(w io.Writer, _ string, body []byte) error {
	var v any
	if err := json.Unmarshal(body, &v); err != nil {
		return fmt.Errorf("read the gateway's answer: %w", err)
	}
	enc := yaml.NewEncoder(w)
	enc.SetIndent(2)
	return enc.Encode(v)
}

func printTable(w io.Writer, kind string, body []byte) error {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	var err error
	switch kind {
	case "routes":
		err = rows(t, body, "NAME\tHOSTS\tPATH\tMETHODS\tSERVICE\tSTATE\tKEY\tREVISION", func(r admin.Route) string {
			service := r.Service
			if r.Subset != "" {
				service += " (" + r.Subset + ")"
			}
			return join(r.Name, list(r.Hosts), r.Path, list(r.Methods), dash(service), r.State, r.Key, r.Revision)
		})
	case "services":
		err = rows(t, body, "NAME\tINSTANCES\tACTIVE\tHELD\tIN FLIGHT\tCIRCUIT\tPROTOCOL", func(s admin.Service) string {
			var shares []string
			for _, a := range s.Active {
				shares = append(shares, fmt.Sprintf("%s=%d", a.Subset, a.Weight))
			}
			held := ""
			if s.Held != nil {
				held = s.Held.Wanted + ": " + s.Held.Reason
			}
			return join(s.Name, s.Instances, list(shares), dash(held), s.InFlight, s.Circuit, s.Protocol)
		})
	case "instances":
		err = rows(t, body, "SERVICE\tID\tADDRESS\tWEIGHT\tTAGS\tSTATE\tREASON\tIN FLIGHT", func(i admin.Instance) string {
			return join(i.Service, i.ID, i.Address, i.Weight, list(i.Tags), i.State, dash(i.Reason), i.InFlight)
		})
	case "problems":
		err = rows(t, body, "KEY\tREVISION\tCODE\tSERVING\tSINCE\tMESSAGE", func(p routing.Problem) string {
			return join(p.Key, p.Revision, p.Code, p.Serving, p.Since.UTC().Format(time.RFC3339), p.Message)
		})
	case "status":
		err = statusTable(t, body)
	}
	if err != nil {
		return err
	}
	return t.Flush()
}

// rows prints a line for each item of a list.
func rows[T any](w io.Writer, body []byte, head string, row func(T) string) error {
	var l struct{ Items []T }
	if err := json.Unmarshal(body, &l); err != nil {
		return fmt.Errorf("read the gateway's answer: %w", err)
	}
	if _, err := fmt.Fprintln(w, head); err != nil {
		return err
	}
	for _, item := range l.Items {
		if _, err := fmt.Fprintln(w, row(item)); err != nil {
			return err
		}
	}
	return nil
}

func statusTable(w io.Writer, body []byte) error {
	var s admin.Status
	if err := json.Unmarshal(body, &s); err != nil {
		return fmt.Errorf("read the gateway's answer: %w", err)
	}
	fmt.Fprintf(w, "gateway\t%s\naddress\t%s\nrevision\t%d\ngeneration\t%d\nroutes\t%d\nproblems\t%d\n",
		s.Gateway, s.Address, s.Revision, s.Generation, s.Routes, len(s.Problems))
	for _, name := range slices.Sorted(maps.Keys(s.Active)) {
		fmt.Fprintf(w, "active %s\t%s\n", name, orAll(s.Active[name]))
	}
	for _, h := range s.Held {
		fmt.Fprintf(w, "held %s\twants %s, serves %s: %s\n", h.Service, h.Wanted, orAll(h.Serving), h.Reason)
	}
	for _, name := range s.Undecided {
		fmt.Fprintf(w, "undecided %s\tits instances are not known yet\n", name)
	}
	_, err := fmt.Fprintf(w, "updated\t%s\n", s.UpdatedAt.Format(time.RFC3339))
	return err
}

func join(cells ...any) string {
	parts := make([]string, len(cells))
	for i, c := range cells {
		// Names come from documents: keep a stray control byte out of the terminal.
		parts[i] = strings.Map(func(r rune) rune {
			if r < ' ' || r == 0x7f {
				return '?'
			}
			return r
		}, fmt.Sprint(c))
	}
	return strings.Join(parts, "\t")
}

// orAll shows an active value, which is empty where all instances serve.
func orAll(active string) string {
	if active == "" {
		return "all"
	}
	return active
}

func list(s []string) string { return dash(strings.Join(s, ",")) }

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
