package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/admin"
	"github.com/sluice-gateway/sluice/configs"
	"github.com/sluice-gateway/sluice/discovery"
	"github.com/sluice-gateway/sluice/discovery/etcd"
	"github.com/sluice-gateway/sluice/routing"
	"github.com/spf13/cobra"
)

func switchCommand() *cobra.Command {
	var config string
	var wait bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "switch SERVICE SUBSET | SERVICE SUBSET=WEIGHT,…",
		Short: "Write a service's active key: flip it to a colour, or share its traffic",
		Long: "Writes the active key of a service into etcd. With --wait it returns once every\n" +
			"live gateway (each keeps a status key under a lease) has applied that revision and\n" +
			"the choice is in effect; a flip that is held, because the subset has too few passing\n" +
			"instances, is waited for as well, and reported when --timeout is over. Where no\n" +
			"gateway has a route to the service, nothing can take effect: --wait says so and\n" +
			"fails. Without --wait the key is written, and nothing else is looked at.",
		Example: "  sluice switch orders green --wait\n  sluice switch orders blue=90,green=10",
		Args:    args(cobra.ExactArgs(2), "SERVICE green | SERVICE blue=90,green=10"),
		RunE: func(cmd *cobra.Command, a []string) error {
			if err := routing.ValidName(a[0]); err != nil {
				return usageError{fmt.Errorf("switch: service %w", err)} // the error quotes the name
			}
			active, err := routing.ParseActive(a[1])
			if err != nil {
				return usageError{fmt.Errorf("switch: %w", err)}
			}
			if timeout <= 0 {
				return usageError{fmt.Errorf("--timeout: %s is not more than 0s", timeout)}
			}
			cfg, err := configs.Load(config, nil)
			if err != nil {
				return err
			}
			if !cfg.Etcd.Enabled() {
				return errors.New("switch: etcd.endpoints is empty, and the active key lives in etcd")
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			w, err := etcd.NewWriter(cfg.Etcd, slog.New(slog.DiscardHandler))
			if err != nil {
				return err
			}
			defer w.Close()
			key := cfg.Etcd.Key(discovery.KindActive, a[0])
			revision, err := w.Put(ctx, key, []byte(active.String()))
			if err != nil {
				return fmt.Errorf("switch: etcd at %s: %w", strings.Join(cfg.Etcd.Endpoints, ", "), err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s = %s at revision %d\n", key, active, revision)
			if !wait {
				return nil
			}
			return waitApplied(ctx, cmd, w, a[0], active.String(), revision)
		},
	}
	cmd.Flags().StringVarP(&config, "config", "c", "", "configuration file, for etcd.*")
	cmd.Flags().BoolVar(&wait, "wait", false, "return once every live gateway has applied it")
	cmd.Flags().DurationVar(&timeout, "timeout", 10*time.Second, "how long the write and --wait may take")
	return cmd
}

// waitApplied follows the status keys until every gateway that has a route to
// the service serves want, or none has one.
func waitApplied(ctx context.Context, cmd *cobra.Command, w *etcd.Writer, service, want string, revision int64) error {
	start := time.Now()
	var waiting []string
	gateways, unrouted := 0, 0
	err := w.WatchStatuses(ctx, func(statuses map[string][]byte) bool {
		waiting, gateways, unrouted = waiting[:0], len(statuses), 0
		for _, name := range slices.Sorted(maps.Keys(statuses)) {
			routed, reason := applied(statuses[name], service, want, revision)
			switch {
			case reason != "":
				waiting = append(waiting, name+" "+reason)
			case !routed:
				unrouted++
			}
		}
		return len(waiting) == 0 && gateways > 0
	})
	switch {
	case err == nil && unrouted == gateways:
		return fmt.Errorf("switch: written, but no gateway has a route to service %q: nothing was flipped", service)
	case err == nil:
		beside := ""
		if unrouted > 0 {
			beside = fmt.Sprintf("; %s without a route to it", count(unrouted, "gateway"))
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "applied by %s after %s%s\n",
			count(gateways-unrouted, "gateway"), time.Since(start).Round(time.Millisecond), beside)
		return err
	case ctx.Err() != nil && gateways == 0:
		return errors.New("switch: written, but no live gateway keeps a status key")
	case ctx.Err() != nil:
		return fmt.Errorf("switch: written, but not in effect everywhere: %s", strings.Join(waiting, "; "))
	default:
		return fmt.Errorf("switch: written, but the status keys cannot be followed: %w", err)
	}
}

// applied says whether the gateway of this status has a route to service, and
// why it does not serve want yet, or "". One at a newer revision may have been
// told otherwise since.
func applied(status []byte, service, want string, revision int64) (routed bool, reason string) {
	var s admin.Status
	if err := json.Unmarshal(status, &s); err != nil {
		return false, "has a status that cannot be read"
	}
	if s.Revision < revision {
		return false, fmt.Sprintf("is at revision %d", s.Revision)
	}
	for _, h := range s.Held {
		if h.Service == service {
			return true, "holds it: " + h.Reason
		}
	}
	if slices.Contains(s.Undecided, service) {
		return true, "waits for an answer about the instances of " + service
	}
	got, ok := s.Active[service]
	if ok && got != want && s.Revision == revision {
		return true, "serves " + got
	}
	return ok, ""
}

// count is "1 gateway" or "2 gateways".
func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}
