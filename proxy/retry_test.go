package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/routing"
	"github.com/sluice-gateway/sluice/routing/balance"
)

// breaking accepts a request and then resets the connection.
func breaking(t *testing.T, hits *atomic.Int64) *hostile {
	return newHostile(t, func(_ int, c *net.TCPConn, br *bufio.Reader) {
		if readHead(br) != nil {
			hits.Add(1)
		}
		reset(c)
	})
}

func echo(w http.ResponseWriter, r *http.Request) {
	b, _ := io.ReadAll(r.Body)
	fmt.Fprintf(w, "%s %s", r.Method, b)
}

func TestRetryRules(t *testing.T) {
	small, large := strings.Repeat("s", 60<<10), strings.Repeat("l", 1<<20)
	tests := []struct {
		name          string
		method, body  string
		header        string
		first         string // refuses, breaks, answers 503
		retries       int
		code          int
		firstHits     int64
		result, retry string
	}{
		{name: "a refused connection is tried elsewhere", method: "GET", first: "refuses", retries: 1, code: 200, result: "unreachable", retry: "connect"},
		{name: "also with a POST: nothing was sent", method: "POST", body: large, first: "refuses", retries: 1, code: 200, result: "unreachable", retry: "connect"},
		{name: "a broken GET is tried elsewhere", method: "GET", first: "breaks", retries: 1, code: 200, firstHits: 1, result: "broken", retry: "reset"},
		{name: "a broken PUT with a small body is replayed", method: "PUT", body: small, first: "breaks", retries: 1, code: 200, firstHits: 1, result: "broken", retry: "reset"},
		{name: "a broken DELETE is tried elsewhere", method: "DELETE", first: "breaks", retries: 1, code: 200, firstHits: 1, result: "broken", retry: "reset"},
		{name: "row 81: a broken POST ran once and stays broken", method: "POST", body: small, first: "breaks", retries: 1, code: 502, firstHits: 1, result: "broken"},
		{name: "row 81: with an idempotency key it is replayed", method: "POST", body: small, header: "Idempotency-Key", first: "breaks", retries: 1, code: 200, firstHits: 1, result: "broken", retry: "reset"},
		{name: "a PATCH is not repeated", method: "PATCH", body: small, first: "breaks", retries: 1, code: 502, firstHits: 1, result: "broken"},
		{name: "no retries, no second attempt", method: "GET", first: "refuses", retries: 0, code: 502, result: "unreachable"},
		{name: "a status that qualifies is tried elsewhere", method: "GET", first: "answers 503", retries: 1, code: 200, firstHits: 1, result: "server_error", retry: "503"},
		{name: "but not for a POST", method: "POST", body: small, first: "answers 503", retries: 1, code: 503, firstHits: 1, result: "server_error"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var hits atomic.Int64
			var first string
			switch tt.first {
			case "refuses":
				first = refused(t)
			case "breaks":
				first = breaking(t, &hits).addr
			default:
				first = addrOf(upstream(t, func(w http.ResponseWriter, r *http.Request) {
					hits.Add(1)
					_, _ = io.Copy(io.Discard, r.Body)
					w.WriteHeader(503)
				}))
			}
			good := upstream(t, echo)
			g := newRig(t, first, addrOf(good))
			g.service.Retry.Statuses = []int{503}
			g.route.Retries = tt.retries
			// Round robin starts where it likes: the sticky cookie sends the
			// first attempt to the first instance.
			g.service.Sticky = &routing.StickySpec{Cookie: "at"}
			g.serve()
			req := g.request(tt.method, "/", strings.NewReader(tt.body))
			req.AddCookie(&http.Cookie{Name: "at", Value: stickyToken(g.service.All.Endpoints[0])})
			if tt.header != "" {
				req.Header.Set(tt.header, "k1")
			}
			resp, body, err := g.do(req)
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != tt.code || tt.code == 200 && body != tt.method+" "+tt.body {
				t.Errorf("got %d with %d bytes", resp.StatusCode, len(body))
			}
			x := g.exchange()
			want := 1
			if tt.retry != "" {
				want = 2
				if g.obs.of("retry "+tt.retry) != 1 {
					t.Errorf("no retry for %s: %v", tt.retry, g.obs.n)
				}
			}
			if x.Attempts != want || hits.Load() != tt.firstHits || g.obs.of(tt.result) != 1 {
				t.Errorf("%d attempts, %d hits, results %v", x.Attempts, hits.Load(), g.obs.n)
			}
			for _, e := range g.service.All.Endpoints {
				if e.InFlight() != 0 {
					t.Errorf("%s still has %d in flight", e.ID(), e.InFlight())
				}
			}
		})
	}
}

