package proxy

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/sluice-gateway/sluice/routing"
)

const handshake = "GET /ws HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"

const switching = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-Up: 1\r\n\r\n"

// wsEcho is a WebSocket instance that sends back what it gets.
func wsEcho(t *testing.T) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
		if err != nil {
			t.Error(err)
			return
		}
		defer c.CloseNow()
		c.SetReadLimit(1 << 20)
		for {
			kind, b, err := c.Read(r.Context())
			if err != nil {
				return
			}
			if c.Write(r.Context(), kind, b) != nil {
				return
			}
		}
	}
}

func dialWS(t *testing.T, g *rig) *websocket.Conn {
	t.Helper()
	tr := &http.Transport{}
	t.Cleanup(tr.CloseIdleConnections)
	c, _, err := websocket.Dial(t.Context(), g.server.URL+"/ws", &websocket.DialOptions{HTTPClient: &http.Client{Transport: tr}})
	if err != nil {
		t.Fatal(err)
	}
	c.SetReadLimit(1 << 20)
	t.Cleanup(func() { _ = c.CloseNow() })
	return c
}

func TestWebSocket(t *testing.T) {
	g := newRig(t, addrOf(upstream(t, wsEcho(t))))
	g.route.Timeout = 100 * time.Millisecond // does not bound a tunnel
	g.serve()
	c := dialWS(t, g)
	eventually(t, "one tunnel and one request in flight", func() bool {
		return g.obs.of("tunnels") == 1 && g.service.All.Endpoints[0].InFlight() == 1
	})
	deadline := time.Now().Add(150 * time.Millisecond)
	for i := 0; time.Now().Before(deadline) || i < 10; i++ {
		want := bytes.Repeat([]byte{byte(i)}, 1+i*7919%100_000)
		if err := c.Write(t.Context(), websocket.MessageBinary, want); err != nil {
			t.Fatal(err)
		}
		_, got, err := c.Read(t.Context())
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("message %d: %d bytes, %v", i, len(got), err)
		}
	}
	if err := c.Close(websocket.StatusNormalClosure, "done"); err != nil {
		t.Error(err)
	}
	x := g.exchange()
	if x.Refused != nil || x.Aborted != "" || g.obs.of("success") != 1 || g.obs.of("tunnels") != 0 {
		t.Errorf("%+v, results %v", x, g.obs.n)
	}
}

