package middleware

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/sluice-gateway/sluice/routing"
)

func TestRow40RapidResetIsBounded(t *testing.T) {
	g := start(t, setup{server: func(c *ServerConfig) { c.MaxStreams = 10 }})
	var running, most atomic.Int64
	g.upstream.answer = func(_ http.ResponseWriter, r *http.Request, _ *routing.Exchange) *routing.Refusal {
		if n := running.Add(1); n > most.Load() {
			most.Store(n)
		}
		defer running.Add(-1)
		<-r.Context().Done()
		return &routing.Refusal{Code: routing.CodeClientClosed}
	}
	c, err := net.Dial("tcp", g.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	fr := preface(t, c)
	go func() { _, _ = io.Copy(io.Discard, c) }()
	head := fields(":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/")
	for i := range 5000 {
		id := uint32(2*i + 1)
		if fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndStream: true, EndHeaders: true, BlockFragment: head}) != nil {
			break // the gateway has had enough
		}
		if fr.WriteRSTStream(id, http2.ErrCodeCancel) != nil {
			break
		}
	}
	g2 := g.dial() // another client is served all the while
	g2.send("GET /health HTTP/1.1\nHost: a\n\n")
	if got := g2.answer("GET"); got.StatusCode != 200 {
		t.Errorf("another client got %d", got.StatusCode)
	}
	if n := most.Load(); n > 10 {
		t.Errorf("%d requests ran at once, want at most 10", n)
	}
}

// Row 43 and D10: what one connection can pin is streams times head.
func TestD10HTTP2HeadsAreBounded(t *testing.T) {
	g := start(t, setup{})
	release := make(chan struct{})
	var held atomic.Int64
	g.upstream.answer = func(w http.ResponseWriter, _ *http.Request, _ *routing.Exchange) *routing.Refusal {
		held.Add(1)
		<-release
		w.WriteHeader(200)
		return nil
	}
	defer close(release)
	before := heap()
	c, err := net.Dial("tcp", g.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	fr := preface(t, c)
	go func() { _, _ = io.Copy(io.Discard, c) }()
	pairs := []string{":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/"}
	for range 180 {
		pairs = append(pairs, "x-a", "b") // one byte each once it is indexed
	}
	head := fields(pairs...)
	short := fields(append(pairs[:8:8], "x-a", "b")...)
	for i := range 250 {
		block := head
		if i > 0 {
			// Every further stream names what the table already holds.
			block = append(append([]byte{}, short[:len(short)-6]...), head[len(head)-179:]...)
		}
		if fr.WriteHeaders(http2.HeadersFrameParam{StreamID: uint32(2*i + 1), EndHeaders: true, BlockFragment: block}) != nil {
			break
		}
	}
	eventually(t, "the streams that may be open are", func() bool { return held.Load() > 0 })
	if grown := heap() - before; grown > 20<<20 || held.Load() > 100 {
		t.Errorf("one connection holds %d bytes in %d streams", grown, held.Load())
	}
}

func TestRow47SilentConnectionsAreClosed(t *testing.T) {
	g := start(t, setup{server: func(c *ServerConfig) { c.ReadHeaderTimeout = 50 * time.Millisecond }})
	for _, first := range []string{"", "GET / HTTP/1.1\r\nHost: a\r\n", "PRI * HTTP/2.0\r\n"} {
		w := g.dial()
		w.sendRaw(first)
		_ = w.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.Copy(io.Discard, w.r); err != nil && strings.Contains(err.Error(), "timeout") {
			t.Errorf("after %q the connection is still open", first)
		}
	}
}

// A client that had kept a connection spare used it just as the time for its
// first head passed: 14 bytes of the request were read, the rest was not, and
// net/http answered 400.
func TestARequestThatComesAsTheTimeForTheFirstHeadPassesIsServed(t *testing.T) {
	const passes = 500 * time.Millisecond
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	limited := &limitedListener{Listener: ln, limiter: newLimiter(4, 4, nil), headTimeout: time.Hour}
	defer limited.Close()
	pair := func() (client, server net.Conn) {
		client, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if server, err = limited.Accept(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			client.Close()
			server.Close()
		})
		return client, server
	}
	read := func(c net.Conn) (string, error) {
		b := make([]byte, 14)
		n, err := c.Read(b)
		return string(b[:n]), err
	}
	client, server := pair()
	_, silent := pair()
	if _, err := io.WriteString(client, "GET /a HTTP/1.1\r\n"); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(passes)
	if err := errors.Join(server.SetReadDeadline(deadline), silent.SetReadDeadline(deadline)); err != nil {
		t.Fatal(err)
	}
	if got, err := read(server); got != "GET /a HTTP/1." || err != nil {
		t.Fatalf("got %q, %v", got, err)
	}
	if _, err := read(silent); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("a silent client gave %v", err)
	}
	if got, err := read(server); got != "1\r\n" || err != nil {
		t.Errorf("then %q, %v", got, err)
	}
	// It begins anew once, so that no client draws its head out for ever.
	if _, err := io.WriteString(client, "Host"); err != nil {
		t.Fatal(err)
	}
	if err := server.SetReadDeadline(time.Now().Add(passes)); err != nil {
		t.Fatal(err)
	}
	if got, err := read(server); got != "Host" || err != nil {
		t.Errorf("then %q, %v", got, err)
	}
	if _, err := read(server); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after that %v", err)
	}
}

