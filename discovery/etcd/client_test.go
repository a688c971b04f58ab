package etcd

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sluice-gateway/sluice/discovery/discoverytest"
	"github.com/sluice-gateway/sluice/test/testenv"
)

func TestRetriesGrowToABoundAndStartOver(t *testing.T) {
	for _, tt := range []struct {
		name  string
		err   error
		steps []time.Duration
	}{
		{"away", errors.New("refused"), []time.Duration{100, 200, 400, 500, 500}},
		{"a wrong password", fmt.Errorf("connect: %w", rpctypes.ErrAuthFailed), []time.Duration{100, 200, 400, 800, 1600, 2000, 2000}},
		{"a bad token", rpctypes.ErrInvalidAuthToken, []time.Duration{100, 200, 400, 800, 1600, 2000}},
		{"no permission", status.Error(codes.PermissionDenied, "no"), []time.Duration{100, 200, 400, 800, 1600, 2000}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var r retry
			for round := range 2 {
				for i, step := range tt.steps {
					step *= time.Millisecond
					if got := r.next(tt.err); got < step/2 || got > step {
						t.Errorf("round %d, delay %d: %s, want %s to %s", round, i, got, step/2, step)
					}
				}
				r.reset()
			}
			r.attempts = 1 << 40
			if got := r.next(tt.err); got > deniedDelay || got <= 0 {
				t.Errorf("after many attempts: %s", got)
			}
		})
	}
}

func TestRunEndsWithItsContextWhateverEtcdDoes(t *testing.T) {
	t.Parallel()
	e := testenv.StartEtcd(t)
	for _, tt := range []struct {
		name     string
		endpoint string
		before   func()
	}{
		{"while etcd answers", e.Endpoint, func() {}},
		{"while nothing listens", "http://127.0.0.1:1", func() {}},
		{"while etcd is frozen", e.Endpoint, e.Freeze},
	} {
		t.Run(tt.name, func(t *testing.T) {
			source, err := New(configFor(tt.endpoint), testLog(t))
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			sink := &discoverytest.Sink{}
			go func() { ended <- source.Run(ctx, sink) }()
			if tt.endpoint == e.Endpoint {
				sink.AwaitContact(t, patience, "an answer", 0, answered)
			}
			tt.before()
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("Run returned %v", err)
			}
		})
	}
	e.Thaw()
}
