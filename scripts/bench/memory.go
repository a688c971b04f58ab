package main

import (
	"bufio"
	"fmt"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/sluice-gateway/sluice/scripts/rig"
)

const (
	// idleConnections is how many are held open, after a request each.
	idleConnections = 5_000
	// mostPerConnection is the target for each, in KB.
	mostPerConnection = 24
	// settling is how long memory gets to settle.
	settling = 3 * time.Second
)

// memoryCost is the resident memory of each proxy, idle and while it holds
// idle connections.
func memoryCost(p *rig.Program, _ settings) []figure {
	raiseOpenFiles(p)
	s := site{upstream: startOrigin(p)}
	nginx := startNginx(p, s)
	own := engines(p, s, nginx, "")
	var figures []figure
	for _, c := range slices.Concat([]*contender{nginx}, startPeers(p, s, nginx), own) {
		if c.pid == 0 {
			figures = append(figures, figure{measure: c.name, value: notHere})
			continue
		}
		m := c.holding(p)
		f := figure{
			measure: c.name,
			value: fmt.Sprintf("%.1f MB idle, %.1f MB with %d idle connections, %.1f KB each",
				megabytes(m.idle), megabytes(m.held), idleConnections, m.each()),
		}
		if c.admin != "" {
			f.target, f.met = fmt.Sprintf("≤ %d KB each", mostPerConnection), m.each() <= mostPerConnection
		}
		figures = append(figures, f)
	}
	return figures
}

// residence is the resident memory of a proxy, idle and while it holds
// idleConnections.
type residence struct{ idle, held int64 }

// each is the part of one connection in KB.
func (r residence) each() float64 { return float64(r.held-r.idle) / 1024 / idleConnections }

func (c *contender) holding(p *rig.Program) residence {
	r := residence{idle: treeMemory(p, c.pid)}
	release := hold(p, hostOf(c.url), idleConnections)
	defer release()
	<-time.After(settling)
	r.held = treeMemory(p, c.pid)
	return r
}

// hold opens n connections, has a request answered on each, and keeps them
// until release is called.
func hold(p *rig.Program, addr string, n int) (release func()) {
	const atOnce = 16
	conns := make([]net.Conn, n)
	errs := make([]error, atOnce)
	var opening sync.WaitGroup
	for w := range atOnce {
		opening.Go(func() {
			for i := w; i < n && errs[w] == nil; i += atOnce {
				conns[i], errs[w] = oneRequest(addr)
			}
		})
	}
	opening.Wait()
	release = func() {
		for _, c := range conns {
			if c != nil {
				_ = c.Close()
			}
		}
	}
	for _, err := range errs {
		if err != nil {
			release()
			p.Fatalf("hold %d connections: %v", n, err)
		}
	}
	return release
}

// oneRequest opens a connection and has one request answered.
func oneRequest(addr string) (net.Conn, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return conn, err
	}
	if _, err := conn.Write(get(smallPath)); err != nil {
		return conn, err
	}
	return conn, readAnswer(bufio.NewReaderSize(conn, 512))
}

// raiseOpenFiles lets this program and those that it starts open as many
// files as the system allows them.
func raiseOpenFiles(p *rig.Program) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		p.Fatalf("read the limit of open files: %v", err)
	}
	limit.Cur = limit.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		p.Fatalf("raise the limit of open files to %d: %v", limit.Max, err)
	}
	if limit.Cur < idleConnections+idleConnections/10 {
		p.Fatalf("%d open files are allowed; %d connections need more", limit.Cur, idleConnections)
	}
}
