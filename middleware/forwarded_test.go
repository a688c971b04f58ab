package middleware

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"
)

// claims is every header of rows 28 to 38 that a client may make up.
const claims = `X-Forwarded-For: 6.6.6.6
X-Forwarded-Proto: https
X-Forwarded-Host: evil.test
X-Forwarded-Port: 1
X-Forwarded-Prefix: //evil.test
X-Forwarded-Uri: /admin
X-Forwarded-Anything: x
Forwarded: for=6.6.6.6
X-Real-IP: 127.0.0.1
X-Request-ID: evil
X-Trace-ID: evil
traceparent: 00-11111111111111111111111111111111-2222222222222222-01
tracestate: evil=1
X-Original-URL: /admin
X-Original-Uri: /admin
X-Rewrite-Url: /admin
X-Envoy-Original-Path: /admin
X-HTTP-Method-Override: DELETE
X-HTTP-Method: DELETE
X-Method-Override: DELETE
Proxy: http://evil.test
X-User-ID: root
X-User-Role: admin
X-Consumer: a
X-Consumer-Groups: gold
X-Tenant-Identity: a
X_Forwarded_For: 6.6.6.6
X_forwarded-for: 6.6.6.6
x_user_id: root
X-User_Id: root
X_Real_IP: 127.0.0.1
X_Tenant_Identity: a
X_HTTP_METHOD_OVERRIDE: DELETE
`

func identity(c *Config) { c.IdentityHeaders = []string{"X-Tenant-Identity"} }

func TestRows28To38AnUntrustedClientsClaimsAreRemoved(t *testing.T) {
	g := start(t, setup{config: identity})
	got, _ := g.exchange("GET / HTTP/1.1\nHost: a\n" + claims + "X-Kept: yes\nX_Kept: yes\nAccept: */*\n\n")
	if got.StatusCode != 200 {
		t.Fatalf("status is %d", got.StatusCode)
	}
	s := g.upstream.requests()[0]
	want := http.Header{"X-Kept": {"yes"}, "X_kept": {"yes"}, "Accept": {"*/*"}}
	if fmt.Sprint(s.Header) != fmt.Sprint(want) {
		t.Errorf("the instance was told %v, want %v", s.Header, want)
	}
	if s.Client != "127.0.0.1" {
		t.Errorf("the client is %s", s.Client)
	}
	if s.RequestID == "evil" || s.TraceID == strings.Repeat("1", 32) {
		t.Errorf("the client named its request %q in trace %q", s.RequestID, s.TraceID)
	}
	if id := got.Header["X-Request-Id"]; len(id) != 1 || id[0] != s.RequestID || len(s.RequestID) != 32 {
		t.Errorf("the answer's X-Request-ID is %q, the request's %q", id, s.RequestID)
	}
}

func TestRows29And33ATrustedProxySpeaksOnlyOfTheConnection(t *testing.T) {
	g := start(t, setup{config: func(c *Config) {
		identity(c)
		c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	}})
	got, _ := g.exchange("GET / HTTP/1.1\nHost: a\n" + claims + "\n")
	s := g.upstream.requests()[0]
	for _, kept := range []string{"X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Prefix", "Forwarded", "X-Real-Ip", "Traceparent", "Tracestate"} {
		if s.Header[kept] == nil {
			t.Errorf("%s is gone", kept)
		}
		delete(s.Header, kept)
	}
	for name := range s.Header {
		if !strings.HasPrefix(name, "X-Forwarded-") && name != "X-Request-Id" {
			t.Errorf("%s went on", name)
		}
	}
	if s.Client != "6.6.6.6" || s.RequestID != "evil" || s.TraceID != strings.Repeat("1", 32) {
		t.Errorf("client %s, request %s, trace %s", s.Client, s.RequestID, s.TraceID)
	}
	if got.Header.Get("X-Request-ID") != "evil" {
		t.Errorf("the answer's X-Request-ID is %q", got.Header["X-Request-Id"])
	}
}

