package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/sluice-gateway/sluice/test/testenv"
)

// overHTTP3 is a client for the gateway's UDP port. Connections go to where
// target says when they are dialled.
func overHTTP3(t *testing.T, target *atomic.Pointer[string]) *http3.Transport {
	t.Helper()
	tr := &http3.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableCompression: true,
		Dial: func(ctx context.Context, _ string, tc *tls.Config, qc *quic.Config) (*quic.Conn, error) {
			return quic.DialAddr(ctx, *target.Load(), tc, qc)
		},
	}
	t.Cleanup(func() { _ = tr.Close() })
	return tr
}

func secureSite(t *testing.T, extra string) (s *site, addr string, renew func()) {
	t.Helper()
	ca := testenv.NewCA(t)
	certFile, keyFile := ca.Issue(t, "gateway", "gateway.test")
	addr = fmt.Sprintf("127.0.0.1:%d", testenv.FreePort(t))
	s = newSite(t, testenv.GatewayOptions{
		ListenExtra: []string{fmt.Sprintf("https: %q", addr), "http3: true"},
		Extra:       fmt.Sprintf("tls:\n  certificates: [{cert_file: %q, key_file: %q}]\n%s", certFile, keyFile, extra),
	})
	return s, addr, func() { ca.Issue(t, "gateway", "gateway.test") }
}

// fetch asks and reads the answer to its end.
func fetch(t *testing.T, tr http.RoundTripper, method, path string, body io.Reader, headers ...string) (answer, *http.Response, error) {
	t.Helper()
	var a answer
	req, err := http.NewRequestWithContext(t.Context(), method, "https://gateway.test"+path, body)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Add(name, value)
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return a, nil, err
	}
	defer resp.Body.Close()
	a.Status, a.Header = resp.StatusCode, resp.Header
	a.Body, err = io.ReadAll(resp.Body)
	_ = json.Unmarshal(a.Body, &a)
	return a, resp, err
}

func TestHTTP3IsAnnouncedAndServedLikeTheRest(t *testing.T) {
	s, addr, renew := secureSite(t, "")
	s.service("orders", "b1", "-tags", "blue")
	green := s.service("orders", "g1", "-tags", "green")
	s.etcd.Put("/sluice/routes/orders", `{"path":"/orders/*","service":"orders","timeout":"0s"}`)
	s.etcd.Put("/sluice/active/orders", "blue")
	s.eventually("blue serves", "/orders/1", func(a answer) bool { return a.Colour == "blue" })

	tcp := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
	defer tcp.CloseIdleConnections()
	req, _ := http.NewRequest("GET", "https://"+addr+"/orders/1", nil)
	resp, err := tcp.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	_, port, _ := strings.Cut(addr, ":")
	equal(t, "protocol", resp.Proto, "HTTP/2.0")
	equal(t, "Alt-Svc", resp.Header.Get("Alt-Svc"), `h3=":`+port+`"; ma=86400`)
	equal(t, "Alt-Svc without TLS", s.ask("GET", "/orders/1").Header.Get("Alt-Svc"), "")

	var target atomic.Pointer[string]
	target.Store(&addr)
	tr := overHTTP3(t, &target)
	a, resp, err := fetch(t, tr, "GET", "/orders/1", nil, "X-Forwarded-For: 10.9.8.7")
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "answer over HTTP/3", fmt.Sprint(a.Status, a.Colour, resp.Proto, a.Header["Alt-Svc"]), "200blueHTTP/3.0[]")
	var told struct{ Headers http.Header }
	_ = json.Unmarshal(a.Body, &told)
	for name, want := range map[string]string{
		"X-Forwarded-Proto": "https", "X-Forwarded-Port": port, "X-Forwarded-For": "127.0.0.1", "X-Forwarded-Host": "gateway.test",
		"Transfer-Encoding": "", "Content-Length": "",
	} {
		equal(t, name, told.Headers.Get(name), want)
	}

	t.Run("a megabyte goes up and comes down", func(t *testing.T) {
		body := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
		a, _, err := fetch(t, tr, "POST", "/orders/echo", bytes.NewReader(body))
		if err != nil || a.Status != 200 || !bytes.Equal(a.Body, body) {
			t.Errorf("%d, %d bytes of %d, error %v", a.Status, len(a.Body), len(body), err)
		}
	})
	t.Run("one key flips it", func(t *testing.T) {
		s.etcd.Put("/sluice/active/orders", "green")
		testenv.Eventually(t, wait, "green serves", func() bool {
			a, _, err := fetch(t, tr, "GET", "/orders/1", nil)
			if err != nil || a.Status != 200 {
				t.Fatalf("%d, error %v", a.Status, err)
			}
			return a.Colour == "green"
		})
	})
	t.Run("a new certificate", func(t *testing.T) {
		shown := func() string {
			_, resp, err := fetch(t, overHTTP3(t, &target), "GET", "/orders/1", nil)
			if err != nil {
				t.Fatal(err)
			}
			return resp.TLS.PeerCertificates[0].SerialNumber.String()
		}
		before := shown()
		renew()
		testenv.Eventually(t, wait, "it is shown", func() bool { return shown() != before })
	})
	t.Run("a WebSocket", func(t *testing.T) {
		str := &http.Request{Method: "CONNECT", Proto: "websocket", URL: resp.Request.URL, Host: "gateway.test", Header: http.Header{}}
		resp, err := tr.RoundTrip(str)
		if err != nil || resp.StatusCode != http.StatusMethodNotAllowed {
			t.Fatalf("%v, error %v", resp, err)
		}
		_ = resp.Body.Close()
	})
	t.Run("row 91: an instance dies within its answer", func(t *testing.T) {
		req, _ := http.NewRequest("GET", "https://gateway.test/orders/stream?count=100000&ms=20", nil)
		resp, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if _, err := io.ReadFull(resp.Body, make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
		green.Kill()
		var reset *http3.Error
		if _, err := io.Copy(io.Discard, resp.Body); !errors.As(err, &reset) {
			t.Errorf("it ended with %v", err)
		}
	})
	for line := range strings.Lines(s.gateway.Log()) {
		if !json.Valid([]byte(line)) {
			t.Errorf("a library wrote by itself: %s", line)
		}
	}
}

