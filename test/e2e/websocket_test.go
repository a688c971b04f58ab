package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/sluice-gateway/sluice/test/testenv"
)

// socketInstance speaks WebSocket: it sends back what it is sent, and to
// "who" its name.
type socketInstance struct {
	addr    string
	asked   atomic.Int64             // handshakes
	offered atomic.Pointer[[]string] // the extensions of the last handshake
	pings   atomic.Int64
}

func startSocketInstance(t *testing.T, name string) *socketInstance {
	t.Helper()
	s := &socketInstance{}
	instance := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "" {
			return
		}
		s.asked.Add(1)
		offered := r.Header["Sec-Websocket-Extensions"]
		s.offered.Store(&offered)
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{
			InsecureSkipVerify: true, // the gateway's business in these tests
			Subprotocols:       []string{"chat.v2", "chat.v1"}, CompressionMode: websocket.CompressionContextTakeover,
			OnPingReceived: func(context.Context, []byte) bool { s.pings.Add(1); return true },
		})
		if err != nil {
			return // Accept has answered
		}
		defer func() { _ = c.CloseNow() }()
		c.SetReadLimit(8 << 20)
		for {
			kind, message, err := c.Read(r.Context())
			if err != nil {
				return
			}
			if string(message) == "who" {
				message = []byte(name)
			}
			if c.Write(r.Context(), kind, message) != nil {
				return
			}
		}
	}))
	t.Cleanup(instance.Close)
	s.addr = instance.Listener.Addr().String()
	return s
}

// socket is a client's end of a WebSocket.
type socket struct {
	t *testing.T
	*websocket.Conn
	answer *http.Response
}

func (s *site) socket(base, path string, o websocket.DialOptions) *socket {
	s.t.Helper()
	c, resp, err := s.trySocket(base, path, o)
	if err != nil {
		s.t.Fatal(err)
	}
	return &socket{s.t, c, resp}
}

func (s *site) trySocket(base, path string, o websocket.DialOptions) (*websocket.Conn, *http.Response, error) {
	tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	s.t.Cleanup(tr.CloseIdleConnections)
	o.HTTPClient = &http.Client{Transport: tr}
	ctx, cancel := context.WithTimeout(s.t.Context(), wait)
	defer cancel()
	c, resp, err := websocket.Dial(ctx, base+path, &o)
	if err == nil {
		c.SetReadLimit(8 << 20)
		s.t.Cleanup(func() { _ = c.CloseNow() })
	}
	return c, resp, err
}

// exchange sends a message and returns the one that comes back.
func (c *socket) exchange(kind websocket.MessageType, message []byte) []byte {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), wait)
	defer cancel()
	if err := c.Write(ctx, kind, message); err != nil {
		c.t.Fatal(err)
	}
	got, back, err := c.Read(ctx)
	if err != nil || got != kind {
		c.t.Fatalf("got kind %v, %v", got, err)
	}
	return back
}

// who is the name of the instance at the other end.
func (c *socket) who() string {
	c.t.Helper()
	return string(c.exchange(websocket.MessageText, []byte("who")))
}

// ended is the status that the connection ends with; -1 where it just ends.
func (c *socket) ended() websocket.StatusCode {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), wait)
	defer cancel()
	_, _, err := c.Read(ctx)
	if err == nil || ctx.Err() != nil {
		c.t.Fatalf("it did not end: %v", err)
	}
	return websocket.CloseStatus(err)
}

// newSecure is newFixed with a listener for TLS; it returns the bases of the
// WebSocket addresses of both.
func newSecure(t *testing.T, extra string) (s *site, bases map[string]string) {
	t.Helper()
	certFile, keyFile := testenv.NewCA(t).Issue(t, "gateway", "127.0.0.1")
	secure := fmt.Sprintf("127.0.0.1:%d", testenv.FreePort(t))
	s = newFixed(t, testenv.GatewayOptions{ListenExtra: []string{fmt.Sprintf("https: %q", secure)},
		Extra: fmt.Sprintf("tls: {certificates: [{cert_file: %q, key_file: %q}]}\n%s", certFile, keyFile, extra)})
	return s, map[string]string{"plain": "ws://" + s.gateway.Addr, "TLS": "wss://" + secure}
}

