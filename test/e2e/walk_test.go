package e2e

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/test/testenv"
)

func TestOnePutOneRegistrationOneAnswer(t *testing.T) {
	s := newSite(t, testenv.GatewayOptions{})
	s.service("orders", "orders-1")
	equal(t, "before the put", s.ask("GET", "/orders/1").Code, "route_not_found")
	s.etcd.Put("/sluice/routes/orders", `{"path":"/orders/*","service":"orders"}`)
	a := s.eventually("the route answers", "/orders/1", func(a answer) bool { return a.Status == http.StatusOK })
	equal(t, "instance", a.Instance, "orders-1")
	if a.Header.Get("X-Request-ID") == "" {
		t.Error("no X-Request-ID")
	}
	s.etcd.Delete("/sluice/routes/orders")
	s.eventually("the route is gone", "/orders/1", func(a answer) bool { return a.Status == http.StatusNotFound })
}

func TestAServiceThatRegistersItselfIsRouted(t *testing.T) {
	s := newSite(t, testenv.GatewayOptions{})
	sv := s.service("users", "users-1", "-tags", "sluice.path=/users/*")
	s.eventually("the tag route answers", "/users/7", func(a answer) bool { return a.Status == http.StatusOK })
	sv.Stop()
	a := s.eventually("its last instance is gone", "/users/7", func(a answer) bool { return a.Status == http.StatusServiceUnavailable })
	equal(t, "code", a.Code, "no_healthy_instance")
	equal(t, "Retry-After", a.Header.Get("Retry-After") != "", true)
}

func TestOneEtcdKeyFlipsBlueToGreen(t *testing.T) {
	s := newSite(t, testenv.GatewayOptions{})
	s.service("orders", "b1", "-tags", "blue")
	s.service("orders", "g1", "-tags", "green")
	s.etcd.Put("/sluice/routes/orders", `{"path":"/orders/*","service":"orders"}`)
	s.etcd.Put("/sluice/active/orders", "blue")
	s.eventually("blue serves", "/orders/1", func(a answer) bool { return a.Colour == "blue" })

	out, errs, code := sluice(t, "switch", "orders", "green", "--wait", "-c", s.gateway.ConfigFile)
	if code != 0 || !strings.Contains(out, "applied by 1 gateway after") {
		t.Fatalf("switch: exit %d\n%s%s", code, out, errs)
	}
	for range 20 {
		equal(t, "after --wait returned", s.ask("GET", "/orders/1").Colour, "green")
	}
	_, errs, code = sluice(t, "switch", "orders", "red", "--wait", "--timeout", "4s", "-c", s.gateway.ConfigFile)
	if code != 1 || !strings.Contains(errs, "subset red has 0 passing instances of 1 needed") {
		t.Fatalf("switch to a colour nobody has: exit %d\n%s", code, errs)
	}
	equal(t, "green serves on", s.ask("GET", "/orders/1").Colour, "green")
	equal(t, "held", s.status().Held[0].Wanted, "red")
	s.service("orders", "r1", "-tags", "red")
	s.eventually("red is ready and takes over", "/orders/1", func(a answer) bool { return a.Instance == "r1" })
}

func TestASwitchOfAServiceWithoutARouteSaysThatNothingWasFlipped(t *testing.T) {
	s := newSite(t, testenv.GatewayOptions{})
	s.service("orders", "g1", "-tags", "green")
	for _, service := range []string{"ordres", "orders"} { // one that is not there, and one without a route
		for range 2 { // the same choice again is in effect no more than before
			start := time.Now()
			out, errs, code := sluice(t, "switch", service, "green", "--wait", "--timeout", "30s", "-c", s.gateway.ConfigFile)
			if code != 1 || !strings.Contains(errs, `written, but no gateway has a route to service "`+service+`": nothing was flipped`) ||
				!strings.Contains(out, "/sluice/active/"+service+" = green at revision") {
				t.Errorf("exit %d\n%s%s", code, out, errs)
			}
			if took := time.Since(start); took > 15*time.Second {
				t.Errorf("it took %s", took)
			}
		}
	}
	equal(t, "claimed to be in effect", s.status().Active, map[string]string{})
	s.etcd.Put("/sluice/routes/orders", `{"path":"/orders/*","service":"orders"}`)
	if out, errs, code := sluice(t, "switch", "orders", "green", "--wait", "-c", s.gateway.ConfigFile); code != 0 {
		t.Errorf("with a route: exit %d\n%s%s", code, out, errs)
	}
}

func TestWhatOneTransactionWroteGoesLiveInOneSwap(t *testing.T) {
	s := newSite(t, testenv.GatewayOptions{})
	puts := map[string]string{}
	for _, n := range []string{"a", "b", "c", "d", "e", "f"} {
		puts["/sluice/routes/"+n] = `{"path":"/` + n + `","respond":{"status":200}}`
	}
	before := s.status().Generation
	s.etcd.Apply(puts)
	s.eventually("one is there", "/a", func(a answer) bool { return a.Status == http.StatusOK })
	for _, n := range []string{"b", "c", "d", "e", "f"} {
		equal(t, "/"+n+" as soon as /a is there", s.ask("GET", "/"+n).Status, http.StatusOK)
	}
	equal(t, "swaps", s.status().Generation-before, uint64(1))
}

