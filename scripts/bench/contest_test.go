package main

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestReadWrk(t *testing.T) {
	const right = `Running 2s test @ http://127.0.0.1:18902/
  1 threads and 64 connections
  365662 requests in 25.09s, 417.77MB read
Requests/sec:  14572.13
Transfer/sec:     16.65MB
`
	for name, c := range map[string]struct {
		text           string
		requests, rate float64
		wrong          bool
	}{
		"an ordinary report": {text: right, requests: 365662, rate: 14572.13},
		"errors":             {text: right + "  Socket errors: connect 0, read 3, write 0, timeout 0\n", wrong: true},
		"refusals":           {text: right + "  Non-2xx or 3xx responses: 12\n", wrong: true},
		"no request":         {text: strings.Replace(right, "365662", "0", 1), wrong: true},
		"something else":     {text: "unable to connect", wrong: true},
	} {
		t.Run(name, func(t *testing.T) {
			requests, rate, err := readWrk(c.text)
			if (err != nil) != c.wrong || requests != c.requests || !c.wrong && rate != c.rate {
				t.Errorf("got %v, %v, %v", requests, rate, err)
			}
		})
	}
}

func TestReadH2load(t *testing.T) {
	const right = `finished in 2.00s, 15617.00 req/s, 17.1MB/s
requests: 31234 total, 31298 started, 31234 done, 31234 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 31234 2xx, 0 3xx, 0 4xx, 0 5xx
`
	for name, c := range map[string]struct {
		text     string
		requests float64
	}{
		"an ordinary report": {right, 31234},
		"a refusal":          {strings.Replace(right, "0 failed", "1 failed", 1), 0},
		"a time-out":         {strings.Replace(right, "0 timeout", "1 timeout", 1), 0},
		"no request":         {strings.ReplaceAll(right, "31234", "0"), 0},
		"something else":     {"could not connect", 0},
	} {
		t.Run(name, func(t *testing.T) {
			requests, err := readH2load(c.text)
			if (err == nil) != (c.requests > 0) || err == nil && requests != c.requests {
				t.Errorf("got %v, %v", requests, err)
			}
		})
	}
}

func TestReadMetric(t *testing.T) {
	const text = "# HELP go_mallocs_total Objects.\ngo_mallocs_total_more 1\ngo_mallocs_total 9.90112e+06\n"
	if n, err := readMetric(text, "go_mallocs_total"); err != nil || n != 9901120 {
		t.Errorf("got %v, %v", n, err)
	}
	if n, err := readMetric(text, "go_frees_total"); err == nil {
		t.Errorf("got %v for a metric that is not there", n)
	}
}

func TestTheMedianIsOfTheRoundsAndLeavesThemAsTheyAre(t *testing.T) {
	rounds := []float64{9, 1, 5}
	if got := median(rounds); got != 5 || !slices.Equal(rounds, []float64{9, 1, 5}) {
		t.Errorf("got %v of %v", got, rounds)
	}
	if got := median([]float64{4, 2}); got != 4 {
		t.Errorf("got %v of two", got)
	}
}

func TestAContenderIsJudgedBesideAnother(t *testing.T) {
	nginx := &contender{name: "nginx", pid: 1, cost: []float64{10}, rate: []float64{1000}, slow: spreads{p50: ms(1), p99: ms(2)}}
	nginx.beside = nginx
	own := &contender{name: "own", pid: 2, beside: nginx, cost: []float64{24}, rate: []float64{500}, allocs: []float64{18.04},
		slow: spreads{p50: ms(2), p99: ms(3)}, paced: []float64{120}}
	gone := &contender{name: "gone", beside: nginx}
	for name, c := range map[string]struct{ got, want figure }{
		"the one beside": {nginx.figure(0), figure{measure: "nginx", value: "10.0 µs a request, 1.00 × nginx, 1000 requests/s"}},
		"within": {own.figure(2.4), figure{measure: "own", value: "24.0 µs a request, 2.40 × nginx, 500 requests/s, 18.0 allocations",
			target: "≤ 2.40 × nginx", met: true}},
		"over": {own.figure(2.3), figure{measure: "own", value: "24.0 µs a request, 2.40 × nginx, 500 requests/s, 18.0 allocations",
			target: "≤ 2.30 × nginx"}},
		"of a MiB":    {nginx.costOf("a MiB", 10, 0), figure{measure: "nginx", value: "1.0 µs a MiB, 1.00 × nginx, 1000 requests/s"}},
		"not on PATH": {gone.figure(1), figure{measure: "gone", value: "not on PATH"}},
		"as quick": {own.latency(1.5), figure{measure: "own, 2500 requests/s", value: "2.00 ms, 2.00 × nginx; 120 µs of processor time a request", p99: "3.00 ms, 1.50 ×",
			target: "p99 ≤ 1.50 × nginx", met: true}},
		"slower": {own.latency(1.4), figure{measure: "own, 2500 requests/s", value: "2.00 ms, 2.00 × nginx; 120 µs of processor time a request", p99: "3.00 ms, 1.50 ×",
			target: "p99 ≤ 1.40 × nginx"}},
		"quick, not on PATH": {gone.latency(1), figure{measure: "gone", value: "not on PATH"}},
	} {
		if c.got != c.want {
			t.Errorf("%s: got %+v, want %+v", name, c.got, c.want)
		}
	}
}

func ms(n int) []time.Duration { return []time.Duration{time.Duration(n) * time.Millisecond} }

func TestEveryRoundVisitsEveryContenderThatIsHere(t *testing.T) {
	all := []*contender{{name: "a", pid: 1}, {name: "gone"}, {name: "b", pid: 2}}
	var visits []string
	takeTurns(settings{rounds: 2}, all,
		func(c *contender) { visits = append(visits, "warm "+c.name) },
		func(c *contender) { visits = append(visits, c.name) })
	if want := []string{"warm a", "warm b", "a", "b", "a", "b"}; !slices.Equal(visits, want) {
		t.Errorf("got %v, want %v", visits, want)
	}
	if len(all) != 3 || all[1].name != "gone" {
		t.Errorf("the contenders are now %v", all)
	}
}

func TestAConnectionsShareOfMemory(t *testing.T) {
	r := residence{idle: 20 << 20, held: 20<<20 + idleConnections*24<<10}
	if got := r.each(); got != 24 {
		t.Errorf("%v KB", got)
	}
}

func TestAnOpenLoopSendsWhatIsDueAndTimesEveryAnswer(t *testing.T) {
	var asked atomic.Int64
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		_, _ = w.Write([]byte(r.URL.Path))
	}))
	defer up.Close()
	o := openLoop{hostOf(up.URL), 1000, 3, func(int) []byte { return get("/x") }}
	took, err := o.run(50 * time.Millisecond)
	if counted := 50 - 3*firstAnswers; err != nil || len(took) != counted || asked.Load() != 50 {
		t.Fatalf("%d times of %d requests, %v", len(took), asked.Load(), err)
	}
	if slices.Min(took) <= 0 {
		t.Errorf("a request took %s", slices.Min(took))
	}
}

func TestAnOpenLoopFailsWithAnAnswerThatIsNo200(t *testing.T) {
	up := httptest.NewServer(http.NotFoundHandler())
	defer up.Close()
	o := openLoop{hostOf(up.URL), 1000, 1, func(int) []byte { return get("/x") }}
	if _, err := o.run(time.Millisecond); err == nil {
		t.Error("no error")
	}
	up.Close()
	if _, err := o.run(time.Millisecond); err == nil {
		t.Error("no error where nobody listens")
	}
}
