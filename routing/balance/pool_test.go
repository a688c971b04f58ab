package balance

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-gateway/sluice/discovery"
)

// listed describes what the pool knows of a service.
func listed(p *Pool, name string) string {
	var out []string
	for _, e := range p.Endpoints(name) {
		out = append(out, fmt.Sprintf("%s@%s %s %d", e.ID(), e.Address(), state(e), e.InFlight()))
	}
	return fmt.Sprint(out)
}

func TestAnEndpointIsItsServiceIDAndAddress(t *testing.T) {
	p := NewPool()
	a := p.Endpoint("orders", discovery.Instance{ID: "a", Address: "10.0.0.1:80", Weight: 1})
	same := p.Endpoint("orders", discovery.Instance{ID: "a", Address: "10.0.0.1:80", Weight: 7, Tags: []string{"blue"}})
	moved := p.Endpoint("orders", discovery.Instance{ID: "a", Address: "10.0.0.2:80"})
	renamed := p.Endpoint("orders", discovery.Instance{ID: "b", Address: "10.0.0.1:80"})
	other := p.Endpoint("users", discovery.Instance{ID: "a", Address: "10.0.0.1:80"})
	if a != same || a == moved || a == renamed || a == other || p.Group("orders") == p.Group("users") {
		t.Error("identity is not service, ID and address")
	}
	if got := [3]string{other.Service(), other.ID(), other.Address()}; got != [3]string{"users", "a", "10.0.0.1:80"} {
		t.Errorf("got %v", got)
	}
	want := "[a@10.0.0.1:80 healthy 0 a@10.0.0.2:80 healthy 0 b@10.0.0.1:80 healthy 0]"
	if got := listed(p, "orders"); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := p.Endpoints("ghost"); got != nil {
		t.Errorf("an unknown service has %v", got)
	}
}

func TestWhatLeftTheTableDrainsAndIsDropped(t *testing.T) {
	p := NewPool()
	g, members := service(p, "orders", 3)
	retain(p, "orders", members)
	picker := NewPicker(g, Policy{}, members)
	one, two := on(t, picker, members, "i001"), on(t, picker, members, "i001")

	retain(p, "orders", members[:1])
	if got, want := listed(p, "orders"), "[i000@10.0.0.0:80 healthy 0 i001@10.0.0.1:80 draining 2]"; got != want {
		t.Errorf("after the swap: %s, want %s", got, want)
	}
	one.Done(Success)
	if got, want := listed(p, "orders"), "[i000@10.0.0.0:80 healthy 0 i001@10.0.0.1:80 draining 1]"; got != want {
		t.Errorf("with one request left: %s, want %s", got, want)
	}
	two.Done(Success)
	if got, want := listed(p, "orders"), "[i000@10.0.0.0:80 healthy 0]"; got != want {
		t.Errorf("with none left: %s, want %s", got, want)
	}
	if p.Endpoint("orders", instance(1)) == members[1].Endpoint {
		t.Error("a dropped endpoint came back with its past")
	}
}

func TestWhatReturnsWhileDrainingKeepsItsEndpoint(t *testing.T) {
	p := NewPool()
	g, members := service(p, "orders", 3)
	retain(p, "orders", members)
	picker := NewPicker(g, outlier(RoundRobin), members)
	held := on(t, picker, members, "i001")
	on(t, picker, members, "i001").Done(Unreachable)
	retain(p, "orders", members[:1])
	if p.Endpoint("orders", instance(1)) != members[1].Endpoint {
		t.Fatal("another endpoint for the same instance")
	}
	retain(p, "orders", members[:2])
	if got, want := listed(p, "orders"), "[i000@10.0.0.0:80 healthy 0 i001@10.0.0.1:80 healthy 1]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	held.Done(Success)
	if got, want := listed(p, "orders"), "[i000@10.0.0.0:80 healthy 0 i001@10.0.0.1:80 healthy 0]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestWhatIsDroppedBetweenBuildAndSwapIsTakenBack(t *testing.T) {
	p := NewPool()
	g, members := service(p, "orders", 2)
	retain(p, "orders", members)
	held := on(t, NewPicker(g, Policy{}, members), members, "i001")
	retain(p, "orders", members[:1])
	found := p.Endpoint("orders", instance(1)) // the build of the next table
	held.Done(Success)                         // drops it
	retain(p, "orders", []Member{members[0], {Endpoint: found, Weight: 1}})
	if got, want := listed(p, "orders"), "[i000@10.0.0.0:80 healthy 0 i001@10.0.0.1:80 healthy 0]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if p.Endpoint("orders", instance(1)) != found {
		t.Error("the table's endpoint is not the pool's")
	}
}

