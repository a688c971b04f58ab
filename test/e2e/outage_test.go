package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/test/testenv"
)

// TestRowsC1ToE5Outages breaks the registries one way after another while
// requests run. Nothing may be lost, and what is changed afterwards is obeyed.
func TestRowsC1ToE5Outages(t *testing.T) {
	s := newSite(t, testenv.GatewayOptions{Extra: fmt.Sprintf("log: {access: false}\nstate_dir: %q\n", t.TempDir())})
	for i := range 2 {
		s.service("orders", fmt.Sprintf("orders-%d", i+1))
	}
	s.etcd.Apply(outageRoutes)
	s.eventually("the route answers", "/orders/1", func(a answer) bool { return a.Status == http.StatusOK })
	s.awaitHealthy("orders", 2)
	for _, c := range []struct {
		name string
		test func(*testing.T, *site)
	}{
		{"C1 the agent is killed and comes back", agentDown},
		{"C2 the agent is frozen and goes on", agentFrozen},
		{"C3 the agent comes back without its state", agentLost},
		{"C10 the last instance fails its check", lastInstanceFails},
		{"E1 etcd is killed and comes back", etcdDown},
		{"E2 etcd is frozen and goes on", etcdFrozen},
		{"E3 etcd is compacted while the watch is cut", etcdCompacted},
		{"E5 etcd comes back with nothing", etcdLost},
		{"both are away when the gateway starts", bothAwayAtStart},
	} {
		if !t.Run(c.name, func(t *testing.T) { c.test(t, s.at(t)) }) {
			return // the next would find a broken site
		}
	}
}

var outageRoutes = map[string]string{
	"/sluice/routes/orders": `{"path":"/orders/*","service":"orders"}`,
	"/sluice/routes/broad":  `{"path":"/*","respond":{"status":418}}`, // must catch nothing of what is below it
}

func agentDown(_ *testing.T, s *site) {
	l := s.load("/orders/", true)
	s.consul.Kill()
	s.sourceUp("consul", false)
	l.more(2 * rate)
	s.consul.Restart()
	s.follows("after-c1")
	s.sourceUp("consul", true)
	s.awaitHealthy("orders", 2)
	l.noneFailed()
}

func agentFrozen(_ *testing.T, s *site) {
	l := s.load("/orders/", true)
	s.consul.Freeze()
	l.more(2 * rate)
	s.consul.Thaw()
	s.follows("after-c2")
	s.awaitHealthy("orders", 2)
	l.noneFailed()
}

// Nobody registers the instance again until the requests that run meanwhile
// have been answered by what was known last.
func agentLost(_ *testing.T, s *site) {
	o := startOrigin(s.t)
	s.register("kept", "kept-1", o.addr, "sluice.path=/kept/*")
	s.eventually("the instance answers", "/kept/x", func(a answer) bool { return a.Status == http.StatusOK })
	l := s.load("/kept/", true)
	s.consul.Kill()
	s.consul.Restart()
	s.sourceUp("consul", true)
	s.follows("after-c3") // so the new agent's answers have arrived
	l.more(2 * rate)
	other := startOrigin(s.t)
	s.register("kept", "kept-2", other.addr, "sluice.path=/kept/*")
	s.register("kept", "kept-1", o.addr, "sluice.path=/kept/*")
	testenv.Eventually(s.t, wait, "the newly registered instance serves", func() bool { return len(other.take()) > 0 })
	l.noneFailed()
	s.deregister("kept-1")
	s.deregister("kept-2")
	s.awaitHealthy("orders", 2)
}

