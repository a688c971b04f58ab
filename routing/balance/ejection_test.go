package balance

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// heard is an observer that remembers.
type heard struct {
	mu    sync.Mutex
	lines []string
}

func (h *heard) Ejected(service, reason string) { h.add(service + " ejected: " + reason) }
func (h *heard) Circuit(service string, open bool) {
	h.add(fmt.Sprintf("%s circuit open: %v", service, open))
}

func (h *heard) add(line string) {
	h.mu.Lock()
	h.lines = append(h.lines, line)
	h.mu.Unlock()
}

func (h *heard) take() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	lines := h.lines
	h.lines = nil
	return lines
}

func ejected(members []Member) int {
	n := 0
	for _, m := range members {
		if state(m.Endpoint) == Ejected {
			n++
		}
	}
	return n
}

func TestWhatEjects(t *testing.T) {
	tests := map[string]struct {
		results []Result
		state   string
		reason  string
		heard   []string
	}{
		"a refused connection at once": {
			[]Result{Unreachable}, Ejected, "unreachable", []string{"orders ejected: unreachable"}},
		"three failures of any sort in a row": {
			[]Result{ServerError, TimedOut, Broken}, Ejected, "3 failures in a row, the last: broken", []string{"orders ejected: broken"}},
		"not two":                          {[]Result{ServerError, ServerError}, Healthy, "", nil},
		"not three with a success between": {[]Result{ServerError, ServerError, Success, ServerError}, Healthy, "", nil},
		"not what speaks of the client":    {[]Result{Neutral, Neutral, Neutral, Neutral}, Healthy, "", nil},
		"what speaks of the client is no success either": {
			[]Result{ServerError, Neutral, ServerError, Neutral, ServerError}, Ejected,
			"3 failures in a row, the last: server_error", []string{"orders ejected: server_error"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			h := &heard{}
			g, members := service(NewPool(WithObserver(h)), "orders", 3)
			p := NewPicker(g, outlier(RoundRobin), members)
			for _, r := range tt.results {
				on(t, p, members, "i001").Done(r)
			}
			state, reason, since := members[1].Endpoint.Status()
			if state != tt.state || reason != tt.reason || since.IsZero() != (state == Healthy) {
				t.Errorf("got %s %q since %v, want %s %q", state, reason, since, tt.state, tt.reason)
			}
			if got := h.take(); fmt.Sprint(got) != fmt.Sprint(tt.heard) {
				t.Errorf("heard %q, want %q", got, tt.heard)
			}
		})
	}
}

func TestNothingIsEjectedWherePolicySaysNever(t *testing.T) {
	tests := map[string]Policy{
		"no outlier settings":         {},
		"no percentage":               {ConsecutiveFailures: 1, BaseEjection: time.Second},
		"no length":                   {ConsecutiveFailures: 1, MaxEjectionPercent: 50},
		"a percentage below one of 3": {ConsecutiveFailures: 1, BaseEjection: time.Second, MaxEjectionPercent: 33},
	}
	for name, policy := range tests {
		t.Run(name, func(t *testing.T) {
			g, members := service(NewPool(), "orders", 3)
			p := NewPicker(g, policy, members)
			for range 10 {
				on(t, p, members, "i001").Done(Unreachable)
			}
			if got := ejected(members); got != 0 {
				t.Errorf("%d ejected", got)
			}
		})
	}
	t.Run("no count, but a refused connection still ejects", func(t *testing.T) {
		g, members := service(NewPool(), "orders", 3)
		policy := outlier(RoundRobin)
		policy.ConsecutiveFailures = 0
		p := NewPicker(g, policy, members)
		for range 10 {
			on(t, p, members, "i000").Done(ServerError)
		}
		on(t, p, members, "i001").Done(Unreachable)
		if got := [2]string{state(members[0].Endpoint), state(members[1].Endpoint)}; got != [2]string{Healthy, Ejected} {
			t.Errorf("got %v", got)
		}
	})
}

func TestNeverMoreThanTheMaximumIsEjected(t *testing.T) {
	tests := []struct{ members, percent, want int }{
		{1, 50, 0}, {1, 100, 0}, {2, 50, 1}, {2, 49, 0}, {2, 100, 1},
		{3, 50, 1}, {3, 67, 2}, {3, 100, 2}, {4, 50, 2}, {5, 50, 2}, {10, 10, 1}, {10, 100, 9},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%d %% of %d", tt.percent, tt.members), func(t *testing.T) {
			g, members := service(NewPool(), "orders", tt.members)
			policy := outlier(RoundRobin)
			policy.MaxEjectionPercent = tt.percent
			p := NewPicker(g, policy, members)
			for range 20 * tt.members {
				mustPick(t, p, Query{}).Done(Unreachable)
			}
			if got := ejected(members); got != tt.want {
				t.Errorf("%d ejected, want %d", got, tt.want)
			}
		})
	}
}