func TestWebSocketsThroughTheGateway(t *testing.T) {
	s, bases := newSecure(t, "")
	instance := startSocketInstance(t, "one")
	bothEngines(t, s, func(s *site, name, engine string) {
		s.fixed(name, engine+`,"timeouts":{"idle":"1m"}`, instance.addr)
		for listener, base := range bases {
			s.t.Run(listener, func(t *testing.T) {
				s := s.at(t)
				t.Run("the subprotocol is negotiated", func(t *testing.T) {
					for offer, want := range map[string]string{"chat.v1": "chat.v1", "soap,chat.v1": "chat.v1", "soap": "", "": ""} {
						c := s.at(t).socket(base, "/"+name+"/x", websocket.DialOptions{Subprotocols: strings.FieldsFunc(offer, func(r rune) bool { return r == ',' })})
						equal(t, offer, fmt.Sprintf("%s %q", c.Subprotocol(), c.answer.Header["Sec-Websocket-Protocol"]), map[bool]string{
							true: fmt.Sprintf("%s [%q]", want, want), false: " []"}[want != ""])
					}
				})
				t.Run("extensions go untouched", func(t *testing.T) {
					s := s.at(t)
					c := s.socket(base, "/"+name+"/x", websocket.DialOptions{CompressionMode: websocket.CompressionContextTakeover})
					equal(t, "offered", fmt.Sprintf("%q", *instance.offered.Load()), `["permessage-deflate"]`)
					equal(t, "agreed", strings.HasPrefix(c.answer.Header.Get("Sec-Websocket-Extensions"), "permessage-deflate"), true)
					message := bytes.Repeat([]byte("deflate me "), 100_000)
					for range 3 { // with the context of the ones before
						equal(t, "message", bytes.Equal(c.exchange(websocket.MessageText, message), message), true)
					}
					w := dial(t, s.gateway.Addr)
					const odd = `x-odd; a=1; b="q,uoted", permessage-deflate; client_max_window_bits`
					w.send(crlf("GET /" + name + "/x HTTP/1.1\nHost: a\nConnection: Upgrade\nUpgrade: websocket\n" +
						"Sec-WebSocket-Version: 13\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\nSec-WebSocket-Extensions: " + odd + "\n\n"))
					equal(t, "handshake", w.answer(http.MethodGet).StatusCode, http.StatusSwitchingProtocols)
					equal(t, "offered by hand", fmt.Sprint(*instance.offered.Load()), "["+odd+"]")
				})
				t.Run("binary messages and pings", func(t *testing.T) {
					c := s.at(t).socket(base, "/"+name+"/x", websocket.DialOptions{})
					for _, size := range []int{0, 1, 125, 126, 65535, 65536, 4 << 20} {
						message := bytes.Repeat([]byte{0, 0xff, 0x80}, size/3+1)[:size]
						equal(t, fmt.Sprint(size, " bytes"), bytes.Equal(c.exchange(websocket.MessageBinary, message), message), true)
					}
					before := instance.pings.Load()
					reader := c.CloseRead(t.Context())
					if err := c.Ping(reader); err != nil {
						t.Fatal(err)
					}
					equal(t, "pings at the instance", instance.pings.Load(), before+1)
				})
				t.Run("the client closes", func(t *testing.T) {
					c := s.at(t).socket(base, "/"+name+"/x", websocket.DialOptions{})
					equal(t, "instance", c.who(), "one")
					if err := c.Close(websocket.StatusNormalClosure, "done"); err != nil {
						t.Errorf("the instance did not answer the close: %v", err)
					}
				})
			})
		}
	})
	testenv.Eventually(t, wait, "nothing is left in flight", func() bool { return s.metric("sluice_in_flight_requests{") == 0 })
}

func TestASilentWebSocketIsClosed(t *testing.T) {
	s, bases := newSecure(t, "")
	instance := startSocketInstance(t, "one")
	bothEngines(t, s, func(s *site, name, engine string) {
		s.fixed(name, engine+`,"timeouts":{"idle":"500ms"}`, instance.addr)
		for listener, base := range bases {
			c := s.socket(base, "/"+name+"/x", websocket.DialOptions{})
			equal(s.t, listener+": the end", c.ended(), -1)
		}
	})
}

// A flip moves whoever comes after it, and nobody who is there.
func TestAFlipLeavesOpenWebSocketsWhereTheyAre(t *testing.T) {
	s, bases := newSecure(t, "")
	blue, green := startSocketInstance(t, "blue"), startSocketInstance(t, "green")
	s.apply(map[string]string{
		"/sluice/services/chat": fmt.Sprintf(`{"targets":[{"address":%q,"tags":["blue"]},{"address":%q,"tags":["green"]}]}`, blue.addr, green.addr),
		"/sluice/routes/chat":   `{"path":"/chat","service":"chat"}`,
		"/sluice/active/chat":   "blue",
	})
	var open []*socket
	for _, base := range bases {
		for range 5 {
			c := s.socket(base, "/chat", websocket.DialOptions{})
			equal(t, "before the flip", c.who(), "blue")
			open = append(open, c)
		}
	}
	s.apply(map[string]string{"/sluice/active/chat": "green"})
	for _, base := range bases {
		equal(t, "a new one", s.socket(base, "/chat", websocket.DialOptions{}).who(), "green")
	}
	for _, c := range open {
		equal(t, "one of before", c.who(), "blue")
	}
	equal(t, "handshakes", fmt.Sprint(blue.asked.Load(), " ", green.asked.Load()), "10 2")
}

