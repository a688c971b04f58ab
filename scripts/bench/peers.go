package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/sluice-gateway/sluice/scripts/rig"
	"github.com/sluice-gateway/sluice/test/testenv"
)

// peer is a proxy that Sluice is compared with.
type peer struct {
	name    string
	program string // on PATH
	grpc    bool   // can be set up for gRPC without TLS here
	start   func(p *rig.Program, s site) *testenv.Program
}

// peers are all but nginx, which every contest has. Their limits and timeouts
// are as they come, but for connections that are to be kept.
func peers() []peer {
	return []peer{
		{"haproxy", "haproxy", true, startHaproxy},
		{"caddy", "caddy", true, startCaddy},
		{"traefik", "traefik", true, func(p *rig.Program, s site) *testenv.Program { return startTraefik(p, s) }},
		{"traefik, fastProxy", "traefik", false, func(p *rig.Program, s site) *testenv.Program {
			return startTraefik(p, s, "--experimental.fastProxy=true")
		}},
		{"fabio", "fabio", false, startFabio},
	}
}

// startNginx runs the nginx that the others are compared with.
func startNginx(p *rig.Program, s site) *contender {
	n := runNginx(p, "nginx", func(addr string) string { return nginxProxy(p.TempDir(), addr, s) })
	c := &contender{name: "nginx", url: s.scheme() + "://" + n.Addr, pid: n.Pid()}
	if s.log {
		c.name += ", access log"
	}
	c.beside = c
	c.await(p, s)
	return c
}

// startPeers runs the peers that are on PATH; the others take part by name.
func startPeers(p *rig.Program, s site, beside *contender) []*contender {
	var all []*contender
	for _, kind := range peers() {
		if s.grpc && !kind.grpc {
			continue
		}
		c := &contender{name: kind.name, beside: beside}
		all = append(all, c)
		if _, err := exec.LookPath(kind.program); err != nil {
			continue
		}
		running := kind.start(p, s)
		c.url, c.pid = s.scheme()+"://"+running.Addr, running.Pid()
		c.await(p, s)
	}
	return all
}

// runNginx runs an nginx with a worker for each processor; http is asked for
// the content of the http block.
func runNginx(p *rig.Program, name string, http func(addr string) string) *testenv.Program {
	dir := p.TempDir()
	return testenv.StartProgram(p, name, "nginx", nil, func(addr string) []string {
		path := filepath.Join(dir, "nginx.conf")
		write(p, path, nginxConfig(dir, http(addr)))
		return []string{"-c", path, "-p", dir, "-g", "daemon off;"}
	})
}

// nginxConfig keeps every file that nginx writes in dir. Workers of a master
// that runs as root stay root, for dir belongs to whoever runs it.
func nginxConfig(dir, http string) string {
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;\n"
	}
	return fmt.Sprintf(`%sworker_processes auto;
pid %[2]s/nginx.pid;
error_log stderr warn;
events { worker_connections 8192; }
http {
	client_body_temp_path %[2]s/body;
	proxy_temp_path %[2]s/proxy;
	fastcgi_temp_path %[2]s/fastcgi;
	uwsgi_temp_path %[2]s/uwsgi;
	scgi_temp_path %[2]s/scgi;
	keepalive_requests 1000000000;
	%[3]s
}
`, user, dir, http)
}

// nginxProxy writes no body to disk, as the others do not either.
func nginxProxy(logs, addr string, s site) string {
	log, listen, secret := "off", addr, ""
	if s.log {
		log = filepath.Join(logs, "access.log")
	}
	pass := `proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_max_temp_file_size 0;`
	switch {
	case s.cert != "":
		listen += " ssl http2"
		secret = fmt.Sprintf("ssl_certificate %s; ssl_certificate_key %s;", s.cert, s.key)
	case s.grpc:
		listen += " http2"
		pass = "grpc_pass grpc://origin;"
	}
	return fmt.Sprintf(`access_log %s;
	upstream origin { server %s; keepalive %d; keepalive_requests 1000000000; }
	server {
		listen %s;
		%s
		location / { %s }
	}`, log, s.upstream, loadConnections, listen, secret, pass)
}