func TestAnotherSubsetsEjectionsDoNotUseUpTheMaximum(t *testing.T) {
	g, members := service(NewPool(), "orders", 4)
	blue := NewPicker(g, outlier(RoundRobin), members[:2])
	green := NewPicker(g, outlier(RoundRobin), members[2:])
	on(t, blue, members[:2], "i000").Done(Unreachable)
	on(t, green, members[2:], "i002").Done(Unreachable)
	if got := [2]string{state(members[0].Endpoint), state(members[2].Endpoint)}; got != [2]string{Ejected, Ejected} {
		t.Errorf("got %v", got)
	}
}

func TestEjectionEndsByATrial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, members := service(NewPool(), "orders", 2)
		p := NewPicker(g, outlier(RoundRobin), members)
		others := Query{Tried: []*Endpoint{members[0].Endpoint}}
		bad := members[1].Endpoint
		refused := func(when string) {
			t.Helper()
			if k, err := p.Pick(others); err == nil {
				k.Done(Neutral)
				t.Fatalf("%s: the ejected endpoint was chosen", when)
			}
		}

		mustPick(t, p, others).Done(Unreachable)
		begin := time.Now()
		time.Sleep(10*time.Second - 1)
		refused("before the end")
		time.Sleep(time.Nanosecond)
		trial := mustPick(t, p, others)
		refused("while the trial is under way")
		trial.Done(Neutral)
		trial = mustPick(t, p, others) // a trial that said nothing is repeated
		if state(bad) != Ejected {
			t.Error("back before the trial succeeded")
		}
		trial.Done(ServerError)
		refused("after a failed trial")
		if _, reason, since := bad.Status(); reason != "trial failed: server_error" || !since.Equal(begin) {
			t.Errorf("reason %q since %v", reason, since)
		}
		time.Sleep(20*time.Second - 1)
		refused("before the end of twice the time")
		time.Sleep(time.Nanosecond)
		mustPick(t, p, others).Done(Success)
		if state(bad) != Healthy {
			t.Error("not back after a good trial")
		}
		mustPick(t, p, others).Done(ServerError)
		mustPick(t, p, others).Done(ServerError)
		if state(bad) != Healthy {
			t.Error("failures from before the ejection still count")
		}
	})
}

func TestEjectionsGrowToTenTimesAndDecay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, members := service(NewPool(), "orders", 2)
		p := NewPicker(g, outlier(RoundRobin), members)
		others := Query{Tried: []*Endpoint{members[0].Endpoint}}
		// out measures how long the endpoint stays out after a failure.
		out := func() time.Duration {
			mustPick(t, p, others).Done(Unreachable)
			begin := time.Now()
			for {
				if k, err := p.Pick(others); err == nil {
					k.Done(Success)
					return time.Since(begin)
				}
				time.Sleep(time.Second)
			}
		}
		for _, want := range []time.Duration{10, 20, 40, 80, 100, 100} {
			if got := out(); got != want*time.Second {
				t.Errorf("out for %v, want %v", got, want*time.Second)
			}
		}
		time.Sleep(99 * time.Second)
		if got := out(); got != 100*time.Second {
			t.Errorf("out for %v after a good time too short to forget", got)
		}
		time.Sleep(100 * time.Second)
		if got := out(); got != 10*time.Second {
			t.Errorf("out for %v after a long good time", got)
		}
	})
}

func TestP1KilledInstanceIsLeftOutAtTheFirstRefusal(t *testing.T) {
	for _, kind := range kinds {
		t.Run(string(kind), func(t *testing.T) {
			g, members := service(NewPool(), "orders", 3)
			p := NewPicker(g, outlier(kind), members)
			dead := members[2].Endpoint
			failed, lost := 0, 0
			for i := range 3000 {
				g.Begin()
				q := Query{Hash: uint64(i)}
				k := mustPick(t, p, q)
				if i < 1000 || k.Endpoint != dead {
					k.Done(Success)
					continue
				}
				k.Done(Unreachable)
				failed++
				q.Tried = append(q.Tried, dead)
				if again, err := p.Pick(q); err != nil || !g.AllowRetry(20) {
					lost++
				} else {
					again.Done(Success)
				}
			}
			if failed != 1 || lost != 0 {
				t.Errorf("%d attempts reached the dead instance, %d requests were lost; want 1 and 0", failed, lost)
			}
		})
	}
}

