package middleware

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/routing"
)

// binaryHeader writes a header of version 2.
func binaryHeader(command, family byte, body ...[]byte) string {
	all := bytes.Join(body, nil)
	return proxySignature + string([]byte{command, family}) + string(binary.BigEndian.AppendUint16(nil, uint16(len(all)))) + string(all)
}

// addresses is the block of a header of version 2 that comes from source.
func addresses(source string) []byte {
	ap := netip.MustParseAddrPort(source)
	destination := netip.IPv6Loopback()
	if ap.Addr().Is4() {
		destination = netip.MustParseAddr("127.0.0.1")
	}
	block := append(ap.Addr().AsSlice(), destination.AsSlice()...)
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(block, ap.Port()), 443)
}

func TestProxyHeaders(t *testing.T) {
	four := addresses("192.0.2.1:4711")
	for _, c := range []struct {
		name, header, client string // client "" is a refusal, "proxy" the proxy itself
	}{
		{"version 1 over IPv4", "PROXY TCP4 192.0.2.1 127.0.0.1 4711 443\r\n", "192.0.2.1:4711"},
		{"version 1 over IPv6", "PROXY TCP6 2001:db8::1 ::1 4711 443\r\n", "[2001:db8::1]:4711"},
		{"version 1 mapped", "PROXY TCP6 ::ffff:192.0.2.1 ::1 4711 443\r\n", "192.0.2.1:4711"},
		{"version 1 without an address", "PROXY UNKNOWN\r\n", "0.0.0.0:0"},
		{"version 1 without an address but with words", "PROXY UNKNOWN 10.0.0.1 10.0.0.1 1 1\r\n", "0.0.0.0:0"},
		{"version 1 of the greatest length", "PROXY UNKNOWN " + strings.Repeat("f", proxyLine-16) + "\r\n", "0.0.0.0:0"},
		{"version 1 a byte longer", "PROXY UNKNOWN " + strings.Repeat("f", proxyLine-15) + "\r\n", ""},
		{"version 1 that never ends", "PROXY TCP4 " + strings.Repeat("1", 500), ""},
		{"version 1 with a bare LF", "PROXY TCP4 192.0.2.1 127.0.0.1 4711 443\n", ""},
		{"version 1 with two spaces", "PROXY TCP4  192.0.2.1 127.0.0.1 4711 443\r\n", ""},
		{"version 1 with a word too many", "PROXY TCP4 192.0.2.1 127.0.0.1 4711 443 1\r\n", ""},
		{"version 1 with a word missing", "PROXY TCP4 192.0.2.1 127.0.0.1 4711\r\n", ""},
		{"version 1 with another family", "PROXY TCP4 2001:db8::1 ::1 4711 443\r\n", ""},
		{"version 1 with a zone", "PROXY TCP6 fe80::1%eth0 ::1 4711 443\r\n", ""},
		{"version 1 with a host name", "PROXY TCP4 localhost 127.0.0.1 4711 443\r\n", ""},
		{"version 1 with a port too high", "PROXY TCP4 192.0.2.1 127.0.0.1 65536 443\r\n", ""},
		{"version 1 with a destination that is none", "PROXY TCP4 192.0.2.1 x 4711 443\r\n", ""},
		{"version 1 over UDP", "PROXY UDP4 192.0.2.1 127.0.0.1 4711 443\r\n", ""},
		{"version 1 in lower case", "proxy TCP4 192.0.2.1 127.0.0.1 4711 443\r\n", ""},
		{"version 1 and nothing", "PROXY \r\n        ", ""},
		{"version 2 over IPv4", binaryHeader(0x21, 0x11, four), "192.0.2.1:4711"},
		{"version 2 over IPv6", binaryHeader(0x21, 0x21, addresses("[2001:db8::1]:4711")), "[2001:db8::1]:4711"},
		{"version 2 mapped", binaryHeader(0x21, 0x21, addresses("[::ffff:192.0.2.1]:4711")), "192.0.2.1:4711"},
		{"version 2 with 64 KiB behind the addresses", binaryHeader(0x21, 0x11, four, make([]byte, 65535-len(four))), "192.0.2.1:4711"},
		{"version 2 of a Unix socket", binaryHeader(0x21, 0x31, make([]byte, 216)), "0.0.0.0:0"},
		{"version 2 that tells nothing", binaryHeader(0x21, 0x00), "0.0.0.0:0"},
		{"version 2 LOCAL", binaryHeader(0x20, 0x00), "proxy"},
		{"version 2 LOCAL with addresses", binaryHeader(0x20, 0x11, four), "proxy"},
		{"version 2 with addresses cut short", binaryHeader(0x21, 0x11, four[:11]), ""},
		{"version 2 over UDP", binaryHeader(0x21, 0x12, four), ""},
		{"version 2 with an unknown family", binaryHeader(0x21, 0x41, four), ""},
		{"version 2 with an unknown command", binaryHeader(0x22, 0x11, four), ""},
		{"version 3", binaryHeader(0x31, 0x11, four), ""},
		{"a request", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", ""},
		{"a TLS handshake", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00\x00\x00", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			// A byte at a time, as a header may be split anywhere.
			r := bufio.NewReaderSize(oneByte{strings.NewReader(c.header + "rest")}, proxyBuffer)
			client, err := readProxyHeader(r)
			got := client.String()
			switch {
			case errors.Is(err, errProxyHeader):
				got = ""
			case err != nil:
				t.Fatal(err)
			case !client.IsValid():
				got = "proxy"
			}
			if got != c.client {
				t.Fatalf("the client is %q, want %q", got, c.client)
			}
			if rest, _ := io.ReadAll(r); got != "" && string(rest) != "rest" {
				t.Errorf("behind the header stands %q", rest)
			}
		})
	}
}

