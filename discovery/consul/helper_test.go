package consul

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"go.uber.org/goleak"

	"github.com/sluice-gateway/sluice/discovery"
	"github.com/sluice-gateway/sluice/test/testenv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what must happen; it only ends tests
// that fail.
const patience = 20 * time.Second

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func ref(name string) discovery.ServiceRef { return discovery.ServiceRef{Name: name} }

// recorder is a Sink that keeps what it was told.
type recorder struct {
	mu       sync.Mutex
	states   []discovery.State
	contacts []error
}

func (r *recorder) Report(s discovery.State) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.states = append(r.states, s)
}

func (r *recorder) Contact(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := len(r.contacts); n == 0 || (r.contacts[n-1] == nil) != (err == nil) {
		r.contacts = append(r.contacts, err)
	}
}

func (r *recorder) last() discovery.State {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.states) == 0 {
		return discovery.State{}
	}
	return r.states[len(r.states)-1]
}

func (r *recorder) all() []discovery.State {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.states)
}

// up is whether the last contact was good, and how often that changed.
func (r *recorder) up() (up bool, changes int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := len(r.contacts)
	return n > 0 && r.contacts[n-1] == nil, n
}

// ids are the instances of service in the last report, "?" for not known.
func (r *recorder) ids(service string) []string {
	found, ok := r.last().Instances[ref(service)]
	if !ok {
		return []string{"?"}
	}
	ids := []string{}
	for _, in := range found {
		ids = append(ids, in.ID)
	}
	return ids
}

func (r *recorder) await(t testing.TB, service string, ids ...string) {
	t.Helper()
	testenv.Eventually(t, patience, fmt.Sprintf("%s to be %q", service, ids), func() bool {
		return slices.Equal(r.ids(service), ids)
	})
}

// never fails the test when a report in which bad holds was made.
func (r *recorder) never(t testing.TB, what string, bad func(discovery.State) bool) {
	t.Helper()
	if slices.ContainsFunc(r.all(), bad) {
		t.Errorf("a report %s", what)
	}
}

// start runs a source for the agent at address until the test ends.
func start(t testing.TB, cfg Config, change ...func(*Source)) (*Source, *recorder) {
	t.Helper()
	s, err := New(cfg, quiet())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range change {
		c(s)
	}
	rec := &recorder{}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, rec) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Run returned %v", err)
			}
		case <-time.After(patience):
			t.Error("Run did not return after cancel")
		}
	})
	return s, rec
}

func config(address string) Config {
	c := Default()
	c.Address = address
	return c
}

func want(names ...string) func(*Source) {
	refs := make([]discovery.ServiceRef, len(names))
	for i, n := range names {
		refs[i] = ref(n)
	}
	return func(s *Source) { s.Want(refs) }
}

// admin writes to a real agent.
type admin struct {
	t testing.TB
	*api.Client
}

func newAdmin(t testing.TB, c *testenv.Consul, token string) *admin {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	client, err := api.NewClient(&api.Config{Address: c.URL(), Token: token, HttpClient: &http.Client{Transport: transport}})
	if err != nil {
		t.Fatal(err)
	}
	return &admin{t, client}
}

// register puts an instance NODE/ID of service into the catalog, with one
// check of its own in the given status; an empty status is no check.
func (a *admin) register(node, id, service, status string, tags ...string) {
	a.t.Helper()
	reg := &api.CatalogRegistration{
		Node: node, Address: "10.0.0.1", SkipNodeUpdate: true,
		Service: &api.AgentService{ID: id, Service: service, Port: 80, Tags: tags},
	}
	if status != "" {
		reg.Checks = api.HealthChecks{{Node: node, CheckID: "check:" + id, Name: id, ServiceID: id, Status: status}}
	}
	if _, err := a.Catalog().Register(reg, nil); err != nil {
		a.t.Fatalf("register %s/%s: %v", node, id, err)
	}
}

func (a *admin) nodeCheck(node, status string) {
	a.t.Helper()
	_, err := a.Catalog().Register(&api.CatalogRegistration{
		Node: node, Address: "10.0.0.1", SkipNodeUpdate: true,
		Check: &api.AgentCheck{Node: node, CheckID: "node", Name: "node", Status: status},
	}, nil)
	if err != nil {
		a.t.Fatalf("set the check of node %s: %v", node, err)
	}
}

func (a *admin) deregister(node, id string) {
	a.t.Helper()
	if _, err := a.Catalog().Deregister(&api.CatalogDeregistration{Node: node, ServiceID: id}, nil); err != nil {
		a.t.Fatalf("deregister %s/%s: %v", node, id, err)
	}
}

// shim stands in front of an agent, injects faults and counts.
type shim struct {
	URL  string
	open atomic.Int64 // connections now
	most atomic.Int64 // connections at any time

	mu      sync.Mutex
	fault   func(http.ResponseWriter, *http.Request) bool
	asked   map[string]int
	refused map[int]int
	arrived []time.Time
}

func newShim(t testing.TB, c *testenv.Consul) *shim {
	t.Helper()
	target, err := url.Parse(c.URL())
	if err != nil {
		t.Fatal(err)
	}
	s := &shim{asked: map[string]int{}, refused: map[int]int{}}
	transport := &http.Transport{MaxIdleConnsPerHost: 1000}
	proxy := &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport: transport,
		ErrorLog:  slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo),
		ModifyResponse: func(r *http.Response) error {
			if r.StatusCode != http.StatusOK {
				s.mu.Lock()
				s.refused[r.StatusCode]++
				s.mu.Unlock()
			}
			return nil
		},
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.asked[r.URL.Path]++
		s.arrived = append(s.arrived, time.Now())
		fault := s.fault
		s.mu.Unlock()
		if fault == nil || !fault(w, r) {
			proxy.ServeHTTP(w, r)
		}
	}))
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	srv.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			n := s.open.Add(1)
			for m := s.most.Load(); n > m && !s.most.CompareAndSwap(m, n); m = s.most.Load() {
			}
		case http.StateClosed, http.StateHijacked:
			s.open.Add(-1)
		}
	}
	srv.Start()
	s.URL = srv.URL
	t.Cleanup(func() {
		srv.CloseClientConnections()
		srv.Close()
		transport.CloseIdleConnections()
	})
	return s
}

// inject sets what happens to requests; nil is nothing. It says true when it
// has answered itself.
func (s *shim) inject(fault func(http.ResponseWriter, *http.Request) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = fault
}

func (s *shim) count(path string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[path]
}

func (s *shim) status(code int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refused[code]
}

// since lists when requests after from arrived.
func (s *shim) since(from time.Time) []time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.arrived, func(t time.Time) bool { return t.After(from) })
	if i < 0 {
		return nil
	}
	return slices.Clone(s.arrived[i:])
}
