package balance

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/discovery"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// kinds lists every picker.
var kinds = []Kind{RoundRobin, LeastRequest, P2C, Random, IPHash, ConsistentHash}

// outlier is a policy that ejects as the defaults of a service do.
func outlier(k Kind) Policy {
	return Policy{Kind: k, ConsecutiveFailures: 3, BaseEjection: 10 * time.Second, MaxEjectionPercent: 50}
}

// service makes n endpoints of a service, "i000" and so on, each of weight 1.
func service(p *Pool, name string, n int) (*Group, []Member) {
	members := make([]Member, n)
	for i := range members {
		members[i] = Member{Endpoint: p.Endpoint(name, instance(i)), Weight: 1}
	}
	return p.Group(name), members
}

func instance(i int) discovery.Instance {
	return discovery.Instance{ID: fmt.Sprintf("i%03d", i), Address: fmt.Sprintf("10.0.%d.%d:80", i/256, i%256)}
}

// retain swaps in a table of members.
func retain(p *Pool, name string, members []Member) {
	p.Retain(func(yield func(*Endpoint) bool) {
		for _, m := range members {
			if !yield(m.Endpoint) {
				return
			}
		}
	}, func(yield func(string) bool) { yield(name) })
}

func mustPick(t *testing.T, p Picker, q Query) Pick {
	t.Helper()
	got, err := p.Pick(q)
	if err != nil {
		t.Fatalf("pick: %v", err)
	}
	return got
}

// spread counts by ID where n requests go that end at once.
func spread(t *testing.T, p Picker, n int) map[string]int {
	t.Helper()
	got := map[string]int{}
	for range n {
		k := mustPick(t, p, Query{Hash: rand.Uint64()})
		got[k.Endpoint.ID()]++
		k.Done(Success)
	}
	return got
}

// on takes a pick on the member with this ID, excluding the others.
func on(t *testing.T, p Picker, members []Member, id string) Pick {
	t.Helper()
	var others []*Endpoint
	for _, m := range members {
		if m.Endpoint.ID() != id {
			others = append(others, m.Endpoint)
		}
	}
	return mustPick(t, p, Query{Tried: others})
}

func state(e *Endpoint) string {
	s, _, _ := e.Status()
	return s
}

// near says whether got is within tolerance of want.
func near(got, want, tolerance float64) bool { return got >= want-tolerance && got <= want+tolerance }

func TestEveryKindSpreadsByWeight(t *testing.T) {
	weights := map[string][]int{
		"equal":       {1, 1, 1},
		"skewed":      {5, 3, 2},
		"canary":      {99, 1},
		"large":       {65535, 32768, 1},
		"one is zero": {2, 0, 2},
		"many":        {1, 2, 3, 4, 5, 6, 7, 8, 9, 10},
	}
	for name, ws := range weights {
		for _, kind := range kinds {
			t.Run(fmt.Sprintf("%s %s", kind, name), func(t *testing.T) {
				pool := NewPool()
				g, members := service(pool, "orders", len(ws))
				total := 0
				for i, w := range ws {
					members[i].Weight = w
					total += w
				}
				const n = 40000
				got := spread(t, NewPicker(g, Policy{Kind: kind}, members), n)
				for i, w := range ws {
					id := members[i].Endpoint.ID()
					share, want := float64(got[id])/n, float64(w)/float64(total)
					if !near(share, want, 0.02) {
						t.Errorf("%s of weight %d got %.3f of the requests, want %.3f", id, w, share, want)
					}
					if w == 0 && got[id] != 0 {
						t.Errorf("%s of weight 0 got %d requests", id, got[id])
					}
				}
				if g.InFlight() != 0 {
					t.Errorf("in flight %d after all are done", g.InFlight())
				}
			})
		}
	}
}

func TestEveryKindSpreadsEvenlyOverTheRestWhenOneIsOut(t *testing.T) {
	for _, kind := range kinds {
		t.Run(string(kind), func(t *testing.T) {
			g, members := service(NewPool(), "orders", 4)
			p := NewPicker(g, outlier(kind), members)
			on(t, p, members, "i001").Done(Unreachable)
			const n = 30000
			got := spread(t, p, n)
			for _, id := range []string{"i000", "i002", "i003"} {
				if !near(float64(got[id])/n, 1.0/3, 0.02) {
					t.Errorf("%s got %d of %d, want a third", id, got[id], n)
				}
			}
			if got["i001"] != 0 {
				t.Errorf("the ejected one got %d", got["i001"])
			}
		})
	}
}

func TestPickSkipsWhatWasTriedAndThenSaysNoInstance(t *testing.T) {
	for _, kind := range kinds {
		t.Run(string(kind), func(t *testing.T) {
			g, members := service(NewPool(), "orders", 3)
			p := NewPicker(g, outlier(kind), members)
			q := Query{Hash: 42}
			seen := map[*Endpoint]bool{}
			for range members {
				k := mustPick(t, p, q)
				if seen[k.Endpoint] {
					t.Fatalf("%s chosen twice", k.Endpoint.ID())
				}
				seen[k.Endpoint] = true
				q.Tried = append(q.Tried, k.Endpoint)
				k.Done(ServerError)
			}
			if _, err := p.Pick(q); !errors.Is(err, ErrNoInstance) {
				t.Fatalf("got %v, want %v", err, ErrNoInstance)
			}
			if g.InFlight() != 0 {
				t.Errorf("a refused pick counts as in flight: %d", g.InFlight())
			}
		})
	}
}

