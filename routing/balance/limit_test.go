package balance

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestMaxInFlightBoundsTheService(t *testing.T) {
	g, members := service(NewPool(), "orders", 3)
	p := NewPicker(g, Policy{MaxInFlight: 5}, members)
	var held []Pick
	for range 5 {
		held = append(held, mustPick(t, p, Query{}))
	}
	if _, err := p.Pick(Query{}); !errors.Is(err, ErrOverloaded) {
		t.Fatalf("got %v, want %v", err, ErrOverloaded)
	}
	held[0].Done(Success)
	mustPick(t, p, Query{}).Done(Success)
	for _, k := range held[1:] {
		k.Done(Success)
	}
	if g.InFlight() != 0 {
		t.Errorf("in flight %d at the end", g.InFlight())
	}
}

func TestMaxPerEndpointBoundsEachEndpoint(t *testing.T) {
	for _, kind := range kinds {
		t.Run(string(kind), func(t *testing.T) {
			g, members := service(NewPool(), "orders", 3)
			members[0].Weight = 10 // as much as the others together, and more
			p := NewPicker(g, Policy{Kind: kind, MaxPerEndpoint: 2}, members)
			first := members[0].Endpoint
			query := Query{Hash: 7, Prefer: first.ID()}
			var held []Pick
			for range 6 {
				held = append(held, mustPick(t, p, query))
			}
			for _, m := range members {
				if n := m.Endpoint.InFlight(); n != 2 {
					t.Errorf("%s has %d under way", m.Endpoint.ID(), n)
				}
			}
			if _, err := p.Pick(query); !errors.Is(err, ErrOverloaded) {
				t.Errorf("got %v, want %v", err, ErrOverloaded)
			}
			all := Query{Tried: []*Endpoint{first, members[1].Endpoint, members[2].Endpoint}}
			if _, err := p.Pick(all); !errors.Is(err, ErrNoInstance) {
				t.Errorf("where all were tried: got %v, want %v", err, ErrNoInstance)
			}
			held[0].Done(Success)
			again := mustPick(t, p, query)
			if again.Endpoint != held[0].Endpoint {
				t.Errorf("the free place is at %s, but %s was taken", held[0].Endpoint.ID(), again.Endpoint.ID())
			}
			for _, k := range append(held[1:], again) {
				k.Done(Success)
			}
			if g.InFlight() != 0 || first.InFlight() != 0 {
				t.Errorf("in flight %d, %d at the end", g.InFlight(), first.InFlight())
			}
		})
	}
}

// The one trial of an ejected endpoint is not used up by a request for which
// the endpoint has no place.
func TestAFullEndpointKeepsItsTrial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, members := service(NewPool(), "orders", 2)
		policy := Policy{ConsecutiveFailures: 1, BaseEjection: time.Second, MaxEjectionPercent: 50}
		p := NewPicker(g, policy, members)
		var held []Pick // two at each
		for range 4 {
			held = append(held, mustPick(t, p, Query{}))
		}
		held[0].Done(Broken)
		time.Sleep(2 * time.Second)
		policy.MaxPerEndpoint = 1
		p = NewPicker(g, policy, members)
		if _, err := p.Pick(Query{}); !errors.Is(err, ErrOverloaded) {
			t.Errorf("with one under way: %v", err)
		}
		held[2].Done(Neutral)
		trial := mustPick(t, p, Query{})
		if trial.trial == 0 {
			t.Error("the trial is used up")
		}
		for _, k := range []Pick{held[1], held[3], trial} {
			k.Done(Success)
		}
	})
}
