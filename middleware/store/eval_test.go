package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sluice-gateway/sluice/test/testenv"
)

var (
	// echo answers with its argument, incr with how often it ran for a key.
	echo = NewScript(`redis.call('GET', KEYS[1]) return {tonumber(ARGV[1])}`)
	incr = NewScript(`return {redis.call('INCR', KEYS[1])}`)
)

// start makes a running store; stop ends it before the test does.
func start(t *testing.T, address string, cluster bool, timeout time.Duration) (r *Redis, stop func()) {
	t.Helper()
	cfg := Default()
	cfg.Address, cfg.Cluster, cfg.Timeout = address, cluster, timeout
	r, err := New(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = r.Run(ctx) })
	stop = func() { cancel(); running.Wait() }
	t.Cleanup(stop)
	return r, stop
}

func direct(t *testing.T, address string) *redis.Client {
	t.Helper()
	c := redis.NewClient(&redis.Options{Addr: address})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// stat is a number that INFO tells.
func stat(t *testing.T, c *redis.Client, name string) int {
	t.Helper()
	_, rest, _ := strings.Cut(c.Info(t.Context(), "stats").Val(), name+":")
	n, err := strconv.Atoi(strings.TrimSpace(strings.SplitN(rest, "\n", 2)[0]))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (r *Redis) waiting() (n int) {
	r.lines.mu.Lock()
	defer r.lines.mu.Unlock()
	for _, on := range r.lines.to {
		n += len(on.waiting)
	}
	return n
}

// together has n callers ask at one time for the same key.
func together(r *Redis, n int, ctx context.Context) (answers, failures chan string, wait func()) {
	answers, failures = make(chan string, n), make(chan string, n)
	var asking sync.WaitGroup
	for range n {
		asking.Go(func() {
			if got, err := r.Eval(ctx, incr, []string{"k"}, nil); err != nil {
				failures <- err.Error()
			} else {
				answers <- fmt.Sprint(got)
			}
		})
	}
	return answers, failures, asking.Wait
}

func TestCallsOfManyCallersShareRoundTrips(t *testing.T) {
	server := testenv.StartRedis(t)
	line, watch := testenv.StartProxy(t, server.Addr), direct(t, server.Addr)
	r, _ := start(t, line.Addr, false, 5*time.Second)
	_, _, wait := together(r, 2*maxUnderWay, t.Context())
	wait() // connections stand
	line.Stall()
	const callers = 200
	before := stat(t, watch, "total_reads_processed")
	answers, failures, wait := together(r, callers, t.Context())
	testenv.Eventually(t, 10*time.Second, "all ask", func() bool { return r.waiting() == callers-maxUnderWay })
	asked := stat(t, watch, "total_reads_processed")
	line.Flow()
	wait()
	if len(failures) > 0 || len(answers) != callers {
		t.Fatalf("%d were answered, %d failed", len(answers), len(failures))
	}
	// Those under way, and two batches; a read of Redis's takes 16 KB.
	if reads := stat(t, watch, "total_reads_processed") - asked; asked < before || reads > 20 {
		t.Errorf("%d calls were read by redis in %d parts", callers, reads)
	}
	if n := watch.Get(t.Context(), "k").Val(); n != strconv.Itoa(callers+2*maxUnderWay) {
		t.Errorf("%s ran", n)
	}
}

func TestAFailedPipelineIsOneFailureHoweverManyItCarries(t *testing.T) {
	server := testenv.StartRedis(t)
	r, _ := start(t, server.Addr, false, time.Second)
	server.Kill()
	for i := range int32(failuresToAway) {
		if r.failures.Load() != i || r.Away() {
			t.Fatalf("after %d failed pipelines %d count, away: %v", i, r.failures.Load(), r.Away())
		}
		var batch []*call
		for range 60 {
			batch = append(batch, &call{
				script: incr, deadline: time.Now().Add(time.Second), woken: make(chan []*call, 1),
				cmd: redis.NewCmd(t.Context(), "evalsha", incr.name, 1, "k"),
			})
		}
		if now, err := r.lines.join(r.client, batch[0]); !now || err != nil {
			t.Fatal(now, err)
		}
		r.send(r.client, batch)
		for _, c := range batch {
			if c.cmd.Err() == nil {
				t.Fatal("a dead Redis answered")
			}
		}
	}
	if !r.Away() {
		t.Error("it is not away")
	}
}

func TestR1AFrozenRedisUnderLoadIsAwayAndNobodyWaitsOn(t *testing.T) {
	server := testenv.StartRedis(t)
	r, _ := start(t, server.Addr, false, 50*time.Millisecond)
	testenv.Eventually(t, 10*time.Second, "it answers", func() bool {
		_, err := r.Eval(t.Context(), incr, []string{"warm"}, nil)
		return err == nil
	})
	server.Freeze()
	answers, failures, wait := together(r, 500, t.Context())
	wait()
	if len(answers) > 0 || len(failures) != 500 || !r.Away() {
		t.Errorf("%d were answered, %d failed, away: %v", len(answers), len(failures), r.Away())
	}
	if len(r.lines.to) > 0 {
		t.Error("something is still on the line")
	}
	server.Thaw()
	testenv.Eventually(t, 10*time.Second, "it is back", func() bool { return !r.Away() })
	ran, err := r.Eval(t.Context(), incr, []string{"k"}, nil)
	if err != nil || ran[0] > 501 {
		t.Errorf("501 calls ran %v times: %v", ran, err)
	}
}

func TestR2ScriptsForgottenUnderLoadRunOnceEach(t *testing.T) {
	server := testenv.StartRedis(t)
	watch := direct(t, server.Addr)
	r, _ := start(t, server.Addr, false, 5*time.Second)
	ctx, enough := context.WithCancel(t.Context())
	var forgetting, asking sync.WaitGroup
	forgetting.Go(func() {
		for ctx.Err() == nil {
			_ = watch.ScriptFlush(ctx).Err()
		}
	})
	const callers, each = 50, 40
	var mu sync.Mutex
	seen := map[int64]bool{}
	for range callers {
		asking.Go(func() {
			for range each {
				ran, err := r.Eval(t.Context(), incr, []string{"k"}, nil)
				if err != nil {
					t.Errorf("a call failed: %v", err)
					return
				}
				mu.Lock()
				if seen[ran[0]] {
					t.Errorf("two were told that they were number %d", ran[0])
				}
				seen[ran[0]] = true
				mu.Unlock()
			}
		})
	}
	asking.Wait()
	enough()
	forgetting.Wait()
	if n := watch.Get(t.Context(), "k").Val(); n != strconv.Itoa(callers*each) {
		t.Errorf("%d calls ran %s times", callers*each, n)
	}
}

func TestWhoLeavesTakesNobodyAlongAndIsNoFailure(t *testing.T) {
	server := testenv.StartRedis(t)
	line, watch := testenv.StartProxy(t, server.Addr), direct(t, server.Addr)
	r, _ := start(t, line.Addr, false, 5*time.Second)
	line.Stall()
	gone, leave := context.WithCancel(t.Context())
	// The first ones send, and stay with what they sent; the others wait.
	_, ofSenders, sent := together(r, maxUnderWay, gone)
	testenv.Eventually(t, 10*time.Second, "pipelines are under way", func() bool {
		r.lines.mu.Lock()
		defer r.lines.mu.Unlock()
		on := r.lines.to[r.client]
		return on != nil && on.underWay == maxUnderWay
	})
	answers, failures, wait := together(r, 20, t.Context())
	testenv.Eventually(t, 10*time.Second, "some wait", func() bool { return r.waiting() == 20 })
	_, left, departed := together(r, 20, gone)
	testenv.Eventually(t, 10*time.Second, "others wait", func() bool { return r.waiting() == 40 })
	leave()
	departed()
	if len(left) != 20 || !strings.Contains(<-left, "canceled") {
		t.Error("who left was kept")
	}
	line.Flow()
	wait()
	sent()
	if len(answers) != 20 || len(failures) > 0 || len(ofSenders) > 0 || r.failures.Load() != 0 {
		t.Errorf("of those that stayed %d were answered; failures: %d", len(answers), r.failures.Load())
	}
	if n := watch.Get(t.Context(), "k").Val(); n != strconv.Itoa(maxUnderWay+20) {
		t.Errorf("%s ran", n)
	}
	if _, err := r.Eval(gone, incr, []string{"k"}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller that had left got %v", err)
	}
}

func TestRow92EachCallerGetsItsOwnAnswer(t *testing.T) {
	server := testenv.StartRedis(t)
	r, _ := start(t, server.Addr, false, 50*time.Millisecond)
	ctx, enough := context.WithCancel(t.Context())
	var asking sync.WaitGroup
	var mu sync.Mutex
	answered, failed := 0, 0
	for caller := range 64 {
		asking.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				own := int64(caller*1_000_000 + i)
				got, err := r.Eval(t.Context(), echo, []string{"k" + strconv.Itoa(caller)}, []any{own})
				if err == nil && (len(got) != 1 || got[0] != own) {
					t.Errorf("asked for %d and was given %v", own, got)
					return
				}
				mu.Lock()
				if err == nil {
					answered++
				} else {
					failed++
				}
				mu.Unlock()
				if errors.Is(err, ErrAway) && r.wait(ctx) != nil {
					return
				}
			}
		})
	}
	more := func(n *int, than int) func() bool {
		return func() bool { mu.Lock(); defer mu.Unlock(); return *n > than }
	}
	for range 3 { // pipelines time out with answers outstanding
		mu.Lock()
		a, f := answered, failed
		mu.Unlock()
		testenv.Eventually(t, 10*time.Second, "callers are answered", more(&answered, a+500))
		server.Freeze()
		testenv.Eventually(t, 10*time.Second, "pipelines time out", more(&failed, f+maxUnderWay))
		server.Thaw()
		testenv.Eventually(t, 10*time.Second, "it is used again", func() bool { return !r.Away() })
	}
	enough()
	asking.Wait()
}

// wait waits for a Redis that is away, as long as ctx lasts.
func (r *Redis) wait(ctx context.Context) error {
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for r.Away() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
	return nil
}

func TestAfterRunCallsFail(t *testing.T) {
	server := testenv.StartRedis(t)
	r, stop := start(t, server.Addr, false, time.Second)
	_, _, wait := together(r, 100, t.Context())
	stop() // in the middle of them
	wait()
	if _, err := r.Eval(t.Context(), incr, []string{"k"}, nil); err == nil {
		t.Error("a call was answered after the end")
	}
	if len(r.lines.to) > 0 {
		t.Error("something is still on the line")
	}
}
