package etcd

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/test/testenv"
)

// publish runs a publisher; stop ends it and waits.
func publish(t *testing.T, cfg Config, gateway string) (p *StatusPublisher, stop func()) {
	t.Helper()
	p, err := NewStatusPublisher(cfg, gateway, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	stop = func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run returned %v", err)
		}
		ended <- nil
	}
	t.Cleanup(stop)
	return p, stop
}

func awaitStatus(t *testing.T, e *testenv.Etcd, gateway, want string) {
	t.Helper()
	testenv.Eventually(t, patience, fmt.Sprintf("status %q", want), func() bool {
		got, _ := e.Get("/sluice/status/" + gateway)
		return got == want
	})
}

func TestTheStatusFollowsTheNewestValueAndGoesWithItsGateway(t *testing.T) {
	t.Parallel()
	e := testenv.StartEtcd(t)
	p, stop := publish(t, configFor(e.Endpoint), "gw-1")
	p.Publish([]byte("first"))
	awaitStatus(t, e, "gw-1", "first")
	before := e.Revision()
	for i := range 5000 {
		p.Publish(fmt.Append(nil, i))
	}
	p.Publish([]byte("last"))
	awaitStatus(t, e, "gw-1", "last")
	if writes := e.Revision() - before; writes > 100 {
		t.Errorf("%d writes", writes)
	}
	stop()
	if got, ok := e.Get("/sluice/status/gw-1"); ok {
		t.Errorf("the key stands after the end: %q", got)
	}
}

func TestTheStatusReturnsAfterEtcdDoes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		restart func(*testenv.Etcd)
	}{
		{"with its data", func(e *testenv.Etcd) { e.Kill(); e.Restart() }},
		{"without its data", (*testenv.Etcd).RestartEmpty},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e := testenv.StartEtcd(t)
			p, _ := publish(t, configFor(e.Endpoint), "gw-1")
			p.Publish([]byte("before"))
			awaitStatus(t, e, "gw-1", "before")
			tt.restart(e)
			awaitStatus(t, e, "gw-1", "before")
			p.Publish([]byte("after"))
			awaitStatus(t, e, "gw-1", "after")
		})
	}
}

func TestAPublisherThatNeverReachedEtcdEnds(t *testing.T) {
	t.Parallel()
	p, stop := publish(t, configFor("http://127.0.0.1:1"), "gw-1")
	p.Publish([]byte("x"))
	start := time.Now()
	stop()
	t.Logf("ended after %s", time.Since(start))
	if _, err := NewStatusPublisher(Default(), "a/b", testLog(t)); err == nil {
		t.Error("a gateway's name may hold a slash")
	}
}

func TestStatusesAreWatchedUntilTheyPlease(t *testing.T) {
	t.Parallel()
	e := testenv.StartEtcd(t)
	cfg := configFor(e.Endpoint)
	w := newWriter(t, cfg)
	e.Put("/sluice/status/gw-1", "1")
	e.Put("/sluice/status/gw-2", "1")
	saw := make(chan string, 100)
	done := make(chan error, 1)
	go func() {
		done <- w.WatchStatuses(t.Context(), func(m map[string][]byte) bool {
			saw <- fmt.Sprintf("%s", m)
			return string(m["gw-1"]) == "2"
		})
	}()
	want := func(text string) {
		t.Helper()
		select {
		case got := <-saw:
			if got != text {
				t.Errorf("saw %s, want %s", got, text)
			}
		case <-time.After(patience):
			t.Fatalf("waited in vain for %s", text)
		}
	}
	want("map[gw-1:1 gw-2:1]")
	e.Delete("/sluice/status/gw-2")
	want("map[gw-1:1]")
	e.Put("/sluice/status/gw-1", "2")
	want("map[gw-1:2]")
	if err := <-done; err != nil {
		t.Errorf("ended with %v", err)
	}

	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	err := w.WatchStatuses(ctx, func(map[string][]byte) bool { return false })
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a wait in vain ends with %v", err)
	}
}
