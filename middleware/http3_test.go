package middleware

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/sluice-gateway/sluice/routing"
)

// serveHTTP3 serves at the address of the TLS listener until the test ends.
func (g *gateway) serveHTTP3() {
	g.t.Helper()
	h, err := g.server.ListenHTTP3(g.t.Context(), g.addr)
	if err != nil {
		g.t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- h.Serve() }()
	g.t.Cleanup(func() {
		over, cancel := context.WithCancel(context.Background())
		cancel() // what a test leaves open is cut off
		_ = h.shutdown(over)
		if err := <-served; err != nil {
			g.t.Error(err)
		}
	})
}

// quicClient is a client that speaks HTTP/3 alone, on one connection.
type quicClient struct {
	t testing.TB
	*http3.Transport
	addr string
}

func (g *gateway) quicClient(tune ...func(*http3.Transport)) *quicClient {
	g.t.Helper()
	tr := &http3.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, ServerName: "one.test"}, DisableCompression: true}
	for _, f := range tune {
		f(tr)
	}
	g.t.Cleanup(func() { _ = tr.Close() })
	return &quicClient{g.t, tr, g.addr}
}

// do sends a request and reads the answer to its end.
func (c *quicClient) do(method, path string, body io.Reader, headers ...string) (reply, error) {
	req, err := http.NewRequestWithContext(c.t.Context(), method, "https://"+c.addr+path, body)
	if err != nil {
		c.t.Fatal(err)
	}
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		req.Header.Add(name, value)
	}
	return c.send(req)
}

func (c *quicClient) send(req *http.Request) (reply, error) {
	resp, err := c.RoundTrip(req)
	if err != nil {
		return reply{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return reply{resp, string(text)}, err
}

// get wants an answer.
func (c *quicClient) get(path string, headers ...string) reply {
	c.t.Helper()
	got, err := c.do("GET", path, nil, headers...)
	if err != nil {
		c.t.Fatalf("GET %s: %v", path, err)
	}
	return got
}

// quicDial opens a connection to speak HTTP/3 on by hand.
func (g *gateway) quicDial(config *quic.Config) *quic.Conn {
	g.t.Helper()
	conn, err := quic.DialAddr(g.t.Context(), g.addr,
		&tls.Config{InsecureSkipVerify: true, ServerName: "one.test", NextProtos: []string{http3.NextProtoH3}}, config)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { _ = conn.CloseWithError(0, "") })
	return conn
}

func TestARequestOverHTTP3WalksTheSameSteps(t *testing.T) {
	g := start(t, setup{http3: true, routes: map[string]string{
		"any":    `{"path":"/*","service":"any","plugins":{"headers":{"response":{"set":{"X-Edited":"yes"}}}}}`,
		"closed": `{"path":"/closed","service":"any","plugins":{"ip_filter":{"deny":["127.0.0.1"]}}}`,
	}})
	c := g.quicClient()
	body := strings.Repeat("x", 1<<20)
	got, err := c.do("POST", "/a?b=c", strings.NewReader(body), "X-Real-Ip: 10.0.0.1", "X_User_Id: root", "X-Forwarded-For: 10.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	if got.StatusCode != 200 || got.Text != "ok" || got.Header.Get("X-Request-Id") == "" || got.Header.Get("X-Edited") != "yes" || got.Header.Get("Connection") != "" {
		t.Errorf("answer is %d %q %v", got.StatusCode, got.Text, got.Header)
	}
	seen := g.upstream.requests()[0]
	if seen.Body != body || seen.Target != "/a" || seen.Query != "b=c" || seen.Host != g.addr || seen.Client != "127.0.0.1" {
		t.Errorf("the forwarder got %s %s?%s of %s from %s, %d bytes", seen.Method, seen.Target, seen.Query, seen.Host, seen.Client, len(seen.Body))
	}
	for _, name := range []string{"X-Real-Ip", "X_User_Id", "X-Forwarded-For"} {
		if seen.Header[name] != nil {
			t.Errorf("%s came through", name)
		}
	}
	wantRefusal(t, c.get("/closed"), 403, routing.CodeForbidden)
	wantRefusal(t, c.get("/a/..%2fb"), 400, routing.CodeBadRequest)
	eventually(t, "the access log has the protocol", func() bool {
		return strings.Count(g.log.String(), `"proto":"HTTP/3.0"`) == 3
	})
}

func TestAltSvcIsSaidOverTLSAndTCPAlone(t *testing.T) {
	const ours = `h3=":443"; ma=86400`
	config := func(c *Config) { c.AltSvc = ours }
	g, plain := start(t, setup{http3: true, config: config}), start(t, setup{config: config})
	other := func(w http.ResponseWriter, _ *http.Request, _ *routing.Exchange) *routing.Refusal {
		w.Header().Set("Alt-Svc", `h3=":1"`) // an instance's own
		return nil
	}
	g.upstream.answers(other)
	plain.upstream.answers(other)
	overTCP := func(h2 bool) string {
		t.Helper()
		tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: h2}
		defer tr.CloseIdleConnections()
		resp, err := (&http.Client{Transport: tr}).Get("https://" + g.addr + "/")
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return strings.Join(resp.Header["Alt-Svc"], "|")
	}
	if one, two := overTCP(false), overTCP(true); one != ours || two != ours {
		t.Errorf("HTTP/1.1 says %q, HTTP/2 %q", one, two)
	}
	if got := g.quicClient().get("/"); got.Header["Alt-Svc"] != nil {
		t.Errorf("HTTP/3 says %q", got.Header["Alt-Svc"])
	}
	if got, _ := plain.exchange("GET / HTTP/1.1\nHost: a\n\n"); got.Header["Alt-Svc"] != nil {
		t.Errorf("without TLS it says %q", got.Header["Alt-Svc"])
	}
	g.engine.Drain()
	if one, two := overTCP(false), overTCP(true); one != "" || two != "" {
		t.Errorf("a gateway that leaves says %q and %q", one, two)
	}
}