func TestP3FrozenInstanceIsLeftOutWithinThreeRequests(t *testing.T) {
	g, members := service(NewPool(), "orders", 3)
	p := NewPicker(g, outlier(RoundRobin), members)
	waited := 0
	for range 300 {
		k := mustPick(t, p, Query{})
		if k.Endpoint != members[0].Endpoint {
			k.Done(Success)
			continue
		}
		k.Done(TimedOut)
		waited++
	}
	if waited != 3 {
		t.Errorf("%d requests ran into the frozen instance, want 3", waited)
	}
}

func TestD7ConnectionsClosedByIdlenessNeverEject(t *testing.T) {
	g, members := service(NewPool(), "orders", 2)
	policy := outlier(RoundRobin)
	policy.ConsecutiveFailures, policy.ErrorPercent, policy.MinRequests = 1, 1, 1
	p := NewPicker(g, policy, members)
	for range 6000 {
		mustPick(t, p, Query{}).Done(Neutral)
	}
	if ejected(members) != 0 || g.CircuitOpen() {
		t.Errorf("%d ejected, circuit open: %v", ejected(members), g.CircuitOpen())
	}
}

func TestP19TrafficSpreadsOverAllWhenMostFailTheirChecks(t *testing.T) {
	for _, kind := range kinds {
		t.Run(string(kind), func(t *testing.T) {
			g, members := service(NewPool(), "orders", 10)
			p := NewPicker(g, outlier(kind), members)
			const n = 20000
			for i := range 5 {
				members[i].Endpoint.SetHealthy(false, "status 500")
			}
			got := spread(t, p, n)
			for i, m := range members {
				want := 0.0
				if i >= 5 {
					want = 0.2
				}
				if !near(float64(got[m.Endpoint.ID()])/n, want, 0.02) {
					t.Errorf("half unhealthy: %s got %d of %d, want %.0f %%", m.Endpoint.ID(), got[m.Endpoint.ID()], n, 100*want)
				}
			}
			members[5].Endpoint.SetHealthy(false, "status 500")
			got = spread(t, p, n)
			for _, m := range members {
				if !near(float64(got[m.Endpoint.ID()])/n, 0.1, 0.02) {
					t.Errorf("60 %% unhealthy: %s got %d of %d, want a tenth", m.Endpoint.ID(), got[m.Endpoint.ID()], n)
				}
			}
			members[0].Endpoint.SetHealthy(true, "")
			if got := spread(t, p, 1000)["i001"]; got != 0 {
				t.Errorf("half healthy again: an unhealthy one got %d", got)
			}
		})
	}
}

func TestP19EveryoneServesWhenNobodyIsFit(t *testing.T) {
	g, members := service(NewPool(), "orders", 4)
	p := NewPicker(g, outlier(RoundRobin), members)
	on(t, p, members, "i000").Done(Unreachable)
	on(t, p, members, "i001").Done(Unreachable)
	for _, m := range members[2:] {
		m.Endpoint.SetHealthy(false, "status 500")
	}
	if got := spread(t, p, 400); len(got) != 4 {
		t.Errorf("served by %v, want all four", got)
	}
}

func TestEjectionsAreIgnoredWhereTooManyAreOutBecauseMembersLeft(t *testing.T) {
	g, members := service(NewPool(), "orders", 6)
	p := NewPicker(g, outlier(RoundRobin), members)
	for _, id := range []string{"i000", "i001", "i002"} {
		on(t, p, members, id).Done(Unreachable)
	}
	rest := members[:4] // two good ones left
	smaller := NewPicker(g, outlier(RoundRobin), rest)
	if got := spread(t, smaller, 400); len(got) != 4 {
		t.Errorf("served by %v, want all four", got)
	}
	if got := ejected(members); got != 3 {
		t.Errorf("%d ejected by then, want 3: only time and a trial end an ejection", got)
	}
}

func TestUnhealthyWithReason(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, members := service(NewPool(), "orders", 2)
		p := NewPicker(g, Policy{}, members)
		e := members[0].Endpoint
		time.Sleep(time.Minute)
		begin := time.Now()
		e.SetHealthy(false, "status 500")
		time.Sleep(time.Minute)
		e.SetHealthy(false, "status 503")
		if state, reason, since := e.Status(); state != Unhealthy || reason != "status 503" || !since.Equal(begin) {
			t.Errorf("got %s %q since %v", state, reason, since)
		}
		if got := spread(t, p, 100); got["i001"] != 100 {
			t.Errorf("got %v", got)
		}
		e.SetHealthy(true, "")
		if got := spread(t, p, 100); got["i000"] != 50 || state(e) != Healthy {
			t.Errorf("after it passed again: %v, %s", got, state(e))
		}
	})
}

