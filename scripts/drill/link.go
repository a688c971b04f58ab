package main

import (
	"io"
	"net"
	"strings"
	"sync"

	"github.com/sluice-gateway/sluice/scripts/rig"
)

// link is a TCP connection to a server that can be cut and mended.
type link struct {
	listener net.Listener
	target   string

	mu    sync.Mutex
	down  bool
	conns map[net.Conn]struct{}
}

func newLink(p *rig.Program, endpoint string) *link {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		p.Fatalf("listen for the link: %v", err)
	}
	k := &link{listener: l, target: strings.TrimPrefix(endpoint, "http://"), conns: map[net.Conn]struct{}{}}
	var running sync.WaitGroup
	running.Go(func() { k.accept(&running) })
	p.Cleanup(func() {
		_ = l.Close()
		k.cut()
		running.Wait()
	})
	return k
}

func (k *link) url() string { return "http://" + k.listener.Addr().String() }

func (k *link) accept(running *sync.WaitGroup) {
	for {
		in, err := k.listener.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", k.target)
		if err != nil || !k.add(in, out) {
			_ = in.Close()
			if out != nil {
				_ = out.Close()
			}
			continue
		}
		pipe := func(to, from net.Conn) {
			_, _ = io.Copy(to, from)
			_ = to.Close()
			_ = from.Close()
		}
		running.Go(func() { pipe(in, out) })
		running.Go(func() { pipe(out, in) })
	}
}

func (k *link) add(conns ...net.Conn) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.down {
		return false
	}
	for _, c := range conns {
		k.conns[c] = struct{}{}
	}
	return true
}

func (k *link) cut() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.down = true
	for c := range k.conns {
		_ = c.Close()
	}
	k.conns = map[net.Conn]struct{}{}
}

func (k *link) mend() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.down = false
}
