package middleware

import (
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/sluice-gateway/sluice/routing"
)

// flood is a connection to write HTTP/2 frames on by hand. What the gateway
// sends is read in the background.
type flood struct {
	net.Conn
	*http2.Framer
	goAway atomic.Uint32 // the code of the last GOAWAY
	ended  chan struct{} // the gateway closed the connection
}

func (g *gateway) flood() *flood {
	g.t.Helper()
	w := g.dial()
	f := &flood{Conn: w.Conn, Framer: preface(g.t, w.Conn), ended: make(chan struct{})}
	go func() {
		defer close(f.ended)
		for {
			switch frame, err := f.ReadFrame(); frame := frame.(type) {
			case *http2.GoAwayFrame:
				f.goAway.Store(uint32(frame.ErrCode))
			case nil:
				if err != nil {
					return
				}
			}
		}
	}()
	g.t.Cleanup(func() {
		_ = f.Close()
		<-f.ended
	})
	return f
}

// othersAreServed asks on a connection of its own.
func (g *gateway) othersAreServed() {
	g.t.Helper()
	if got, _ := g.exchange("GET /health HTTP/1.1\nHost: a\n\n"); got.StatusCode != 200 {
		g.t.Errorf("another client got %d", got.StatusCode)
	}
}

// heap is what is in use after a collection.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestRow41AContinuationFloodEndsItsConnection(t *testing.T) {
	g := start(t, setup{})
	before := heap()
	f := g.flood()
	block := fields("x-a", strings.Repeat("b", 16000))
	err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: fields(":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/")})
	for sent := 0; err == nil && sent < 64<<20; sent += len(block) {
		err = f.WriteContinuation(1, false, block)
	}
	<-f.ended
	if err == nil {
		t.Error("64 MiB of a head that never ends were taken")
	}
	if grown := heap() - before; grown > 10<<20 {
		t.Errorf("%d bytes are held", grown)
	}
	if n := len(g.upstream.requests()); n != 0 {
		t.Errorf("%d requests went on", n)
	}
	g.othersAreServed()
}

func TestRow42FloodsOfControlFramesAreBounded(t *testing.T) {
	head := fields(":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/")
	for _, c := range []struct {
		name  string
		frame func(f *flood, i int) error
	}{
		{"PING", func(f *flood, i int) error { return f.WritePing(false, [8]byte{byte(i)}) }},
		{"SETTINGS", func(f *flood, i int) error {
			return f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: uint32(65535 + i%2)})
		}},
		{"empty SETTINGS", func(f *flood, _ int) error { return f.WriteSettings() }},
		{"RST_STREAM of a stream that has ended", func(f *flood, i int) error {
			if i == 0 {
				return f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndStream: true, EndHeaders: true, BlockFragment: head})
			}
			return f.WriteRSTStream(1, http2.ErrCodeCancel)
		}},
		{"RST_STREAM of streams that never were", func(f *flood, i int) error { return f.WriteRSTStream(uint32(2*i+1), http2.ErrCodeCancel) }},
		{"PRIORITY", func(f *flood, i int) error {
			return f.WritePriority(uint32(2*i+1), http2.PriorityParam{StreamDep: 0, Weight: byte(i)})
		}},
		{"WINDOW_UPDATE", func(f *flood, _ int) error { return f.WriteWindowUpdate(0, 1) }},
		{"empty DATA", func(f *flood, i int) error {
			if i == 0 {
				return f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, BlockFragment: head})
			}
			return f.WriteData(1, false, nil)
		}},
		{"frames of no type that is known", func(f *flood, i int) error { return f.WriteRawFrame(0xfa, 0, uint32(i), make([]byte, 8)) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := start(t, setup{})
			g.upstream.answer = func(w http.ResponseWriter, _ *http.Request, _ *routing.Exchange) *routing.Refusal {
				w.WriteHeader(200)
				return nil
			}
			before := heap()
			f := g.flood()
			var err error
			for i := 0; err == nil && i < 20000; i++ {
				err = c.frame(f, i)
			}
			g.othersAreServed()
			if grown := heap() - before; grown > 8<<20 {
				t.Errorf("%d bytes are held", grown)
			}
		})
	}
}

