package middleware

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/qpack"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/quic-go/quic-go/quicvarint"

	"github.com/sluice-gateway/sluice/routing"
)

// frame is one of HTTP/3 (RFC 9114 section 7.1).
func frame(kind uint64, payload []byte) []byte {
	out := quicvarint.Append(nil, kind)
	out = quicvarint.Append(out, uint64(len(payload)))
	return append(out, payload...)
}

const (
	frameData     = 0x0
	frameHeaders  = 0x1
	frameSettings = 0x4
)

// headerBlock is a header block of name, value, name, value, …
func headerBlock(pairs ...string) []byte {
	var b bytes.Buffer
	e := qpack.NewEncoder(&b)
	for i := 0; i < len(pairs); i += 2 {
		_ = e.WriteField(qpack.HeaderField{Name: pairs[i], Value: pairs[i+1]})
	}
	return b.Bytes()
}

func getBlock(more ...string) []byte {
	return headerBlock(append([]string{":method", "GET", ":scheme", "https", ":authority", "one.test", ":path", "/"}, more...)...)
}

// quicStatus reads the head of a response.
func quicStatus(t *testing.T, r io.Reader) string {
	t.Helper()
	q := quicvarint.NewReader(r)
	kind, err := quicvarint.Read(q)
	if err != nil || kind != frameHeaders {
		t.Fatalf("frame %d, error %v", kind, err)
	}
	n, _ := quicvarint.Read(q)
	block := make([]byte, n)
	if _, err := io.ReadFull(q, block); err != nil {
		t.Fatal(err)
	}
	field, err := qpack.NewDecoder().Decode(block)()
	if err != nil || field.Name != ":status" {
		t.Fatalf("%v, error %v", field, err)
	}
	return field.Value
}

// alive wants the gateway to serve another client.
func (g *gateway) alive() {
	g.t.Helper()
	if got := g.quicClient().get("/health"); got.StatusCode != 200 {
		g.t.Errorf("the gateway answers others with %d", got.StatusCode)
	}
}