func TestARouteMovesToAServiceNobodyHasAskedForWithoutAFailedRequest(t *testing.T) {
	s := newSite(t, testenv.GatewayOptions{})
	s.service("orders", "o1")
	s.service("orders-next", "n1")
	s.etcd.Put("/sluice/routes/orders", `{"path":"/orders/*","service":"orders"}`)
	s.eventually("the route answers", "/orders/1", func(a answer) bool { return a.Instance == "o1" })
	s.etcd.Put("/sluice/routes/orders", `{"path":"/orders/*","service":"orders-next"}`)
	deadline := time.Now().Add(10 * time.Second)
	for {
		a := s.ask("GET", "/orders/1")
		if a.Status != http.StatusOK {
			t.Fatalf("a request failed on the way: %d %s", a.Status, a.Body)
		}
		if a.Instance == "n1" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the route did not move")
		}
	}
}

func TestE10AWrongDocumentTouchesNothingElse(t *testing.T) {
	s := newSite(t, testenv.GatewayOptions{})
	s.etcd.Put("/sluice/routes/good", `{"path":"/good","respond":{"body":"v1"}}`)
	s.etcd.Put("/sluice/routes/broad", `{"path":"/*","respond":{"body":"broad"}}`)
	s.eventually("the good route answers", "/good", func(a answer) bool { return string(a.Body) == "v1" })
	for _, bad := range []string{"{", `{"path":"/good","respond":{"boddy":"v2"}}`, strings.Repeat("x", 1<<20)} {
		s.etcd.Put("/sluice/routes/good", bad)
		testenv.Eventually(t, 10*time.Second, "the problem is shown", func() bool { return len(s.problems()) == 1 })
		equal(t, "last good", string(s.ask("GET", "/good").Body), "v1")
		s.etcd.Put("/sluice/routes/good", `{"path":"/good","respond":{"body":"v1"}}`)
		testenv.Eventually(t, 10*time.Second, "the problem is gone", func() bool { return len(s.problems()) == 0 })
	}
	s.etcd.Put("/sluice/routes/new", `{"path":"/new","servce":"x"}`)
	a := s.eventually("its path is kept", "/new", func(a answer) bool { return a.Status == http.StatusServiceUnavailable })
	equal(t, "code", a.Code, "route_invalid")
	equal(t, "problem", s.problems(), []string{"/sluice/routes/new invalid_field nothing"})
	out, _, _ := sluice(t, "get", "problems", "-c", s.gateway.ConfigFile)
	if !strings.Contains(out, "servce") {
		t.Errorf("get problems does not name the field:\n%s", out)
	}
}

func TestAKeyInAMistypedFolderIsAProblem(t *testing.T) {
	s := newSite(t, testenv.GatewayOptions{})
	s.etcd.Put("/sluice/servces/orders", `{}`)
	s.etcd.Put("/sluice/Routes/x", `{"path":"/x"}`)
	testenv.Eventually(t, 20*time.Second, "both are told of", func() bool { return len(s.problems()) == 2 })
	equal(t, "problems", s.problems(), []string{"/sluice/Routes/x invalid_key nothing", "/sluice/servces/orders invalid_key nothing"})
	out, errs, code := sluice(t, "get", "problems", "orders", "-c", s.gateway.ConfigFile)
	if code != 0 || !strings.Contains(out, "did you mean services?") || strings.Contains(out, "Routes") {
		t.Errorf("by name: exit %d\n%s%s", code, out, errs)
	}
	s.etcd.Delete("/sluice/servces/orders")
	s.etcd.Delete("/sluice/Routes/x")
	testenv.Eventually(t, 20*time.Second, "both are gone", func() bool { return len(s.problems()) == 0 })
}

func TestExplainSaysWhyARequestGoesWhereItGoes(t *testing.T) {
	s := newSite(t, testenv.GatewayOptions{})
	s.service("orders", "o1", "-tags", "blue")
	s.etcd.Put("/sluice/routes/orders", `{"path":"/orders/:id","service":"orders"}`)
	s.etcd.Put("/sluice/routes/canary", `{"path":"/orders/:id","service":"orders","headers":{"X-Canary":"1"}}`)
	s.etcd.Put("/sluice/active/orders", "blue")
	testenv.Eventually(t, 20*time.Second, "blue is in effect", func() bool { return s.status().Active["orders"] == "blue" })
	s.eventually("the route answers", "/orders/1", func(a answer) bool { return a.Status == http.StatusOK })
	out, errs, code := sluice(t, "explain", "GET", s.gateway.URL()+"/orders/1", "-c", s.gateway.ConfigFile, "-o", "json")
	if code != 0 {
		t.Fatalf("explain: exit %d %s", code, errs)
	}
	var e struct {
		Outcome string
		Winner  struct{ Name, Key string }
		Losers  []struct{ Name, Reason string }
		Shares  []struct{ Subset string }
		Params  []struct{ Name, Value string }
	}
	if err := json.Unmarshal([]byte(out), &e); err != nil {
		t.Fatal(err)
	}
	equal(t, "winner", e.Winner.Key, "/sluice/routes/orders")
	equal(t, "losers", len(e.Losers) == 1 && e.Losers[0].Name == "canary", true)
	equal(t, "subset", e.Shares[0].Subset, "blue")
	equal(t, "parameter", e.Params[0].Value, "1")
	text, _, _ := sluice(t, "explain", "GET", s.gateway.URL()+"/orders/1", "-H", "X-Canary: 1", "-c", s.gateway.ConfigFile)
	for _, want := range []string{"canary", "/sluice/routes/canary", "o1"} {
		if !strings.Contains(text, want) {
			t.Errorf("explain does not say %q:\n%s", want, text)
		}
	}
}