func TestGroupsGoWithTheirService(t *testing.T) {
	p := NewPool()
	orders, members := service(p, "orders", 1)
	users := p.Group("users")
	retain(p, "orders", members)
	if p.Group("orders") != orders {
		t.Error("the group of a named service was dropped")
	}
	if p.Group("users") == users {
		t.Error("the group of a service that is not named was kept")
	}
	held := mustPick(t, NewPicker(orders, Policy{}, members), Query{})
	retain(p, "users", nil)
	if p.Group("orders") != orders {
		t.Error("a group was dropped while an endpoint of it drains")
	}
	held.Done(Success)
	retain(p, "users", nil)
	if p.Group("orders") == orders {
		t.Error("the group outlived its last endpoint")
	}
}

func TestDrainingWhileRequestsEndLosesNothing(t *testing.T) {
	p := NewPool()
	g, members := service(p, "orders", 4)
	picker := NewPicker(g, Policy{}, members)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 2000 {
				if k, err := picker.Pick(Query{}); err == nil {
					k.Done(Success)
				}
			}
		})
	}
	for i := range 2000 {
		retain(p, "orders", members[:1+i%4])
	}
	wg.Wait()
	retain(p, "orders", members[:1])
	if got, want := listed(p, "orders"), "[i000@10.0.0.0:80 healthy 0]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if p.size != 1 {
		t.Errorf("the pool counts %d endpoints", p.size)
	}
}

func TestSlowStart(t *testing.T) {
	for _, kind := range kinds {
		t.Run(string(kind), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := NewPool()
				g, members := service(p, "orders", 3)
				policy := Policy{Kind: kind, SlowStart: time.Minute}
				const n = 30000
				share := func(id string, members []Member) float64 {
					return float64(spread(t, NewPicker(g, policy, members), n)[id]) / n
				}
				if got := share("i000", members); !near(got, 1.0/3, 0.02) {
					t.Errorf("at the gateway's start: %.3f, want a third", got)
				}
				retain(p, "orders", members)
				_, members = service(p, "orders", 4) // a fourth instance
				// The newcomer's weight beside three of weight 1.
				for _, step := range []struct {
					after  time.Duration
					weight float64
				}{{0, 0.1}, {30 * time.Second, 0.55}, {30 * time.Second, 1}, {time.Hour, 1}} {
					time.Sleep(step.after)
					want := step.weight / (3 + step.weight)
					if kind == IPHash || kind == ConsistentHash {
						want = step.weight / 4 // its own keys, no others
					}
					if got := share("i003", members); !near(got, want, 0.02) {
						t.Errorf("at weight %.2f: %.3f of the requests, want %.3f", step.weight, got, want)
					}
				}
			})
		})
	}
}

func TestSlowStartOfEveryMemberAtOnceServes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPool()
		_, old := service(p, "orders", 1)
		retain(p, "orders", old)
		var fresh []Member
		for i := range 3 {
			fresh = append(fresh, Member{Endpoint: p.Endpoint("orders", instance(10+i)), Weight: 1})
		}
		for _, kind := range kinds {
			got := spread(t, NewPicker(p.Group("orders"), Policy{Kind: kind, SlowStart: time.Minute}, fresh), 3000)
			for _, m := range fresh {
				if !near(float64(got[m.Endpoint.ID()]), 1000, 150) {
					t.Errorf("%s: %v", kind, got)
				}
			}
		}
	})
}