// P11: at the shutdown's deadline clients are told that the gateway goes away.
func TestP11TunnelsCloseWith1001(t *testing.T) {
	g := newRig(t, addrOf(upstream(t, wsEcho(t)))).serve()
	var conns []*websocket.Conn
	for range 5 {
		c := dialWS(t, g)
		if err := c.Write(t.Context(), websocket.MessageText, []byte("hi")); err != nil {
			t.Fatal(err)
		}
		if _, _, err := c.Read(t.Context()); err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	if n := g.f.CloseTunnels(); n != 5 {
		t.Errorf("closed %d", n)
	}
	for _, c := range conns {
		if _, _, err := c.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusGoingAway {
			t.Errorf("got %v", err)
		}
		g.exchange()
	}
	eventually(t, "no tunnel is left", func() bool { return g.obs.of("tunnels") == 0 })
}

func TestATunnelInTheMiddleOfAFrameGetsNoCloseFrame(t *testing.T) {
	up := newHostile(t, func(_ int, c *net.TCPConn, br *bufio.Reader) {
		readHead(br)
		_, _ = io.WriteString(c, switching+"\x82\x0ahalf")
		_, _ = io.Copy(io.Discard, br)
	})
	g := newRig(t, up.addr).serve()
	_, br := g.raw(handshake)
	readHead(br)
	b := make([]byte, 6)
	if _, err := io.ReadFull(br, b); err != nil {
		t.Fatal(err)
	}
	g.f.CloseTunnels()
	if rest, _ := io.ReadAll(br); len(rest) != 0 {
		t.Errorf("%x went into the frame", rest)
	}
}

// Row 79: a tunnel is bytes; a frame of any announced length is not looked
// into, and bytes sent before the handshake's answer are not lost.
func TestRow79ATunnelIsBytes(t *testing.T) {
	const weird = "\x82\xff\xff\xff\xff\xff\xff\xff\xff\xffrest"
	got := make(chan string, 1)
	up := newHostile(t, func(_ int, c *net.TCPConn, br *bufio.Reader) {
		readHead(br)
		_, _ = io.WriteString(c, switching)
		b := make([]byte, len("early"+weird))
		_, _ = io.ReadFull(br, b)
		got <- string(b)
		_, _ = io.WriteString(c, weird)
	})
	g := newRig(t, up.addr).serve()
	c, br := g.raw(handshake + "early")
	head := readHead(br)
	if len(head) == 0 || head[0] != "HTTP/1.1 101 Switching Protocols" {
		t.Fatalf("got %q", head)
	}
	for _, want := range []string{"Connection: Upgrade", "Upgrade: websocket", "X-Up: 1"} {
		if !strings.Contains(strings.Join(head, "\n"), want) {
			t.Errorf("%q is missing in %q", want, head)
		}
	}
	_, _ = io.WriteString(c, weird)
	if s := <-got; s != "early"+weird {
		t.Errorf("the instance got %q", s)
	}
	if b, err := io.ReadAll(br); string(b) != weird || err != nil {
		t.Errorf("the client got %q %v", b, err)
	}
}

func TestAHalfCloseGoesThrough(t *testing.T) {
	up := newHostile(t, func(_ int, c *net.TCPConn, br *bufio.Reader) {
		readHead(br)
		_, _ = io.WriteString(c, switching)
		b, err := io.ReadAll(br) // to the client's half-close
		fmt.Fprintf(c, "%s %v", b, err)
	})
	g := newRig(t, up.addr).serve()
	c, br := g.raw(handshake)
	readHead(br)
	_, _ = io.WriteString(c, "all I have")
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(br); err != nil || string(b) != "all I have <nil>" {
		t.Errorf("got %q %v", b, err)
	}
}

func TestATunnelEndsInSilence(t *testing.T) {
	up := newHostile(t, func(_ int, c *net.TCPConn, br *bufio.Reader) {
		readHead(br)
		_, _ = io.WriteString(c, switching)
		_, _ = io.Copy(io.Discard, br)
	})
	g := newRig(t, up.addr)
	g.service.Idle = 30 * time.Millisecond
	g.serve()
	_, br := g.raw(handshake)
	readHead(br)
	if _, err := br.ReadByte(); err == nil {
		t.Error("bytes from nowhere")
	}
	g.exchange()
}

// Row 9: a handshake that is not answered with 101 is an ordinary exchange.
// What the client sent ahead reaches no instance, and the connection that
// carried the handshake carries nothing else.
func TestRow9AFailedHandshakeLeavesNothingBehind(t *testing.T) {
	var smuggled atomic.Int64
	up := newHostile(t, func(_ int, c *net.TCPConn, br *bufio.Reader) {
		for n := 0; ; n++ {
			head := readHead(br)
			switch {
			case head == nil:
				return
			case strings.HasPrefix(head[0], "GET /admin"), n > 0 && strings.HasPrefix(head[0], "GET /ws"):
				smuggled.Add(1)
			}
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	})
	g := newRig(t, up.addr).serve()
	before := up.conns.Load()
	_, br := g.raw(handshake + "GET /admin HTTP/1.1\r\nHost: h\r\n\r\n")
	resp, err := http.ReadResponse(br, nil)
	if err != nil || resp.StatusCode != 200 || !resp.Close {
		t.Fatalf("got %v %v", resp, err)
	}
	if b, err := io.ReadAll(resp.Body); string(b) != "ok" || err != nil {
		t.Errorf("got %q %v", b, err)
	}
	if _, err := br.ReadByte(); !errors.Is(err, io.EOF) && err == nil {
		t.Error("the client's connection stayed")
	}
	for range 100 {
		if resp, body := g.mustGet("/"); resp.StatusCode != 200 || body != "ok" {
			t.Fatalf("got %d %q", resp.StatusCode, body)
		}
	}
	if up.conns.Load() < before+2 {
		t.Error("the handshake's connection was used again")
	}
	if smuggled.Load() != 0 {
		t.Errorf("%d requests were smuggled", smuggled.Load())
	}
}

func TestHandshakesThatGoWrong(t *testing.T) {
	tests := []struct {
		name, answer string
		code         int
	}{
		{"another protocol than asked for", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n", 502},
		{"a 101 without a protocol", "HTTP/1.1 101 Switching Protocols\r\n\r\n", 502},
		{"a refusal", "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", 403},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			up := newHostile(t, reply(tt.answer))
			g := newRig(t, up.addr).serve()
			_, br := g.raw(handshake)
			resp, err := http.ReadResponse(br, nil)
			if err != nil || resp.StatusCode != tt.code || !resp.Close {
				t.Errorf("got %v %v", resp, err)
			}
		})
	}
	t.Run("row 79: no second attempt after a refused connection", func(t *testing.T) {
		g := newRig(t, refused(t), refused(t)).serve()
		_, br := g.raw(handshake)
		resp, err := http.ReadResponse(br, nil)
		if err != nil || resp.StatusCode != 502 || g.exchange().Attempts != 1 {
			t.Errorf("got %v %v", resp, err)
		}
	})
	t.Run("an instance that only speaks HTTP/2 gets a plain request", func(t *testing.T) {
		s := h2cUpstream(t, func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "%d %v", r.ProtoMajor, r.Header["Upgrade"])
		})
		g := newRig(t, addrOf(s))
		g.service.Upstream.Protocol = routing.ProtocolH2C
		g.serve()
		_, br := g.raw(handshake)
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatal(err)
		}
		if b, _ := io.ReadAll(resp.Body); string(b) != "2 []" {
			t.Errorf("got %q", b)
		}
	})
}

