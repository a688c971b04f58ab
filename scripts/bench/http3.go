package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go/http3"

	"github.com/sluice-gateway/sluice/scripts/rig"
	"github.com/sluice-gateway/sluice/test/testenv"
)

// The load on HTTP/2 and HTTP/3: connections with so many requests at a time.
const (
	secureConnections = 8
	secureRequests    = 8
	secureIdle        = 200
)

// secureClient makes a transport with a connection of its own.
type secureClient func() http.RoundTripper

// http3Cost compares HTTP/3 with HTTP/2 over TLS: the processor time that a
// request costs the gateway, whose instance answers 1 KiB, and memory. The
// client is this process.
func http3Cost(p *rig.Program, set settings) []figure {
	upstream := startOrigin(p)
	off, _ := secureGateway(p, upstream, false)
	on, addr := secureGateway(p, upstream, true)
	figures := []figure{
		{measure: "memory at rest, listen.http3 off", value: fmt.Sprintf("%.1f MB", megabytes(memory(p, off.Pid())))},
		{measure: "memory at rest, listen.http3 on", value: fmt.Sprintf("%.1f MB", megabytes(memory(p, on.Pid())))},
	}
	config := &tls.Config{InsecureSkipVerify: true} // the certificate is this program's own
	clients := []struct {
		name string
		make secureClient
		cost []float64
		rate []float64
	}{
		{name: "HTTP/2", make: func() http.RoundTripper {
			return &http.Transport{TLSClientConfig: config.Clone(), ForceAttemptHTTP2: true, MaxConnsPerHost: 1}
		}},
		{name: "HTTP/3", make: func() http.RoundTripper { return &http3.Transport{TLSClientConfig: config.Clone()} }},
	}
	for round := range set.rounds + 1 {
		for i := range clients {
			c := &clients[i]
			before := processTime(p, on.Pid())
			n := c.make.load(p, "https://"+addr+"/", set.round)
			used := processTime(p, on.Pid()) - before
			if round > 0 { // connections and code are warm after the first
				c.cost = append(c.cost, float64(used.Microseconds())/float64(n))
				c.rate = append(c.rate, float64(n)/set.round.Seconds())
			}
		}
	}
	for _, c := range clients {
		figures = append(figures, figure{measure: c.name + " over TLS",
			value: fmt.Sprintf("%.1f µs a request, %.0f requests/s", median(c.cost), median(c.rate))})
	}
	for _, c := range clients {
		g, addr := secureGateway(p, upstream, true)
		before := memory(p, g.Pid())
		done := c.make.hold(p, "https://"+addr+"/")
		figures = append(figures, figure{measure: fmt.Sprintf("a connection of %d at rest, %s", secureIdle, c.name),
			value: fmt.Sprintf("%.0f KB", float64(memory(p, g.Pid())-before)/secureIdle/1000)})
		done()
	}
	return figures
}

// secureGateway is a Sluice with TLS whose one route leads to upstream.
func secureGateway(p *rig.Program, upstream string, quic bool) (*testenv.Gateway, string) {
	certFile, keyFile := testenv.NewCA(p).Issue(p, "gateway", "127.0.0.1")
	dir := p.TempDir()
	for path, text := range map[string]string{
		"routes/origin.yaml":   "path: /*\nservice: origin\n",
		"services/origin.yaml": fmt.Sprintf("targets: [{address: %q}]\nupstream: {engine: fast}\n", upstream),
	} {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			p.Fatalf("make a directory of documents: %v", err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			p.Fatalf("write a document: %v", err)
		}
	}
	addr := fmt.Sprintf("127.0.0.1:%d", testenv.FreePort(p))
	g := testenv.StartGateway(p, testenv.GatewayOptions{
		ListenExtra: []string{fmt.Sprintf("https: %q", addr), fmt.Sprintf("http3: %t", quic)},
		Extra: fmt.Sprintf("file: {path: %q}\nlog: {access: false}\ntls:\n  certificates: [{cert_file: %q, key_file: %q}]\n",
			dir, certFile, keyFile),
	})
	return g, addr
}

// load asks for url for d and returns how many answers came.
func (c secureClient) load(p *rig.Program, url string, d time.Duration) int64 {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	var answers, failures atomic.Int64
	var workers sync.WaitGroup
	for range secureConnections {
		tr := c()
		defer leave(tr)
		for range secureRequests {
			workers.Go(func() {
				for ctx.Err() == nil {
					if err := ask(tr, url); err != nil {
						failures.Add(1)
						return
					}
					answers.Add(1)
				}
			})
		}
	}
	workers.Wait()
	if failures.Load() > 0 || answers.Load() == 0 {
		p.Fatalf("%d requests failed, %d did not", failures.Load(), answers.Load())
	}
	return answers.Load()
}

// hold opens connections with one request each, and returns what closes them.
func (c secureClient) hold(p *rig.Program, url string) func() {
	var open []http.RoundTripper
	for range secureIdle {
		tr := c()
		open = append(open, tr)
		if err := ask(tr, url); err != nil {
			p.Fatalf("open a connection: %v", err)
		}
	}
	return func() {
		for _, tr := range open {
			leave(tr)
		}
	}
}

func ask(tr http.RoundTripper, url string) error {
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	n, err := io.Copy(io.Discard, resp.Body)
	if err == nil && (resp.StatusCode != http.StatusOK || n != 1024) {
		err = fmt.Errorf("status %d, %d bytes", resp.StatusCode, n)
	}
	return err
}

func leave(tr http.RoundTripper) {
	switch tr := tr.(type) {
	case io.Closer:
		_ = tr.Close()
	case *http.Transport:
		tr.CloseIdleConnections()
	}
}
