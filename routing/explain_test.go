package routing

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"testing"

	"github.com/sluice-gateway/sluice/discovery"
)

func TestExplainMatched(t *testing.T) {
	table := tableOf(t,
		RouteSpec{Path: "/*"},
		RouteSpec{Path: "/orders/:id", Service: "orders", Rewrite: "/v2/:id"},
		RouteSpec{Path: "/orders/:id", Service: "orders", Headers: map[string]string{"X-Canary": "s3cret"}},
		RouteSpec{Path: "/orders/:id", Methods: []string{"POST", "PUT"}},
		RouteSpec{Hosts: []string{"a.test"}, Path: "/orders/*"},
		RouteSpec{Path: "/orders/:id", Priority: -1},
		RouteSpec{Path: "/users"},
	)
	r := table.routes[1]
	r.slot, r.ServiceName, r.Revision = 0, "orders", 42
	r.Plugins = []any{nil, "compiled", nil, 7}
	table.services = []*Service{{Name: "orders", All: &Subset{Instances: []discovery.Instance{
		{ID: "n1/orders-1", Address: "10.0.0.1:80", Weight: 3, Tags: []string{"blue"}},
	}}}}
	table.Revision = 50

	got := table.Explain(&Request{Method: "GET", Host: "x.test", Path: Path{Forward: "/a/../orders//%37"}}, []string{"p0", "p1", "p2", "p3"})
	want := Explanation{
		Outcome: ExplainMatched, Generation: 1, Revision: 50, Method: "GET", Host: "x.test",
		NormalisedPath: "/orders//7", MatchedPath: "/orders/7",
		Winner: &ExplainedRoute{Name: "r1", Source: "etcd", Key: "/sluice/routes/r1", Revision: 42, State: RouteOK,
			Path: "/orders/:id", Why: "priority: of r5, its priority -1 is lower than 0"},
		Losers: []ExplainedLoser{
			{"r2", "etcd", "/sluice/routes/r2", "predicate headers.X-Canary does not hold"},
			{"r3", "etcd", "/sluice/routes/r3", "method GET is not one of POST, PUT"},
			{"r5", "etcd", "/sluice/routes/r5", "its priority -1 is lower than 0"},
			{"r0", "etcd", "/sluice/routes/r0", "its path /* is less specific than /orders/:id"},
		},
		Params:      []ExplainedParam{{"id", "7"}},
		ForwardPath: "/v2/7",
		Plugins:     []string{"p1", "p3"},
		Service:     "orders",
		Instances:   []ExplainedInstance{{ID: "n1/orders-1", Address: "10.0.0.1:80", Weight: 3, Tags: []string{"blue"}}},
	}
	if !reflect.DeepEqual(got, want) {
		a, _ := json.MarshalIndent(got, "", " ")
		b, _ := json.MarshalIndent(want, "", " ")
		t.Errorf("got %s\nwant %s", a, b)
	}
}

func TestExplainSaysWhichRuleDecided(t *testing.T) {
	two := func(a, b RouteSpec) *Table { return tableOf(t, a, b) }
	consul := two(RouteSpec{Path: "/a"}, RouteSpec{Path: "/a"})
	consul.routes[0].Source = discovery.SourceConsul
	consul.index = buildIndex(consul.routes)
	for _, tc := range []struct {
		name  string
		table *Table
		why   string
	}{
		{"host", two(RouteSpec{Hosts: []string{"h"}, Path: "/*"}, RouteSpec{Path: "/a"}),
			"host: of r1, its host (any) is less specific than h"},
		{"path", two(RouteSpec{Path: "/a"}, RouteSpec{Path: "/:x"}), "path: of r1, its path /:x is less specific than /a"},
		{"predicates", two(RouteSpec{Path: "/a", Methods: []string{"GET"}}, RouteSpec{Path: "/a"}),
			"predicates: of r1, its predicates are 0, fewer than 1"},
		{"source", consul, "source: of r0, its source consul comes after etcd"},
		{"age", two(RouteSpec{Path: "/:x"}, RouteSpec{Path: "/:y"}), "age: of r1, its key /sluice/routes/r1 is not older than /sluice/routes/r0"},
		{"one route", tableOf(t, RouteSpec{Hosts: []string{"h", "*.h"}, Path: "/a"}), "no other route takes the request"},
		{"one route by two of its hosts", tableOf(t, RouteSpec{Hosts: []string{"h.h", "*.h"}, Path: "/a"}), "no other route takes the request"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			host := "h"
			if tc.name == "one route by two of its hosts" {
				host = "h.h"
			}
			e := tc.table.Explain(&Request{Method: "GET", Host: host, Path: Path{Forward: "/a"}}, nil)
			if e.Winner == nil || e.Winner.Why != tc.why {
				t.Errorf("got %+v, want %q", e.Winner, tc.why)
			}
		})
	}
}

