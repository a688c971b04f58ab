package wire

import (
	"bufio"
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

func TestIdleConnections(t *testing.T) {
	idle := func(c *Client, at string) int {
		_, idle := c.Connections(at)
		return idle
	}
	// hold makes n exchanges at a time and ends them in order.
	hold := func(t *testing.T, c *Client, at string, n int) {
		var bodies []io.ReadCloser
		for range n {
			resp, err := c.RoundTrip(newRequest(t, t.Context(), "GET", at, ""), &note{}, true)
			if err != nil {
				t.Fatal(err)
			}
			bodies = append(bodies, resp.Body)
		}
		for _, b := range bodies {
			_, _ = io.Copy(io.Discard, b)
			b.Close()
		}
	}
	who := func(n int, c *net.TCPConn, br *bufio.Reader) {
		answers("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n"+string(rune('0'+n)))(n, c, br)
	}
	t.Run("the last one used is used first", func(t *testing.T) {
		at, c := peer(t, who), newClient(t, nil)
		hold(t, c, at, 3)
		for range 2 {
			if _, body, _, err := get(t, c, at); err != nil || body != "3" {
				t.Errorf("got %q, %v", body, err)
			}
		}
	})
	t.Run("there is a limit to their number", func(t *testing.T) {
		at, c := peer(t, answers(ok)), newClient(t, nil)
		if hold(t, c, at, 6); idle(c, at) != 4 {
			t.Errorf("%d are kept", idle(c, at))
		}
	})
	t.Run("they are closed in time, and nothing is left", func(t *testing.T) {
		closed := make(chan struct{}, 3)
		at := peer(t, func(n int, c *net.TCPConn, br *bufio.Reader) {
			answers(ok)(n, c, br)
			closed <- struct{}{}
		})
		c := newClient(t, func(c *Config) { c.IdleTimeout = 20 * time.Millisecond })
		hold(t, c, at, 3)
		for range 3 {
			<-closed
		}
		for held := true; held; {
			_, held = c.pool.shelves.Load(at)
		}
		if _, body, n, err := get(t, c, at); err != nil || body != "ok" || n.steps[1] != "fresh" {
			t.Errorf("got %q by %q, %v", body, n, err)
		}
	})
	t.Run("CloseIdle closes them, and those in use once they are free", func(t *testing.T) {
		at, c := peer(t, answers(ok)), newClient(t, nil)
		hold(t, c, at, 2)
		resp, err := c.RoundTrip(newRequest(t, t.Context(), "GET", at, ""), &note{}, true)
		if err != nil {
			t.Fatal(err)
		}
		c.CloseIdle()
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if idle(c, at) != 0 {
			t.Errorf("%d are kept", idle(c, at))
		}
		if hold(t, c, at, 1); idle(c, at) != 1 {
			t.Error("a later one is not kept")
		}
	})
	t.Run("one that broke is not kept", func(t *testing.T) {
		at, c := peer(t, answers(ok)), newClient(t, nil)
		resp, err := c.RoundTrip(newRequest(t, t.Context(), "GET", at, ""), &note{}, true)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close() // unread
		if _, err := resp.Body.Read(make([]byte, 1)); !errors.Is(err, errBodyClosed) || idle(c, at) != 0 {
			t.Errorf("%d are kept, %v", idle(c, at), err)
		}
	})
}

// A response's body goes on saying that it ended when its connection serves
// another exchange.
func TestABodyThatEndedLeavesTheConnectionAlone(t *testing.T) {
	at, c := peer(t, answers(ok)), newClient(t, nil)
	first, err := c.RoundTrip(newRequest(t, t.Context(), "GET", at, ""), &note{}, true)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, first.Body)
	second, err := c.RoundTrip(newRequest(t, t.Context(), "GET", at, ""), &note{}, true)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := first.Body.Read(make([]byte, 9)); n != 0 || err != io.EOF {
		t.Errorf("got %d, %v", n, err)
	}
	first.Body.Close()
	if b, err := io.ReadAll(second.Body); string(b) != "ok" || err != nil {
		t.Errorf("got %q, %v", b, err)
	}
	second.Body.Close()
}

func TestAFreshConnectionIsHadWhereOneIsAskedFor(t *testing.T) {
	at := peer(t, answers(ok))
	c := newClient(t, nil)
	for _, tt := range []struct {
		fresh bool
		want  string
	}{{false, "fresh"}, {false, "reused"}, {true, "fresh"}, {false, "reused"}} {
		n := &note{fresh: tt.fresh}
		resp, err := c.RoundTrip(newRequest(t, t.Context(), "GET", at, ""), n, true)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil || n.steps[1] != tt.want {
			t.Errorf("went %q, %v; want %s", n, err, tt.want)
		}
		resp.Body.Close()
	}
}
