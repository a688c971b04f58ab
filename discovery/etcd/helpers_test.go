package etcd

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-gateway/sluice/discovery"
	"github.com/sluice-gateway/sluice/discovery/discoverytest"
	"github.com/sluice-gateway/sluice/test/testenv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is for what happens soon on a machine that is not busy.
const patience = 30 * time.Second

// configFor follows the store at endpoints under the default prefix.
func configFor(endpoints ...string) Config {
	cfg := Default()
	cfg.Endpoints = endpoints
	return cfg
}

// follow runs a source until the test ends.
func follow(t *testing.T, cfg Config) (*Source, *discoverytest.Sink) {
	t.Helper()
	source, err := New(cfg, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	sink := &discoverytest.Sink{}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- source.Run(ctx, sink) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Run returned %v", err)
			}
		case <-time.After(patience):
			t.Error("Run goes on after its context ended")
		}
	})
	return source, sink
}

// testLog writes to the test's log, which is shown when it fails.
func testLog(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// awaitValue waits until the document stands with that value.
func awaitValue(t *testing.T, sink *discoverytest.Sink, key, value string) discovery.State {
	t.Helper()
	return sink.Await(t, patience, fmt.Sprintf("%s to be %.20q", key, value), func(s discovery.State) bool {
		d := s.Documents.Get(key)
		return d != nil && string(d.Value) == value
	})
}

// contacts is where the next AwaitContact starts.
func contacts(sink *discoverytest.Sink) int { return len(sink.Contacts()) }

func failed(err error) bool   { return err != nil }
func answered(err error) bool { return err == nil }

// awaitProbe waits until the watch of the store answers at revision or later.
func awaitProbe(t *testing.T, source *Source, revision int64) {
	t.Helper()
	testenv.Eventually(t, patience, fmt.Sprintf("progress to revision %d", revision),
		func() bool { return source.Revision() >= revision })
}
