package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/scripts/rig"
)

// patience bounds the wait for a change to be obeyed.
const patience = 30 * time.Second

// spacing is the pause between two changes. The gateway swaps at most ten
// tables a second beyond a burst: changes that come faster would measure
// that bound.
const spacing = 200 * time.Millisecond

// answer is what a probe got.
type answer struct {
	status   int
	instance string // the X-Instance of a demo-service
	body     string
}

// probe asks a gateway again and again over one keep-alive connection.
type probe struct {
	p    *rig.Program
	conn net.Conn
	in   *bufio.Reader
}

func newProbe(p *rig.Program, addr string) *probe {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		p.Fatalf("connect the probe: %v", err)
	}
	p.Cleanup(func() { _ = conn.Close() })
	return &probe{p: p, conn: conn, in: bufio.NewReader(conn)}
}

func (pr *probe) ask(path string) (answer, error) {
	if err := pr.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return answer{}, err
	}
	if _, err := fmt.Fprintf(pr.conn, "GET %s HTTP/1.1\r\nHost: bench.test\r\n\r\n", path); err != nil {
		return answer{}, err
	}
	resp, err := http.ReadResponse(pr.in, nil)
	if err != nil {
		return answer{}, err
	}
	body, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header.Get("X-Instance"), string(body)}, err
}

// effect makes a change and returns the time from the change's return to the
// start of the first request that obeys it. Requests follow each other
// without a pause from before the change on; one that started before the
// change returned and obeys it counts as zero.
func (pr *probe) effect(path string, change func(), obeys func(answer) bool) time.Duration {
	<-time.After(spacing)
	a, err := pr.ask(path)
	if err != nil {
		pr.p.Fatalf("ask for %s: %v", path, err)
	}
	if obeys(a) {
		pr.p.Fatalf("%s obeys a change that was not made yet: %+v", path, a)
	}
	var asking sync.WaitGroup
	var started time.Time // of the first request that obeys
	asking.Go(func() { started, err = pr.await(path, obeys) })
	defer asking.Wait() // also when change fails
	change()
	returned := time.Now()
	asking.Wait()
	if err != nil {
		pr.p.Fatalf("ask for %s until it obeys: %v", path, err)
	}
	return max(0, started.Sub(returned))
}

func (pr *probe) await(path string, obeys func(answer) bool) (started time.Time, err error) {
	for deadline := time.Now().Add(patience); ; {
		started = time.Now()
		if started.After(deadline) {
			return started, errors.New("waited in vain")
		}
		a, err := pr.ask(path)
		if err != nil || obeys(a) {
			return started, err
		}
	}
}
