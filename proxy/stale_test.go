package proxy

import (
	"bufio"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/routing/balance"
)

// closing answers once and closes the connection when the next request has
// arrived on it, as a keep-alive race looks from outside.
func closing(t *testing.T, hits *atomic.Int64) *hostile {
	return newHostile(t, func(_ int, c *net.TCPConn, br *bufio.Reader) {
		if readHead(br) == nil {
			return
		}
		hits.Add(1)
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		readHead(br)
		reset(c)
	})
}

// With replay a POST costs nothing either, as long as its body is kept.
func TestD6P5ReplayMendsTheKeepAliveRace(t *testing.T) {
	for name, size := range map[string]int{"a small body": 1, "a body that is sent beside the answer": 60 << 10} {
		t.Run(name, func(t *testing.T) {
			var hits atomic.Int64
			up := closing(t, &hits)
			g := newRig(t, up.addr)
			g.service.Retry.Replay = true
			g.serve()
			for range 40 {
				resp, _, err := g.do(g.request("POST", "/", strings.NewReader(strings.Repeat("x", size))))
				if err != nil || resp.StatusCode != 200 {
					t.Fatalf("got %v, %v", resp, err)
				}
			}
			if hits.Load() != 40 {
				t.Errorf("%d ran", hits.Load())
			}
		})
	}
	t.Run("a body too large to keep", func(t *testing.T) {
		var hits atomic.Int64
		up := closing(t, &hits)
		g := newRig(t, up.addr)
		g.service.Retry.Replay = true
		g.serve()
		failed := 0
		for range 40 {
			resp, _, err := g.do(g.request("POST", "/", strings.NewReader(strings.Repeat("x", replayLimit+1))))
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode == 502 {
				failed++
			}
		}
		if failed == 0 || hits.Load() != int64(40-failed) {
			t.Errorf("%d failed, %d ran", failed, hits.Load())
		}
	})
}

// D6, D7 and P5: a connection that had been idle and is found closed costs a
// GET nothing, costs a POST at most itself, and never speaks against the
// instance.
func TestD6D7P5KeepAliveRace(t *testing.T) {
	for _, method := range []string{"GET", "PUT", "POST"} {
		t.Run(method, func(t *testing.T) {
			var hits atomic.Int64
			up := closing(t, &hits)
			g := newRig(t)
			g.policy = balance.Policy{Kind: balance.RoundRobin, ConsecutiveFailures: 1, BaseEjection: time.Minute, MaxEjectionPercent: 100,
				ErrorPercent: 1, MinRequests: 1, Window: time.Minute, OpenFor: time.Minute}
			g.instances(up.addr)
			g.serve()
			failed := 0
			for range 40 {
				var body io.Reader
				if method != "GET" {
					body = strings.NewReader("x")
				}
				resp, _, err := g.do(g.request(method, "/", body))
				if err != nil {
					t.Fatal(err)
				}
				switch {
				case resp.StatusCode == 200:
				case resp.StatusCode == 502 && method == "POST":
					failed++
				default:
					t.Fatalf("got %d", resp.StatusCode)
				}
			}
			if state, reason, _ := g.service.All.Endpoints[0].Status(); state != balance.Healthy {
				t.Errorf("the instance is %s: %s", state, reason)
			}
			for _, bad := range []string{"broken", "unreachable", "timed_out"} {
				if g.obs.of(bad) != 0 {
					t.Errorf("results %v", g.obs.n)
				}
			}
			if method == "POST" && (failed == 0 || hits.Load() != int64(40-failed)) {
				t.Errorf("%d failed, %d ran", failed, hits.Load())
			}
		})
	}
}