// A client that asks and never reads has its answers queued, up to a bound.
func TestRow42AnswersThatNobodyReadsEndTheConnection(t *testing.T) {
	g := start(t, setup{})
	// The buffer has to be small from the start: a window that shrinks makes
	// the kernel drop what the gateway acknowledges.
	dialer := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { _ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4<<10) })
	}}
	c, err := dialer.DialContext(t.Context(), "tcp", g.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	before := heap()
	_ = preface(t, c)
	var pings []byte
	for range 4096 {
		pings = append(pings, 0, 0, 8, byte(http2.FramePing), 0, 0, 0, 0, 0)
		pings = binary.BigEndian.AppendUint64(pings, 1)
	}
	sent := 0
	for ; err == nil && sent < 64<<20; sent += len(pings) {
		_, err = c.Write(pings)
	}
	if err == nil {
		t.Errorf("%d bytes of pings were taken", sent)
	}
	eventually(t, "the connection is closed", func() bool { return g.server.limiter.connections() == 0 })
	if grown := heap() - before; grown > 10<<20 {
		t.Errorf("%d bytes are held", grown)
	}
	g.othersAreServed()
}

// A client makes the gateway itself reset streams whose requests run on.
func TestRow44ResetsThatTheGatewayIsMadeToSendAreBounded(t *testing.T) {
	const most = 10
	pairs := []string{":method", "POST", ":scheme", "http", ":authority", "a", ":path", "/"}
	for _, c := range []struct {
		name    string
		ends    bool // the request has no body
		provoke func(f *flood, id uint32) error
	}{
		{"WINDOW_UPDATE of 0", false, func(f *flood, id uint32) error {
			return f.WriteRawFrame(http2.FrameWindowUpdate, 0, id, make([]byte, 4))
		}},
		{"a window that overflows", false, func(f *flood, id uint32) error { return f.WriteWindowUpdate(id, 1<<31-1) }},
		{"DATA behind the end", true, func(f *flood, id uint32) error { return f.WriteData(id, true, []byte("x")) }},
		{"HEADERS behind the end", true, func(f *flood, id uint32) error {
			return f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndStream: true, EndHeaders: true, BlockFragment: fields("x-a", "b")})
		}},
		{"a stream that depends on itself", false, func(f *flood, id uint32) error {
			f.AllowIllegalWrites = true
			return f.WritePriority(id, http2.PriorityParam{StreamDep: id})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := start(t, setup{server: func(s *ServerConfig) { s.MaxStreams = most }})
			var running, highest atomic.Int64
			release := make(chan struct{})
			defer close(release)
			g.upstream.answer = func(w http.ResponseWriter, _ *http.Request, _ *routing.Exchange) *routing.Refusal {
				if n := running.Add(1); n > highest.Load() {
					highest.Store(n)
				}
				defer running.Add(-1)
				<-release // as work that does not look at its client
				w.WriteHeader(200)
				return nil
			}
			f := g.flood()
			var err error
			for i := uint32(0); err == nil && i < 5000; i++ {
				id := 2*i + 1
				if err = f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndStream: c.ends, EndHeaders: true, BlockFragment: fields(pairs...)}); err == nil {
					err = c.provoke(f, id)
				}
			}
			<-f.ended // or the deadline of the connection, and no GOAWAY
			if http2.ErrCode(f.goAway.Load()) == http2.ErrCodeNo {
				t.Error("the client was not told that it did wrong")
			}
			if n := highest.Load(); n > most {
				t.Errorf("%d requests ran at once, want at most %d", n, most)
			}
			eventually(t, "the connection is closed", func() bool { return g.server.limiter.connections() == 0 })
			g.othersAreServed()
		})
	}
}