func TestALargePutThatBrokeIsNotReplayed(t *testing.T) {
	up := newHostile(t, func(_ int, c *net.TCPConn, br *bufio.Reader) {
		readHead(br)
		_, _ = io.CopyN(io.Discard, br, 200<<10)
		reset(c)
	})
	other := upstream(t, func(http.ResponseWriter, *http.Request) { t.Error("a body with a hole was sent") })
	g := newRig(t, up.addr, addrOf(other))
	g.service.Sticky = &routing.StickySpec{Cookie: "at"}
	g.serve()
	// Of unknown length, so that it is kept until it turns out too large.
	req := g.request("PUT", "/", io.MultiReader(strings.NewReader(strings.Repeat("l", 1<<20))))
	req.AddCookie(&http.Cookie{Name: "at", Value: stickyToken(g.service.All.Endpoints[0])})
	if resp, _, err := g.do(req); err == nil && resp.StatusCode != 502 {
		t.Errorf("got %d", resp.StatusCode)
	}
	if x := g.exchange(); x.Attempts != 1 {
		t.Errorf("%d attempts", x.Attempts)
	}
}

func TestRefusalsOfPick(t *testing.T) {
	t.Run("P6: no instance is 503 with Retry-After", func(t *testing.T) {
		g := newRig(t).serve()
		resp, body := g.mustGet("/")
		if resp.StatusCode != 503 || body != "no_healthy_instance" || resp.Header.Get("Retry-After") != "1" {
			t.Errorf("got %d %q %v", resp.StatusCode, body, resp.Header)
		}
	})
	t.Run("every instance was tried and none answered", func(t *testing.T) {
		g := newRig(t, refused(t), refused(t))
		g.route.Retries = 5
		g.serve()
		resp, body := g.mustGet("/")
		if x := g.exchange(); resp.StatusCode != 502 || body != "upstream_unreachable" || x.Attempts != 2 {
			t.Errorf("got %d %q after %d attempts", resp.StatusCode, body, x.Attempts)
		}
	})
	t.Run("the bound on requests in flight", func(t *testing.T) {
		hold := make(chan struct{})
		up := upstream(t, func(http.ResponseWriter, *http.Request) { <-hold })
		g := newRig(t)
		g.policy.MaxInFlight = 1
		g.instances(addrOf(up))
		g.serve()
		var first sync.WaitGroup
		first.Go(func() { g.mustGet("/") })
		eventually(t, "one in flight", func() bool { return g.service.Group.InFlight() == 1 })
		resp, body := g.mustGet("/")
		if resp.StatusCode != 503 || body != "overloaded" || resp.Header.Get("Retry-After") != "1" {
			t.Errorf("got %d %q", resp.StatusCode, body)
		}
		close(hold)
		first.Wait()
	})
	t.Run("P17: an open circuit", func(t *testing.T) {
		up := upstream(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) })
		g := newRig(t)
		g.policy = balance.Policy{Kind: balance.RoundRobin, ErrorPercent: 50, MinRequests: 3, Window: time.Minute, OpenFor: time.Minute}
		g.instances(addrOf(up))
		g.serve()
		for range 3 {
			g.mustGet("/")
		}
		if resp, body := g.mustGet("/"); resp.StatusCode != 503 || body != "circuit_open" {
			t.Errorf("got %d %q", resp.StatusCode, body)
		}
	})
}

// Row 82: when every instance fails, retries stay within their budget.
func TestRow82RetriesAreBudgeted(t *testing.T) {
	var hits atomic.Int64
	fail := func(w http.ResponseWriter, _ *http.Request) { hits.Add(1); w.WriteHeader(503) }
	g := newRig(t)
	g.policy = balance.Policy{Kind: balance.RoundRobin}
	g.instances(addrOf(upstream(t, fail)), addrOf(upstream(t, fail)))
	g.service.Retry.Statuses = []int{503}
	g.serve()
	const requests = 300
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	for range requests {
		resp, err := client.Do(g.request("GET", "/", nil))
		if err != nil || resp.StatusCode != 503 {
			t.Fatalf("%v %v", resp, err)
		}
		resp.Body.Close()
	}
	if n := hits.Load(); n > requests*12/10 {
		t.Errorf("%d hits for %d requests", n, requests)
	}
}

