package main

import (
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"log/slog"
	"os"

	"github.com/sluice-gateway/sluice/configs"
	"github.com/spf13/cobra"
)

func serveCommand() *cobra.Command {
	var config string
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the gateway",
		Long: "Runs the gateway until SIGTERM or Ctrl-C, then drains: not ready, finish what is\n" +
			"under way, out. Settings come from flags, then SLUICE_… in the environment, then the\n" +
			"file, then defaults; an unknown key is an error.",
		Example: "  sluice serve -c sluice.yaml\n  SLUICE_ETCD_ENDPOINTS=http://10.0.0.5:2379 sluice serve",
		Args:    args(cobra.NoArgs, "[-c FILE]"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := configs.Load(config, cmd.Flags())
			if err != nil {
				err = fmt.Errorf("configuration: %w", err)
				if flag := (configs.FlagError{}); errors.As(err, &flag) {
					return usageError{err}
				}
				return err
			}
			log := newLogger(cmd.ErrOrStderr(), cfg.Log)
			tuneMemory(os.DirFS("/"), log)
			takePrints(log)
			gw, err := newGateway(cfg, log)
			if err != nil {
				return err
			}
			return gw.run(cmd.Context())
		},
	}
	cmd.Flags().StringVarP(&config, "config", "c", "", "configuration file (YAML)")
	configs.AddFlags(cmd.Flags())
	return cmd
}

// newLogger writes one line per message; values are escaped by the handler,
// so nothing a client sends can start a line of its own.
func newLogger(w io.Writer, cfg configs.Log) *slog.Logger {
	options := &slog.HandlerOptions{Level: cfg.SlogLevel()}
	if cfg.Format == "text" {
		return slog.New(slog.NewTextHandler(w, options))
	}
	return slog.New(slog.NewJSONHandler(w, options))
}

// takePrints makes what libraries print for themselves, as quic-go does about
// small UDP buffers, a line of the log too.
func takePrints(log *slog.Logger) {
	stdlog.SetFlags(0)
	stdlog.SetOutput(slog.NewLogLogger(log.Handler(), slog.LevelWarn).Writer())
}