type oneByte struct{ io.Reader }

func (r oneByte) Read(p []byte) (int, error) { return r.Reader.Read(p[:min(1, len(p))]) }

func FuzzProxyHeader(f *testing.F) {
	f.Add([]byte("PROXY TCP4 192.0.2.1 127.0.0.1 4711 443\r\nGET"))
	f.Add([]byte(binaryHeader(0x21, 0x11, addresses("192.0.2.1:4711"), []byte("tlv"))))
	f.Add([]byte(binaryHeader(0x20, 0x00)))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bufio.NewReaderSize(bytes.NewReader(data), proxyBuffer)
		client, err := readProxyHeader(r)
		rest, _ := io.ReadAll(r)
		if !bytes.HasSuffix(data, rest) {
			t.Fatal("what stands behind the header was changed")
		}
		if err != nil {
			return
		}
		head := data[:len(data)-len(rest)]
		if len(head) < len("PROXY UNKNOWN\r\n") || client.IsValid() && client.Addr().Is4In6() {
			t.Fatalf("%q is a header of %s", head, client)
		}
		again, err := readProxyHeader(bufio.NewReaderSize(oneByte{bytes.NewReader(head)}, proxyBuffer))
		if err != nil || again != client {
			t.Fatalf("a byte at a time %q is %s, %v and not %s", head, again, err, client)
		}
	})
}

// behindProxies is a gateway whose trusted proxies, by default every client
// of the test, speak the PROXY protocol.
func behindProxies(t *testing.T, s setup) *gateway {
	loopback := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	change := s.server
	s.config = func(c *Config) { c.TrustedProxies = loopback }
	s.server = func(c *ServerConfig) {
		c.TrustedProxies, c.ProxyProtocol = loopback, true
		if change != nil {
			change(c)
		}
	}
	return start(t, s)
}

const fromClient = "PROXY TCP4 192.0.2.1 127.0.0.1 4711 443\r\n"