// P9: where the policy lets no more instances be left out, every request to
// one that is being restarted needs a retry. It is no load to anybody.
func TestP9RefusedConnectionsCostNoBudget(t *testing.T) {
	g := newRig(t)
	g.policy = balance.Policy{Kind: balance.RoundRobin} // nobody is left out
	g.instances(addrOf(upstream(t, func(http.ResponseWriter, *http.Request) {})), refused(t))
	g.serve()
	for i := range 100 {
		if resp, body := g.mustGet("/"); resp.StatusCode != http.StatusOK {
			t.Fatalf("request %d got %d %q", i, resp.StatusCode, body)
		}
	}
}

// P1: one of three instances dies. GETs do not notice, no POST runs twice.
func TestP1AnInstanceDies(t *testing.T) {
	var mu sync.Mutex
	ran := map[string]int{}
	handler := func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		ran[r.URL.Path]++
		mu.Unlock()
	}
	a, b, victim := upstream(t, handler), upstream(t, handler), upstream(t, handler)
	g := newRig(t, addrOf(a), addrOf(b), addrOf(victim)).serve()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}}
	defer client.CloseIdleConnections()
	var sent, failedPosts atomic.Int64
	var all sync.WaitGroup
	die := make(chan struct{})
	for worker := range 8 {
		all.Go(func() {
			for i := range 100 {
				if worker == 0 && i == 30 {
					close(die)
				}
				method := []string{"GET", "POST"}[i%2]
				req := g.request(method, fmt.Sprintf("/%s/%d/%d", method, worker, i), nil)
				resp, err := client.Do(req)
				if err != nil {
					t.Error(err)
					return
				}
				resp.Body.Close()
				sent.Add(1)
				if resp.StatusCode != 200 {
					if method == "GET" {
						t.Errorf("GET got %d", resp.StatusCode)
					}
					failedPosts.Add(1)
				}
			}
		})
	}
	<-die
	victim.CloseClientConnections()
	victim.Listener.Close()
	victim.CloseClientConnections()
	all.Wait()
	if failedPosts.Load() > 16 {
		t.Errorf("%d of %d POSTs failed", failedPosts.Load(), sent.Load())
	}
	for path, n := range ran {
		if n > 1 && strings.HasPrefix(path, "/POST") {
			t.Errorf("%s ran %d times", path, n)
		}
	}
}

func TestHedge(t *testing.T) {
	release := make(chan struct{})
	var cancelled atomic.Int64
	slow := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
			cancelled.Add(1)
		case <-release:
		}
		_, _ = io.WriteString(w, "slow")
	})
	fast := upstream(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "fast") })
	setup := func(t *testing.T, second string) *rig {
		g := newRig(t, addrOf(slow), second)
		g.service.Hedge = 5 * time.Millisecond
		g.service.Sticky = &routing.StickySpec{Cookie: "at"}
		return g.serve()
	}
	ask := func(g *rig, method string) (string, routing.Exchange) {
		req := g.request(method, "/", nil)
		req.AddCookie(&http.Cookie{Name: "at", Value: stickyToken(g.service.All.Endpoints[0])})
		_, body, err := g.do(req)
		if err != nil {
			g.t.Fatal(err)
		}
		return body, g.exchange()
	}
	t.Run("the faster answer wins and the slower is cancelled", func(t *testing.T) {
		g := setup(t, addrOf(fast))
		body, x := ask(g, "GET")
		if body != "fast" || x.Attempts != 2 || x.Instance != "i1" || g.obs.of("retry hedge") != 1 {
			t.Errorf("got %q, %+v, %v", body, x, g.obs.n)
		}
		eventually(t, "the loser is neutral", func() bool { return g.obs.of("neutral") == 1 && cancelled.Load() == 1 })
	})
	t.Run("a second attempt that fails leaves the first", func(t *testing.T) {
		g := setup(t, refused(t))
		hedged := g.obs.once("retry hedge")
		go func() {
			select {
			case <-hedged:
			case <-t.Context().Done():
			}
			close(release)
		}()
		body, x := ask(g, "GET")
		if body != "slow" || x.Instance != "i0" {
			t.Errorf("got %q from %s", body, x.Instance)
		}
		eventually(t, "both attempts are counted", func() bool {
			return g.obs.of("unreachable")+g.obs.of("neutral") == 1 && g.obs.of("success") == 1
		})
	})
	t.Run("a POST is not hedged", func(t *testing.T) {
		g := setup(t, addrOf(fast))
		if body, x := ask(g, "POST"); body != "slow" || x.Attempts != 1 {
			t.Errorf("got %q, %+v", body, x)
		}
	})
}
