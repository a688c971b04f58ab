package testenv

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Gateway is one sluice process. Restart and Kill keep its ports and its
// configuration.
type Gateway struct {
	*Server
	// Addr and AdminAddr are host:port of the two listeners; ConfigFile is
	// what the commands take with -c.
	Addr, AdminAddr, ConfigFile string
	// Name is the gateway's name in its status key.
	Name string
}

// URL is the address of the traffic listener.
func (g *Gateway) URL() string { return "http://" + g.Addr }

// AdminURL is the address of the admin listener.
func (g *Gateway) AdminURL() string { return "http://" + g.AdminAddr }

// GatewayOptions say what a gateway follows. Empty fields turn a source off.
type GatewayOptions struct {
	Name   string
	Consul string // URL
	Etcd   string // URL
	// Extra is YAML with further top-level keys.
	Extra string
	// These are further lines of the blocks that are written anyway.
	ListenExtra, AdminExtra, ConsulExtra, EtcdExtra []string
	// StartOnly returns once the process answers, ready or not.
	StartOnly bool
	// Addr takes a traffic address instead of a free one: for a gateway that
	// takes over from another.
	Addr string
	// Env is added to the environment, as NAME=value.
	Env []string
	// OpenFiles is how many files the process may have open; 0 is as many as
	// the test itself.
	OpenFiles int
}

// StartGateway runs bin/sluice serve until the test ends. It is ready when
// StartGateway returns.
func StartGateway(t TB, o GatewayOptions) *Gateway {
	t.Helper()
	g := &Gateway{Name: o.Name, ConfigFile: filepath.Join(t.TempDir(), "sluice.yaml")}
	if g.Name == "" {
		g.Name = "gateway"
	}
	g.Server = launch(t, g.Name, "sluice", func(s *Server) {
		g.Addr = o.Addr
		if g.Addr == "" {
			g.Addr = loopback(FreePort(t))
		}
		g.AdminAddr = loopback(FreePort(t))
		if err := os.WriteFile(g.ConfigFile, []byte(o.yaml(g)), 0o600); err != nil {
			t.Fatalf("write the gateway's configuration: %v", err)
		}
		s.args, s.env = []string{"serve", "-c", g.ConfigFile}, o.Env
		if o.OpenFiles > 0 {
			// The limit has to stand before the process begins, which raises
			// its own as far as it may.
			s.args = append([]string{"-c", `ulimit -n "$0" && exec "$@"`, strconv.Itoa(o.OpenFiles), Binary(t, "sluice")}, s.args...)
			s.binary = "/bin/sh"
		}
		path := "/readyz"
		if o.StartOnly {
			path = "/livez"
		}
		s.ready = func() error {
			return httpReady(g.AdminURL()+path, func(status int, body string) error {
				if status != http.StatusOK {
					return fmt.Errorf("%s: %s", path, strings.TrimSpace(body))
				}
				return nil
			})
		}
	})
	return g
}

func (o GatewayOptions) yaml(g *Gateway) string {
	var b strings.Builder
	block := func(lines []string) {
		for _, line := range lines {
			fmt.Fprintf(&b, "  %s\n", line)
		}
	}
	fmt.Fprintf(&b, "name: %s\nlisten:\n  http: %q\n", g.Name, g.Addr)
	block(o.ListenExtra)
	fmt.Fprintf(&b, "admin:\n  listen: %q\n", g.AdminAddr)
	block(o.AdminExtra)
	fmt.Fprintf(&b, "consul:\n  address: %q\n", o.Consul)
	block(o.ConsulExtra)
	if o.Etcd == "" {
		fmt.Fprintf(&b, "etcd:\n  endpoints: []\n")
	} else {
		fmt.Fprintf(&b, "etcd:\n  endpoints: [%q]\n", o.Etcd)
	}
	block(o.EtcdExtra)
	b.WriteString(o.Extra)
	return b.String()
}

// Service is one demo-service process.
type Service struct {
	*Server
	Addr string
}

// StartService runs bin/demo-service until the test ends; args are its flags
// beside -listen. It serves when StartService returns; Consul may learn of it
// a moment later.
func StartService(t TB, name string, args ...string) *Service {
	t.Helper()
	sv := &Service{}
	sv.Server = launch(t, name, "demo-service", func(s *Server) {
		sv.Addr = loopback(FreePort(t))
		s.args = append([]string{"-name", name, "-listen", sv.Addr}, args...)
		s.ready = func() error {
			return httpReady("http://"+sv.Addr+"/healthz", func(status int, _ string) error {
				if status != http.StatusOK {
					return fmt.Errorf("/healthz answers %d", status)
				}
				return nil
			})
		}
	})
	return sv
}
