package main

import (
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echoes are the addresses of both upstreams.
func echoes(t *testing.T) map[string]string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := newGRPC()
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	h := httptest.NewServer(http.HandlerFunc(echoHTTP))
	t.Cleanup(h.Close)
	return map[string]string{"grpc": l.Addr().String(), "http": h.Listener.Addr().String()}
}

func TestALoadSendsAsManyRequestsAsItIsTold(t *testing.T) {
	for proto, addr := range echoes(t) {
		o := options{proto: proto, addr: addr, connections: 3, size: 100, requests: 50}
		if r, err := o.load(); err != nil || r.Requests != 50 || r.Seconds <= 0 {
			t.Errorf("%s: got %+v, %v", proto, r, err)
		}
	}
}

func TestALoadEndsWithItsTime(t *testing.T) {
	for proto, addr := range echoes(t) {
		o := options{proto: proto, addr: addr, connections: 2, size: 100, duration: time.Millisecond}
		if r, err := o.load(); err != nil || r.Seconds <= 0 {
			t.Errorf("%s: got %+v, %v", proto, r, err)
		}
	}
}

func TestALoadFailsWithTheAnswersItDoesNotGet(t *testing.T) {
	refusing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }))
	defer refusing.Close()
	for _, proto := range []string{"http", "grpc"} {
		o := options{proto: proto, addr: refusing.Listener.Addr().String(), connections: 1, size: 1, requests: 1}
		if _, err := o.load(); err == nil {
			t.Errorf("%s: no error", proto)
		}
	}
}

func TestWhatIsAskedForIsSaidWhereItMakesNoSense(t *testing.T) {
	for name, args := range map[string][]string{
		"nothing":          nil,
		"another word":     {"run"},
		"a load of nought": {"load", "-addr", "127.0.0.1:1"},
		"an address taken": {"serve", "-addr", "nowhere"},
		"gRPC nowhere":     {"serve", "-proto", "grpc", "-addr", "nowhere"},
	} {
		if err := run(args); err == nil || strings.TrimSpace(err.Error()) == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
}
