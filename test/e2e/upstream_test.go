package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/routing"
	"github.com/sluice-gateway/sluice/test/testenv"
)

// newFixed is a site whose services are lists of targets: it has no Consul.
func newFixed(t *testing.T, o testenv.GatewayOptions) *site {
	t.Helper()
	s := &site{t: t, etcd: testenv.StartEtcd(t)}
	o.Etcd = s.etcd.Endpoint
	s.gateway = testenv.StartGateway(t, o)
	return s
}

// fixed puts a service with targets behind the route /NAME/* and waits until
// the gateway serves by it. fields are members of the service document.
func (s *site) fixed(name, fields string, targets ...string) {
	s.t.Helper()
	var list []string
	for _, a := range targets {
		list = append(list, fmt.Sprintf(`{"address":%q}`, a))
	}
	if fields != "" {
		fields = "," + fields
	}
	s.apply(map[string]string{
		"/sluice/services/" + name: fmt.Sprintf(`{"targets":[%s]%s}`, strings.Join(list, ","), fields),
		"/sluice/routes/" + name:   fmt.Sprintf(`{"path":"/%s/*","service":%q}`, name, name),
	})
}

// apply writes documents and waits until the gateway serves by them.
func (s *site) apply(documents map[string]string) {
	s.t.Helper()
	revision := s.etcd.Apply(documents)
	testenv.Eventually(s.t, wait, "the gateway serves by what was put", func() bool { return s.status().Revision >= revision })
	equal(s.t, "problems", s.problems(), []string{})
}

// bothEngines runs test with each client that speaks HTTP/1.1 to instances;
// engine is the member of a service document that chooses it.
func bothEngines(t *testing.T, s *site, test func(s *site, name, engine string)) {
	for _, name := range []string{routing.EngineFast, routing.EngineStd} {
		t.Run(name, func(t *testing.T) { test(s.at(t), name, fmt.Sprintf(`"upstream":{"engine":%q}`, name)) })
	}
}

// Row 54: whatever an instance writes before its answer, it ends as a 502.
func TestRow54EndlessHeadsOfAnInstance(t *testing.T) {
	s := newFixed(t, testenv.GatewayOptions{})
	endless := func(begin, again string) string {
		again = strings.Repeat(again, 1+(64<<10)/len(again))
		return startScript(t, func(c net.Conn) {
			_, err := io.WriteString(c, begin)
			for err == nil {
				_, err = io.WriteString(c, again)
			}
		})
	}
	bothEngines(t, s, func(s *site, name, engine string) {
		for what, addr := range map[string]string{
			"line":     endless("HTTP/1.1 200 OK\r\nX: ", "aaaaaaaa"),
			"lines":    endless("HTTP/1.1 200 OK\r\n", "X: a\r\n"),
			"informed": endless("", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"),
			"interim":  endless("HTTP/1.1 100 Continue\r\nX: ", "aaaaaaaa"),
		} {
			s.fixed(name+"-"+what, engine, addr)
			a := s.ask("GET", "/"+name+"-"+what+"/x")
			equal(s.t, what, fmt.Sprint(a.Status, " ", a.Code), "502 upstream_error")
		}
	})
	t.Run("HTTP/2", func(t *testing.T) {
		instance := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/line") {
				w.Header().Set("X", strings.Repeat("a", 20<<20))
				return
			}
			w.Header().Set("Link", "</a>")
			for r.Context().Err() == nil {
				w.WriteHeader(http.StatusEarlyHints)
			}
		}))
		instance.Config.Protocols = new(http.Protocols)
		instance.Config.Protocols.SetUnencryptedHTTP2(true)
		instance.Start()
		t.Cleanup(instance.Close)
		s := s.at(t)
		s.fixed("h2c", `"protocol":"h2c"`, instance.Listener.Addr().String())
		for _, what := range []string{"line", "informed"} {
			a := s.ask("GET", "/h2c/"+what)
			equal(t, what, fmt.Sprint(a.Status, " ", a.Code), "502 upstream_error")
		}
	})
}

// Row 81: one instance of two carries requests out and resets the connection.
func TestRow81APostThatWasCarriedOutRunsOnce(t *testing.T) {
	s := newFixed(t, testenv.GatewayOptions{})
	bothEngines(t, s, func(s *site, name, engine string) {
		good := startOrigin(s.t)
		ran := make(chan string, 1024)
		resets := startScript(s.t, func(c net.Conn) {
			req, err := http.ReadRequest(bufio.NewReader(c))
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, req.Body)
			ran <- req.RequestURI
			_ = c.(*net.TCPConn).SetLinger(0)
		})
		s.fixed(name, engine+`,"retry":{"attempts":1,"budget_percent":100},"outlier":{"max_ejection_percent":0}`, good.addr, resets)
		for _, kind := range []string{"plain", "keyed", "large"} {
			statuses := map[string]int{}
			for i := range 30 {
				path := fmt.Sprintf("/%s/%s/%d", name, kind, i)
				body := "small"
				if kind == "large" {
					body = strings.Repeat("l", 200<<10)
				}
				req, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, s.gateway.URL()+path, strings.NewReader(body))
				if err != nil {
					s.t.Fatal(err)
				}
				if kind == "keyed" {
					req.Header.Set("Idempotency-Key", path)
				}
				if statuses[path], err = status(&http.Client{}, req); err != nil {
					s.t.Fatal(err)
				}
			}
			times := map[string]int{}
			for _, seen := range good.take() {
				times[seen.Target]++
			}
			met := 0
			for ; len(ran) > 0; met++ {
				path := <-ran
				times[path]++
				want, runs := http.StatusBadGateway, 1
				if kind == "keyed" {
					want, runs = http.StatusOK, 2
				}
				if statuses[path] != want || times[path] != runs {
					s.t.Errorf("%s ran %d times, and the client got %d", path, times[path], statuses[path])
				}
				delete(times, path)
				delete(statuses, path)
			}
			equal(s.t, kind+": some met the instance that resets", met > 0, true)
			for path, code := range statuses {
				if code != http.StatusOK || times[path] != 1 {
					s.t.Errorf("%s ran %d times, and the client got %d", path, times[path], code)
				}
			}
		}
	})
}