// A client deletes its own headers by naming them in Connection, never what
// the gateway says afterwards.
func TestRow27HopByHopDeletesOnlyTheClientsOwn(t *testing.T) {
	g := start(t, setup{routes: map[string]string{"a": `{"path":"/*","service":"a","plugins":{
		"headers":{"request":{"set":{"X-User-Id":"ours"}}}}}`}})
	_, _ = g.exchange("GET / HTTP/1.1\nHost: a\nX-Own: 1\nKeep-Alive: 5\nTE: trailers, gzip\n" +
		"Connection: close, x-forwarded-for, X-User-Id, X-REAL-IP, x-own\nProxy-Connection: keep-alive\n\n")
	want := http.Header{"Te": {"trailers"}, "X-User-Id": {"ours"}}
	if s := g.upstream.requests()[0]; fmt.Sprint(s.Header) != fmt.Sprint(want) {
		t.Errorf("the instance was told %v, want %v", s.Header, want)
	}
}

func TestWebSocketHandshakeGoesOnInPlainForm(t *testing.T) {
	g := start(t, setup{})
	_, _ = g.exchange("GET / HTTP/1.1\nHost: a\nConnection: keep-alive, upgrade\nUpgrade: WebSocket\nSec-WebSocket-Version: 13\n\n")
	want := http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"}}
	if s := g.upstream.requests()[0]; fmt.Sprint(s.Header) != fmt.Sprint(want) {
		t.Errorf("the instance was told %v, want %v", s.Header, want)
	}
}

// Rows 30 to 32 and D11: the client's address.
func TestClientAddress(t *testing.T) {
	for _, c := range []struct {
		name, peer string
		trusted    []string
		forwarded  []string
		want       string
	}{
		{"D11 nobody is trusted by default", "10.0.0.1:5", nil, []string{"6.6.6.6"}, "10.0.0.1"},
		{"row 30 an untrusted peer cannot name another", "9.9.9.9:5", []string{"10.0.0.0/8"}, []string{"6.6.6.6"}, "9.9.9.9"},
		{"row 31 private peers are not trusted by themselves", "192.168.1.1:5", []string{"10.0.0.0/8"}, []string{"6.6.6.6"}, "192.168.1.1"},
		{"row 32 a mapped peer is trusted as what it maps", "[::ffff:10.0.0.1]:5", []string{"10.0.0.0/8"}, []string{"6.6.6.6"}, "6.6.6.6"},
		{"row 32 a mapped range means what it maps", "10.0.0.1:5", []string{"::ffff:10.0.0.0/104"}, []string{"6.6.6.6"}, "6.6.6.6"},
		{"row 32 a mapped entry is unmapped", "10.0.0.1:5", []string{"10.0.0.0/8"}, []string{"::ffff:6.6.6.6"}, "6.6.6.6"},
		{"the last untrusted hop is the client", "10.0.0.1:5", []string{"10.0.0.0/8"}, []string{"1.1.1.1, 6.6.6.6, 10.0.0.2"}, "6.6.6.6"},
		{"lines are one list", "10.0.0.1:5", []string{"10.0.0.0/8"}, []string{"1.1.1.1", "6.6.6.6,10.0.0.3", "10.0.0.2"}, "6.6.6.6"},
		{"every hop trusted: the first", "10.0.0.1:5", []string{"10.0.0.0/8"}, []string{"10.0.0.3, 10.0.0.2"}, "10.0.0.3"},
		{"a malformed entry stops the walk", "10.0.0.1:5", []string{"10.0.0.0/8"}, []string{"6.6.6.6, junk, 10.0.0.2"}, "10.0.0.2"},
		{"an empty entry stops the walk", "10.0.0.1:5", []string{"10.0.0.0/8"}, []string{"6.6.6.6, , 10.0.0.2"}, "10.0.0.2"},
		{"no entry at all", "10.0.0.1:5", []string{"10.0.0.0/8"}, nil, "10.0.0.1"},
		{"an entry with a port", "10.0.0.1:5", []string{"10.0.0.0/8"}, []string{"6.6.6.6:1234"}, "6.6.6.6"},
		{"an entry in brackets", "10.0.0.1:5", []string{"10.0.0.0/8"}, []string{"[2001:db8::1]"}, "2001:db8::1"},
		{"an entry in brackets with a port", "[fe80::1%eth0]:5", []string{"fe80::/10"}, []string{"[2001:db8::1]:80"}, "2001:db8::1"},
		{"no address at all", "@", []string{"0.0.0.0/0"}, []string{"6.6.6.6"}, "invalid IP"},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newGateway(t, setup{config: func(cfg *Config) {
				for _, p := range c.trusted {
					cfg.TrustedProxies = append(cfg.TrustedProxies, netip.MustParsePrefix(p))
				}
			}})
			r, w := newRequest("GET", "/")
			r.RemoteAddr = c.peer
			if c.forwarded != nil {
				r.Header["X-Forwarded-For"] = c.forwarded
			}
			g.engine.ServeHTTP(w, r)
			if got := g.upstream.requests()[0].Client; got != c.want {
				t.Errorf("the client is %s, want %s", got, c.want)
			}
		})
	}
}