func TestNoMembersOrNoWeightsIsNoInstance(t *testing.T) {
	for _, kind := range kinds {
		g, members := service(NewPool(), "orders", 2)
		for i := range members {
			members[i].Weight = 0
		}
		for _, ms := range [][]Member{nil, members} {
			if _, err := NewPicker(g, Policy{Kind: kind}, ms).Pick(Query{}); !errors.Is(err, ErrNoInstance) {
				t.Errorf("%s over %d members: got %v, want %v", kind, len(ms), err, ErrNoInstance)
			}
		}
	}
}

func TestPreferIsHonouredWhileFit(t *testing.T) {
	for _, kind := range kinds {
		t.Run(string(kind), func(t *testing.T) {
			g, members := service(NewPool(), "orders", 3)
			p := NewPicker(g, outlier(kind), members)
			for range 50 {
				k := mustPick(t, p, Query{Prefer: "i002"})
				if k.Endpoint.ID() != "i002" {
					t.Fatalf("got %s", k.Endpoint.ID())
				}
				k.Done(Success)
			}
			mustPick(t, p, Query{Prefer: "gone"}).Done(Success)
			tried := mustPick(t, p, Query{Prefer: "i002", Tried: []*Endpoint{members[2].Endpoint}})
			if tried.Endpoint.ID() == "i002" {
				t.Error("a tried endpoint was taken for being preferred")
			}
			tried.Done(Success)
			mustPick(t, p, Query{Prefer: "i002"}).Done(Unreachable)
			k := mustPick(t, p, Query{Prefer: "i002"})
			if k.Endpoint.ID() == "i002" {
				t.Error("an ejected endpoint was taken for being preferred")
			}
			k.Done(Success)
		})
	}
}

func TestRoundRobinTakesTurnsInOrderAndSmoothly(t *testing.T) {
	tests := map[string]struct {
		weights []int
		run     int // longest run of one member allowed
	}{
		"equal weights alternate":                     {[]int{1, 1, 1}, 1},
		"five to one to one is not five in a row":     {[]int{5, 1, 1}, 4},
		"three to two never runs longer than two":     {[]int{3, 2}, 2},
		"weights with a common divisor are shortened": {[]int{100, 100}, 1},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			g, members := service(NewPool(), "orders", len(tt.weights))
			for i, w := range tt.weights {
				members[i].Weight = w
			}
			p := NewPicker(g, Policy{}, members)
			last, run := "", 0
			for range 1000 {
				k := mustPick(t, p, Query{})
				k.Done(Success)
				if k.Endpoint.ID() == last {
					run++
				} else {
					last, run = k.Endpoint.ID(), 1
				}
				if run > tt.run {
					t.Fatalf("%s had %d turns in a row", last, run)
				}
			}
		})
	}
}

func TestLoadAwareKindsAvoidTheBusyMember(t *testing.T) {
	for _, kind := range []Kind{LeastRequest, P2C} {
		for _, n := range []int{2, 5, 50} {
			t.Run(fmt.Sprintf("%s of %d", kind, n), func(t *testing.T) {
				g, members := service(NewPool(), "orders", n)
				p := NewPicker(g, Policy{Kind: kind}, members)
				var busy []Pick
				for range 5 {
					busy = append(busy, mustPick(t, p, Query{Prefer: "i001"}))
				}
				if got := spread(t, p, 2000)["i001"]; got != 0 {
					t.Errorf("the busy one got %d of 2000", got)
				}
				for _, k := range busy {
					k.Done(Success)
				}
			})
		}
	}
}

func TestLeastRequestWeighsWhatIsInFlight(t *testing.T) {
	g, members := service(NewPool(), "orders", 2)
	members[0].Weight = 3
	p := NewPicker(g, Policy{Kind: LeastRequest}, members)
	var held []Pick
	for range 40 {
		held = append(held, mustPick(t, p, Query{}))
	}
	got := [2]int64{members[0].Endpoint.InFlight(), members[1].Endpoint.InFlight()}
	if got != [2]int64{30, 10} {
		t.Errorf("in flight %v, want [30 10]", got)
	}
	for _, k := range held {
		k.Done(Success)
	}
}

func TestConcurrentPicksKeepTheCounts(t *testing.T) {
	for _, kind := range kinds {
		t.Run(string(kind), func(t *testing.T) {
			g, members := service(NewPool(), "orders", 5)
			policy := outlier(kind)
			policy.ErrorPercent, policy.MinRequests, policy.MaxInFlight = 90, 50, 1000
			policy.MaxPerEndpoint = 2
			p := NewPicker(g, policy, members)
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					for range 2000 {
						g.Begin()
						k, err := p.Pick(Query{Hash: rand.Uint64()})
						if err != nil {
							continue
						}
						if n := k.Endpoint.InFlight(); n > 2+8 { // those being refused count for a moment
							t.Errorf("%d under way", n)
						}
						k.Done(Result(rand.IntN(6)))
						g.AllowRetry(20)
					}
				})
			}
			wg.Wait()
			if g.InFlight() != 0 {
				t.Errorf("group: %d in flight at the end", g.InFlight())
			}
			for _, m := range members {
				if m.Endpoint.InFlight() != 0 {
					t.Errorf("%s: %d in flight at the end", m.Endpoint.ID(), m.Endpoint.InFlight())
				}
			}
		})
	}
}