// Row 55: early data can be replayed, and comes before the address is known.
func TestRow55EarlyDataIsNeverAccepted(t *testing.T) {
	g := start(t, setup{http3: true})
	config := &tls.Config{InsecureSkipVerify: true, ServerName: "one.test", NextProtos: []string{http3.NextProtoH3},
		ClientSessionCache: tls.NewLRUClientSessionCache(4)}
	resumed := func() bool {
		t.Helper()
		conn, err := quic.DialAddrEarly(t.Context(), g.addr, config, &quic.Config{})
		if err != nil {
			t.Fatal(err)
		}
		tr := &http3.Transport{}
		str, err := tr.NewClientConn(conn).OpenRequestStream(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		req, _ := http.NewRequest("GET", "https://one.test/", nil)
		if err := errors.Join(str.SendRequestHeader(req), str.Close()); err != nil {
			t.Fatal(err)
		}
		if resp, err := str.ReadResponse(); err != nil || resp.StatusCode != 200 {
			t.Fatalf("%v, error %v", resp, err)
		}
		state := conn.ConnectionState()
		if state.Used0RTT {
			t.Error("early data was accepted")
		}
		_ = conn.CloseWithError(0, "")
		return state.TLS.DidResume
	}
	eventually(t, "a session is resumed", resumed)
}

// Row 55: one byte of a header block can stand for a long field.
func TestRow55WhatQPACKExpandsToIsBounded(t *testing.T) {
	g := start(t, setup{http3: true, server: func(c *ServerConfig) { c.MaxHeaderBytes = 8 << 10 }})
	str, err := g.quicDial(nil).OpenStream()
	if err != nil {
		t.Fatal(err)
	}
	// Entry 85 of the static table is a content-security-policy of 53 bytes.
	block := append(getBlock(), bytes.Repeat([]byte{0xc0 | 63, 85 - 63}, 2000)...)
	_, _ = str.Write(frame(frameHeaders, block))
	_ = str.Close()
	if got := quicStatus(t, str); got != "431" {
		t.Errorf("a block of %d bytes gets %s", len(block), got)
	}
	g.alive()
}

// Rows 50 and 51: heads that are too long or have too many lines.
func TestRow50And51HeadsOverHTTP3AreBounded(t *testing.T) {
	g := start(t, setup{http3: true})
	c := g.quicClient()
	if got := c.get("/", "X-Long: "+strings.Repeat("x", 64<<10)); got.StatusCode != 431 {
		t.Errorf("64 KiB of a header get %d", got.StatusCode)
	}
	many := make([]string, 250)
	for i := range many {
		many[i] = "X-Line: " + strings.Repeat("x", i%7)
	}
	wantRefusal(t, c.get("/", many...), 431, routing.CodeBadRequest)
	str, err := g.quicDial(nil).OpenStream()
	if err != nil {
		t.Fatal(err)
	}
	cookies := make([]string, 0, 8000)
	for range 4000 {
		cookies = append(cookies, "cookie", "a=b")
	}
	_, _ = str.Write(frame(frameHeaders, getBlock(cookies...)))
	_ = str.Close()
	if got := quicStatus(t, str); got != "431" {
		t.Errorf("4,000 cookies get %s", got)
	}
	if n := len(g.upstream.requests()); n != 0 {
		t.Errorf("%d of them were forwarded", n)
	}
}

// Row 40: streams that are reset as soon as their request is under way.
func TestRow40RapidResetOverHTTP3RunsNoMoreThanTheLimit(t *testing.T) {
	const limit, resets = 8, 400
	g := start(t, setup{http3: true, server: func(c *ServerConfig) { c.MaxStreams = limit }})
	var running, most, begun atomic.Int64
	release := make(chan struct{})
	g.upstream.answers(func(http.ResponseWriter, *http.Request, *routing.Exchange) *routing.Refusal {
		begun.Add(1)
		n := running.Add(1)
		defer running.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		<-release // one that does not notice that nobody waits
		return &routing.Refusal{Code: routing.CodeClientClosed}
	})
	conn := g.quicDial(nil)
	for range resets {
		str, err := conn.OpenStream()
		if err != nil { // no more are allowed
			runtime.Gosched()
			continue
		}
		before := conn.ConnectionStats().BytesSent
		_, _ = str.Write(frame(frameHeaders, getBlock()))
		_ = str.Close()                                  // a whole request: its stream is over once nobody wants the answer
		for conn.ConnectionStats().BytesSent == before { // a reset would overtake it
			runtime.Gosched()
		}
		str.CancelRead(quic.StreamErrorCode(http3.ErrCodeRequestCanceled))
	}
	g.alive()
	eventually(t, "as many as may be are running", func() bool { return running.Load() == limit })
	close(release)
	eventually(t, "all of them have ended", func() bool { return running.Load() == 0 })
	if n := most.Load(); n > limit {
		t.Errorf("%d of %d ran at once, the limit is %d", n, begun.Load(), limit)
	}
}

// Rows 42, 44 and 45: frames that make no sense end a stream or a connection,
// and nothing else.
func TestRow42And44And45SenselessFramesEndTheirConnection(t *testing.T) {
	settings := append([]byte{0}, frame(frameSettings, nil)...) // a control stream
	for name, send := range map[string]func(c *quic.Conn) error{
		"settings over and over": func(c *quic.Conn) error {
			return uni(c, append(settings, bytes.Repeat(frame(frameSettings, nil), 1000)...))
		},
		"a second control stream":           func(c *quic.Conn) error { return errors.Join(uni(c, settings), uni(c, settings)) },
		"a control stream without settings": func(c *quic.Conn) error { return uni(c, append([]byte{0}, frame(frameData, nil)...)) },
		"a push stream":                     func(c *quic.Conn) error { return uni(c, []byte{1, 0}) },
		"two decoder streams":               func(c *quic.Conn) error { return errors.Join(uni(c, []byte{3}), uni(c, []byte{3})) },
		"data before headers":               func(c *quic.Conn) error { return bidi(c, frame(frameData, []byte("x"))) },
		"a frame of HTTP/2":                 func(c *quic.Conn) error { return bidi(c, frame(0x6, make([]byte, 8))) },
	} {
		t.Run(name, func(t *testing.T) {
			g := start(t, setup{http3: true})
			conn := g.quicDial(nil)
			if err := send(conn); err != nil {
				t.Fatal(err)
			}
			<-conn.Context().Done()
			var closed *quic.ApplicationError
			if err := context.Cause(conn.Context()); !errors.As(err, &closed) || closed.ErrorCode == quic.ApplicationErrorCode(http3.ErrCodeNoError) {
				t.Errorf("it ended with %v", err)
			}
			g.alive()
		})
	}
}

// Row 45: what is no QUIC, and streams that are no HTTP/3.
func TestRow45PacketsAndStreamsAtRandomBreakNothingElse(t *testing.T) {
	g := start(t, setup{http3: true})
	kept := g.quicClient()
	kept.get("/health")
	random := rand.New(rand.NewPCG(45, 0))
	noise := func() []byte {
		b := make([]byte, 1+random.IntN(1400))
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		return b
	}
	socket, err := net.Dial("udp", g.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	for range 2000 {
		_, _ = socket.Write(noise())
	}
	for range 50 {
		conn := g.quicDial(nil)
		for range 20 {
			_, _ = uni(conn, noise()), bidi(conn, noise())
		}
		_ = conn.CloseWithError(0, "")
	}
	g.alive()
	if got := kept.get("/health"); got.StatusCode != 200 {
		t.Errorf("the connection of before gets %d", got.StatusCode)
	}
}

func uni(c *quic.Conn, data []byte) error {
	str, err := c.OpenUniStream()
	if err != nil {
		return err
	}
	_, err = str.Write(data)
	return err
}

func bidi(c *quic.Conn, data []byte) error {
	str, err := c.OpenStream()
	if err != nil {
		return err
	}
	_, err = str.Write(data)
	return err
}

// Rows 42 and 43: what a client may have open and under way is little.
func TestRow42And43WhatOneHTTP3ConnectionMayHoldIsBounded(t *testing.T) {
	g := start(t, setup{http3: true, server: func(c *ServerConfig) { c.MaxStreams = 5 }})
	hold := make(chan struct{})
	defer close(hold)
	g.upstream.answers(func(http.ResponseWriter, *http.Request, *routing.Exchange) *routing.Refusal {
		<-hold
		return nil
	})
	conn := g.quicDial(nil)
	var streams, unis int
	for ; streams < 100; streams++ {
		if bidi(conn, frame(frameHeaders, getBlock())) != nil {
			break
		}
	}
	for ; unis < 100; unis++ {
		if uni(conn, []byte{}) != nil {
			break
		}
	}
	if streams != 5 || unis != quicStreams {
		t.Errorf("%d requests and %d other streams could be opened", streams, unis)
	}
	other := g.quicDial(nil)
	str, err := other.OpenStream()
	if err != nil {
		t.Fatal(err)
	}
	_ = str.SetWriteDeadline(time.Now().Add(300 * time.Millisecond)) // nobody reads the body
	n, err := str.Write(append(frame(frameHeaders, getBlock()), frame(frameData, make([]byte, 1<<20))...))
	if err == nil || n > streamWindow {
		t.Errorf("%d bytes of a body were taken, error %v", n, err)
	}
}

// deaf is a socket whose client hears nothing, and so never ends a handshake.
type deaf struct{ net.PacketConn }

func (d deaf) ReadFrom(p []byte) (int, net.Addr, error) {
	for {
		if _, _, err := d.PacketConn.ReadFrom(p); err != nil {
			return 0, nil, err
		}
	}
}

// Row 48: handshakes that stall.
func TestRow48StalledQUICHandshakesEndInTime(t *testing.T) {
	g := start(t, setup{http3: true, server: func(c *ServerConfig) { c.ReadHeaderTimeout = 200 * time.Millisecond }})
	socket, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	tr := &quic.Transport{Conn: deaf{socket}}
	defer tr.Close()
	addr, _ := net.ResolveUDPAddr("udp", g.addr)
	ctx, cancel := context.WithCancel(t.Context())
	var dials sync.WaitGroup
	defer dials.Wait()
	defer cancel()
	for range 20 {
		dials.Go(func() {
			_, _ = tr.Dial(ctx, addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h3"}}, nil)
		})
	}
	h := g.server.http3[0]
	eventually(t, "they are counted", func() bool { return h.handshakes.Load() > 0 && g.server.limiter.connections() > 0 })
	cancel()
	eventually(t, "they are given up", func() bool { return h.handshakes.Load() == 0 && g.server.limiter.connections() == 0 })
	g.alive()
}

// Row 49: a head that never ends does not hold a connection, whatever else is
// sent on it.
func TestRow49AnUnfinishedHeadDoesNotKeepAnHTTP3Connection(t *testing.T) {
	g := start(t, setup{http3: true, server: func(c *ServerConfig) { c.IdleTimeout = 300 * time.Millisecond }})
	conn := g.quicDial(&quic.Config{KeepAlivePeriod: 20 * time.Millisecond})
	if err := bidi(conn, frame(frameHeaders, getBlock())[:5]); err != nil {
		t.Fatal(err)
	}
	<-conn.Context().Done()
	g.alive()
}

// Row 49: a body that never ends.
func TestRow49ASlowBodyOverHTTP3IsRefused(t *testing.T) {
	g := start(t, setup{http3: true, config: func(c *Config) { c.BodyReadTimeout = 100 * time.Millisecond }})
	read, write := io.Pipe()
	defer write.Close()
	go func() { _, _ = io.WriteString(write, "begin") }()
	got, err := g.quicClient().do("POST", "/", read)
	if err != nil {
		t.Fatal(err)
	}
	wantRefusal(t, got, 408, routing.CodeBadRequest)
}