// Row 49 and P13: many clients that send their head a byte at a time.
func TestRow49SlowClientsDoNotKeepOthersOut(t *testing.T) {
	g := start(t, setup{server: func(c *ServerConfig) { c.ReadHeaderTimeout = 300 * time.Millisecond }})
	var slow []*wire
	for range 200 {
		w := g.dial()
		w.sendRaw("GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ")
		slow = append(slow, w)
	}
	got, _ := g.exchange("GET / HTTP/1.1\nHost: a\n\n")
	if got.StatusCode != 200 {
		t.Errorf("another client got %d", got.StatusCode)
	}
	for _, w := range slow {
		w.sendRaw("x")
		_, _ = io.Copy(io.Discard, w.r) // until the gateway closes it
	}
	eventually(t, "every place is given back", func() bool { return g.server.limiter.connections() <= 1 })
}

func TestRow50HeadersAreBoundedInBytesAndNumber(t *testing.T) {
	g := start(t, setup{})
	for _, c := range []struct {
		name, headers string
		status        int
	}{
		{"as many lines as are allowed", strings.Repeat("X-A: b\n", 199), 200},
		{"one line more", strings.Repeat("X-A: b\n", 201), 431},
		{"1,200 lines", strings.Repeat("X: b\n", 1200), 431},
		{"one header of 64 KB", "X-A: " + strings.Repeat("b", 64<<10) + "\n", 431},
		{"row 51 four thousand cookies", "Cookie: " + strings.Repeat("a=b; ", 4000) + "\n", 200},
		{"row 51 more cookies than fit", "Cookie: " + strings.Repeat("a=b; ", 20000) + "\n", 431},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, w := g.exchange("GET / HTTP/1.1\nHost: a\n" + c.headers + "\n")
			if got.StatusCode != c.status {
				t.Errorf("status is %d, want %d", got.StatusCode, c.status)
			}
			if c.status != 200 && !w.closed() {
				t.Error("the connection was kept")
			}
		})
	}
}

// P12: past the limit a connection is answered, and the places come back.
func TestP12ConnectionsPastTheLimitAreShed(t *testing.T) {
	g := start(t, setup{server: func(c *ServerConfig) { c.MaxConnections = 3 }})
	var open []*wire
	for range 3 {
		w := g.dial()
		w.send("GET / HTTP/1.1\nHost: a\n\n")
		_ = w.answer("GET")
		open = append(open, w)
	}
	w := g.dial()
	got := w.answer("GET")
	if got.StatusCode != 503 || !strings.Contains(got.Text, `"code":"overloaded"`) || !w.closed() {
		t.Errorf("one too many got %d %q", got.StatusCode, got.Text)
	}
	_ = open[0].Close()
	eventually(t, "a place is free", func() bool { return g.server.limiter.connections() == 2 })
	if got, _ := g.exchange("GET / HTTP/1.1\nHost: a\n\n"); got.StatusCode != 200 {
		t.Errorf("after one left, another got %d", got.StatusCode)
	}
}

func TestRow43ConnectionsOfOneAddressAreBounded(t *testing.T) {
	one, proxy := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("10.0.0.1")
	l := newLimiter(5, 2, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")})
	var got []bool
	var places []*seat
	for _, a := range []netip.Addr{one, one, one, proxy, proxy, proxy, proxy} {
		p := l.enter(a)
		if got = append(got, p != nil); p != nil {
			places = append(places, p)
		}
	}
	if want := "[true true false true true true false]"; fmt.Sprint(got) != want {
		t.Errorf("admitted %v, want %v", got, want)
	}
	for _, p := range places {
		p.leave()
		p.leave() // closing twice gives back one place
	}
	if l.open != 0 || len(l.byIP) != 0 {
		t.Errorf("after all left: %d open, %v", l.open, l.byIP)
	}
}

// P14: slow bodies hold nothing but their own request.
func TestP14SlowBodiesEndInTime(t *testing.T) {
	g := start(t, setup{config: func(c *Config) { c.BodyReadTimeout = 100 * time.Millisecond }})
	var slow []*wire
	for range 100 {
		w := g.dial()
		w.send("POST / HTTP/1.1\nHost: a\nContent-Length: 100\n\nx")
		slow = append(slow, w)
	}
	if got, _ := g.exchange("GET / HTTP/1.1\nHost: a\n\n"); got.StatusCode != 200 {
		t.Errorf("another client got %d", got.StatusCode)
	}
	for _, w := range slow {
		wantRefusal(t, w.answer("POST"), http.StatusRequestTimeout, routing.CodeBadRequest)
	}
	eventually(t, "every place is given back", func() bool { return g.server.limiter.connections() <= 1 })
}

func TestRow14OverHTTP2(t *testing.T) {
	g := start(t, setup{config: func(c *Config) { c.BodyReadTimeout = 50 * time.Millisecond }})
	pr, pw := io.Pipe()
	defer func() { _ = pw.Close() }()
	req, _ := http.NewRequest("POST", "http://"+g.addr+"/", pr)
	resp, err := h2c(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusRequestTimeout {
		t.Errorf("status is %d", resp.StatusCode)
	}
}
