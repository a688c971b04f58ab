package middleware

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"

	"github.com/sluice-gateway/sluice/routing"
)

// metric reads a series by its name and its labels as k="v",… in order of
// name; -1 where there is none.
func (g *gateway) metric(name, labels string) float64 {
	g.t.Helper()
	for got, m := range g.series(name) {
		if got == labels {
			switch {
			case m.Counter != nil:
				return m.Counter.GetValue()
			case m.Gauge != nil:
				return m.Gauge.GetValue()
			case m.Histogram != nil:
				return float64(m.Histogram.GetSampleCount())
			}
		}
	}
	return -1
}

func (g *gateway) series(name string) map[string]*dto.Metric {
	g.t.Helper()
	families, err := g.registry.Gather()
	if err != nil {
		g.t.Fatal(err)
	}
	out := map[string]*dto.Metric{}
	for _, f := range families {
		if name != "" && f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			var pairs []string
			for _, l := range m.GetLabel() {
				pairs = append(pairs, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
			}
			key := strings.Join(pairs, ",")
			if name == "" {
				key = f.GetName() + "{" + key + "}"
			}
			out[key] = m
		}
	}
	return out
}

func TestTheAccessLogHasOneLineWithAllThatHappened(t *testing.T) {
	g := newGateway(t, setup{})
	g.upstream.answer = func(w http.ResponseWriter, _ *http.Request, x *routing.Exchange) *routing.Refusal {
		x.Subset, x.Instance, x.Attempts, x.FirstByte = "green", "n1/orders-1", 2, 3*time.Millisecond
		w.WriteHeader(201)
		_, _ = w.Write([]byte("12345"))
		return nil
	}
	r, w := newRequest("POST", "http://shop.test/orders?token=secret")
	r.Header.Set("User-Agent", "probe")
	g.engine.ServeHTTP(w, r)
	var got map[string]any
	if err := json.Unmarshal([]byte(g.log.String()), &got); err != nil {
		t.Fatalf("%v in %q", err, g.log.String())
	}
	for _, k := range []string{"time", "duration", "request_id"} {
		if got[k] == nil {
			t.Errorf("%s is missing", k)
		}
		delete(got, k)
	}
	want := map[string]any{
		"level": "INFO", "msg": "request", "client": "192.0.2.1", "method": "POST", "host": "shop.test",
		"path": "/orders", "proto": "HTTP/1.1", "status": 201.0, "bytes": 5.0, "user_agent": "probe",
		"route": "any", "service": "any", "subset": "green", "instance": "n1/orders-1",
		"attempts": 2.0, "first_byte": 3e6,
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the line is\n%v, want\n%v", got, want)
	}
}

func TestTheAccessLogCanBeOffAndLeavesProbesOut(t *testing.T) {
	g := newGateway(t, setup{config: func(c *Config) { c.AccessLog = false }})
	r, w := newRequest("GET", "/")
	g.engine.ServeHTTP(w, r)
	if g.log.String() != "" {
		t.Errorf("log: %s", g.log)
	}
	g = newGateway(t, setup{})
	r, w = newRequest("GET", "/health")
	g.engine.ServeHTTP(w, r)
	if g.log.String() != "" || w.Body.String() != `{"status":"ok"}`+"\n" {
		t.Errorf("log %q, answer %q", g.log, w.Body)
	}
}

func TestRow87NothingAClientSendsBreaksTheLine(t *testing.T) {
	for _, c := range []struct{ name, path, host, agent string }{
		{"line breaks", "/a\r\n{\"level\":\"x\"}", "a", "x\r\ny"},
		{"terminal sequences", "/\x1b[31m", "a", "\x1b]0;title\x07"},
		{"quotes and bytes that are no text", "/\"\\\x80\xff", "a\"b", "\xff\""},
		{"length", "/" + strings.Repeat("long/", 5000), strings.Repeat("h", 5000), strings.Repeat("z", 5000)},
		{"a character cut in two", "/" + strings.Repeat("é", 400), "a", strings.Repeat("é", 400)},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newGateway(t, setup{})
			r, w := newRequest("GET", "/")
			r.RequestURI, r.Host = c.path, c.host
			r.Header["User-Agent"] = []string{c.agent}
			g.engine.ServeHTTP(w, r)
			var v map[string]any
			line := g.log.String()
			if err := json.Unmarshal([]byte(line), &v); err != nil {
				t.Errorf("%v in %q", err, line)
			}
			if len(line) > 2000 || strings.Count(line, "\n") != 1 || strings.ContainsRune(line, 0x1b) {
				t.Errorf("the line is %q", line)
			}
		})
	}
}

