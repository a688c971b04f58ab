package testenv

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Consul is one agent in -dev mode: a server of a cluster of one, with its
// state in memory. Restart and Kill lose that state.
type Consul struct {
	*Server
	// HTTPAddr is host:port of the HTTP API.
	HTTPAddr string
}

// URL is the address of the HTTP API as consul.address takes it.
func (c *Consul) URL() string { return "http://" + c.HTTPAddr }

// ConsulOption changes how StartConsul runs the agent.
type ConsulOption func(*consulOptions)

type consulOptions struct{ config []string }

// ConsulConfig adds a piece of agent configuration in HCL, for example
// `limits { http_max_conns_per_client = 20 }` or an acl block.
func ConsulConfig(hcl string) ConsulOption {
	return func(o *consulOptions) { o.config = append(o.config, hcl) }
}

// StartConsul runs an agent until the test ends. It is ready, with a leader,
// when StartConsul returns.
func StartConsul(t TB, opts ...ConsulOption) *Consul {
	t.Helper()
	var o consulOptions
	for _, opt := range opts {
		opt(&o)
	}
	dir := t.TempDir()
	args := []string{
		"agent", "-dev", "-bind=127.0.0.1", "-client=127.0.0.1", "-log-level=warn",
		"-dns-port=-1", "-grpc-port=-1", "-grpc-tls-port=-1", "-serf-wan-port=-1",
		"-hcl=disable_update_check = true",
	}
	for i, hcl := range o.config {
		path := filepath.Join(dir, fmt.Sprintf("extra-%d.hcl", i))
		if err := os.WriteFile(path, []byte(hcl), 0o600); err != nil {
			t.Fatalf("write the agent's configuration: %v", err)
		}
		args = append(args, "-config-file="+path)
	}
	c := &Consul{}
	c.Server = launch(t, "consul", "consul", func(s *Server) {
		port := FreePort(t)
		c.HTTPAddr = loopback(port)
		s.args = append(args[:len(args):len(args)],
			"-http-port="+strconv.Itoa(port),
			"-server-port="+strconv.Itoa(FreePort(t)),
			"-serf-lan-port="+strconv.Itoa(FreePort(t)))
		s.ready = func() error { return consulReady(c.URL()) }
	})
	return c
}

// consulReady asks for the leader, which needs no token.
func consulReady(url string) error {
	return httpReady(url+"/v1/status/leader", func(status int, body string) error {
		if status != http.StatusOK || strings.Trim(body, "\"\n ") == "" {
			return errNoLeader
		}
		return nil
	})
}

// AwaitToken waits until the agent knows a token of its configuration, which
// comes a moment after the leader.
func (c *Consul) AwaitToken(token string) {
	c.t.Helper()
	client := http.Client{Timeout: startTimeout, Transport: &http.Transport{DisableKeepAlives: true}}
	Eventually(c.t, startTimeout, "the token to work", func() bool {
		req, err := http.NewRequest(http.MethodGet, c.URL()+"/v1/acl/token/self", nil)
		if err != nil {
			return false
		}
		req.Header.Set("X-Consul-Token", token)
		resp, err := client.Do(req)
		if err != nil {
			return false
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
}
