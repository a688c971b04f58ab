package middleware

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/sluice-gateway/sluice/routing"
	"github.com/sluice-gateway/sluice/test/testenv"
)

// Row 91 and D1: a response that the instance cut short is reset, never ended.
func TestRow91D1AResponseCutShortOverHTTP3IsReset(t *testing.T) {
	g := start(t, setup{http3: true})
	for _, flushed := range []bool{true, false} {
		g.upstream.answers(func(w http.ResponseWriter, _ *http.Request, x *routing.Exchange) *routing.Refusal {
			_, _ = io.WriteString(w, "half")
			if flushed {
				_ = http.NewResponseController(w).Flush()
			}
			x.Aborted = "upstream"
			panic(http.ErrAbortHandler)
		})
		got, err := g.quicClient().do("GET", "/", nil)
		var reset *http3.Error
		if !errors.As(err, &reset) || reset.ErrorCode != http3.ErrCodeInternalError {
			t.Errorf("flushed %v: %q, error %v", flushed, got.Text, err)
		}
	}
	g.alive()
}

func TestAPanicOverHTTP3IsAnswered(t *testing.T) {
	g := start(t, setup{http3: true})
	g.upstream.answers(func(http.ResponseWriter, *http.Request, *routing.Exchange) *routing.Refusal { panic("a bug") })
	c := g.quicClient()
	wantRefusal(t, c.get("/"), 500, CodeInternal)
	wantRefusal(t, c.get("/"), 500, CodeInternal)
}

// A client that gives up in the middle of its body is no instance's fault.
func TestABodyThatIsResetOverHTTP3IsTheClients(t *testing.T) {
	g := start(t, setup{http3: true})
	begun, ended := make(chan struct{}), make(chan error, 1)
	g.upstream.answers(func(_ http.ResponseWriter, r *http.Request, _ *routing.Exchange) *routing.Refusal {
		close(begun)
		_, err := io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
		ended <- err
		return &routing.Refusal{Code: routing.CodeClientClosed, Cause: err}
	})
	str, err := g.quicDial(nil).OpenStream()
	if err != nil {
		t.Fatal(err)
	}
	head := headerBlock(":method", "POST", ":scheme", "https", ":authority", "one.test", ":path", "/", "content-length", "100")
	_, _ = str.Write(append(frame(frameHeaders, head), frame(frameData, []byte("half"))...))
	<-begun
	str.CancelWrite(quic.StreamErrorCode(http3.ErrCodeRequestCanceled))
	str.CancelRead(quic.StreamErrorCode(http3.ErrCodeRequestCanceled))
	if err := <-ended; err == nil {
		t.Error("the body seemed complete")
	}
	eventually(t, "it is logged as the client's", func() bool { return strings.Contains(g.log.String(), `"status":499`) })
}

func TestHTTP3ConnectionsCountPerAddress(t *testing.T) {
	g := start(t, setup{http3: true, server: func(c *ServerConfig) { c.MaxConnectionsPerIP = 3 }})
	h := g.server.http3[0]
	from := &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}
	one := g.quicDial(nil)
	if h.doubt(from) {
		t.Error("an address with one connection of three has to prove itself")
	}
	two := g.quicDial(nil)
	if !h.doubt(from) {
		t.Error("nobody asks whether more connections of this address are its own")
	}
	over := g.dial() // over TCP; one that has proved its address by then
	eventually(t, "it is counted with them", func() bool { return g.server.limiter.connections() == 3 })
	dial := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		conn, err := quic.DialAddr(ctx, g.addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h3"}}, nil)
		if err == nil {
			_ = conn.CloseWithError(0, "")
		}
		return err
	}
	var refused *quic.TransportError
	if err := dial(); !errors.As(err, &refused) || refused.ErrorCode != quic.ConnectionRefused {
		t.Errorf("a fourth connection ends with %v", err)
	}
	_ = one.CloseWithError(0, "")
	eventually(t, "its place is free again", func() bool { return g.server.limiter.connections() == 2 })
	if err := dial(); err != nil { // by way of a Retry
		t.Errorf("a third connection ends with %v", err)
	}
	_ = over.Close()
	_ = two.CloseWithError(0, "")
	eventually(t, "nobody is counted", func() bool { return g.server.limiter.connections() == 0 && h.handshakes.Load() == 0 })
}

// Under a flood of handshakes clients prove their addresses.
func TestManyQUICHandshakesHaveToProveTheirAddress(t *testing.T) {
	g := start(t, setup{http3: true})
	h := g.server.http3[0]
	from := h.Addr()
	if h.doubt(from) {
		t.Error("a gateway at rest doubts")
	}
	ctx, cancel := context.WithCancel(t.Context())
	for range mostUnverified {
		if _, err := h.admit(ctx, &quic.ClientInfo{RemoteAddr: from}); err != nil {
			t.Fatal(err)
		}
	}
	if !h.doubt(from) {
		t.Error("a flood is believed")
	}
	g.alive() // by way of a Retry
	cancel()
	eventually(t, "the flood is over", func() bool { return !h.doubt(from) })
}