func TestRow30AThousandMadeUpAddressesAreOneClient(t *testing.T) {
	g := newGateway(t, setup{})
	for i := range 1000 {
		r, w := newRequest("GET", "/")
		r.Header.Set("X-Forwarded-For", fmt.Sprintf("6.6.%d.%d", i/256, i%256))
		g.engine.ServeHTTP(w, r)
	}
	clients := map[string]int{}
	for _, s := range g.upstream.requests() {
		clients[s.Client]++
	}
	if len(clients) != 1 {
		t.Errorf("the clients are %v", clients)
	}
}

func TestRow34And36NoClientHeaderChangesRouteOrTarget(t *testing.T) {
	g := start(t, setup{routes: guarded})
	got, _ := g.exchange("GET /admin/x HTTP/1.1\nHost: a\nX-Real-IP: 127.0.0.1\nX-Sluice-Target: 127.0.0.1:1\n" +
		"X-Sluice-Route: public\nUser-Agent: kube-probe/1.30\nX-Original-URL: /public/x\nX-HTTP-Method-Override: OPTIONS\n\n")
	if got.StatusCode != 403 || len(g.upstream.requests()) != 0 {
		t.Errorf("status is %d", got.StatusCode)
	}
}

func TestRow39RedirectsAreNotSteeredByTheClient(t *testing.T) {
	g := start(t, setup{routes: map[string]string{
		"moved": `{"path":"/old/*rest","redirect":{"to":"/*rest","code":308}}`,
		"away":  `{"path":"/away/:id","redirect":{"to":"https://new.test/item/:id#top"}}`,
		"exact": `{"path":"/dir/","service":"dir"}`,
	}})
	for _, c := range []struct{ name, target, want string }{
		{"a path", "/old/a/b", "/a/b"},
		{"a path that would name a site", "/old//evil.test", "/evil.test"},
		{"a path that would name a site by escapes", "/old/%2Fevil.test", "/%2Fevil.test"},
		{"the query goes along, before the fragment", "/away/7?q=1", "https://new.test/item/7?q=1#top"},
	} {
		got, _ := g.exchange("GET " + c.target + " HTTP/1.1\nHost: evil.test\nX-Forwarded-Prefix: //evil.test\nX-Forwarded-Host: evil.test\n\n")
		if loc := got.Header.Get("Location"); loc != c.want {
			t.Errorf("%s: Location is %q, want %q", c.name, loc, c.want)
		}
	}
	got, _ := g.exchange("GET /dir HTTP/1.1\nHost: a\nX-Forwarded-Prefix: //evil.test\n\n")
	if got.StatusCode != 404 || got.Header.Get("Location") != "" {
		t.Errorf("a missing slash got %d to %q", got.StatusCode, got.Header.Get("Location"))
	}
}

func TestRow90TracesFromOutsideAreBounded(t *testing.T) {
	id, span := strings.Repeat("a", 32), strings.Repeat("b", 16)
	for _, c := range []struct {
		name, parent, want string
	}{
		{"valid", "00-" + id + "-" + span + "-01", id},
		{"a later version with more to it", "01-" + id + "-" + span + "-01-more", id},
		{"more than its version allows", "00-" + id + "-" + span + "-01-more", ""},
		{"the version that is none", "ff-" + id + "-" + span + "-01", ""},
		{"upper case", "00-" + strings.ToUpper(id) + "-" + span + "-01", ""},
		{"all zeros", "00-" + strings.Repeat("0", 32) + "-" + span + "-01", ""},
		{"a parent of zeros", "00-" + id + "-" + strings.Repeat("0", 16) + "-01", ""},
		{"short", "00-" + id, ""},
		{"far too long", "01-" + id + "-" + span + "-01-" + strings.Repeat("x", 5000), ""},
	} {
		if got := traceID([]string{c.parent}); got != c.want {
			t.Errorf("%s: trace id is %q, want %q", c.name, got, c.want)
		}
	}
	if got := traceID([]string{"00-" + id + "-" + span + "-01", "00-" + id + "-" + span + "-01"}); got != "" {
		t.Errorf("two parents: trace id is %q", got)
	}
}
