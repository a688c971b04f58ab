package balance

import (
	"fmt"
	"testing"
	"time"
)

// busy is a policy with every feature on.
func busy(kind Kind) Policy {
	p := outlier(kind)
	p.ErrorPercent, p.MinRequests, p.Window, p.OpenFor = 50, 20, 10*time.Second, time.Second
	p.MaxInFlight, p.SlowStart = 1_000_000, time.Second
	return p
}

func BenchmarkPick(b *testing.B) {
	for _, kind := range kinds {
		for _, n := range []int{3, 10, 100} {
			for _, policy := range []struct {
				name string
				Policy
			}{{"plain", Policy{Kind: kind}}, {"all", busy(kind)}} {
				b.Run(fmt.Sprintf("%s/%d/%s", kind, n, policy.name), func(b *testing.B) {
					g, members := service(NewPool(), "orders", n)
					p := NewPicker(g, policy.Policy, members)
					b.ReportAllocs()
					var hash uint64
					for b.Loop() {
						hash++
						k, err := p.Pick(Query{Hash: hash})
						if err != nil {
							b.Fatal(err)
						}
						k.Done(Success)
					}
				})
			}
		}
	}
}

func BenchmarkPickWithOneOut(b *testing.B) {
	for _, kind := range kinds {
		b.Run(fmt.Sprintf("%s/10", kind), func(b *testing.B) {
			g, members := service(NewPool(), "orders", 10)
			p := NewPicker(g, outlier(kind), members)
			members[4].Endpoint.SetHealthy(false, "status 500")
			b.ReportAllocs()
			var hash uint64
			for b.Loop() {
				hash++
				k, err := p.Pick(Query{Hash: hash})
				if err != nil {
					b.Fatal(err)
				}
				k.Done(Success)
			}
		})
	}
}

func BenchmarkPickParallel(b *testing.B) {
	for _, kind := range kinds {
		b.Run(fmt.Sprintf("%s/10", kind), func(b *testing.B) {
			g, members := service(NewPool(), "orders", 10)
			p := NewPicker(g, busy(kind), members)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				var hash uint64
				for pb.Next() {
					hash++
					g.Begin()
					k, err := p.Pick(Query{Hash: hash})
					if err != nil {
						b.Error(err)
						return
					}
					k.Done(Success)
				}
			})
		})
	}
}

// BenchmarkThousandServices is what a table costs here: pickers for a
// thousand services of three instances, and the retain after its swap.
func BenchmarkThousandServices(b *testing.B) {
	pool := NewPool()
	groups, sets := make([]*Group, 1000), make([][]Member, 1000)
	for i := range groups {
		groups[i], sets[i] = service(pool, fmt.Sprintf("s%04d", i), 3)
	}
	b.Run("new pickers", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			for i := range groups {
				NewPicker(groups[i], busy(RoundRobin), sets[i])
			}
		}
	})
	b.Run("retain", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			pool.Retain(func(yield func(*Endpoint) bool) {
				for _, set := range sets {
					for _, m := range set {
						if !yield(m.Endpoint) {
							return
						}
					}
				}
			}, func(yield func(string) bool) {
				for _, g := range groups {
					if !yield(g.name) {
						return
					}
				}
			})
		}
	})
}

func BenchmarkNewPickerWithWeights(b *testing.B) {
	for _, n := range []int{3, 100} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			g, members := service(NewPool(), "orders", n)
			for i := range members {
				members[i].Weight = 1 + i*i
			}
			b.ReportAllocs()
			for b.Loop() {
				NewPicker(g, Policy{}, members)
			}
		})
	}
}

func TestPickAllocatesNothing(t *testing.T) {
	for _, kind := range kinds {
		g, members := service(NewPool(), "orders", 50)
		p := NewPicker(g, busy(kind), members)
		members[4].Endpoint.SetHealthy(false, "status 500")
		tried := []*Endpoint{members[1].Endpoint}
		var hash uint64
		if n := testing.AllocsPerRun(500, func() {
			hash++
			g.Begin()
			k, err := p.Pick(Query{Hash: hash, Tried: tried, Prefer: "i003"})
			if err != nil {
				t.Fatal(err)
			}
			if hash%4 == 0 {
				k.Done(ServerError)
			} else {
				k.Done(Success)
			}
			g.AllowRetry(20)
			if k, err = p.Pick(Query{Hash: hash, Tried: tried}); err == nil {
				k.Done(Success)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", kind, n)
		}
	}
}
