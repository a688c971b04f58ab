package e2e

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/test/testenv"
)

// TestRowsP1ToP11DataPlane breaks instances and moves routes while requests
// run.
func TestRowsP1ToP11DataPlane(t *testing.T) {
	s := newSite(t, testenv.GatewayOptions{Extra: "log: {access: false}\n"})
	for _, c := range []struct {
		name string
		test func(*testing.T, *site)
	}{
		{"P1 an instance is killed", instanceKilled},
		{"P1 a POST that was carried out is not sent again", postOnce},
		{"P2 one instance is slow", instanceSlow},
		{"P3 one instance is frozen", instanceFrozen},
		{"P4 an answer that breaks off never looks whole", answerCut},
		{"P6 no instance is left and one comes back", noInstance},
		{"P6 an instance that leaves is hung up on", leaverHungUpOn},
		{"P7 an instance flaps", instanceFlaps},
		{"P8 every instance is restarted in turn", rollingRestart},
		{"P9 every instance is ended without leaving Consul first", restartUnannounced},
		{"P10 a hundred routes move in one transaction", hundredRoutesMove},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, s.at(t)) })
	}
}

// three starts three instances of a service behind the route /NAME/* and
// waits until all serve.
func (s *site) three(name string, args ...string) []*testenv.Service {
	s.t.Helper()
	var out []*testenv.Service
	for i := range 3 {
		out = append(out, s.service(name, fmt.Sprintf("%s-%d", name, i+1), append([]string{"-linger", "100ms"}, args...)...))
	}
	s.route(name)
	s.awaitHealthy(name, 3)
	return out
}

func (s *site) route(name string) {
	s.t.Helper()
	s.etcd.Put("/sluice/routes/"+name, fmt.Sprintf(`{"path":"/%s/*","service":%q}`, name, name))
	s.eventually("/"+name+" answers", "/"+name+"/0", func(a answer) bool { return a.Status == http.StatusOK })
}

func instanceKilled(t *testing.T, s *site) {
	instances := s.three("p1", "-delay", "20ms")
	l := s.load("/p1/", false)
	instances[0].Kill()
	testenv.Eventually(t, wait, "the dead instance is left out", func() bool { return s.state("p1", "p1-1") == "ejected" })
	l.more(rate)
	l.noneFailed()

	l = s.load("/p1/", true)
	instances[1].Kill()
	gone := time.Now()
	l.more(rate)
	for _, f := range l.failures() {
		if f.Start.After(gone) {
			t.Errorf("a request that began after the death failed: %d %v", f.Status, f.Err)
		}
	}
}

// state is what the gateway says of one instance.
func (s *site) state(service, id string) string {
	s.t.Helper()
	for _, in := range s.instances(service) {
		if strings.HasSuffix(in.ID, "/"+id) {
			return in.State
		}
	}
	return "gone"
}

// Two of three instances carry requests out and hang up before they answer.
func postOnce(t *testing.T, s *site) {
	var origins []*origin
	for i := range 3 {
		o := startOrigin(t)
		origins = append(origins, o)
		s.register("p1-once", fmt.Sprintf("p1-once-%d", i), o.addr)
	}
	s.etcd.Put("/sluice/services/p1-once", `{"retry":{"attempts":2}}`)
	s.route("p1-once")
	s.awaitHealthy("p1-once", 3)
	for _, o := range origins {
		o.take()
	}
	origins[0].hangUp.Store(true)
	origins[1].hangUp.Store(true)
	answered := map[string]bool{}
	for i := range 60 {
		path := fmt.Sprintf("/p1-once/%d", i)
		answered[path] = s.ask("POST", path).Status == http.StatusOK
	}
	times := map[string]int{}
	for _, o := range origins {
		for _, seen := range o.take() {
			times[seen.Target]++
		}
	}
	lost := 0
	for path, ok := range answered {
		if times[path] > 1 || ok && times[path] == 0 {
			t.Errorf("%s was carried out %d times", path, times[path])
		}
		if !ok {
			lost++
		}
	}
	if lost == 0 {
		t.Error("no request met an instance that hangs up: nothing was tried")
	}
	for i := range 10 {
		equal(t, "a GET meanwhile", s.ask("GET", fmt.Sprintf("/p1-once/%d", i)).Status, http.StatusOK)
	}
}