// TestCountsHoldOverRandomHistories checks after every step of random
// histories that nothing is counted below zero, and never more than the
// maximum is out.
func TestCountsHoldOverRandomHistories(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := rand.New(rand.NewPCG(seed, 1))
				n := 1 + r.IntN(12)
				pool := NewPool()
				g, members := service(pool, "orders", n)
				retain(pool, "orders", members)
				policy := outlier(kinds[r.IntN(len(kinds))])
				policy.MaxEjectionPercent = r.IntN(101)
				policy.MaxInFlight = r.IntN(2) * 20
				policy.ErrorPercent, policy.MinRequests, policy.OpenFor = r.IntN(2)*50, 10, time.Second
				policy.SlowStart = time.Duration(r.IntN(2)) * time.Minute
				for i := range members {
					members[i].Weight = 1 + r.IntN(9)
				}
				p := NewPicker(g, policy, members)
				var held []Pick
				for range 2000 {
					switch r.IntN(8) {
					case 0, 1, 2:
						if k, err := p.Pick(Query{Hash: r.Uint64()}); err == nil {
							held = append(held, k)
						}
					case 3, 4, 5:
						if len(held) > 0 {
							i := r.IntN(len(held))
							held[i].Done(Result(r.IntN(6)))
							held = append(held[:i], held[i+1:]...)
						}
					case 6:
						members[r.IntN(n)].Endpoint.SetHealthy(r.IntN(2) == 0, "status 500")
					case 7:
						time.Sleep(time.Duration(r.IntN(4000)) * time.Millisecond)
					}
					out, under := 0, int64(0)
					for _, m := range members {
						if m.Endpoint.until.Load() != 0 {
							out++
						}
						if m.Endpoint.InFlight() < 0 {
							t.Fatalf("%s has %d in flight", m.Endpoint.ID(), m.Endpoint.InFlight())
						}
						under += m.Endpoint.InFlight()
					}
					if under != int64(len(held)) || g.InFlight() != under {
						t.Fatalf("%d held, %d in flight at endpoints, %d at the service", len(held), under, g.InFlight())
					}
					if out*100 > n*policy.MaxEjectionPercent || out >= n {
						t.Fatalf("%d of %d are ejected, %d %% may be", out, n, policy.MaxEjectionPercent)
					}
				}
			})
		})
	}
}

func TestATrialThatNeverEndsDoesNotKeepTheEndpointOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, members := service(NewPool(), "orders", 2)
		p := NewPicker(g, outlier(RoundRobin), members)
		others := Query{Tried: []*Endpoint{members[0].Endpoint}}
		bad := members[1].Endpoint
		mustPick(t, p, others).Done(Unreachable)
		time.Sleep(10 * time.Second)
		stream := mustPick(t, p, others)
		time.Sleep(trialPatience)
		second := mustPick(t, p, others)
		if k, err := p.Pick(others); err == nil {
			k.Done(Neutral)
			t.Error("two trials at once")
		}
		second.Done(ServerError)
		stream.Done(Success)
		if state(bad) != Ejected {
			t.Error("a trial of long ago outweighed the one after it")
		}
		time.Sleep(20 * time.Second)
		stream = mustPick(t, p, others)
		time.Sleep(trialPatience)
		mustPick(t, p, others).Done(Success)
		if state(bad) != Healthy {
			t.Error("not back after a good second trial")
		}
		stream.Done(ServerError)
		if state(bad) != Healthy {
			t.Error("an old trial counted as one after the endpoint was back")
		}
	})
}

func TestAnEjectionDuringAPickCostsNoRequest(t *testing.T) {
	for _, kind := range kinds {
		t.Run(string(kind), func(t *testing.T) {
			g, members := service(NewPool(), "orders", 3)
			p := NewPicker(g, outlier(kind), members)
			stop := make(chan struct{})
			var wg sync.WaitGroup
			wg.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
						if k, err := p.Pick(Query{Prefer: "i001"}); err == nil {
							k.Done(Unreachable)
							k.Endpoint.readmit()
						}
					}
				}
			})
			for i := range 20000 {
				k, err := p.Pick(Query{Hash: uint64(i)})
				if err != nil {
					t.Errorf("pick %d: %v", i, err)
					break
				}
				k.Done(Success)
			}
			close(stop)
			wg.Wait()
		})
	}
}