func TestRow89NothingAClientSendsIsALabel(t *testing.T) {
	g := newGateway(t, setup{routes: map[string]string{"a": `{"path":"/a/*","service":"s"}`}})
	ask := func(method, target string) {
		r, w := newRequest(method, target)
		r.Header.Set("Content-Type", "application/grpc")
		g.engine.ServeHTTP(w, r)
	}
	ask("GET", "/a/0")
	ask("GET", "/missing/0")
	before := len(g.series(""))
	for i := range 10000 {
		ask(fmt.Sprintf("M%d", i), fmt.Sprintf("http://h%d.test/a/%d", i, i))
		ask("GET", fmt.Sprintf("http://h%d.test/missing/%d", i, i))
	}
	if after := len(g.series("")); after != before {
		t.Errorf("%d series became %d", before, after)
	}
	if n := g.metric("sluice_requests_total", `code="200",route="a",service="s"`); n != 10001 {
		t.Errorf("%v requests of the route are counted", n)
	}
	if n := g.metric("sluice_requests_total", `code="404",route="",service=""`); n != 10001 {
		t.Errorf("%v unmatched requests are counted", n)
	}
}

func TestRow89SeriesLeaveWithTheirRoutes(t *testing.T) {
	g := newGateway(t, setup{})
	for i := range 50 {
		next := buildTable(t, g.tables.Load(), NewPlugins(quiet()), map[string]string{
			fmt.Sprintf("r%d", i): fmt.Sprintf(`{"path":"/*","service":"s%d"}`, i)})
		g.tables.Store(next)
		r, w := newRequest("GET", "/")
		g.engine.ServeHTTP(w, r)
		g.series("")
	}
	for _, name := range []string{"sluice_requests_total", "sluice_request_duration_seconds", "sluice_in_flight_requests"} {
		for labels := range g.series(name) {
			if !strings.Contains(labels, `"r49"`) && !strings.Contains(labels, `service="s49"`) && !strings.Contains(labels, `route=""`) {
				t.Errorf("%s{%s} is still there", name, labels)
			}
		}
	}
}

// The series of a route that left were dropped; its compiled form may come back.
func TestARouteThatComesBackIsCountedAgain(t *testing.T) {
	g := newGateway(t, setup{})
	with := buildTable(t, g.tables.Load(), NewPlugins(quiet()), map[string]string{"r": `{"path":"/*","service":"s"}`})
	without := buildTable(t, with, NewPlugins(quiet()), map[string]string{"other": `{"path":"/*","service":"s"}`})
	for round := range 3 {
		g.tables.Store(with)
		r, w := newRequest("GET", "/")
		g.engine.ServeHTTP(w, r)
		if n := g.metric("sluice_requests_total", `code="200",route="r",service="s"`); n != 1 {
			t.Errorf("round %d: %v requests are counted", round, n)
		}
		g.tables.Store(without)
		if left := g.series("sluice_request_duration_seconds"); len(left) > 1 {
			t.Errorf("round %d: left are %v", round, left)
		}
	}
}

func TestInFlightRequestsAreThoseUnderWay(t *testing.T) {
	g := start(t, setup{})
	hold := make(chan struct{})
	g.upstream.answer = func(w http.ResponseWriter, _ *http.Request, _ *routing.Exchange) *routing.Refusal {
		<-hold
		w.WriteHeader(200)
		return nil
	}
	w := g.dial()
	w.send("GET / HTTP/1.1\nHost: a\n\n")
	gauge := func() float64 { return g.metric("sluice_in_flight_requests", `service="any"`) }
	eventually(t, "the request is counted", func() bool { return gauge() == 1 })
	close(hold)
	_ = w.answer("GET")
	eventually(t, "the request is counted out", func() bool { return gauge() == 0 })
}
