package main

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/scripts/rig"
	"github.com/sluice-gateway/sluice/test/testenv"
)

// loadConnections is how many connections are kept busy.
const loadConnections = 64

// site is what the proxies of a contest are set up for: everything below one
// address goes to upstream, over connections that are kept.
type site struct {
	upstream string // host:port
	log      bool   // write an access log
	// cert and key are the files of a listener that speaks TLS and, if asked,
	// HTTP/2; "" listens without TLS.
	cert, key string
	// grpc speaks HTTP/2 without TLS on both sides.
	grpc bool
}

func (s site) scheme() string {
	if s.cert != "" {
		return "https"
	}
	return "http"
}

// secured is the site with a certificate of its own.
func (s site) secured(p *rig.Program) site {
	s.cert, s.key = testenv.NewCA(p).Issue(p, "origin", "127.0.0.1", "localhost")
	return s
}

// sluice is a gateway of a contest.
type sluice struct {
	name   string
	engine string            // upstream.engine
	routes map[string]string // documents by name; nil is one route for everything
	env    []string
}

// start runs a gateway whose routes lead to the service origin.
func (g sluice) start(p *rig.Program, s site) *contender {
	dir := p.TempDir()
	routes := g.routes
	if routes == nil {
		routes = map[string]string{"origin": "path: /*\nservice: origin\n"}
	}
	for name, text := range routes {
		write(p, filepath.Join(dir, "routes", name+".yaml"), text)
	}
	service := fmt.Sprintf("targets: [{address: %q}]\nupstream: {engine: %s}\n", s.upstream, g.engine)
	if s.grpc {
		service = fmt.Sprintf("targets: [{address: %q}]\nprotocol: grpc\n", s.upstream)
	}
	write(p, filepath.Join(dir, "services", "origin.yaml"), service)
	o := testenv.GatewayOptions{
		Env:   g.env,
		Extra: fmt.Sprintf("file: {path: %q}\nlog: {access: %t}\nlimits: {max_connections_per_ip: 0}\n", dir, s.log),
	}
	addr := ""
	if s.cert != "" {
		addr = fmt.Sprintf("127.0.0.1:%d", testenv.FreePort(p))
		o.ListenExtra = []string{fmt.Sprintf("https: %q", addr)}
		o.Extra += fmt.Sprintf("tls: {certificates: [{cert_file: %q, key_file: %q}]}\n", s.cert, s.key)
	}
	running := testenv.StartGateway(p, o)
	if addr == "" {
		addr = running.Addr
	}
	return &contender{name: g.name, url: s.scheme() + "://" + addr, pid: running.Pid(), admin: running.AdminURL()}
}

// engines are both engines on one site; mark ends their names.
func engines(p *rig.Program, s site, beside *contender, mark string) []*contender {
	var all []*contender
	for _, engine := range []string{"std", "fast"} {
		c := sluice{name: "sluice, engine " + engine + mark, engine: engine}.start(p, s)
		c.beside = beside
		all = append(all, c)
	}
	return all
}

// await waits until the proxy answers, unless only gRPC would tell.
func (c *contender) await(p *rig.Program, s site) {
	if s.grpc {
		return
	}
	client := http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{
		// Nothing is learnt from an answer but that it comes.
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true,
	}}
	testenv.Eventually(p, 30*time.Second, c.name+" answers", func() bool {
		resp, err := client.Get(c.url + "/")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
}

// Paths of the origin, and how long what lies there is.
const (
	smallPath, smallSize   = "/", 1 << 10
	mediumPath, mediumSize = "/medium", 100 << 10
	largePath, largeSize   = "/large", 10 << 20
)

// startOrigin runs the nginx that every proxy leads to.
func startOrigin(p *rig.Program) string {
	files := p.TempDir()
	write(p, filepath.Join(files, mediumPath), strings.Repeat("x", mediumSize))
	write(p, filepath.Join(files, largePath), strings.Repeat("x", largeSize))
	return runNginx(p, "origin", func(addr string) string {
		return fmt.Sprintf(`access_log off;
	sendfile on;
	server {
		listen %s;
		root %s;
		location / { return 200 %q; }
		location = %s { }
		location = %s { }
	}`, addr, files, strings.Repeat("x", smallSize), mediumPath, largePath)
	}).Addr
}

// write writes a file and makes its directory.
func write(p *rig.Program, path, text string) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		p.Fatalf("make the directory of %s: %v", path, err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		p.Fatalf("write %s: %v", path, err)
	}
}