func instanceSlow(t *testing.T, s *site) {
	for i := range 2 {
		s.service("p2", fmt.Sprintf("p2-%d", i), "-linger", "0s")
	}
	s.service("p2", "p2-slow", "-linger", "0s", "-delay", "2s", "-tags", "slow")
	s.etcd.Apply(map[string]string{
		"/sluice/services/p2":    `{"balance":"least_request","timeouts":{"response_header":"500ms"},"retry":{"on":["connect","timeout"]}}`,
		"/sluice/routes/p2-slow": `{"path":"/p2/slow-one","service":"p2","subset":"slow","retries":0}`,
	})
	s.route("p2")
	s.awaitHealthy("p2", 3)
	got := s.ask("GET", "/p2/slow-one")
	equal(t, "answer of the slow one", fmt.Sprint(got.Status, " ", got.Code), "504 upstream_timeout")
	before := s.metric("sluice_upstream_requests_total{", `service="p2"`, `result="timeout"`)
	l := s.load("/p2/", false)
	l.more(3 * rate)
	l.noneFailed()
	slow := s.metric("sluice_upstream_requests_total{", `service="p2"`, `result="timeout"`) - before
	if share := slow / float64(l.Sent()); share > 0.1 {
		t.Errorf("the slow instance got %.0f of %d requests", slow, l.Sent())
	}
}

// One request at a time, so that what the frozen instance gets is counted.
func instanceFrozen(t *testing.T, s *site) {
	instances := s.three("p3", "-check", "none")
	s.etcd.Put("/sluice/services/p3", `{"timeouts":{"connect":"300ms","response_header":"300ms"},
		"retry":{"on":["connect","reset","timeout"],"attempts":1},"outlier":{"consecutive_failures":3,"base_ejection":"1s"}}`)
	s.eventually("the policy serves", "/p3/x", func(answer) bool {
		var l struct{ Items []struct{ Spec *struct{} } }
		s.read("/api/v1/services?name=p3", &l)
		return len(l.Items) == 1 && l.Items[0].Spec != nil
	})
	goroutines := s.metric("go_goroutines")
	instances[2].Freeze()
	tries := 0
	for ; s.state("p3", "p3-3") != "ejected"; tries++ {
		equal(t, "a request while one instance is frozen", s.ask("GET", "/p3/x").Status, http.StatusOK)
		if tries > 100 {
			t.Fatal("the frozen instance is never left out")
		}
	}
	if n := s.metric("sluice_upstream_requests_total{", `service="p3"`, `result="timeout"`); n > 3 {
		t.Errorf("%.0f requests met the frozen instance, want 3 at most", n)
	}
	testenv.Eventually(t, wait, "no goroutine is left behind", func() bool { return s.metric("go_goroutines") <= goroutines+20 })
	instances[2].Thaw()
	testenv.Eventually(t, wait, "it is back", func() bool {
		return s.ask("GET", "/p3/x").Instance == "p3-3" && s.state("p3", "p3-3") == "healthy"
	})
}

func answerCut(t *testing.T, s *site) {
	o := startOrigin(t)
	s.register("p4", "p4-1", o.addr)
	s.route("p4")
	for _, how := range []string{"length", "chunked"} {
		w := dial(t, s.gateway.Addr)
		w.send(crlf("GET /p4/cut-" + how + " HTTP/1.1\nHost: a\n\n"))
		if got, err := w.tryAnswer(http.MethodGet); err == nil {
			t.Errorf("%s over HTTP/1.1: a whole answer %d %q", how, got.StatusCode, got.Text)
		}
		resp, err := h2c(t).Get(s.gateway.URL() + "/p4/cut-" + how)
		if err != nil {
			continue // the head was not sent yet
		}
		if _, err := drain(resp); err == nil {
			t.Errorf("%s over HTTP/2: a whole answer %d", how, resp.StatusCode)
		}
	}
}

