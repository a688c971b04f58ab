package testenv

import (
	"net"
	"sync"
)

// Proxy is a TCP line to a server that can be cut or stalled. Its methods may
// be called from any goroutine.
type Proxy struct {
	// Addr is the host:port to connect to.
	Addr string

	target string
	wg     sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]bool
	cut   bool
	// open counts the clients connected now, most the most there ever were.
	open, most int
	// flow is closed while bytes may pass.
	flow chan struct{}
}

// StartProxy forwards connections to target, a host:port, until the test
// ends.
func StartProxy(t TB, target string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", loopback(FreePort(t)))
	if err != nil {
		t.Fatalf("listen for a proxy: %v", err)
		return nil
	}
	p := &Proxy{Addr: l.Addr().String(), target: target, conns: map[net.Conn]bool{}, flow: make(chan struct{})}
	close(p.flow)
	p.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.wg.Go(func() { p.serve(c) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		p.Cut()
		p.Flow()
		p.wg.Wait()
	})
	return p
}

// Cut closes every connection and each new one.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = true
	for c := range p.conns {
		_ = c.Close()
	}
}

// Mend lets new connections through again.
func (p *Proxy) Mend() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = false
}

// Stall keeps connections open and lets nothing pass.
func (p *Proxy) Stall() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.flow:
		p.flow = make(chan struct{})
	default:
	}
}

// Flow lets bytes pass again, those held back first.
func (p *Proxy) Flow() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.flow:
	default:
		close(p.flow)
	}
}

// Most is the largest number of connections that clients had at one time.
func (p *Proxy) Most() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.most
}

// count adds delta to the number of clients.
func (p *Proxy) count(delta int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open += delta
	p.most = max(p.most, p.open)
}

// keep adds a connection to those that Cut closes, unless the line is cut.
func (p *Proxy) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cut {
		return false
	}
	p.conns[c] = true
	return true
}

func (p *Proxy) drop(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
	_ = c.Close()
}

func (p *Proxy) serve(down net.Conn) {
	defer p.drop(down)
	if !p.keep(down) {
		return
	}
	p.count(1)
	defer p.count(-1)
	up, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	defer p.drop(up)
	if !p.keep(up) {
		return
	}
	var back sync.WaitGroup
	back.Go(func() { p.pump(down, up) })
	p.pump(up, down)
	back.Wait()
}

// pump copies one direction and closes both ends when it is over.
func (p *Proxy) pump(dst, src net.Conn) {
	defer dst.Close()
	defer src.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := src.Read(buf)
		p.mu.Lock()
		flow := p.flow
		p.mu.Unlock()
		<-flow
		if n > 0 {
			if _, err := dst.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