func TestHTTP3SharesCertificatesAndTheirReload(t *testing.T) {
	one, _ := certificate(t, "one.test")
	two, _ := certificate(t, "two.test")
	known, pair := certificate(t, "client")
	_, stranger := certificate(t, "client")
	g := start(t, setup{http3: true, server: func(c *ServerConfig) {
		c.TLS = TLSConfig{Certificates: []CertificateFiles{one, two}, ClientCAFile: known.CertFile}
	}, routes: map[string]string{
		"any": `{"path":"/*","service":"any","plugins":{"mtls":{"headers":{"X-Client-CN":"subject_cn"}}}}`,
	}})
	dial := func(name string, certs ...tls.Certificate) (tls.ConnectionState, error) {
		c := g.quicClient(func(tr *http3.Transport) {
			tr.TLSClientConfig = &tls.Config{InsecureSkipVerify: true, ServerName: name, Certificates: certs}
		})
		got, err := c.do("GET", "/", nil)
		if err != nil {
			return tls.ConnectionState{}, err
		}
		return *got.TLS, nil
	}
	for name, want := range map[string]string{"one.test": "one.test", "two.test": "two.test", "three.test": "one.test"} {
		state, err := dial(name, pair)
		if err != nil {
			t.Fatal(err)
		}
		if got := state.PeerCertificates[0].Subject.CommonName; got != want || state.NegotiatedProtocol != "h3" || state.Version != tls.VersionTLS13 {
			t.Errorf("%s got the certificate of %s by %q", name, got, state.NegotiatedProtocol)
		}
	}
	if cn := g.upstream.requests()[0].Header.Get("X-Client-CN"); cn != "client" {
		t.Errorf("the instance is told of %q", cn)
	}
	if _, err := dial("one.test"); err == nil {
		t.Error("a client without a certificate was served")
	}
	if _, err := dial("one.test", stranger); err == nil {
		t.Error("a client with a stranger's certificate was served")
	}
	before := len(g.upstream.requests())
	kept := g.quicClient(func(tr *http3.Transport) { tr.TLSClientConfig.Certificates = []tls.Certificate{pair} })
	kept.get("/")
	fresh, _ := certificate(t, "new.test")
	replace(t, one, fresh)
	g.server.keys.reload()
	state, err := dial("one.test", pair)
	if err != nil {
		t.Fatal(err)
	}
	if got := state.PeerCertificates[0].Subject.CommonName; got != "new.test" {
		t.Errorf("after the reload %s is shown", got)
	}
	if got := kept.get("/"); got.StatusCode != 200 || got.TLS.PeerCertificates[0].Subject.CommonName != "one.test" {
		t.Errorf("the connection of before answers %d", got.StatusCode)
	}
	if n := len(g.upstream.requests()) - before; n != 3 {
		t.Errorf("%d requests came through, want 3", n)
	}
}