func TestHTTP3KeepsItsLimits(t *testing.T) {
	s, addr, _ := secureSite(t, "limits: {max_connections_per_ip: 8, max_header_bytes: 8192, body_read_timeout: 200ms}\n")
	s.etcd.Put("/sluice/routes/ok", `{"path":"/ok","respond":{"body":"ok"}}`)
	s.service("orders", "o1")
	s.etcd.Put("/sluice/routes/orders", `{"path":"/orders/*","service":"orders"}`)
	s.eventually("the route answers", "/orders/1", func(a answer) bool { return a.Status == 200 })
	var target atomic.Pointer[string]
	target.Store(&addr)
	tr := overHTTP3(t, &target)
	a, _, err := fetch(t, tr, "GET", "/ok", nil, "X-Long: "+strings.Repeat("x", 32<<10))
	if err != nil || a.Status != 431 {
		t.Errorf("a head of 32 KiB gets %d, error %v", a.Status, err)
	}
	read, write := io.Pipe()
	defer write.Close()
	go func() { _, _ = io.WriteString(write, "begin") }()
	a, _, err = fetch(t, tr, "POST", "/orders/echo", read)
	if err == nil && a.Status != http.StatusRequestTimeout {
		t.Errorf("a body that stops gets %d", a.Status)
	}
	refused := 0
	for range 10 {
		_, _, err := fetch(t, overHTTP3(t, &target), "GET", "/ok", nil)
		var code *quic.TransportError
		switch {
		case errors.As(err, &code) && code.ErrorCode == quic.ConnectionRefused:
			refused++
		case err != nil:
			t.Error(err)
		}
	}
	if refused == 0 {
		t.Error("one address may have any number of connections")
	}
}

// P11 over HTTP/3, through the program.
func TestP11TheGatewayEndsUnderHTTP3Load(t *testing.T) {
	s, addr, _ := secureSite(t, "")
	next, nextAddr, _ := secureSite(t, "")
	for _, each := range []*site{s, next} {
		each.service("orders", "o1")
		each.etcd.Put("/sluice/routes/orders", `{"path":"/orders/*","service":"orders"}`)
		each.eventually("the route answers", "/orders/1", func(a answer) bool { return a.Status == 200 })
	}
	var target atomic.Pointer[string]
	target.Store(&addr)
	tr := overHTTP3(t, &target)
	clients := testenv.StartClients(t, 4, func() error {
		a, _, err := fetch(t, tr, "GET", "/orders/slow?ms=5", nil)
		if err == nil && a.Status != 200 {
			err = fmt.Errorf("status %d", a.Status)
		}
		return err
	})
	clients.Await(100)
	target.Store(&nextAddr)
	s.gateway.Stop()
	clients.Await(50)
	clients.Stop()
	if !strings.Contains(s.gateway.Log(), `"msg":"left"`) || strings.Contains(s.gateway.Log(), "requests were cut off") {
		t.Error("it did not leave in order")
	}
}