func startHaproxy(p *rig.Program, s site) *testenv.Program {
	dir := p.TempDir()
	return testenv.StartProgram(p, "haproxy", "haproxy", nil, func(addr string) []string {
		bind, proto := addr, ""
		switch {
		case s.cert != "":
			both := filepath.Join(dir, "origin.pem")
			write(p, both, read(p, s.cert)+read(p, s.key))
			bind += " ssl crt " + both + " alpn h2,http/1.1"
		case s.grpc:
			proto = " proto h2"
		}
		path := filepath.Join(dir, "haproxy.cfg")
		write(p, path, fmt.Sprintf(`global
	maxconn 8192
defaults
	mode http
	timeout connect 2s
	timeout client 75s
	timeout server 30s
	http-reuse always
frontend in
	bind %s%s
	default_backend origin
backend origin
	server origin %s%[2]s
`, bind, proto, s.upstream))
		return []string{"-db", "-f", path}
	})
}

func startCaddy(p *rig.Program, s site) *testenv.Program {
	dir := p.TempDir()
	home := []string{"HOME=" + dir, "XDG_DATA_HOME=" + dir, "XDG_CONFIG_HOME=" + dir}
	return testenv.StartProgram(p, "caddy", "caddy", home, func(addr string) []string {
		_, port, err := net.SplitHostPort(addr)
		if err != nil {
			p.Fatalf("caddy: %v", err)
		}
		secret, scheme := "", "http"
		if s.cert != "" {
			secret = fmt.Sprintf("tls %s %s", s.cert, s.key)
		}
		if s.grpc {
			scheme = "h2c"
		}
		path := filepath.Join(dir, "Caddyfile")
		write(p, path, fmt.Sprintf(`{
	admin off
	persist_config off
	auto_https off
	servers {
		protocols h1 h2 h2c
	}
}
%s://:%s {
	bind 127.0.0.1
	%s
	reverse_proxy %s://%s {
		transport http {
			keepalive_idle_conns_per_host %d
		}
	}
}
`, s.scheme(), port, secret, scheme, s.upstream, loadConnections))
		return []string{"run", "--config", path, "--adapter", "caddyfile"}
	})
}

func startTraefik(p *rig.Program, s site, further ...string) *testenv.Program {
	dir := p.TempDir()
	secret, scheme := "", "http"
	if s.grpc {
		scheme = "h2c"
	}
	text := ""
	if s.cert != "" {
		secret = ", tls: {}"
		text = fmt.Sprintf("tls: {certificates: [{certFile: %q, keyFile: %q}]}\n", s.cert, s.key)
	}
	path := filepath.Join(dir, "origin.yaml")
	write(p, path, text+fmt.Sprintf(`http:
  routers:
    origin: {rule: 'PathPrefix("/")', service: origin, entryPoints: [web]%s}
  services:
    origin: {loadBalancer: {servers: [{url: "%s://%s"}]}}
`, secret, scheme, s.upstream))
	return testenv.StartProgram(p, "traefik", "traefik", nil, func(addr string) []string {
		return append([]string{
			"--entryPoints.web.address=" + addr, "--providers.file.filename=" + path,
			"--global.checkNewVersion=false", "--global.sendAnonymousUsage=false",
		}, further...)
	})
}

func startFabio(p *rig.Program, s site) *testenv.Program {
	return testenv.StartProgram(p, "fabio", "fabio", nil, func(addr string) []string {
		args := []string{
			"-insecure", // may run as root
			"-registry.backend", "static",
			"-registry.static.routes", fmt.Sprintf("route add origin / http://%s/", s.upstream),
			"-ui.addr", fmt.Sprintf("127.0.0.1:%d", testenv.FreePort(p)),
		}
		if s.cert == "" {
			return append(args, "-proxy.addr", addr)
		}
		return append(args, "-proxy.addr", addr+";cs=origin",
			"-proxy.cs", fmt.Sprintf("cs=origin;type=file;cert=%s;key=%s", s.cert, s.key))
	})
}

func read(p *rig.Program, path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		p.Fatalf("read %s: %v", path, err)
	}
	return string(data)
}