func TestWhatHTTP3CarriesBesideABody(t *testing.T) {
	g := start(t, setup{http3: true})
	g.upstream.answers(func(w http.ResponseWriter, r *http.Request, x *routing.Exchange) *routing.Refusal {
		switch r.URL.Path {
		case "/hints":
			w.Header().Set("Link", "</a.css>; rel=preload")
			w.WriteHeader(http.StatusEarlyHints)
			w.Header().Del("Link")
		case "/grpc":
			if !x.GRPC {
				t.Error("not known as gRPC")
			}
			got, _ := io.ReadAll(r.Body)
			w.Header().Set("Content-Type", "application/grpc")
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
			_, _ = w.Write(got)
			w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
			return nil
		}
		n, _ := io.Copy(io.Discard, r.Body)
		if r.ContentLength == 0 && n != 0 || r.ContentLength < 0 && n != 1 {
			t.Errorf("%s of length %d has a body of %d", r.Method, r.ContentLength, n)
		}
		if r.URL.Path == "/length" {
			w.Header().Set("X-Length", strconv.FormatInt(r.ContentLength, 10))
		}
		if r.Method != http.MethodHead {
			_, _ = io.WriteString(w, "ok")
		}
		return nil
	})
	c := g.quicClient()
	t.Run("gRPC and its trailers", func(t *testing.T) {
		got, err := c.do("POST", "/grpc", strings.NewReader("\x00\x00\x00\x00\x01m"), "Content-Type: application/grpc", "Te: trailers")
		if err != nil || got.Text != "\x00\x00\x00\x00\x01m" || got.Trailer.Get("Grpc-Status") != "0" {
			t.Errorf("%q, trailers %v, error %v", got.Text, got.Trailer, err)
		}
	})
	t.Run("a gRPC refusal", func(t *testing.T) {
		got, err := c.do("POST", "/a/..%2fb", strings.NewReader("x"), "Content-Type: application/grpc")
		if err != nil || got.StatusCode != 200 || got.Header.Get("Grpc-Status") != "13" {
			t.Errorf("%d %v, error %v", got.StatusCode, got.Header, err)
		}
	})
	t.Run("early hints", func(t *testing.T) {
		var hints []string
		req, _ := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
			Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
				hints = append(hints, fmt.Sprint(code, " ", h.Get("Link")))
				return nil
			},
		}), "GET", "https://"+g.addr+"/hints", nil)
		got, err := c.send(req)
		if err != nil || got.StatusCode != 200 || got.Header["Link"] != nil || !slices.Equal(hints, []string{"103 </a.css>; rel=preload"}) {
			t.Errorf("%v before %d %v, error %v", hints, got.StatusCode, got.Header, err)
		}
	})
	t.Run("a client that waits to be asked for its body", func(t *testing.T) {
		asked := make(chan struct{}, 1)
		read, write := io.Pipe()
		go func() {
			<-asked
			_, _ = io.WriteString(write, "b")
			_ = write.Close()
		}()
		req, _ := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
			Got1xxResponse: func(code int, _ textproto.MIMEHeader) error {
				if code == http.StatusContinue {
					asked <- struct{}{}
				}
				return nil
			},
		}), "POST", "https://"+g.addr+"/", read)
		req.Header.Set("Expect", "100-continue")
		if got, err := c.send(req); err != nil || got.StatusCode != 200 {
			t.Errorf("%v, error %v", got, err)
		}
	})
	t.Run("a body that says nothing of its length", func(t *testing.T) {
		for _, method := range []string{"GET", "HEAD", "OPTIONS", "DELETE"} {
			for want, body := range map[string]io.Reader{"0": nil, "-1": io.MultiReader(strings.NewReader("x"))} {
				got, err := c.do(method, "/length", body)
				if err != nil || got.Header.Get("X-Length") != want {
					t.Errorf("%s has a length of %s, want %s, error %v", method, got.Header.Get("X-Length"), want, err)
				}
			}
		}
	})
	t.Run("a HEAD whose length nobody knows", func(t *testing.T) {
		got, err := c.do("HEAD", "/", nil)
		if err != nil || got.StatusCode != 200 || got.Header["Content-Length"] != nil {
			t.Errorf("%d, Content-Length %v, error %v", got.StatusCode, got.Header["Content-Length"], err)
		}
	})
}

func TestHTTP3StreamsAsItComes(t *testing.T) {
	g := start(t, setup{http3: true})
	more := make(chan struct{})
	g.upstream.answers(func(w http.ResponseWriter, _ *http.Request, _ *routing.Exchange) *routing.Refusal {
		_, _ = io.WriteString(w, "one\n")
		_ = http.NewResponseController(w).Flush()
		<-more
		_, _ = io.WriteString(w, "two\n")
		return nil
	})
	req, _ := http.NewRequestWithContext(t.Context(), "GET", "https://"+g.addr+"/", nil)
	resp, err := g.quicClient().RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	r := bufio.NewReader(resp.Body)
	first, _ := r.ReadString('\n')
	close(more)
	second, err := r.ReadString('\n')
	if first != "one\n" || second != "two\n" || err != nil {
		t.Errorf("%q, then %q, error %v", first, second, err)
	}
}

func TestHTTP3NeedsACertificate(t *testing.T) {
	g := start(t, setup{})
	if _, err := g.server.ListenHTTP3(t.Context(), "127.0.0.1:0"); err == nil || !strings.Contains(err.Error(), "tls.certificates") {
		t.Errorf("the error is %v", err)
	}
	secure := start(t, setup{http3: true})
	if _, err := secure.server.ListenHTTP3(t.Context(), secure.addr); err == nil || !strings.Contains(err.Error(), secure.addr) {
		t.Errorf("the error of a port that is taken is %v", err)
	}
	if _, ok := secure.server.http3[0].Addr().(*net.UDPAddr); !ok {
		t.Error("it does not listen by UDP")
	}
}
