package testenv

import (
	"net"
	"testing"
	"time"
)

func TestAProxyCountsTheMostClientsAtOneTime(t *testing.T) {
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	p := StartProxy(t, server.Addr().String())
	open := func(n int) {
		t.Helper()
		for range n {
			down, err := net.Dial("tcp", p.Addr)
			if err != nil {
				t.Fatal(err)
			}
			up, err := server.Accept()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = up.Close() })
			defer down.Close()
		}
		Eventually(t, 10*time.Second, "the proxy counts the clients", func() bool { return p.clients() == n })
	}
	open(3)
	Eventually(t, 10*time.Second, "the proxy notices that they left", func() bool { return p.clients() == 0 })
	open(2)
	if n := p.Most(); n != 3 {
		t.Errorf("%d clients at one time", n)
	}
}

func (p *Proxy) clients() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.open
}
