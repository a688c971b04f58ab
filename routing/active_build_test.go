package routing

import (
	"net/http"
	"testing"
	"time"
)

func colours(t *testing.T) *world {
	return newWorld(t).put("routes/orders", orders).instances("orders", "b1:blue", "b2:blue", "g1:green", "g2:green")
}

func held(w *world) []string {
	out := []string{}
	for _, h := range w.table.Held() {
		out = append(out, h.Service+" wants "+h.Wanted+" serves "+h.Serving)
	}
	return out
}

func TestTheActiveKeyMovesTrafficBetweenColours(t *testing.T) {
	w := colours(t)
	w.build()
	equal(t, "absent: all serve", w.serves("orders"), []string{"b1", "b2", "g1", "g2"})
	w.put("active/orders", "green\n").build()
	equal(t, "green", w.serves("orders"), []string{"g1", "g2"})
	w.put("active/orders", "blue").build()
	equal(t, "blue", w.serves("orders"), []string{"b1", "b2"})
	w.put("active/orders", "blue=50,green=50").build()
	equal(t, "both", w.serves("orders"), []string{"b1", "b2", "g1", "g2"})
	equal(t, "status", w.table.Active(), map[string]string{"orders": "blue=50,green=50"})
	w.remove("active/orders").build()
	equal(t, "removed", w.serves("orders"), []string{"b1", "b2", "g1", "g2"})
}

func TestAFlipToASubsetThatIsNotReadyIsHeldUntilItIs(t *testing.T) {
	w := colours(t).put("services/orders", `{"min_ready":2}`).put("active/orders", "blue")
	w.instances("orders", "b1:blue", "g1:green").build()
	equal(t, "first choice has one of two, and all served before", held(w), []string{"orders wants blue serves "})
	w.instances("orders", "b1:blue", "b2:blue", "g1:green").build()
	equal(t, "blue is ready", w.serves("orders"), []string{"b1", "b2"})
	w.put("active/orders", "green").build()
	equal(t, "green is held", held(w), []string{"orders wants green serves blue"})
	equal(t, "blue serves on", w.serves("orders"), []string{"b1", "b2"})
	since := w.table.Held()[0].Since
	w.now = w.now.Add(time.Minute)
	w.instances("orders", "b1:blue", "b3:blue", "g1:green").build()
	equal(t, "still held since then", w.table.Held()[0].Since, since)
	w.instances("orders", "b1:blue", "b3:blue", "g1:green", "g2:green").build()
	equal(t, "green is ready", w.serves("orders"), []string{"g1", "g2"})
	equal(t, "nothing is held", held(w), []string{})
	w.instances("orders", "b1:blue", "b3:blue", "g1:green").build()
	equal(t, "later trouble undoes no flip", w.serves("orders"), []string{"g1"})
}

func TestAHeldFlipGoesThroughWhenTheOldChoiceHasNothingLeft(t *testing.T) {
	w := colours(t).put("services/orders", `{"min_ready":2}`).put("active/orders", "blue")
	w.build()
	w.put("active/orders", "green").instances("orders", "b1:blue", "g1:green").build()
	equal(t, "held", w.serves("orders"), []string{"b1"})
	w.instances("orders", "g1:green").build()
	equal(t, "green serves", w.serves("orders"), []string{"g1"})
}

func TestAGatewayThatStartsDuringAHoldAgreesWithTheFleet(t *testing.T) {
	for _, from := range []string{"the key's previous revision", "the state directory"} {
		t.Run(from, func(t *testing.T) {
			w := colours(t).put("active/orders", "blue")
			w.build()
			w.put("active/orders", "green").instances("orders", "b1:blue").build()
			equal(t, "fleet", held(w), []string{"orders wants green serves blue"})
			if from == "the state directory" {
				w.deps.Remembered = w.table.Remembered()
				for d := range w.docs["etcd"].All {
					d.Previous = nil
				}
			}
			w.restart()
			w.answered = false
			w.build() // etcd first, Consul has not answered
			w.answered = true
			w.build()
			equal(t, "newcomer", held(w), []string{"orders wants green serves blue"})
			equal(t, "newcomer", w.serves("orders"), []string{"b1"})
			w.instances("orders", "b1:blue", "g1:green").build()
			equal(t, "released", w.serves("orders"), []string{"g1"})
		})
	}
}

func TestASubsetWithoutInstancesLosesItsShareToTheOthers(t *testing.T) {
	w := colours(t).put("active/orders", "blue=90,green=10")
	w.build()
	w.instances("orders", "g1:green").build()
	equal(t, "green takes all", w.serves("orders"), []string{"g1"})
	w.instances("orders", "r1:red").build()
	equal(t, "a colour without a share gets nothing", w.serves("orders"), []string{"no healthy instance"})
}

func TestABrokenActiveKeyChangesNothing(t *testing.T) {
	w := colours(t).put("active/orders", "green")
	w.build()
	for _, bad := range []string{"green=", "=1", "green=-1", "", "blue green"} {
		w.put("active/orders", bad).build()
		equal(t, bad, w.serves("orders"), []string{"g1", "g2"})
		equal(t, bad, w.problems(), []string{"/sluice/active/orders invalid_active last_good"})
	}
}

func TestWeightsAreSharesOfTrafficWhateverTheNumberOfInstances(t *testing.T) {
	w := newWorld(t).put("routes/orders", orders).instances("orders", "b1:blue", "g1:green", "g2:green", "g3:green").put("active/orders", "blue=90,green=10")
	s := w.build().Service("orders")
	n := map[string]int{}
	for range 20000 {
		sub, _ := s.Choose(&http.Request{Header: http.Header{}}, &Exchange{Match: Match{Route: &Route{}}})
		n[sub.Name]++
	}
	if n["green"] < 1700 || n["green"] > 2300 {
		t.Errorf("green got %d of 20000, want about 2000", n["green"])
	}
}