func TestRow29ThroughAProxyProtocolHeaderTheClientIsThePeer(t *testing.T) {
	g := behindProxies(t, setup{})
	for _, c := range []struct{ name, header, client string }{
		{"version 1", fromClient, "192.0.2.1"},
		{"version 2", binaryHeader(0x21, 0x21, addresses("[2001:db8::1]:1")), "2001:db8::1"},
		{"version 2 with 64 KiB of TLVs", binaryHeader(0x21, 0x11, addresses("192.0.2.2:1"), make([]byte, 60000)), "192.0.2.2"},
		{"a client without an address", "PROXY UNKNOWN\r\n", "0.0.0.0"},
		// The proxy's own word is believed, as without the protocol.
		{"LOCAL", binaryHeader(0x20, 0x00), "203.0.113.9"},
		{"another trusted proxy behind it", "PROXY TCP4 127.0.0.9 127.0.0.1 1 1\r\n", "203.0.113.9"},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := len(g.upstream.requests())
			w := g.dial()
			w.sendRaw(c.header + "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: https\r\n\r\n")
			if got := w.answer("GET"); got.StatusCode != 200 {
				t.Fatalf("status is %d", got.StatusCode)
			}
			w.send("GET /again HTTP/1.1\nHost: a\nX-Forwarded-For: 203.0.113.9\n\n")
			if got := w.answer("GET"); got.StatusCode != 200 {
				t.Fatalf("the second request got %d", got.StatusCode)
			}
			for _, s := range g.upstream.requests()[before:] {
				believed := s.Header.Get("X-Forwarded-For") != ""
				if s.Client != c.client || believed != (c.client == "203.0.113.9") {
					t.Errorf("the client is %s, X-Forwarded-For believed: %v", s.Client, believed)
				}
			}
		})
	}
}

func TestAProxyProtocolHeaderMayComeInPieces(t *testing.T) {
	g := behindProxies(t, setup{})
	for _, header := range []string{fromClient, binaryHeader(0x21, 0x11, addresses("192.0.2.1:1"), make([]byte, 20))} {
		w := g.dial()
		for i := range header {
			w.sendRaw(header[i : i+1]) // TCP_NODELAY is Go's default
		}
		w.send("GET / HTTP/1.1\nHost: a\n\n")
		if got := w.answer("GET"); got.StatusCode != 200 {
			t.Errorf("status is %d", got.StatusCode)
		}
	}
	for _, s := range g.upstream.requests() {
		if s.Client != "192.0.2.1" {
			t.Errorf("the client is %s", s.Client)
		}
	}
}

func TestATrustedProxyWithoutAHeaderIsNotServed(t *testing.T) {
	g := behindProxies(t, setup{server: func(c *ServerConfig) { c.ReadHeaderTimeout = 100 * time.Millisecond }})
	for _, first := range []string{
		"", "PROXY TCP4 192.0.2.1", proxySignature, // silence, at once and in the middle
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "PROXY TCP4 a b 1 2\r\n", strings.Repeat("x", 300),
	} {
		w := g.dial()
		w.sendRaw(first)
		if !w.closed() {
			t.Errorf("after %q the connection is open or was answered", first)
		}
	}
	eventually(t, "every place is given back", func() bool { return g.server.limiter.connections() == 0 })
	if n := strings.Count(g.log.String(), "does not begin with a PROXY header"); n != 4 || len(g.upstream.requests()) != 0 {
		t.Errorf("%d of the 4 wrong beginnings are in the log: %s", n, g.log)
	}
}

func TestSlowProxyProtocolHeadersKeepNobodyOut(t *testing.T) {
	g := behindProxies(t, setup{})
	for range 50 {
		g.dial().sendRaw("PROXY ")
	}
	w := g.dial()
	w.sendRaw(fromClient + "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	if got := w.answer("GET"); got.StatusCode != 200 {
		t.Errorf("status is %d", got.StatusCode)
	}
}