func TestD8DrainingSendsGoAwayOnHTTP3AndWaitsForRequests(t *testing.T) {
	g := start(t, setup{http3: true})
	begun, finish := make(chan struct{}), make(chan struct{})
	g.upstream.answers(func(w http.ResponseWriter, r *http.Request, _ *routing.Exchange) *routing.Refusal {
		if r.URL.Path == "/slow" {
			close(begun)
			<-finish
		}
		_, _ = io.WriteString(w, "ok")
		return nil
	})
	c := g.quicClient()
	slow := make(chan error, 1)
	go func() {
		got, err := c.do("GET", "/slow", nil)
		if err == nil && got.Text != "ok" {
			err = errors.New(got.Text)
		}
		slow <- err
	}()
	<-begun
	silent := g.quicDial(nil) // does not know GOAWAY
	g.engine.Drain()
	if got := c.get("/"); got.StatusCode != 200 || got.Header["Connection"] != nil {
		t.Errorf("while it drains: %d %v", got.StatusCode, got.Header)
	}
	down := make(chan error, 1)
	go func() { down <- g.server.Shutdown(t.Context()) }()
	<-g.server.http3[0].draining.Done()
	if _, err := g.quicClient().do("GET", "/", nil); err == nil {
		t.Error("a new connection was served")
	}
	<-silent.Context().Done() // in its own time; the slow request is still there
	select {
	case err := <-down:
		t.Fatalf("the shutdown waited for nothing: %v", err)
	default:
	}
	close(finish)
	if err := errors.Join(<-slow, <-down); err != nil {
		t.Error(err)
	}
}

func TestAnHTTP3ShutdownEndsAtItsDeadline(t *testing.T) {
	g := start(t, setup{http3: true})
	begun, ended := make(chan struct{}), make(chan struct{})
	g.upstream.answers(func(_ http.ResponseWriter, r *http.Request, _ *routing.Exchange) *routing.Refusal {
		close(begun)
		<-r.Context().Done()
		close(ended)
		return &routing.Refusal{Code: routing.CodeClientClosed}
	})
	c := g.quicClient()
	failed := make(chan error, 1)
	go func() {
		_, err := c.do("GET", "/", nil)
		failed <- err
	}()
	<-begun
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := g.server.Shutdown(ctx); err == nil {
		t.Error("the shutdown cut off nobody")
	}
	<-ended
	if err := <-failed; err == nil {
		t.Error("the request was answered")
	}
}

// P11 over HTTP/3: clients that understand GOAWAY lose nothing.
func TestP11NothingIsLostInAShutdownUnderHTTP3Load(t *testing.T) {
	g, other := start(t, setup{http3: true}), start(t, setup{http3: true})
	var target atomic.Pointer[string]
	target.Store(&g.addr)
	tr := &http3.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		// Whoever dials anew does so where a load balancer sends it.
		Dial: func(ctx context.Context, _ string, tc *tls.Config, qc *quic.Config) (*quic.Conn, error) {
			return quic.DialAddr(ctx, *target.Load(), tc, qc)
		}}
	defer tr.Close()
	clients := testenv.StartClients(t, 8, func() error {
		req, _ := http.NewRequest("POST", "https://one.test/", strings.NewReader("body"))
		resp, err := tr.RoundTrip(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err == nil && string(body) != "ok" {
			err = fmt.Errorf("the answer is %q", body)
		}
		return err
	})
	clients.Await(200)
	g.engine.Drain()
	target.Store(&other.addr)
	if err := g.server.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	clients.Await(100)
	clients.Stop()
}

func TestHTTP3TunnelsNothing(t *testing.T) {
	g := start(t, setup{http3: true})
	for name, c := range map[string]struct {
		fields []string
		status string // "" for a stream that is reset
	}{
		"CONNECT":                {[]string{":method", "CONNECT", ":authority", "one.test:443"}, "405"},
		"a WebSocket (RFC 9220)": {[]string{":method", "CONNECT", ":protocol", "websocket", ":scheme", "https", ":authority", "one.test", ":path", "/"}, "405"},
		"TRACE":                  {[]string{":method", "TRACE", ":scheme", "https", ":authority", "one.test", ":path", "/"}, "405"},
		"Upgrade":                {[]string{":method", "GET", ":scheme", "https", ":authority", "one.test", ":path", "/", "upgrade", "websocket"}, ""},
		"Transfer-Encoding":      {[]string{":method", "POST", ":scheme", "https", ":authority", "one.test", ":path", "/", "transfer-encoding", "chunked"}, ""},
		"two lengths":            {[]string{":method", "POST", ":scheme", "https", ":authority", "one.test", ":path", "/", "content-length", "1", "content-length", "2"}, ""},
		"a host of its own":      {[]string{":method", "GET", ":scheme", "https", ":authority", "one.test", ":path", "/", "host", "two.test"}, ""},
		"a path without a slash": {[]string{":method", "GET", ":scheme", "https", ":authority", "one.test", ":path", "pkg.Svc/M"}, ""},
		"a host that is none":    {[]string{":method", "GET", ":scheme", "https", ":authority", "a b", ":path", "/"}, "400"},
	} {
		t.Run(name, func(t *testing.T) {
			str, err := g.quicDial(nil).OpenStream()
			if err != nil {
				t.Fatal(err)
			}
			_, _ = str.Write(frame(frameHeaders, headerBlock(c.fields...)))
			_ = str.Close()
			if c.status != "" {
				if got := quicStatus(t, str); got != c.status {
					t.Errorf("the answer is %s, want %s", got, c.status)
				}
				return
			}
			var reset *quic.StreamError
			if _, err := io.ReadAll(str); !errors.As(err, &reset) || reset.ErrorCode != quic.StreamErrorCode(http3.ErrCodeMessageError) {
				t.Errorf("it ended with %v", err)
			}
		})
	}
	if n := len(g.upstream.requests()); n != 0 {
		t.Errorf("%d of them were forwarded", n)
	}
}
