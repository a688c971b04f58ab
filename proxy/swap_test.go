package proxy

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/discovery"
	"github.com/sluice-gateway/sluice/routing"
	"github.com/sluice-gateway/sluice/routing/balance"
)

// swaps builds one table after another for the forwarder of a rig.
type swaps struct {
	*rig
	deps  routing.Deps
	table *routing.Table
}

func newSwaps(t *testing.T) *swaps {
	s := &swaps{rig: newRig(t), deps: routing.Deps{Plugins: noPlugins{}, Pool: balance.NewPool(), Now: time.Now}}
	s.serve()
	return s
}

type noPlugins struct{}

func (noPlugins) Slot(string) (int, bool) { return 0, false }
func (noPlugins) Slots() int              { return 0 }
func (noPlugins) Names() []string         { return nil }
func (noPlugins) Group(int) string        { return "" }
func (noPlugins) Compile(routing.Place, string, map[string]any) (any, routing.Faults) {
	return nil, nil
}

// next swaps in a table of services, by the addresses of their instances, with
// the same document. What the rig serves is orders, if there is one.
func (s *swaps) next(document string, services map[string][]string) {
	s.t.Helper()
	var docs []*discovery.Document
	put := func(kind discovery.Kind, name, value string) {
		docs = append(docs, &discovery.Document{Key: "/sluice/" + string(kind) + "/" + name, Kind: kind, Name: name,
			Source: discovery.SourceEtcd, Value: []byte(value)})
	}
	known := map[discovery.ServiceRef][]discovery.Instance{}
	for name, addresses := range services {
		put(discovery.KindRoute, name, `{"path":"/`+name+`","service":"`+name+`"}`)
		put(discovery.KindService, name, document)
		for _, a := range addresses {
			ref := discovery.ServiceRef{Name: name}
			known[ref] = append(known[ref], discovery.Instance{ID: a, Address: a, Weight: 1})
		}
	}
	old := s.table
	s.table = routing.Build(old, discovery.Snapshot{States: map[string]discovery.State{
		discovery.SourceEtcd:   {Documents: discovery.NewDocuments(docs...)},
		discovery.SourceConsul: {Instances: known},
	}}, s.deps)
	if p := s.table.Problems(); len(p) > 0 {
		s.t.Fatal(p)
	}
	s.f.Swapped(old, s.table)
	if orders := s.table.Service("orders"); orders != nil {
		s.service = orders
	}
}

// connections is how many there are to address, and how many are idle.
func connections(t *testing.T, e Engine, address string) [2]int {
	t.Helper()
	open, idle := e.(*fastEngine).client.Connections(address)
	return [2]int{open, idle}
}

// heldInstance sends the end of its answer to /held when it is told to, and
// tells of connections that are closed.
func heldInstance(t *testing.T) (address string, proceed, closed chan struct{}) {
	proceed, closed = make(chan struct{}), make(chan struct{}, 16)
	up := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "begin")
		_ = http.NewResponseController(w).Flush()
		if r.URL.Path == "/held" {
			<-proceed
		}
	}))
	up.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateClosed {
			closed <- struct{}{}
		}
	}
	up.Start()
	t.Cleanup(up.Close)
	return addrOf(up), proceed, closed
}

func TestConnectionsToInstancesThatLeftAreClosed(t *testing.T) {
	const plain, other = `{}`, `{"timeouts":{"response_header":"3s"}}`
	for _, tt := range []struct {
		name   string
		leaves func(s *swaps, both, one []string)
		// stays are the connections to the other instance afterwards.
		stays [2]int
	}{
		{"an instance leaves", func(s *swaps, both, one []string) {
			s.next(plain, map[string][]string{"orders": one, "users": both})
		}, [2]int{2, 1}},
		{"its service leaves", func(s *swaps, both, one []string) { s.next(plain, map[string][]string{"users": one}) }, [2]int{1, 0}},
		{"its service is spoken to in another way", func(s *swaps, both, one []string) {
			s.next(other, map[string][]string{"orders": both, "users": both})
		}, [2]int{1, 0}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			leaving, proceed, closed := heldInstance(t)
			staying, proceedToo, _ := heldInstance(t)
			both := []string{leaving, staying}
			s := newSwaps(t)
			s.next(plain, map[string][]string{"orders": both, "users": both})
			e, err := s.f.engines.get(s.service.Upstream)
			if err != nil {
				t.Fatal(err)
			}
			// In turn, so that each instance has a request under way and an
			// idle connection.
			var held []*http.Response
			for range 2 {
				resp, err := http.DefaultTransport.RoundTrip(s.request("GET", "/held", nil))
				if err != nil {
					t.Fatal(err)
				}
				held = append(held, resp)
			}
			for range 2 {
				s.mustGet("/")
			}
			if got := connections(t, e, leaving); got != [2]int{2, 1} {
				t.Fatalf("%v connections before", got)
			}
			tt.leaves(s, both, both[1:])
			if a, b := connections(t, e, leaving), connections(t, e, staying); a != [2]int{1, 0} || b != tt.stays {
				t.Errorf("after the swap %v connections, and %v to the other instance", a, b)
			}
			<-closed
			close(proceed)
			close(proceedToo)
			for _, resp := range held {
				if b, err := io.ReadAll(resp.Body); string(b) != "begin" || err != nil {
					t.Errorf("a request under way got %q, %v", b, err)
				}
				resp.Body.Close()
			}
			<-closed
			eventually(t, "none is left", func() bool { return connections(t, e, leaving) == [2]int{} })
		})
	}
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
}

func TestConnectionsAreCounted(t *testing.T) {
	for _, engine := range []string{routing.EngineFast, routing.EngineStd} {
		up := addrOf(upstream(t, func(http.ResponseWriter, *http.Request) {}))
		g := newRig(t, up)
		g.service.Upstream.Engine = engine
		g.serve()
		if _, _, ok := g.f.Connections(g.service.Upstream, up); ok {
			t.Errorf("%s: connections are known before the first", engine)
		}
		for range 3 {
			g.mustGet("/")
			g.exchange()
		}
		if made, reused := g.service.All.Endpoints[0].Connections(); made != 1 || reused != 2 {
			t.Errorf("%s: %d made, %d reused", engine, made, reused)
		}
		open, idle, ok := g.f.Connections(g.service.Upstream, up)
		if fast := engine == routing.EngineFast; ok != fast || fast && (open != 1 || idle != 1) {
			t.Errorf("%s: %d open, %d idle, %v", engine, open, idle, ok)
		}
	}
	g := newRig(t, refused(t)).serve()
	g.mustGet("/")
	if made, reused := g.service.All.Endpoints[0].Connections(); made != 0 || reused != 0 {
		t.Errorf("where none could be had: %d made, %d reused", made, reused)
	}
}