func noInstance(t *testing.T, s *site) {
	o := startOrigin(t)
	s.register("p6", "p6-1", o.addr)
	s.route("p6")
	s.deregister("p6-1")
	a := s.eventually("nobody is left", "/p6/x", func(a answer) bool { return a.Status != http.StatusOK })
	equal(t, "answer", fmt.Sprint(a.Status, " ", a.Code), "503 no_healthy_instance")
	equal(t, "has Retry-After", a.Header.Get("Retry-After") != "", true)
	s.register("p6", "p6-1", o.addr)
	s.eventually("it is back", "/p6/x", func(a answer) bool { return a.Status == http.StatusOK })
}

// Both instances were used at the same time; the connections to the one that
// leaves must not wait until they were idle for too long, as the other's do.
func leaverHungUpOn(t *testing.T, s *site) {
	closed := make(chan string, 16)
	for _, id := range []string{"leaves", "stays"} {
		instance := httptest.NewUnstartedServer(http.NotFoundHandler())
		instance.Config.ConnState = func(_ net.Conn, state http.ConnState) {
			if state == http.StateClosed {
				closed <- id
			}
		}
		instance.Start()
		t.Cleanup(instance.Close)
		s.register("p6-hangup", id, instance.Listener.Addr().String())
	}
	s.etcd.Put("/sluice/routes/p6-hangup", `{"path":"/p6-hangup","service":"p6-hangup"}`)
	s.awaitHealthy("p6-hangup", 2)
	s.eventually("it answers", "/p6-hangup", func(a answer) bool { return a.Status == http.StatusNotFound && a.Code == "" })
	for range 4 {
		s.ask("GET", "/p6-hangup")
	}
	s.deregister("leaves")
	equal(t, "hung up on first", <-closed, "leaves")
}

// The flapping instance's check is set by hand; no request that begins after
// the gateway has seen it fail may meet it.
func instanceFlaps(t *testing.T, s *site) {
	s.service("p7", "p7-steady", "-linger", "0s")
	s.service("p7", "p7-flapping", "-linger", "0s", "-check", "none")
	s.route("p7")
	s.awaitHealthy("p7", 2)
	check := map[string]any{"ID": "flap", "Name": "flap", "ServiceID": "p7-flapping", "TTL": "10m", "Status": "passing"}
	s.agent("/v1/agent/check/register", check)
	before := s.status().Generation
	l := s.load("/p7/", true)
	type span struct{ from, to time.Time }
	var out []span
	const flips = 10
	for range flips {
		s.agent("/v1/agent/check/fail/flap", nil)
		s.awaitHealthy("p7", 1)
		seen := time.Now()
		l.more(10)
		out = append(out, span{seen, time.Now()})
		s.agent("/v1/agent/check/pass/flap", nil)
		s.awaitHealthy("p7", 2)
		l.more(10)
	}
	builds := s.status().Generation - before
	met := 0
	for _, sample := range l.Stop() {
		if sample.Tag != "p7-flapping" {
			continue
		}
		met++
		for _, o := range out {
			if sample.Start.After(o.from) && sample.Start.Add(sample.Took).Before(o.to) {
				t.Errorf("a request met the instance after its check had failed")
			}
		}
	}
	l.noneFailed()
	equal(t, "the flapping instance served while it passed", met > 0, true)
	if builds > 2*flips+5 {
		t.Errorf("%d tables were built for %d flips", builds, flips)
	}
}

func rollingRestart(t *testing.T, s *site) {
	instances := s.three("p8", "-delay", "10ms")
	l := s.load("/p8/", true)
	for _, in := range instances {
		in.Restart()
		s.awaitHealthy("p8", 3)
	}
	l.noneFailed()
}