// Both kinds of listener, both engines: whoever is connected when the gateway
// goes is told so.
func TestP11OpenWebSocketsAreToldThatTheGatewayGoes(t *testing.T) {
	s, bases := newSecure(t, "shutdown: {timeout: 1s}\n")
	instance := startSocketInstance(t, "one")
	var open []*socket
	bothEngines(t, s, func(s *site, name, engine string) {
		s.fixed(name, engine, instance.addr)
	})
	for _, base := range bases {
		for _, name := range []string{"fast", "std"} {
			c := s.socket(base, "/"+name+"/x", websocket.DialOptions{})
			equal(t, "before", c.who(), "one")
			open = append(open, c)
		}
	}
	if err := syscall.Kill(s.gateway.Pid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for _, c := range open {
		equal(t, "the end", c.ended(), websocket.StatusGoingAway)
	}
	testenv.Eventually(t, wait, "the gateway is gone", func() bool { return !s.gateway.Running() })
}

// Row 78: another site's page can open a WebSocket with the user's cookie;
// what it gets is a 403, and the instance hears of none of it.
func TestRow78AForeignPageOpensNoWebSocket(t *testing.T) {
	c := newClub(t)
	instance := startSocketInstance(t, "one")
	c.etcd.Put("/sluice/services/orders", fmt.Sprintf(`{"targets":[{"address":%q}]}`, instance.addr))
	m := c.member()
	m.logIn(0, "user")
	s := &site{t: t, etcd: c.etcd, gateway: c.gateways[0]}
	s.eventually("the route leads to the instance", "/open", func(a answer) bool { return a.Status == http.StatusOK && len(a.Body) == 0 })
	cookie := clubSession + "=" + m.cookies[clubSession]
	for _, a := range []struct{ name, origin, cookie, want string }{
		{"the site's own page", clubOrigin, cookie, "101"},
		{"a program", "", cookie, "101"},
		{"a foreign page", "https://evil.test", cookie, "403 forbidden"},
		{"a page of the same name on another port", clubOrigin + ":444", cookie, "403 forbidden"},
		{"a name that begins alike", clubOrigin + ".evil.test", cookie, "403 forbidden"},
		{"a page without an origin", "null", cookie, "403 forbidden"},
		{"nobody's page", clubOrigin, "", "401 unauthenticated"},
		{"a made-up session", clubOrigin, clubSession + "=made-up", "401 unauthenticated"},
	} {
		before := instance.asked.Load()
		equal(t, a.name, s.shake("/socket", clubName, a.origin, "Cookie: "+a.cookie), a.want)
		equal(t, a.name+": handshakes", instance.asked.Load()-before, map[bool]int64{true: 1}[a.want == "101"])
	}
}

// Row 78: a token that has expired is refused before the upgrade.
func TestRow78AnExpiredTokenOpensNoWebSocket(t *testing.T) {
	g := newGuarded(t)
	instance := startSocketInstance(t, "one")
	g.put("/sluice/services/orders", fmt.Sprintf(`{"targets":[{"address":%q}]}`, instance.addr))
	g.route(g.jwt(fmt.Sprintf(`"discovery":%q`, g.oidc.Issuer)))
	token := func(lives time.Duration) string {
		return bearer(g.oidc.Sign("JWT", map[string]any{"iss": g.oidc.Issuer, "sub": "eve", "aud": "api", "exp": time.Now().Add(lives).Unix()}))
	}
	equal(t, "a good token", g.shake("/orders/x", "a", "", token(time.Hour)), "101")
	equal(t, "handshakes", instance.asked.Load(), 1)
	for name, header := range map[string]string{"expired": token(-time.Hour), "none": "X-None: 1", "made up": bearer("a.b.c")} {
		equal(t, name, g.shake("/orders/x", "a", "", header), "401 unauthenticated")
	}
	equal(t, "handshakes after the others", instance.asked.Load(), 1)
}

// shake tries a handshake and returns the status, with the code where the
// gateway refuses.
func (s *site) shake(path, host, origin string, header string) string {
	s.t.Helper()
	if origin != "" {
		header += "\nOrigin: " + origin
	}
	w := dial(s.t, s.gateway.Addr)
	w.send(crlf("GET " + path + " HTTP/1.1\nHost: " + host + "\nConnection: Upgrade\nUpgrade: websocket\n" +
		"Sec-WebSocket-Version: 13\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\n" + header + "\n\n"))
	a := w.answer(http.MethodGet)
	defer func() { _ = w.Close() }()
	if a.StatusCode == http.StatusSwitchingProtocols {
		return "101"
	}
	_, rest, _ := strings.Cut(a.Text, `"code":"`)
	code, _, _ := strings.Cut(rest, `"`)
	return fmt.Sprint(a.StatusCode, " ", code)
}
