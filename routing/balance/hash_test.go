package balance

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// owners maps n keys to the IDs that own them.
func owners(t *testing.T, p Picker, n int) []string {
	t.Helper()
	out := make([]string, n)
	for i := range out {
		k := mustPick(t, p, Query{Hash: uint64(i)})
		out[i] = k.Endpoint.ID()
		k.Done(Success)
	}
	return out
}

// moves counts keys whose owner changed, and those that changed between two
// members that both sets have.
func moves(a, b []string, gone string) (moved, needless int) {
	for i := range a {
		if a[i] != b[i] {
			moved++
			if a[i] != gone && b[i] != gone {
				needless++
			}
		}
	}
	return moved, needless
}

func TestKeysStayWhenMembershipChanges(t *testing.T) {
	const keys = 20000
	for _, kind := range []Kind{IPHash, ConsistentHash} {
		for _, n := range []int{2, 3, 10, 50} {
			t.Run(fmt.Sprintf("%s of %d", kind, n), func(t *testing.T) {
				g, members := service(NewPool(), "orders", n)
				for i := range members {
					members[i].Weight = 1 + i%3
				}
				before := owners(t, NewPicker(g, Policy{Kind: kind}, members), keys)
				gone := n / 2
				rest := append(append([]Member(nil), members[:gone]...), members[gone+1:]...)
				after := owners(t, NewPicker(g, Policy{Kind: kind}, rest), keys)
				moved, needless := moves(before, after, members[gone].Endpoint.ID())
				if moved > 2*keys/n || moved == 0 || needless != 0 {
					t.Errorf("%d of %d keys moved, %d needlessly; want at most %d and 0", moved, keys, needless, 2*keys/n)
				}
			})
		}
	}
}

func TestKeysStayWhenAMemberIsOut(t *testing.T) {
	g, members := service(NewPool(), "orders", 5)
	p := NewPicker(g, outlier(ConsistentHash), members)
	before := owners(t, p, 5000)
	members[2].Endpoint.SetHealthy(false, "status 500")
	if _, needless := moves(before, owners(t, p, 5000), "i002"); needless != 0 {
		t.Errorf("%d keys of other members moved", needless)
	}
	members[2].Endpoint.SetHealthy(true, "")
	if moved, _ := moves(before, owners(t, p, 5000), "i002"); moved != 0 {
		t.Errorf("%d keys did not come home", moved)
	}
}

func TestGatewaysAgreeOnOwners(t *testing.T) {
	g1, members := service(NewPool(), "orders", 5)
	g2, others := service(NewPool(), "orders", 5)
	rand.Shuffle(len(others), func(i, j int) { others[i], others[j] = others[j], others[i] })
	policy := Policy{Kind: IPHash}
	if moved, _ := moves(owners(t, NewPicker(g1, policy, members), 5000), owners(t, NewPicker(g2, policy, others), 5000), ""); moved != 0 {
		t.Errorf("two gateways differ on %d keys", moved)
	}
}

func TestMembersThatShareAnIDShareTheKeys(t *testing.T) {
	p := NewPool()
	a, b := instance(1), instance(1)
	b.Address = "10.9.9.9:80"
	members := []Member{{p.Endpoint("orders", a), 1}, {p.Endpoint("orders", b), 1}}
	picker := NewPicker(p.Group("orders"), Policy{Kind: IPHash}, members)
	byAddress := map[string]int{}
	for i := range 4000 {
		k := mustPick(t, picker, Query{Hash: uint64(i)})
		byAddress[k.Endpoint.Address()]++
		k.Done(Success)
	}
	if !near(float64(byAddress[a.Address]), 2000, 200) || !near(float64(byAddress[b.Address]), 2000, 200) {
		t.Errorf("got %v", byAddress)
	}
}

func TestOneHotKeyOverflowsAtTheBound(t *testing.T) {
	g, members := service(NewPool(), "orders", 4)
	members[3].Weight = 5 // half of all
	p := NewPicker(g, Policy{Kind: ConsistentHash}, members)
	var held []Pick
	for range 400 {
		held = append(held, mustPick(t, p, Query{Hash: 7}))
	}
	for i, m := range members {
		share := 400.0 * float64(m.Weight) / 8
		if got := float64(m.Endpoint.InFlight()); got > 1.25*share+1 {
			t.Errorf("member %d carries %.0f of 400, its share is %.0f", i, got, share)
		}
	}
	for _, k := range held {
		k.Done(Success)
	}

	// Without load the key has one owner, and ip_hash never lets go of it.
	if got := owners(t, p, 1)[0]; got != owners(t, p, 1)[0] {
		t.Error("an idle owner lost its key")
	}
	strict := NewPicker(g, Policy{Kind: IPHash}, members)
	first := mustPick(t, strict, Query{Hash: 7})
	for range 100 {
		k := mustPick(t, strict, Query{Hash: 7})
		defer k.Done(Success)
		if k.Endpoint != first.Endpoint {
			t.Fatal("ip_hash moved a key")
		}
	}
	first.Done(Success)
}

func TestKeysInSlowStartMoveOnce(t *testing.T) {
	// The share of keys that a warming member takes only grows: a key that
	// has moved to it stays.
	p := NewPool()
	_, old := service(p, "orders", 3)
	retain(p, "orders", old)
	g, members := service(p, "orders", 4)
	k := NewPicker(g, Policy{Kind: ConsistentHash, SlowStart: 1000}, members).(*picker)
	born := members[3].Endpoint.born
	took := map[uint64]bool{}
	for at := born; at <= born+1000; at += 50 {
		v := view{picker: k, clean: true, now: at, warming: at < k.warmUntil}
		for key := range uint64(2000) {
			v.query.Hash = key
			mine := v.choose() == 3
			if took[key] && !mine {
				t.Fatalf("key %d left again", key)
			}
			took[key] = mine
		}
	}
}
