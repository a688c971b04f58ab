package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// startTimeout bounds the wait for one part to be ready.
const startTimeout = 60 * time.Second

// instance is one demo-service to run.
type instance struct {
	service, id string
	tags        []string
}

// instances are the services behind the gateway.
func instances() []instance {
	users := []string{"sluice.path=/users/*"}
	return []instance{
		{"orders", "orders-blue-1", []string{"blue"}},
		{"orders", "orders-blue-2", []string{"blue"}},
		{"orders", "orders-green-1", []string{"green"}},
		{"orders", "orders-green-2", []string{"green"}},
		{"users", "users-1", users},
		{"users", "users-2", users},
	}
}

// firstKeys are in etcd before the first request.
func firstKeys() [][2]string {
	return [][2]string{
		{"/sluice/routes/orders", `{"path":"/orders/*","service":"orders"}`},
		{"/sluice/active/orders", "blue"},
	}
}

// stack is everything that runs. It is driven by one goroutine.
type stack struct {
	root, dir string
	out       io.Writer
	fail      context.CancelCauseFunc // ends the demo when a part ends unasked

	ports    ports
	servers  []*process          // Consul, etcd
	gateway  *process            // nil until started
	services map[string]*process // by instance ID
	extra    []*process          // started by steps
}

func (s *stack) bin(name string) string { return filepath.Join(s.root, "bin", name) }

func (s *stack) url(port int) string { return "http://" + loopback(port) }

// exports are the settings that the page's commands need in their
// environment; none where every port is the usual one.
func (s *stack) exports() []string {
	if s.ports.usual() {
		return nil
	}
	return []string{
		"SLUICE_ADMIN_LISTEN=" + loopback(s.ports.admin),
		"SLUICE_ETCD_ENDPOINTS=" + s.url(s.ports.etcd),
		"ETCDCTL_ENDPOINTS=" + s.url(s.ports.etcd),
		"CONSUL_HTTP_ADDR=" + s.url(s.ports.consul),
	}
}

// env is the environment of everything that is started: the caller's less
// what would lead it to other servers.
func (s *stack) env() []string {
	var out []string
	for _, kv := range os.Environ() {
		if !hasAnyPrefix(kv, "SLUICE_", "ETCDCTL_", "ETCD_", "CONSUL_") {
			out = append(out, kv)
		}
	}
	return append(out, s.exports()...)
}

func hasAnyPrefix(s string, prefixes ...string) bool {
	for _, p := range prefixes {
		if strings.HasPrefix(s, p) {
			return true
		}
	}
	return false
}

// start brings everything up and returns once both routes answer.
func (s *stack) start(ctx context.Context) error {
	for _, name := range []string{"consul", "etcd", "etcdctl", "sluice", "demo-service"} {
		if _, err := os.Stat(s.bin(name)); err != nil {
			return fmt.Errorf("bin/%s is missing: run make demo, which builds it", name)
		}
	}
	var err error
	if s.ports, err = choosePorts(); err != nil {
		return err
	}
	for _, part := range []struct {
		what  string
		start func(context.Context) error
	}{
		{"Consul agent on " + s.url(s.ports.consul), s.startConsul},
		{"etcd on " + s.url(s.ports.etcd), s.startEtcd},
		{"first route keys by etcdctl put", s.putFirstKeys},
		{fmt.Sprintf("%d services that register themselves", len(instances())), s.startServices},
		{"gateway on " + s.url(s.ports.gateway), s.startGateway},
		{"first answers through the gateway", s.awaitRoutes},
	} {
		begun := time.Now()
		fmt.Fprintf(s.out, "%-55s", part.what)
		if err := part.start(ctx); err != nil {
			fmt.Fprintln(s.out, " failed")
			return fmt.Errorf("%s: %w", part.what, err)
		}
		fmt.Fprintf(s.out, " %5.1f s\n", time.Since(begun).Seconds())
	}
	return nil
}

// launch starts a part whose end ends the demo.
func (s *stack) launch(name, program string, args ...string) (*process, error) {
	p, err := spawn(name, s.dir, s.root, s.env(), s.bin(program), args...)
	if err != nil {
		return nil, err
	}
	go func() {
		<-p.done
		s.fail(fmt.Errorf("%s ended: %s", name, p.cmd.ProcessState))
	}()
	return p, nil
}

func (s *stack) startConsul(ctx context.Context) error {
	p, err := s.launch("consul", "consul", "agent", "-dev", "-bind=127.0.0.1", "-client=127.0.0.1", "-log-level=warn",
		fmt.Sprintf("-http-port=%d", s.ports.consul), fmt.Sprintf("-server-port=%d", s.ports.consulServer),
		fmt.Sprintf("-serf-lan-port=%d", s.ports.consulSerf), "-serf-wan-port=-1",
		"-dns-port=-1", "-grpc-port=-1", "-grpc-tls-port=-1", "-hcl=disable_update_check = true")
	if err != nil {
		return err
	}
	s.servers = append(s.servers, p)
	return await(ctx, s.url(s.ports.consul)+"/v1/status/leader", `:`)
}

