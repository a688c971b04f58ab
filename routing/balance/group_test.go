package balance

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestRow82RetriesStayWithinTheBudgetWhenEveryInstanceFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, members := service(NewPool(), "orders", 3)
		p := NewPicker(g, outlier(RoundRobin), members)
		const requests = 20000 // at 200 a second
		attempts := 0
		for range requests {
			g.Begin()
			var tried []*Endpoint
			for {
				k, err := p.Pick(Query{Tried: tried})
				if err != nil {
					break
				}
				attempts++
				tried = append(tried, k.Endpoint)
				k.Done(ServerError)
				if len(tried) > 2 || !g.AllowRetry(20) {
					break
				}
			}
			time.Sleep(5 * time.Millisecond)
		}
		if ratio := float64(attempts) / requests; ratio > 1.2 || ratio < 1.15 {
			t.Errorf("load on the instances was %.3f times the requests, want at most 1.2 and not much less", ratio)
		}
	})
}

func TestRetryBudget(t *testing.T) {
	tests := map[string]struct {
		requests, percent, want int
	}{
		"low traffic may retry":                     {1, 20, 10},
		"the minimum and the share do not add up":   {50, 20, 10},
		"a fifth of a thousand":                     {1000, 20, 200},
		"all of a hundred":                          {100, 100, 100},
		"nothing where the budget is nothing":       {1000, 0, 0},
		"one in a hundred is less than the minimum": {100, 1, 10},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := NewPool().Group("orders")
				for range tt.requests {
					g.Begin()
				}
				allowed := 0
				for range 2000 {
					if g.AllowRetry(tt.percent) {
						allowed++
					}
				}
				if allowed != tt.want {
					t.Errorf("%d retries allowed, want %d", allowed, tt.want)
				}
				time.Sleep(11 * time.Second)
				if got := g.AllowRetry(tt.percent); got != (tt.percent > 0) {
					t.Errorf("after the window has passed: %v", got)
				}
			})
		})
	}
}

func TestRetryBudgetIsNotOverdrawnByManyAtOnce(t *testing.T) {
	// Real time here: the race is the point. Should the clock cross a second
	// meanwhile, the window still holds both.
	g := NewPool().Group("orders")
	for range 1000 {
		g.Begin()
	}
	var allowed atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 500 {
				if g.AllowRetry(20) {
					allowed.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if n := allowed.Load(); n > 200 || n < 190 {
		t.Errorf("%d retries allowed, want 200", n)
	}
}

func breaker() Policy {
	return Policy{ErrorPercent: 50, MinRequests: 20, Window: 10 * time.Second, OpenFor: time.Second}
}

func TestP17BreakerOpensProbesAndCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &heard{}
		g, members := service(NewPool(WithObserver(h)), "orders", 3)
		p := NewPicker(g, breaker(), members)
		const gap = 10 * time.Millisecond
		// run sends requests for a time and returns how many reached an
		// instance, and after how long the first was refused and the first
		// one after a refusal was let through for good.
		run := func(d time.Duration, r Result) (sent int, refused time.Duration) {
			refused = -1
			for begin := time.Now(); time.Since(begin) < d; time.Sleep(gap) {
				k, err := p.Pick(Query{})
				switch {
				case err == nil:
					sent++
					k.Done(r)
				case !errors.Is(err, ErrCircuitOpen):
					t.Fatal(err)
				case refused < 0:
					refused = time.Since(begin)
				}
			}
			return sent, refused
		}
		if _, refused := run(30*time.Second, Success); refused >= 0 {
			t.Fatalf("refused after %v of good answers", refused)
		}
		if _, refused := run(time.Second, ServerError); refused < 0 || refused > time.Second {
			t.Fatalf("open after %v, want within a second", refused)
		}
		if sent, _ := run(9*time.Second, ServerError); sent > 9 {
			t.Errorf("%d probes in nine seconds", sent)
		}
		if !g.CircuitOpen() {
			t.Error("closed by failing probes")
		}
		healed := time.Now()
		for g.CircuitOpen() {
			if k, err := p.Pick(Query{}); err == nil {
				k.Done(Success)
			}
			time.Sleep(gap)
		}
		if took := time.Since(healed); took > 2*time.Second {
			t.Errorf("closed %v after it healed", took)
		}
		if sent, refused := run(time.Second, Success); refused >= 0 || sent != 100 {
			t.Errorf("after closing: %d of 100 sent, refused after %v", sent, refused)
		}
		want := "[orders circuit open: true orders circuit open: false]"
		if got := fmt.Sprint(h.take()); got != want {
			t.Errorf("heard %v, want %v", got, want)
		}
	})
}

