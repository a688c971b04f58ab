package wire

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// quickly makes an exchange of a note that is quick, over a connection that is
// there already, and returns its whole answer.
func quickly(t *testing.T, c *Client, address, body string, n *note) (string, error) {
	t.Helper()
	if _, _, _, err := get(t, c, address); err != nil {
		t.Fatal(err)
	}
	if n.quick == nil {
		n.quick = t.Context()
	}
	method := "GET"
	if body != "" {
		method = "POST"
	}
	resp, err := c.RoundTrip(newRequest(t, t.Context(), method, address, body), n, false)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

// slow answers the first request at once and each later one in two parts,
// both after a word from the test.
func slow(t *testing.T, head, rest string, word <-chan struct{}) func(int, *net.TCPConn, *bufio.Reader) {
	return func(_ int, c *net.TCPConn, br *bufio.Reader) {
		if request(br) == "" {
			return
		}
		_, _ = io.WriteString(c, ok)
		for request(br) != "" {
			if head != "" {
				_, _ = io.WriteString(c, head)
			}
			select {
			case <-word:
			case <-t.Context().Done():
				return
			}
			_, _ = io.WriteString(c, rest)
		}
	}
}

func TestAnExchangeThatIsAnsweredAtOnceIsNotWatched(t *testing.T) {
	// A machine that stalls for longer than Patience makes any exchange a slow
	// one; it does not do so every time.
	at := peer(t, answers(ok))
	c := newClient(t, nil)
	room := new(Room)
	for range 50 {
		n := &note{room: room}
		if body, err := quickly(t, c, at, "", n); err != nil || body != "ok" {
			t.Fatalf("got %q, %v", body, err)
		}
		if n.watched == 0 {
			return
		}
	}
	t.Error("every exchange is watched")
}

func TestAnExchangeThatHasToWaitIsWatched(t *testing.T) {
	for _, tt := range []struct{ name, head, rest string }{
		{"for its head", "", ok},
		{"within its head", "HTTP/1.1 200 OK\r\nContent-", "Length: 2\r\n\r\nok"},
		{"for its body", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", "ok"},
		{"within its body", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no", "k"},
		{"within a chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\no", "k\r\n0\r\n\r\n"},
		{"for its trailers", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n", "X: 1\r\n\r\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			word := make(chan struct{})
			at := peer(t, slow(t, tt.head, tt.rest, word))
			c := newClient(t, nil)
			n := &note{onWatch: func() { close(word) }}
			if body, err := quickly(t, c, at, "", n); err != nil || body != "ok" || n.watched != 1 {
				t.Fatalf("got %q, %v; watched %d times", body, err, n.watched)
			}
		})
	}
	t.Run("and its end comes through", func(t *testing.T) {
		word := make(chan struct{})
		at := peer(t, slow(t, "", ok, word))
		ctx, cancel := context.WithCancelCause(t.Context())
		why := errors.New("why")
		n := &note{quick: ctx, onWatch: func() { cancel(why) }}
		if _, err := quickly(t, newClient(t, nil), at, "", n); !errors.Is(err, why) {
			t.Errorf("it ended with %v", err)
		}
	})
	t.Run("also in the middle of the body", func(t *testing.T) {
		word := make(chan struct{})
		at := peer(t, slow(t, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no", "k", word))
		ctx, cancel := context.WithCancelCause(t.Context())
		why := errors.New("why")
		n := &note{quick: ctx, onWatch: func() { go cancel(why) }}
		if body, err := quickly(t, newClient(t, nil), at, "", n); body != "o" || !errors.Is(err, why) {
			t.Errorf("it ended with %q, %v", body, err)
		}
	})
}

func TestALargeRequestIsWatchedFromTheStart(t *testing.T) {
	at := peer(t, answers(ok))
	n := &note{}
	if body, err := quickly(t, newClient(t, nil), at, strings.Repeat("x", atOnce), n); err != nil || body != "ok" || n.watched == 0 {
		t.Errorf("got %q, %v; watched %d times", body, err, n.watched)
	}
}

func TestADialIsWatched(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c := newClient(t, func(conf *Config) {
		conf.Dial = func(ctx context.Context, _ string) (net.Conn, error) { return nil, ctx.Err() }
	})
	_, err := c.RoundTrip(newRequest(t, t.Context(), http.MethodGet, "127.0.0.1:1", ""), &note{quick: ctx}, false)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("it went on under another context: %v", err)
	}
}

func TestTheBoundOfAHeadHoldsForQuickExchanges(t *testing.T) {
	for _, bound := range []time.Duration{Patience / 4, 30 * Patience} {
		word := make(chan struct{})
		at := peer(t, slow(t, "", ok, word))
		c := newClient(t, func(conf *Config) { conf.ResponseHeader = bound })
		n := &note{}
		_, err := quickly(t, c, at, "", n)
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("with %s: %v", bound, err)
		}
		if watched := n.watched != 0; watched != (bound > Patience) {
			t.Errorf("with %s: watched %d times", bound, n.watched)
		}
	}
}
