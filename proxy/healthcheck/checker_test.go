package healthcheck

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-gateway/sluice/discovery"
	"github.com/sluice-gateway/sluice/routing/balance"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func endpoint(id, address string) *balance.Endpoint {
	return balance.NewPool().Endpoint("orders", discovery.Instance{ID: id, Address: address, Weight: 1})
}

// script is an instance whose health the test decides.
type script struct {
	mu    sync.Mutex
	err   error
	at    []time.Time
	delay time.Duration
}

func (s *script) set(err error) {
	s.mu.Lock()
	s.err = err
	s.mu.Unlock()
}

func (s *script) probe(ctx context.Context) error {
	s.mu.Lock()
	s.at = append(s.at, time.Now())
	err, delay := s.err, s.delay
	s.mu.Unlock()
	if delay > 0 {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(delay):
		}
	}
	return err
}

func (s *script) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.at)
}

// scripted starts a checker whose probes are the scripts by instance ID.
func scripted(t *testing.T, scripts map[string]*script) (c *Checker, stop func()) {
	t.Helper()
	c = New(slog.New(slog.DiscardHandler))
	c.probe = func(t Target) (probe, error) {
		s := scripts[t.Endpoint.ID()]
		if s == nil {
			return nil, fmt.Errorf("no script for %s", t.Endpoint.ID())
		}
		return s.probe, nil
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	return c, func() {
		t.Helper()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	}
}

func status(e *balance.Endpoint) [2]string {
	state, reason, _ := e.Status()
	return [2]string{state, reason}
}

var (
	wellStatus = [2]string{balance.Healthy, ""}
	sickStatus = [2]string{balance.Unhealthy, "sick"}
)

func TestVerdictChangesAfterEnoughChecksInARow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{}
		c, stop := scripted(t, map[string]*script{"a": s})
		e := endpoint("a", "10.0.0.1:80")
		c.Update([]Target{{Endpoint: e, Spec: Spec{Interval: 10 * time.Second, UnhealthyAfter: 3, HealthyAfter: 2}}})

		// await lets n more checks happen.
		await := func(n int) {
			t.Helper()
			for goal := s.count() + n; s.count() < goal; {
				time.Sleep(100 * time.Millisecond)
			}
			synctest.Wait()
		}
		expect := func(when string, want [2]string) {
			t.Helper()
			if got := status(e); got != want {
				t.Errorf("%s: %v, want %v", when, got, want)
			}
		}
		await(1)
		expect("after a pass", wellStatus)
		s.set(errors.New("sick"))
		await(2)
		expect("after two failures of three", wellStatus)
		s.set(nil)
		await(1)
		s.set(errors.New("sick"))
		await(2)
		expect("after a pass between failures", wellStatus)
		await(1)
		expect("after three failures in a row", sickStatus)
		s.set(errors.New("sicker"))
		await(1)
		expect("after another failure", [2]string{balance.Unhealthy, "sicker"})
		lack := &net.OpError{Op: "dial", Err: os.NewSyscallError("socket", syscall.EMFILE)}
		s.set(lack)
		await(3)
		expect("while this host has no files left", [2]string{balance.Unhealthy, "sicker"})
		s.set(nil)
		await(1)
		if got := status(e); got[0] != balance.Unhealthy {
			t.Errorf("after one pass of two: %v", got)
		}
		await(1)
		expect("after two passes", wellStatus)
		s.set(lack)
		await(5)
		expect("where no check could be made", wellStatus)
		stop()
	})
}

func TestChecksKeepTheirIntervalGiveOrTakeATenth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{}
		c, stop := scripted(t, map[string]*script{"a": s})
		c.Update([]Target{{Endpoint: endpoint("a", "10.0.0.1:80"), Spec: Spec{Interval: 10 * time.Second}}})
		begin := time.Now()
		time.Sleep(10 * time.Minute)
		stop()
		if first := s.at[0].Sub(begin); first > time.Second {
			t.Errorf("the first check came after %v", first)
		}
		different := map[time.Duration]bool{}
		for i := 1; i < len(s.at); i++ {
			gap := s.at[i].Sub(s.at[i-1])
			different[gap] = true
			if gap < 9*time.Second || gap > 11*time.Second {
				t.Errorf("check %d came after %v", i, gap)
			}
		}
		if len(s.at) < 54 || len(different) < 10 {
			t.Errorf("%d checks with %d different gaps: no jitter", len(s.at), len(different))
		}
	})
}

func TestAHangingInstanceFailsAtTheTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{delay: time.Hour}
		c, stop := scripted(t, map[string]*script{"a": s})
		e := endpoint("a", "10.0.0.1:80")
		c.Update([]Target{{Endpoint: e, Spec: Spec{UnhealthyAfter: 1, Timeout: 700 * time.Millisecond}}})
		time.Sleep(2 * time.Second)
		if got, want := status(e), [2]string{balance.Unhealthy, "no answer within 700ms"}; got != want {
			t.Errorf("got %v, want %v", got, want)
		}
		stop()
	})
}

func TestUpdateTouchesOnlyWhatChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kept, left, changed := &script{}, &script{err: errors.New("sick")}, &script{err: errors.New("sick")}
		c, stop := scripted(t, map[string]*script{"kept": kept, "left": left, "changed": changed})
		var started sync.Map
		scriptOf := c.probe
		c.probe = func(t Target) (probe, error) {
			n, _ := started.LoadOrStore(t.Endpoint.ID(), new(atomic.Int32))
			n.(*atomic.Int32).Add(1)
			return scriptOf(t)
		}
		starts := func(id string) int32 {
			n, ok := started.Load(id)
			if !ok {
				return 0
			}
			return n.(*atomic.Int32).Load()
		}
		spec := Spec{Interval: 10 * time.Second, UnhealthyAfter: 1}
		a := Target{Endpoint: endpoint("kept", "10.0.0.1:80"), Spec: spec}
		b := Target{Endpoint: endpoint("left", "10.0.0.2:80"), Spec: spec}
		d := Target{Endpoint: endpoint("changed", "10.0.0.3:80"), Spec: spec}
		c.Update([]Target{a, b, d})
		time.Sleep(5 * time.Second)
		if status(b.Endpoint) != sickStatus || status(d.Endpoint) != sickStatus {
			t.Fatalf("before: %v %v", status(b.Endpoint), status(d.Endpoint))
		}

		other := d
		other.Spec.Interval = time.Minute
		c.Update([]Target{a, other})
		synctest.Wait()
		seen := left.count()
		if got := status(b.Endpoint); got != wellStatus {
			t.Errorf("an endpoint that nobody checks any more: %v", got)
		}
		if got := status(d.Endpoint); got != sickStatus {
			t.Errorf("an endpoint whose check changed lost its verdict: %v", got)
		}
		time.Sleep(30 * time.Second)
		if left.count() != seen {
			t.Error("a target that left is still checked")
		}
		got := [3]int32{starts("kept"), starts("left"), starts("changed")}
		if got != [3]int32{1, 1, 2} {
			t.Errorf("checks started (kept, left, changed): %v, want [1 1 2]", got)
		}
		changed.set(nil)
		time.Sleep(2 * time.Minute)
		if got := status(d.Endpoint); got != wellStatus {
			t.Errorf("after the changed target passed: %v", got)
		}
		stop()
	})
}

func TestAtMostSoManyChecksAreUnderWayAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(slog.New(slog.DiscardHandler))
		var now, most atomic.Int32
		c.probe = func(Target) (probe, error) {
			return func(ctx context.Context) error {
				n := now.Add(1)
				defer now.Add(-1)
				for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
				}
				select {
				case <-ctx.Done():
				case <-time.After(900 * time.Millisecond):
				}
				return nil
			}, nil
		}
		var targets []Target
		for i := range 1000 {
			targets = append(targets, Target{Endpoint: endpoint(fmt.Sprint(i), "10.0.0.1:80")})
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- c.Run(ctx) }()
		c.Update(targets)
		time.Sleep(20 * time.Second)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if most.Load() != atOnce {
			t.Errorf("%d checks at once, want %d", most.Load(), atOnce)
		}
	})
}

func TestRunEndsWithChecksUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{delay: time.Hour}
		c, stop := scripted(t, map[string]*script{"a": s})
		e := endpoint("a", "10.0.0.1:80")
		c.Update([]Target{{Endpoint: e, Spec: Spec{Timeout: 2 * time.Hour, UnhealthyAfter: 1}}})
		time.Sleep(2 * time.Second)
		begin := time.Now()
		stop()
		if took := time.Since(begin); took != 0 {
			t.Errorf("stopping took %v", took)
		}
		if got := status(e); got != wellStatus {
			t.Errorf("a check that was cut off is no verdict: %v", got)
		}
	})
}