// The instances stay in Consul as passing; each ends and comes back on its
// address. Only a POST that was under way at the time may fail.
func restartUnannounced(t *testing.T, s *site) {
	var instances []*testenv.Service
	for i := range 3 {
		id := fmt.Sprintf("p9-%d", i)
		sv := testenv.StartService(t, "p9", "-id", id, "-consul", "", "-linger", "0s", "-delay", "10ms")
		instances = append(instances, sv)
		s.register("p9", id, sv.Addr)
	}
	s.route("p9")
	s.awaitHealthy("p9", 3)
	gets, both := s.load("/p9/get", false), s.load("/p9/both", true)
	type span struct{ from, to time.Time }
	var ends []span
	for _, in := range instances {
		from := time.Now()
		in.Stop()
		ends = append(ends, span{from, time.Now()})
		gets.more(rate / 4)
		in.Restart()
		gets.more(rate / 4)
	}
	gets.noneFailed()
	for _, f := range both.failures() {
		underWay := false
		for _, e := range ends {
			underWay = underWay || f.Start.Before(e.to) && f.Start.Add(f.Took).After(e.from)
		}
		if !underWay {
			t.Errorf("a request that met no ending instance failed: %d %v", f.Status, f.Err)
		}
	}
}

// The old routes send /p10/N to old as /v1/N, the new ones to new as /v2/N.
func hundredRoutesMove(t *testing.T, s *site) {
	s.service("p10-old", "old", "-linger", "0s")
	s.service("p10-new", "new", "-linger", "0s")
	documents := func(service, version string) map[string]string {
		out := map[string]string{}
		for i := range 100 {
			out[fmt.Sprintf("/sluice/routes/p10-%d", i)] = fmt.Sprintf(`{"path":"/p10/%d","service":%q,"rewrite":"/%s/%d"}`, i, service, version, i)
		}
		return out
	}
	s.etcd.Apply(documents("p10-old", "v1"))
	s.eventually("the old routes serve", "/p10/99", func(a answer) bool { return a.Instance == "old" })
	l := s.mixedLoad()
	for i := range 4 {
		to, version := "p10-new", "v2"
		if i%2 == 1 {
			to, version = "p10-old", "v1"
		}
		s.etcd.Apply(documents(to, version))
		instance := strings.TrimPrefix(to, "p10-")
		s.eventually("the first route moves", "/p10/0", func(a answer) bool { return a.Instance == instance })
		for n := range 100 {
			path := fmt.Sprintf("/p10/%d", n)
			equal(t, path+" as soon as the first has moved", s.ask("GET", path).Instance, instance)
		}
	}
	answers := map[string]int{}
	for _, sample := range l.Stop() {
		answers[sample.Tag]++
	}
	l.noneFailed()
	if answers["old /v1"] == 0 || answers["new /v2"] == 0 || len(answers) != 2 {
		t.Errorf("instance and path were %v", answers)
	}
}

// TestP11TheGatewayEndsUnderLoad ends one gateway of two. The load goes where
// a load balancer would send it: away from a gateway that is not ready.
func TestP11TheGatewayEndsUnderLoad(t *testing.T) {
	const leave = "log: {access: false}\nshutdown: {delay: 1s, timeout: 2s}\n"
	s := newSite(t, testenv.GatewayOptions{Extra: leave})
	second := testenv.StartGateway(t, testenv.GatewayOptions{Name: "second", Consul: s.consul.URL(), Etcd: s.etcd.Endpoint, Extra: leave})
	s.three("orders", "-delay", "20ms")
	socket := startSocketOrigin(t)
	s.register("socket", "socket-1", socket)
	s.route("orders")
	s.etcd.Put("/sluice/routes/socket", `{"path":"/socket","service":"socket"}`)
	other := s.at(t)
	other.gateway = second
	other.eventually("the second gateway serves", "/orders/x", func(a answer) bool { return a.Status == http.StatusOK })
	open := openSocket(t, s)

	l := s.load("/orders/", true)
	if err := syscall.Kill(s.gateway.Pid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, wait, "it says that it is not ready", func() bool {
		resp, err := http.Get(s.gateway.AdminURL() + "/readyz")
		if err != nil {
			t.Fatalf("not ready must come before the end: %v", err)
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusServiceUnavailable
	})
	a := s.ask("POST", "/orders/x")
	equal(t, "a request after it is not ready", a.Status, http.StatusOK)
	l.aim(second)
	equal(t, "the WebSocket's last frame", closeStatus(open), 1001)
	testenv.Eventually(t, wait, "the gateway is gone", func() bool { return !s.gateway.Running() })
	l.more(rate / 2)
	l.noneFailed()
}