func TestSplitsByCookieHeaderAndIPKeepAClientOnItsSide(t *testing.T) {
	for _, by := range []string{"cookie", "header:X-Tenant", "ip"} {
		t.Run(by, func(t *testing.T) {
			w := colours(t).put("services/orders", `{"split_by":"`+by+`"}`).put("active/orders", "blue=50,green=50")
			s := w.build().Service("orders")
			seen := map[string]int{}
			for client := range 200 {
				r := clientRequest(client, by)
				x := &Exchange{Match: Match{Route: &Route{}}, Client: clientAddr(client)}
				first, cookie := s.Choose(r, x)
				if by == "cookie" {
					if cookie == nil || !cookie.HttpOnly {
						t.Fatalf("a client without a cookie got %v", cookie)
					}
					r.AddCookie(cookie)
				}
				for range 5 {
					if again, _ := s.Choose(r, x); again != first {
						t.Fatalf("client %d moved from %s to %s", client, first.Name, again.Name)
					}
				}
				seen[first.Name]++
			}
			if seen["blue"] < 60 || seen["green"] < 60 {
				t.Errorf("split is lopsided: %v", seen)
			}
		})
	}
}

func TestARoutePinsASubsetForTestersAheadOfAFlip(t *testing.T) {
	w := colours(t).put("active/orders", "blue").put("routes/test", `{"path":"/orders/*","service":"orders","subset":"green","headers":{"X-Test":"1"}}`)
	s := w.build().Service("orders")
	sub, _ := s.Choose(&http.Request{}, &Exchange{Match: Match{Route: w.table.Routes()[1]}})
	equal(t, "pinned", sub.Name, "green")
}

func TestOnEmptyDecidesWhatServesWithoutInstances(t *testing.T) {
	cases := map[string]struct {
		onEmpty string
		want    []string
	}{
		"error":      {`{}`, []string{"no healthy instance"}},
		"last known": {`{"on_empty":"last_known"}`, []string{"b1", "b2", "g1", "g2"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			w := colours(t).put("services/orders", c.onEmpty)
			w.build()
			w.instances("orders").build()
			equal(t, "serves", w.serves("orders"), c.want)
			equal(t, "the route stays", w.ask("/orders/1"), "orders ok")
		})
	}
	t.Run("a named subset", func(t *testing.T) {
		w := colours(t).put("services/orders", `{"on_empty":"subset blue"}`).put("active/orders", "green")
		w.build()
		w.instances("orders", "b1:blue").build()
		equal(t, "serves", w.serves("orders"), []string{"b1"})
	})
}

func TestDatacentersAreTriedInOrder(t *testing.T) {
	w := newWorld(t).put("routes/orders", orders).put("services/orders", `{"datacenters":["dc1","dc2"]}`).
		instances("orders@dc1", "near").instances("orders@dc2", "far")
	w.build()
	equal(t, "near", w.serves("orders"), []string{"near"})
	w.instances("orders@dc1").build()
	equal(t, "far", w.serves("orders"), []string{"far"})
}

func TestSubsetsMayBeServicesOfTheirOwn(t *testing.T) {
	w := newWorld(t).put("routes/orders", orders).put("services/orders", `{"subsets":{"green":{"consul":"orders-green"},"v2":{"meta":{"version":"2"}}}}`).
		instances("orders", "b1").instances("orders-green", "g1").put("active/orders", "green")
	w.build()
	equal(t, "green", w.serves("orders"), []string{"g1"})
	w.remove("active/orders").build()
	equal(t, "all", w.serves("orders"), []string{"b1", "g1"})
}

func TestAChoiceIsInEffectOnlyWhereARouteLeadsAndTheRegistryHasAnswered(t *testing.T) {
	w := newWorld(t).put("active/orders", "green").put("active/fixed", "blue").
		put("services/fixed", `{"targets":[{"address":"10.0.0.9:80","tags":["blue"]}]}`)
	said := func(what string, active map[string]string, undecided []string) {
		t.Helper()
		equal(t, what+": in effect", w.table.Active(), active)
		equal(t, what+": undecided", w.table.Undecided(), undecided)
	}
	w.build()
	said("no route", map[string]string{}, nil)
	w.put("routes/orders", orders).put("routes/fixed", `{"path":"/fixed","service":"fixed"}`).build()
	said("the registry is silent", map[string]string{"fixed": "blue"}, []string{"orders"})
	w.instances("orders", "g1:green").build()
	said("it has answered", map[string]string{"fixed": "blue", "orders": "green"}, nil)
	w.remove("routes/orders").build()
	said("the route is gone", map[string]string{"fixed": "blue"}, nil)
	equal(t, "remembered", w.table.Remembered().Active, map[string]string{"fixed": "blue", "orders": "green"})
}

func TestARestartBeforeTheRegistryAnswersForgetsNoHeldFlip(t *testing.T) {
	w := colours(t).put("active/orders", "blue")
	w.build()
	w.put("active/orders", "green").instances("orders", "b1:blue").build()
	for d := range w.docs["etcd"].All {
		d.Previous = nil
	}
	w.answered = false
	for range 2 { // the second finds what the first left behind
		w.deps.Remembered = w.table.Remembered()
		w.restart().build()
	}
	w.answered = true
	w.build()
	equal(t, "still held", held(w), []string{"orders wants green serves blue"})
}