// frame is a WebSocket frame as servers send it.
func frame(op byte, payload []byte) []byte {
	b := []byte{0x80 | op}
	switch n := len(payload); {
	case n < 126:
		b = append(b, byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 127), uint64(n))
	}
	return append(b, payload...)
}

func TestFrameTracker(t *testing.T) {
	var all []byte
	ends := map[int]bool{0: true}
	for _, n := range []int{0, 1, 125, 126, 300, 65535, 65536} {
		all = append(all, frame(2, make([]byte, n))...)
		ends[len(all)] = true
	}
	masked := append([]byte{0x81, 0x83}, 1, 2, 3, 4, 'a', 'b', 'c')
	all = append(all, masked...)
	ends[len(all)] = true
	var one frameTracker
	for i, b := range all {
		if one.between() != ends[i] {
			t.Fatalf("at byte %d between is %v", i, one.between())
		}
		one.see([]byte{b})
	}
	if !one.between() {
		t.Error("not between frames at the end")
	}
	one.see(frame(8, []byte{3, 232}))
	if one.between() {
		t.Error("after a close frame nothing may follow")
	}
}

func FuzzFrameTracker(f *testing.F) {
	f.Add(frame(1, []byte("hello")), 3)
	f.Add([]byte{0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, 1)
	f.Fuzz(func(t *testing.T, b []byte, cut int) {
		var whole, parts frameTracker
		whole.see(b)
		if cut < 0 || cut > len(b) {
			cut = len(b) / 2
		}
		parts.see(b[:cut])
		parts.see(b[cut:])
		if whole != parts {
			t.Errorf("cut at %d: %+v and %+v", cut, whole, parts)
		}
	})
}