// P17: the breaker opens when a service fails, lets one probe a second
// through, and closes when that succeeds. What clients do opens nothing.
func TestP17TheBreakerOpensProbesAndCloses(t *testing.T) {
	var status, hits atomic.Int64
	instance := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return
		}
		hits.Add(1)
		w.WriteHeader(int(status.Load()))
	}))
	t.Cleanup(instance.Close)
	s := newFixed(t, testenv.GatewayOptions{})
	s.fixed("p17", `"circuit_breaker":{"error_percent":50,"min_requests":10,"window":"10s","open_for":"1s"},"outlier":{"max_ejection_percent":0}`,
		instance.Listener.Addr().String())
	open := func() float64 { return s.metric("sluice_circuit_open{", `service="p17"`) }

	status.Store(http.StatusNotFound)
	for range 20 {
		equal(t, "an answer that blames the client", s.ask("GET", "/p17/x").Status, http.StatusNotFound)
		for _, broken := range []string{
			"POST /p17/x HTTP/1.1\nHost: a\nContent-Length: 100000\n\ncut",
			"POST /p17/x HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\n\n3\ncut",
			"POST /p17/x HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\n\nno chunk\n",
		} {
			w := dial(t, s.gateway.Addr)
			w.send(crlf(broken))
			_ = w.Close()
		}
	}
	neutral := func() float64 {
		return s.metric("sluice_upstream_requests_total{", `service="p17"`, `result="neutral"`)
	}
	testenv.Eventually(t, wait, "the broken requests have ended", func() bool { return neutral() >= 40 })
	equal(t, "open after what clients did", open(), 0)

	status.Store(http.StatusInternalServerError)
	var last time.Time // before the request that opened it at the latest
	for {
		begun := time.Now()
		a := s.ask("GET", "/p17/x")
		if a.Code == "circuit_open" {
			equal(t, "answer while it is open", fmt.Sprint(a.Status, " ", a.Header.Get("Retry-After") != ""), "503 true")
			break
		}
		equal(t, "answer before it opens", a.Status, http.StatusInternalServerError)
		last = begun
	}
	equal(t, "sluice_circuit_open", open(), 1)
	before := hits.Load()
	for hits.Load() < before+3 {
		s.ask("GET", "/p17/x")
		if probes, most := hits.Load()-before, int64(time.Since(last)/time.Second); probes > most {
			t.Fatalf("%d probes in less than %d s", probes, most+1)
		}
	}
	status.Store(http.StatusOK)
	s.eventually("it closes", "/p17/x", func(a answer) bool { return a.Status == http.StatusOK })
	equal(t, "sluice_circuit_open", open(), 0)
	for range 50 {
		equal(t, "a request after that", s.ask("GET", "/p17/x").Status, http.StatusOK)
	}
}

// P19: while most instances pass their checks the others get nothing; once
// most fail, traffic spreads over all instead of piling up on the rest.
func TestP19MostInstancesFailTheirChecks(t *testing.T) {
	var failing [5]atomic.Bool
	var hits [5]atomic.Int64
	var addrs []string
	for i := range 5 {
		instance := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/healthz" {
				hits[i].Add(1)
			} else if failing[i].Load() {
				w.WriteHeader(http.StatusInternalServerError)
			}
		}))
		t.Cleanup(instance.Close)
		addrs = append(addrs, instance.Listener.Addr().String())
	}
	s := newFixed(t, testenv.GatewayOptions{})
	s.fixed("p19", `"health_check":{"path":"/healthz","interval":"100ms","timeout":"10s","unhealthy_after":1}`, addrs...)
	spread := func(unhealthy int) (got []int64) {
		t.Helper()
		testenv.Eventually(t, wait, fmt.Sprintf("%d are unhealthy", unhealthy), func() bool {
			n := 0
			for _, in := range s.instances("p19") {
				if in.State == "unhealthy" {
					n++
				}
			}
			return n == unhealthy
		})
		for i := range hits {
			hits[i].Store(0)
		}
		for range 60 {
			equal(t, "a request", s.ask("GET", "/p19/x").Status, http.StatusOK)
		}
		for i := range hits {
			got = append(got, hits[i].Load())
		}
		return got
	}
	equal(t, "all pass", spread(0), []int64{12, 12, 12, 12, 12})
	failing[0].Store(true)
	failing[1].Store(true)
	got := spread(2)
	equal(t, "two of five fail", fmt.Sprint(got[0], got[1], got[2]+got[3]+got[4]), "0 0 60")
	failing[2].Store(true)
	equal(t, "three of five fail", spread(3), []int64{12, 12, 12, 12, 12})
	failing[2].Store(false)
	got = spread(2)
	equal(t, "one is back", fmt.Sprint(got[0], got[1], got[2]+got[3]+got[4]), "0 0 60")
}