func (s *stack) startEtcd(ctx context.Context) error {
	client, peer := s.url(s.ports.etcd), s.url(s.ports.etcdPeer)
	p, err := s.launch("etcd", "etcd", "--data-dir="+filepath.Join(s.dir, "etcd"), "--log-level=warn",
		"--listen-client-urls="+client, "--advertise-client-urls="+client,
		"--listen-peer-urls="+peer, "--initial-advertise-peer-urls="+peer, "--initial-cluster=default="+peer)
	if err != nil {
		return err
	}
	s.servers = append(s.servers, p)
	return await(ctx, client+"/health", `"true"`)
}

func (s *stack) putFirstKeys(ctx context.Context) error {
	for _, kv := range firstKeys() {
		p, err := spawn("etcdctl", s.dir, s.root, s.env(), s.bin("etcdctl"), "put", kv[0], kv[1])
		if err != nil {
			return err
		}
		select {
		case <-p.done:
		case <-ctx.Done():
			p.signal(syscall.SIGKILL)
			return context.Cause(ctx)
		}
		if !p.cmd.ProcessState.Success() {
			return fmt.Errorf("put %s: %s: %s", kv[0], p.cmd.ProcessState, p.tail(5))
		}
	}
	return nil
}

func (s *stack) startServices(ctx context.Context) error {
	s.services = map[string]*process{}
	for _, in := range instances() {
		args := []string{"-name", in.service, "-id", in.id, "-consul", s.url(s.ports.consul)}
		for _, t := range in.tags {
			args = append(args, "-tags", t)
		}
		// The page invites to kill one: the demo goes on without it.
		p, err := spawn(in.id, s.dir, s.root, s.env(), s.bin("demo-service"), args...)
		if err != nil {
			return err
		}
		s.services[in.id] = p
	}
	for _, in := range instances() {
		err := await(ctx, s.url(s.ports.consul)+"/v1/health/service/"+in.service+"?passing=1", `"ID":"`+in.id+`"`)
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *stack) startGateway(ctx context.Context) error {
	config := fmt.Sprintf(`# The gateway of the demo. configs/sluice.yaml explains every key.
listen:
  http: %s
admin:
  listen: %s
consul:
  address: %s
etcd:
  endpoints: [%s]
state_dir: %s
`, loopback(s.ports.gateway), loopback(s.ports.admin), s.url(s.ports.consul), s.url(s.ports.etcd), filepath.Join(s.dir, "state"))
	path := filepath.Join(s.dir, "sluice.yaml")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		return fmt.Errorf("write the gateway's configuration: %w", err)
	}
	p, err := s.launch("sluice", "sluice", "serve", "-c", path)
	if err != nil {
		return err
	}
	s.gateway = p
	return await(ctx, s.url(s.ports.admin)+"/readyz", "")
}

func (s *stack) awaitRoutes(ctx context.Context) error {
	if err := await(ctx, s.url(s.ports.gateway)+"/orders/1", `"blue"`); err != nil {
		return err
	}
	return await(ctx, s.url(s.ports.gateway)+"/users/1", `"users"`)
}

// await asks url until it answers 200 with want in the body.
func await(ctx context.Context, url, want string) error {
	limit, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ask(limit, url, want)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-limit.Done():
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return fmt.Errorf("not ready after %s: %w", startTimeout, err)
		}
	}
}

func ask(ctx context.Context, url, want string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK || !strings.Contains(strings.ReplaceAll(string(body), `": `, `":`), want) {
		return fmt.Errorf("%s answered %s: %.200s", url, res.Status, body)
	}
	return nil
}

// stop ends everything in order: the gateway while its instances still serve,
// the services, then what both depend on.
func (s *stack) stop() {
	services := s.extra
	for _, p := range s.services {
		services = append(services, p)
	}
	groups := [][]*process{nil, services, s.servers}
	if s.gateway != nil {
		groups[0] = []*process{s.gateway}
	}
	for _, group := range groups {
		for _, p := range group {
			p.signal(syscall.SIGTERM)
		}
		for _, p := range group {
			p.wait()
		}
	}
}

// printLogs shows the end of what each part printed.
func (s *stack) printLogs() {
	all := append([]*process{}, s.servers...)
	if s.gateway != nil {
		all = append(all, s.gateway)
	}
	for _, p := range append(all, s.extra...) {
		fmt.Fprintf(s.out, "\n--- the last lines of %s:\n%s\n", p.name, p.tail(40))
	}
}