func TestWhatOpensTheBreaker(t *testing.T) {
	tests := map[string]struct {
		results []Result // repeated
		n       int
		open    bool
	}{
		"all fail":                           {[]Result{ServerError}, 20, true},
		"too few requests":                   {[]Result{ServerError}, 19, false},
		"half fail, of any sort":             {[]Result{Success, Broken, Success, TimedOut}, 100, true},
		"a third fails":                      {[]Result{Success, Success, Unreachable}, 300, false},
		"D12 what the client did wrong":      {[]Result{Neutral}, 1000, false},
		"what the client did is not counted": {[]Result{Neutral, Neutral, Neutral, ServerError}, 80, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g, members := service(NewPool(), "orders", 1)
				p := NewPicker(g, breaker(), members)
				for i := range tt.n {
					if k, err := p.Pick(Query{}); err == nil {
						k.Done(tt.results[i%len(tt.results)])
					}
					time.Sleep(time.Millisecond)
				}
				if g.CircuitOpen() != tt.open {
					t.Errorf("open: %v, want %v", g.CircuitOpen(), tt.open)
				}
			})
		})
	}
}

func TestFailuresOfLongAgoDoNotOpenTheBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, members := service(NewPool(), "orders", 1)
		p := NewPicker(g, breaker(), members)
		for range 10 {
			for range 10 {
				mustPick(t, p, Query{}).Done(ServerError)
			}
			time.Sleep(11 * time.Second)
		}
		if g.CircuitOpen() {
			t.Error("open")
		}
	})
}

func TestOpenCircuitLastsAsLongAsItsPolicy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, members := service(NewPool(), "orders", 1)
		policy := breaker()
		policy.OpenFor = 30 * time.Second
		p := NewPicker(g, policy, members)
		for range 20 {
			mustPick(t, p, Query{}).Done(ServerError)
		}
		refused := func(when string) {
			t.Helper()
			if _, err := p.Pick(Query{}); !errors.Is(err, ErrCircuitOpen) {
				t.Errorf("%s: %v", when, err)
			}
		}
		time.Sleep(30*time.Second - 1)
		refused("before its time")
		time.Sleep(time.Nanosecond)
		lost := mustPick(t, p, Query{})
		refused("while a probe is under way")
		lost.Done(Neutral)
		refused("within a second of a probe that said nothing")
		time.Sleep(time.Second)
		mustPick(t, p, Query{}).Done(TimedOut)
		time.Sleep(30*time.Second - 1)
		refused("after a probe that failed")
		time.Sleep(time.Nanosecond)

		// A probe that finds no instance leaves its turn to the next request.
		if _, err := p.Pick(Query{Tried: []*Endpoint{members[0].Endpoint}}); !errors.Is(err, ErrNoInstance) {
			t.Fatalf("got %v", err)
		}
		mustPick(t, p, Query{}).Done(Success)
		mustPick(t, p, Query{}).Done(Success)
		if g.InFlight() != 0 {
			t.Errorf("%d in flight at the end", g.InFlight())
		}
	})
}

func TestTakingTheBreakerOutOfThePolicyClosesIt(t *testing.T) {
	g, members := service(NewPool(), "orders", 1)
	p := NewPicker(g, breaker(), members)
	for range 20 {
		mustPick(t, p, Query{}).Done(ServerError)
	}
	mustPick(t, NewPicker(g, Policy{}, members), Query{}).Done(Success)
	if g.CircuitOpen() {
		t.Error("still open")
	}
}

func TestResultsHaveWords(t *testing.T) {
	got := fmt.Sprint([]Result{Neutral, Success, ServerError, Unreachable, Broken, TimedOut})
	if want := "[neutral success server_error unreachable broken timed_out]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