func lastInstanceFails(t *testing.T, s *site) {
	sv := s.service("fragile", "fragile-1", "-tags", "sluice.path=/fragile/*")
	s.eventually("the instance answers", "/fragile/x", func(a answer) bool { return a.Status == http.StatusOK })
	setHealth(t, sv, http.StatusServiceUnavailable)
	a := s.eventually("nobody is left", "/fragile/x", func(a answer) bool { return a.Status != http.StatusOK })
	equal(t, "answer", fmt.Sprint(a.Status, " ", a.Code), "503 no_healthy_instance")
	equal(t, "has Retry-After", a.Header.Get("Retry-After") != "", true)
	setHealth(t, sv, http.StatusOK)
	s.eventually("it is back", "/fragile/x", func(a answer) bool { return a.Status == http.StatusOK })
}

func setHealth(t *testing.T, sv *testenv.Service, status int) {
	t.Helper()
	resp, err := http.Post(fmt.Sprintf("http://%s/healthz?status=%d", sv.Addr, status), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	equal(t, "status of the change", resp.StatusCode, http.StatusNoContent)
}

func etcdDown(_ *testing.T, s *site) {
	l := s.load("/orders/", true)
	s.etcd.Kill()
	s.sourceUp("etcd", false)
	l.more(2 * rate)
	s.etcd.Restart()
	s.obeys("after-e1")
	s.sourceUp("etcd", true)
	l.noneFailed()
}

func etcdFrozen(_ *testing.T, s *site) {
	l := s.load("/orders/", true)
	s.etcd.Freeze()
	s.sourceUp("etcd", false) // keepalive has noticed
	l.more(rate)
	s.etcd.Thaw()
	s.obeys("after-e2")
	s.sourceUp("etcd", true)
	l.noneFailed()
}

// A gateway of its own, behind a line that can be cut.
func etcdCompacted(t *testing.T, s *site) {
	line := testenv.StartProxy(t, strings.TrimPrefix(s.etcd.Endpoint, "http://"))
	s.gateway = testenv.StartGateway(t, testenv.GatewayOptions{
		Name: "behind-a-line", Consul: s.consul.URL(), Etcd: "http://" + line.Addr, Extra: "log: {access: false}\n",
	})
	s.awaitHealthy("orders", 2)
	l := s.load("/orders/", true)
	compactWhileCut := func(key, value string) {
		line.Cut()
		s.sourceUp("etcd", false)
		for range 10 {
			s.etcd.Put(key, value)
		}
		s.etcd.Compact()
		line.Mend()
		s.sourceUp("etcd", true)
	}
	before := s.status().Generation
	compactWhileCut("/elsewhere/x", "y")
	equal(t, "swaps for documents that did not change", s.status().Generation-before, uint64(0))
	compactWhileCut("/sluice/routes/while-cut", `{"path":"/while-cut","respond":{"status":204}}`)
	s.eventually("what was put while the watch was cut", "/while-cut", func(a answer) bool { return a.Status == http.StatusNoContent })
	s.obeys("after-e3")
	l.noneFailed()
}

func etcdLost(_ *testing.T, s *site) {
	l := s.load("/orders/", true)
	s.etcd.RestartEmpty()
	s.sourceUp("etcd", true)
	l.more(2 * rate)
	s.etcd.Apply(outageRoutes)
	s.obeys("after-e5")
	l.noneFailed()
}

func bothAwayAtStart(t *testing.T, s *site) {
	s.etcd.Put("/sluice/active/orders", "blue") // nobody is blue: a hold is remembered too
	testenv.Eventually(t, wait, "the flip is held", func() bool { return len(s.status().Held) == 1 })
	s.gateway.Stop() // stores its state on the way out
	s.consul.Stop()
	s.etcd.Stop()
	s.gateway.Restart()
	equal(t, "the first request", s.ask("GET", "/orders/1").Status, http.StatusOK)
	equal(t, "held flips", len(s.status().Held), 1)
	l := s.load("/orders/", true)
	l.more(rate)
	s.etcd.Restart()
	s.consul.Restart()
	s.obeys("after-start")
	s.follows("after-start-too")
	s.awaitHealthy("orders", 2)
	l.noneFailed()
}