// Whatever frames come, they are one connection's trouble.
func TestRow45FramesAtRandomBreakNothingElse(t *testing.T) {
	g := start(t, setup{})
	head := fields(":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/")
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 45))
		f := g.flood()
		f.AllowIllegalWrites = true
		err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, BlockFragment: head})
		for i := 0; err == nil && i < 30; i++ {
			payload := make([]byte, random.IntN(40))
			for j := range payload {
				payload[j] = byte(random.Uint32())
			}
			if random.IntN(3) == 0 {
				payload = head
			}
			err = f.WriteRawFrame(http2.FrameType(random.IntN(12)), http2.Flags(random.Uint32()), uint32(random.IntN(8)), payload)
		}
		_ = f.Close()
	}
	g.othersAreServed()
	eventually(t, "the connections are closed", func() bool { return g.server.limiter.connections() <= 1 })
	if strings.Contains(g.log.String(), "panic") {
		t.Errorf("the log is %s", g.log)
	}
}

func TestRow48StalledHandshakesAreClosedAndKeepNobodyOut(t *testing.T) {
	cert, _ := certificate(t, "one.test")
	g := start(t, setup{secure: true, server: func(c *ServerConfig) {
		c.ReadHeaderTimeout = 500 * time.Millisecond
		c.TLS.Certificates = []CertificateFiles{cert}
	}})
	hello := "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
	var stalled []*wire
	for range 50 {
		for _, first := range []string{"", "\x16", hello, hello + strings.Repeat("\x00", 300)} {
			w := g.dial()
			w.sendRaw(first)
			stalled = append(stalled, w)
		}
	}
	if _, err := g.get(nil); err != nil {
		t.Errorf("another client: %v", err)
	}
	for _, w := range stalled {
		w.sendRaw("\x00") // a byte more is no reason to wait longer
		_, err := io.Copy(io.Discard, w.r)
		if ne, ok := err.(net.Error); ok && ne.Timeout() {
			t.Fatal("a handshake that never ends is still open")
		}
	}
	eventually(t, "every place is given back", func() bool { return g.server.limiter.connections() == 0 })
}

// What nobody asks for is not parsed: a request costs the same with it.
func TestRow51ParametersAndCookiesAreNotParsed(t *testing.T) {
	g := start(t, setup{})
	query := strings.Repeat("a&", 10000) + "a"
	if got, _ := g.exchange("GET /?" + query + " HTTP/1.1\nHost: a\n\n"); got.StatusCode != 200 || g.upstream.requests()[0].Query != query {
		t.Errorf("10,001 parameters got %d", got.StatusCode)
	}
	if got, _ := g.exchange("GET /?" + strings.Repeat("a=b&", 10001) + " HTTP/1.1\nHost: a\n\n"); got.StatusCode != 431 {
		t.Errorf("more than fits into a head got %d", got.StatusCode)
	}
	cookies := strings.Repeat("a=b; ", 4000) + "a=b"
	if got, _ := g.exchange("GET / HTTP/1.1\nHost: a\nCookie: " + cookies + "\n\n"); got.StatusCode != 200 || g.upstream.requests()[1].Header.Get("Cookie") != cookies {
		t.Errorf("4,001 cookies got %d", got.StatusCode)
	}
	g.upstream.answer = func(w http.ResponseWriter, _ *http.Request, _ *routing.Exchange) *routing.Refusal {
		w.WriteHeader(200)
		return nil
	}
	cost := func(query, cookie string) float64 {
		r, w := newRequest("GET", "/?"+query)
		return testing.AllocsPerRun(100, func() {
			r.Header = http.Header{"Cookie": {cookie}}
			g.engine.ServeHTTP(w, r)
		})
	}
	if few, many := cost("a", "a=b"), cost(query, cookies); many > few+1 {
		t.Errorf("a request with many takes %v allocations, with one %v", many, few)
	}
}
