package routing

import (
	"fmt"
	"slices"
	"testing"

	"github.com/sluice-gateway/sluice/discovery"
)

// tenThousand makes as many routes, each of what spec gives for its number.
func tenThousand(b *testing.B, spec func(i int) RouteSpec) []*Route {
	b.Helper()
	routes := make([]*Route, 10_000)
	for i := range routes {
		s := spec(i)
		routes[i] = routeOf(b, fmt.Sprintf("r%05d", i), int64(i), &s)
	}
	return routes
}

func benchmarkMatch(b *testing.B, routes []*Route, lines ...string) {
	table := &Table{index: buildIndex(routes)}
	reqs := make([]Request, len(lines))
	for i, line := range lines {
		reqs[i], _ = request(b, line)
	}
	var m Match
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if i++; i == len(reqs) {
			i = 0
		}
		if table.Match(&reqs[i], &m) != Matched {
			b.Fatal("no match for ", lines[i])
		}
	}
}

func benchLines(format string) []string {
	lines := make([]string, 1000)
	for i := range lines {
		lines[i] = fmt.Sprintf(format, i*7919%10_000)
	}
	return lines
}

func BenchmarkMatchStatic10k(b *testing.B) {
	routes := tenThousand(b, func(i int) RouteSpec { return RouteSpec{Path: fmt.Sprintf("/api/service-%d/items/*", i)} })
	benchmarkMatch(b, routes, benchLines("GET api.example.com/api/service-%d/items/12345")...)
}

func BenchmarkMatchParam10k(b *testing.B) {
	routes := tenThousand(b, func(i int) RouteSpec {
		switch i % 3 {
		case 0:
			return RouteSpec{Path: fmt.Sprintf("/:tenant/service-%d/:id/items/:item", i), Methods: []string{"GET"}}
		case 1:
			return RouteSpec{Path: fmt.Sprintf("/tenant/service-%d/*rest", i), Methods: []string{"GET"}}
		}
		return RouteSpec{Path: fmt.Sprintf("/:tenant/service-%d/*", i)}
	})
	benchmarkMatch(b, routes, benchLines("GET api.example.com/tenant/service-%d/77/items/12345")...)
}

func BenchmarkMatchHosts10k(b *testing.B) {
	routes := tenThousand(b, func(i int) RouteSpec {
		host := fmt.Sprintf("host-%d.example.com", i)
		if i%10 == 0 {
			host = "*." + host
		}
		return RouteSpec{Hosts: []string{host}, Path: "/*"}
	})
	lines := make([]string, 999)
	for i := range lines {
		lines[i] = fmt.Sprintf("GET www.Host-%d0.example.com:443/orders/1", i)
		if i%2 == 0 {
			lines[i] = fmt.Sprintf("GET host-%d1.example.com/orders/1", i+1)
		}
	}
	benchmarkMatch(b, routes, lines...)
}

func benchIndexRoutes(b *testing.B) []*Route {
	return tenThousand(b, func(i int) RouteSpec {
		s := RouteSpec{Path: fmt.Sprintf("/api/service-%d/:id/*", i)}
		if i%2 == 0 {
			s.Hosts = []string{fmt.Sprintf("host-%d.example.com", i%100)}
		}
		return s
	})
}

func BenchmarkBuildIndex10k(b *testing.B) {
	routes := benchIndexRoutes(b)
	b.ReportAllocs()
	for b.Loop() {
		buildIndex(routes)
	}
}

func BenchmarkRebuildIndex10kAfterOneRoute(b *testing.B) {
	routes := benchIndexRoutes(b)
	prev := buildIndex(routes)
	spec := RouteSpec{Hosts: []string{"host-2.example.com"}, Path: "/changed"}
	routes = slices.Clone(routes)
	routes[2] = routeOf(b, "r00002", 2, &spec)
	b.ReportAllocs()
	for b.Loop() {
		prev.with(routes)
	}
}

func BenchmarkTargetRewrite(b *testing.B) {
	spec := RouteSpec{Path: "/orders/:id/*rest", Rewrite: "/v2/:id/*rest"}
	r := routeOf(b, "r", 1, &spec)
	r.Source = discovery.SourceFile
	table := &Table{index: buildIndex([]*Route{r})}
	req, _ := request(b, "GET h/orders/1/a/b")
	var m Match
	table.Match(&req, &m)
	b.ReportAllocs()
	for b.Loop() {
		_, _ = m.Target()
	}
}