func TestExplainWithoutAWinner(t *testing.T) {
	table := tableOf(t, RouteSpec{Path: "/a", Methods: []string{"PUT", "GET"}})
	for _, tc := range []struct {
		name, path string
		want       Explanation
	}{
		{"no route", "/b", Explanation{Outcome: ExplainNotFound, NormalisedPath: "/b", Losers: []ExplainedLoser{}}},
		{"no method", "/a", Explanation{Outcome: ExplainMethodNotAllowed, NormalisedPath: "/a", Allow: []string{"GET", "PUT"},
			Losers: []ExplainedLoser{{"r0", "etcd", "/sluice/routes/r0", "method POST is not one of GET, PUT"}}}},
		{"a refused path", "/public/..%2fadmin", Explanation{Outcome: ExplainRefused,
			Refusal: "path refused: it holds a dot segment once decoded", Losers: []ExplainedLoser{}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.want.Generation, tc.want.Method, tc.want.Host, tc.want.Plugins = 1, "POST", "h", []string{}
			got := table.Explain(&Request{Method: "POST", Host: "h", Path: Path{Forward: tc.path}}, nil)
			if !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got %+v, want %+v", got, tc.want)
			}
		})
	}
}

func TestExplainOfARedirectAndAPinnedSubset(t *testing.T) {
	table := tableOf(t,
		RouteSpec{Path: "/old/*", Redirect: &RedirectSpec{To: "https://new.test/*"}},
		RouteSpec{Path: "/green", Service: "orders", Subset: "green"},
	)
	e := table.Explain(&Request{Method: "GET", Path: Path{Forward: "/old/x"}, RawQuery: "q=1", Header: http.Header{}}, nil)
	if e.Location != "https://new.test/x?q=1" || e.ForwardPath != "" || e.Service != "" {
		t.Errorf("got %+v", e)
	}
	green := &Subset{Name: "green", Instances: []discovery.Instance{{ID: "g", Address: "10.0.0.2:80", Weight: 1}}}
	table.routes[1].slot, table.routes[1].Subset = 0, "green"
	table.services = []*Service{{Name: "orders", All: &Subset{}, subsets: map[string]*Subset{"green": green}}}
	e = table.Explain(&Request{Method: "GET", Path: Path{Forward: "/green"}}, nil)
	if e.Subset != "green" || len(e.Instances) != 1 || e.Instances[0].ID != "g" || e.Shares != nil {
		t.Errorf("got %+v", e)
	}
}

func TestExplainSaysTheAnswerWhereNoInstanceWillGiveOne(t *testing.T) {
	w := newWorld(t).put("routes/orders", orders).instances("orders").
		put("routes/broken", `{"path":"/broken","servise":"orders"}`).
		put("routes/green", `{"path":"/green","service":"orders","subset":"green"}`)
	w.build()
	answered := func(path, want string) {
		t.Helper()
		got := ""
		if a := w.table.Explain(&Request{Method: "GET", Path: Path{Forward: path}}, nil).Answer; a != nil {
			got = fmt.Sprintf("%d %s: %s", a.Status, a.Code, a.Detail)
		}
		equal(t, path, got, want)
	}
	const none = "503 no_healthy_instance: no instance of service orders"
	answered("/orders/1", none+" passes")
	answered("/green", none+" in green passes")
	answered("/broken", "503 route_invalid: the route's configuration is not valid, and it never had one that was")
	answered("/nowhere", "")
	w.instances("orders", "b1:blue").build()
	answered("/orders/1", "")
	answered("/green", none+" in green passes")
	w.put("active/orders", "blue").build()
	w.instances("orders", "g1:green").build()
	answered("/orders/1", none+" in blue passes")
	answered("/green", "")
	w.put("services/orders", `{"on_empty":"subset green"}`).build()
	answered("/orders/1", "")
}
