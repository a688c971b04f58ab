package testenv

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Etcd is one etcd member whose data survives Restart.
type Etcd struct {
	*Server
	// Endpoint is the client URL.
	Endpoint string

	opts    etcdOptions
	dataDir string
	token   string
	plan    etcdPlan
	store   *store
}

// etcdPlan is what one member listens on.
type etcdPlan struct{ name, client, peer, metrics string }

// EtcdOption changes how StartEtcd runs the member.
type EtcdOption func(*etcdOptions)

type etcdOptions struct {
	args []string
	ca   *CA
}

// EtcdArgs adds flags to the command line, for example
// "--auto-compaction-retention=1s" or "--quota-backend-bytes=16777216".
func EtcdArgs(args ...string) EtcdOption {
	return func(o *etcdOptions) { o.args = append(o.args, args...) }
}

// EtcdTLS makes the member speak TLS with a certificate of ca, and ask its
// clients for one of the same.
func EtcdTLS(ca *CA) EtcdOption {
	return func(o *etcdOptions) { o.ca = ca }
}

// StartEtcd runs a cluster of one until the test ends.
func StartEtcd(t TB, opts ...EtcdOption) *Etcd {
	t.Helper()
	e := &Etcd{dataDir: filepath.Join(t.TempDir(), "data"), token: "sluice-test"}
	for _, opt := range opts {
		opt(&e.opts)
	}
	e.Server = launch(t, "etcd", "etcd", func(s *Server) {
		e.setPlan(planEtcd(t, "default", e.scheme()))
		e.configure(t, s, []etcdPlan{e.plan})
	})
	e.store = newStore(t, e.opts.ca, e.Endpoint)
	return e
}

// EtcdCluster is a cluster of several members.
type EtcdCluster struct{ Members []*Etcd }

// Endpoints are the client URLs of all members.
func (c *EtcdCluster) Endpoints() []string {
	out := make([]string, len(c.Members))
	for i, m := range c.Members {
		out[i] = m.Endpoint
	}
	return out
}

// StartEtcdCluster runs a cluster of n members until the test ends.
func StartEtcdCluster(t TB, n int, opts ...EtcdOption) *EtcdCluster {
	t.Helper()
	c := &EtcdCluster{}
	plans := make([]etcdPlan, n)
	for i := range plans {
		m := &Etcd{dataDir: filepath.Join(t.TempDir(), "data"), token: "sluice-test"}
		for _, opt := range opts {
			opt(&m.opts)
		}
		plans[i] = planEtcd(t, fmt.Sprintf("m%d", i+1), m.scheme())
		m.setPlan(plans[i])
		c.Members = append(c.Members, m)
	}
	for i, m := range c.Members {
		m.Server = newServer(t, "etcd-"+plans[i].name, "etcd")
		m.configure(t, m.Server, plans)
		m.Start()
	}
	for _, m := range c.Members {
		m.WaitReady()
		m.store = newStore(t, m.opts.ca, m.Endpoint)
	}
	return c
}

func (e *Etcd) scheme() string {
	if e.opts.ca != nil {
		return "https"
	}
	return "http"
}

func (e *Etcd) setPlan(p etcdPlan) {
	e.plan = p
	e.Endpoint = p.client
}

func planEtcd(t TB, name, scheme string) etcdPlan {
	return etcdPlan{
		name:    name,
		client:  scheme + "://" + loopback(FreePort(t)),
		peer:    "http://" + loopback(FreePort(t)),
		metrics: "http://" + loopback(FreePort(t)),
	}
}

func (e *Etcd) configure(t TB, s *Server, members []etcdPlan) {
	t.Helper()
	peers := make([]string, len(members))
	for i, m := range members {
		peers[i] = m.name + "=" + m.peer
	}
	s.args = append([]string{
		"--name=" + e.plan.name, "--data-dir=" + e.dataDir,
		"--listen-client-urls=" + e.plan.client, "--advertise-client-urls=" + e.plan.client,
		"--listen-peer-urls=" + e.plan.peer, "--initial-advertise-peer-urls=" + e.plan.peer,
		"--listen-metrics-urls=" + e.plan.metrics,
		"--initial-cluster=" + strings.Join(peers, ","), "--initial-cluster-token=" + e.token,
		"--log-level=warn",
		// The data must outlive the process, not the machine.
		"--unsafe-no-fsync",
	}, e.opts.args...)
	if e.opts.ca != nil {
		cert, key := e.opts.ca.Issue(t, "etcd", "127.0.0.1", "localhost")
		s.args = append(s.args, "--cert-file="+cert, "--key-file="+key,
			"--trusted-ca-file="+e.opts.ca.File, "--client-cert-auth")
	}
	metrics := e.plan.metrics
	s.ready = func() error {
		return httpReady(metrics+"/health", func(status int, body string) error {
			if status != http.StatusOK {
				return fmt.Errorf("health: %d %s", status, body)
			}
			return nil
		})
	}
}

// RestartEmpty stops the member, removes its data and starts it again on the
// same ports: the revision falls to 1, the cluster id stays.
func (e *Etcd) RestartEmpty() {
	e.t.Helper()
	e.Wipe()
	e.Restart()
}

// RestartAsAnother does as RestartEmpty, as a cluster with another id.
func (e *Etcd) RestartAsAnother() {
	e.t.Helper()
	e.Wipe()
	old := "--initial-cluster-token=" + e.token
	e.token = fmt.Sprintf("sluice-test-%d", time.Now().UnixNano())
	for i, arg := range e.args {
		if arg == old {
			e.args[i] = "--initial-cluster-token=" + e.token
		}
	}
	e.Restart()
}

// Wipe stops the member and removes its data.
func (e *Etcd) Wipe() {
	e.t.Helper()
	e.Kill()
	if err := os.RemoveAll(e.dataDir); err != nil {
		e.t.Fatalf("remove the data of %s: %v", e.name, err)
	}
}