func TestRow30NobodyElsesProxyProtocolHeaderIsRead(t *testing.T) {
	elsewhere := func(c *ServerConfig) { c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")} }
	g := behindProxies(t, setup{server: elsewhere})
	for _, header := range []string{fromClient, binaryHeader(0x21, 0x11, addresses("192.0.2.1:1"))} {
		w := g.dial()
		w.sendRaw(header + "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		// The head alone: what of the answer follows may be lost to a reset.
		if got, err := http.ReadResponse(w.r, nil); err != nil || got.StatusCode != 400 {
			t.Errorf("%q got %v, %v", header, got, err)
		}
	}
	if got, _ := g.exchange("GET / HTTP/1.1\nHost: a\n\n"); got.StatusCode != 200 {
		t.Errorf("a client without a header got %d", got.StatusCode)
	}
	cert, _ := certificate(t, "one.test")
	s := behindProxies(t, setup{secure: true, server: func(c *ServerConfig) {
		elsewhere(c)
		c.TLS.Certificates = []CertificateFiles{cert}
	}})
	c := s.dial()
	c.sendRaw(fromClient)
	if err := tls.Client(c.Conn, &tls.Config{InsecureSkipVerify: true}).Handshake(); err == nil {
		t.Error("a PROXY header was read before TLS")
	}
	if n := len(g.upstream.requests()); n != 1 {
		t.Errorf("%d requests went on", n)
	}
}

func TestRow43TheClientsConnectionsAreBoundedBehindAProxyToo(t *testing.T) {
	cert, _ := certificate(t, "one.test")
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("secure %v", secure), func(t *testing.T) {
			g := behindProxies(t, setup{secure: secure, server: func(c *ServerConfig) {
				c.MaxConnectionsPerIP = 2
				c.TLS.Certificates = []CertificateFiles{cert}
			}})
			ask := func(client string) (int, net.Conn) {
				w := g.dial()
				w.sendRaw("PROXY TCP4 " + client + " 127.0.0.1 4711 443\r\n")
				if secure {
					c := tls.Client(w.Conn, &tls.Config{InsecureSkipVerify: true})
					if c.Handshake() != nil {
						return 0, w
					}
					w.Conn, w.r = c, bufio.NewReader(c)
				}
				w.send("GET / HTTP/1.1\nHost: a\n\n")
				return w.answer("GET").StatusCode, w
			}
			for range 2 {
				if got, _ := ask("192.0.2.1"); got != 200 {
					t.Fatalf("status is %d", got)
				}
			}
			_, first := ask("192.0.2.2")
			if got, _ := ask("192.0.2.2"); got != 200 {
				t.Errorf("another client got %d", got)
			}
			w := g.dial()
			w.sendRaw("PROXY TCP4 192.0.2.2 127.0.0.1 4711 443\r\n")
			if secure {
				if !w.closed() {
					t.Error("one too many was not closed")
				}
			} else if got := w.answer("GET"); got.StatusCode != http.StatusServiceUnavailable || !strings.Contains(got.Text, string(routing.CodeOverloaded)) {
				t.Errorf("one too many got %d", got.StatusCode)
			}
			_ = first.Close()
			eventually(t, "a place is free", func() bool { return g.server.limiter.connections() == 3 })
			if got, _ := ask("192.0.2.2"); got != 200 {
				t.Errorf("after one left, another got %d", got)
			}
		})
	}
}

func TestWhatCameWithAProxyProtocolHeaderIsCopiedToo(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	limited := &limitedListener{Listener: ln, limiter: newLimiter(1, 1, []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}), proxied: &proxyProtocol{}}
	defer func() { _ = limited.Close() }()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(c, fromClient+strings.Repeat("with it, ", 30)+"and behind it")
	_ = c.Close()
	conn, err := limited.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	var got strings.Builder
	if _, err := io.Copy(&got, conn); err != nil || got.String() != strings.Repeat("with it, ", 30)+"and behind it" {
		t.Errorf("copied %q, %v", got.String(), err)
	}
}
