package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/sluice-gateway/sluice/configs"
	"github.com/sluice-gateway/sluice/discovery"
	"github.com/sluice-gateway/sluice/discovery/file"
	"github.com/sluice-gateway/sluice/middleware"
	"github.com/sluice-gateway/sluice/middleware/store"
	"github.com/sluice-gateway/sluice/routing"
	"github.com/spf13/cobra"
)

func checkCommand() *cobra.Command {
	var config string
	cmd := &cobra.Command{
		Use:   "check [DOCUMENT…]",
		Short: "Validate the configuration and documents offline",
		Long: "Reads the configuration and any documents with the code that serve uses, and prints\n" +
			"every fault with file and field. A document is a file whose folder says what it is\n" +
			"(routes, services, plugins, consumers, active; in any other it is read as a route), or a\n" +
			"directory with those folders.",
		Example: "  sluice check -c sluice.yaml\n  sluice check routes/orders.yaml services/orders.yaml\n  sluice check ./documents",
		Args:    cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, paths []string) error {
			faults := 0
			report := func(where, what string) {
				faults++
				fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", where, what)
			}
			cfg, err := configs.Load(config, nil)
			for _, e := range unjoin(err) {
				report("configuration", e.Error())
			}
			loaded := err == nil
			if loaded && cfg.File.Path != "" {
				paths = append(paths, cfg.File.Path)
			}
			docs, err := readDocuments(paths)
			for _, e := range unjoin(err) {
				report("document", e.Error())
			}
			plugins, err := offlinePlugins(cfg.Redis)
			if err != nil && loaded {
				report("configuration", err.Error())
			}
			for _, p := range routing.Check(plugins, docs) {
				report(p.Key, p.Message)
			}
			if faults > 0 {
				return fmt.Errorf("check: faults found: %d", faults)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "ok: configuration and %d documents\n", len(docs))
			return err
		},
	}
	cmd.Flags().StringVarP(&config, "config", "c", "", "configuration file (YAML)")
	return cmd
}

// unjoin returns the errors that errors.Join put together.
func unjoin(err error) []error {
	if err == nil {
		return nil
	}
	var joined interface{ Unwrap() []error }
	if errors.As(err, &joined) {
		return joined.Unwrap()
	}
	return []error{err}
}

// maxDocument is one byte more than any document may have, so that a larger
// one is refused for its size and not for being cut.
const maxDocument = 1<<20 + 1

// readDocuments reads files and directories of documents.
func readDocuments(paths []string) ([]*discovery.Document, error) {
	var docs []*discovery.Document
	var errs []error
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if info.IsDir() {
			set, err := file.Load(path)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			for _, d := range set.Sorted() {
				c := *d
				c.Key = filepath.Join(path, d.Key)
				docs = append(docs, &c)
			}
			continue
		}
		d, err := readDocument(path)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		docs = append(docs, d)
	}
	return docs, errors.Join(errs...)
}

// readDocument reads one file; its folder says what it is, a route if the
// folder is none of the kinds.
func readDocument(path string) (*discovery.Document, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	value, err := io.ReadAll(io.LimitReader(f, maxDocument))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	kind := discovery.KindRoute
	for _, k := range discovery.Kinds() {
		if abs, err := filepath.Abs(path); err == nil && filepath.Base(filepath.Dir(abs)) == string(k) {
			kind = k
		}
	}
	name := filepath.Base(path)
	if kind != discovery.KindActive {
		name = strings.TrimSuffix(name, filepath.Ext(name))
	}
	return &discovery.Document{Key: path, Kind: kind, Name: name, Source: discovery.SourceFile, Value: value}, nil
}

// offlinePlugins compile configuration as those of serve do. Nothing runs
// behind them, and Redis, where the configuration has one, is never asked.
func offlinePlugins(redis store.Config) (*middleware.Plugins, error) {
	quiet := slog.New(slog.DiscardHandler)
	var shared *store.Redis
	var err error
	if redis.Address != "" {
		shared, err = store.New(redis, quiet)
	}
	return middleware.NewPlugins(middleware.NewRegistry(quiet, shared)), err
}
