package routing

import (
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/discovery"
)

// tableOf makes a table of routes named r0, r1, … in the order given, each
// older than the next.
func tableOf(t testing.TB, specs ...RouteSpec) *Table {
	t.Helper()
	routes := make([]*Route, len(specs))
	for i := range specs {
		routes[i] = routeOf(t, fmt.Sprintf("r%d", i), int64(i), &specs[i])
	}
	return &Table{Generation: 1, routes: routes, index: buildIndex(routes)}
}

func routeOf(t testing.TB, name string, created int64, spec *RouteSpec) *Route {
	t.Helper()
	m, faults := compileMatcher(spec)
	if faults != nil {
		t.Fatalf("route %s: %v", name, faults)
	}
	return &Route{Name: name, Source: discovery.SourceEtcd, Key: "/sluice/routes/" + name,
		Created: created, State: RouteOK, Spec: spec, slot: -1, matcher: m}
}

// request makes a Request of "GET a.test/path?query"; it is false where the
// path is refused.
func request(t testing.TB, line string) (Request, bool) {
	t.Helper()
	method, target, _ := strings.Cut(line, " ")
	host, rest := target, ""
	if i := strings.IndexByte(target, '/'); i >= 0 {
		host, rest = target[:i], target[i:]
	}
	raw, query, _ := strings.Cut(rest, "?")
	p, err := Normalize(raw)
	return Request{Method: method, Host: host, Path: p, RawQuery: query}, err == nil
}

// whatMatches says what table makes of line: the route's name and parameters,
// "404", "405 Allow" or "400".
func whatMatches(t testing.TB, table *Table, line string, header http.Header) string {
	t.Helper()
	req, ok := request(t, line)
	if !ok {
		return "400"
	}
	req.Header = header
	var m Match
	switch table.Match(&req, &m) {
	case NotFound:
		return "404"
	case MethodNotAllowed:
		return "405 " + strings.Join(m.Allow, ",")
	}
	out := m.Route.Name
	for _, p := range m.Params() {
		out += " " + p.Name + "=" + p.Value
	}
	return out
}

type ask struct{ line, want string }

func checkAnswers(t *testing.T, table *Table, asks []ask) {
	t.Helper()
	for _, a := range asks {
		if got := whatMatches(t, table, a.line, nil); got != a.want {
			t.Errorf("%s: got %q, want %q", a.line, got, a.want)
		}
	}
}

func TestPathPatterns(t *testing.T) {
	checkAnswers(t, tableOf(t,
		RouteSpec{Path: "/orders/*"},
		RouteSpec{Path: "/users/:id"},
		RouteSpec{Path: "/users/:id/posts/:post"},
		RouteSpec{Path: "/files/*path"},
		RouteSpec{Path: "/exact"},
		RouteSpec{Path: "/slash/"},
		RouteSpec{Path: "/café/menu"},
		RouteSpec{Path: "/v1/users%3Abatch"},
		RouteSpec{Path: "/"},
	), []ask{
		{"GET a/orders", "r0 *="},
		{"GET a/orders/", "r0 *="},
		{"GET a/orders/1", "r0 *=1"},
		{"GET a/orders/1/2/", "r0 *=1/2/"},
		{"GET a/ordersx", "404"},
		{"GET a/users/7", "r1 id=7"},
		{"GET a/users/7/", "404"},
		{"GET a/users/", "404"},
		{"GET a/users", "404"},
		{"GET a/users/7/posts/8", "r2 id=7 post=8"},
		{"GET a/users//posts/8", "404"},
		{"GET a/users/a%2fb", "r1 id=a%2Fb"},
		{"GET a/files/a//b/%40c", "r3 path=a//b/%40c"},
		{"GET a//files///a//b", "r3 path=a//b"},
		{"GET a/exact", "r4"},
		{"GET a/exact/", "404"},
		{"GET a//exact", "r4"},
		{"GET a/slash", "404"},
		{"GET a/slash/", "r5"},
		{"GET a/slash//", "r5"},
		{"GET a/caf%c3%a9/menu", "r6"},
		{"GET a/café/menu", "r6"},
		{"GET a/v1/users:batch", "r7"},
		{"GET a/v1/users%3abatch", "r7"},
		{"GET a/", "r8"},
		{"GET a", "r8"},
		{"GET a/none", "404"},
	})
}

func TestMostSpecificPathWins(t *testing.T) {
	table := tableOf(t,
		RouteSpec{Path: "/*", Priority: 100},
		RouteSpec{Path: "/:a/:b", Priority: 50},
		RouteSpec{Path: "/:a/b"},
		RouteSpec{Path: "/a/:b"},
		RouteSpec{Path: "/a/*"},
		RouteSpec{Path: "/a/b/*"},
		RouteSpec{Path: "/a/b"},
		RouteSpec{Path: "/a/:x/c"},
		RouteSpec{Path: "/a/b/d"},
	)
	checkAnswers(t, table, []ask{
		{"GET h/a/b", "r6"},
		{"GET h/a/x", "r3 b=x"},
		{"GET h/x/b", "r2 a=x"},
		{"GET h/x/y", "r1 a=x b=y"},
		{"GET h/a/b/c", "r5 *=c"}, // static b before :x, though /a/:x/c is longer
		{"GET h/a/x/c", "r7 x=x"},
		{"GET h/a/x/d", "r4 *=x/d"},
		{"GET h/a", "r4 *="},
		{"GET h/a/", "r4 *="},
		{"GET h/x", "r0 *=x"},
		{"GET h/", "r0 *="},
	})
}

func TestMostSpecificHostWins(t *testing.T) {
	checkAnswers(t, tableOf(t,
		RouteSpec{Path: "/*", Priority: 9},
		RouteSpec{Hosts: []string{"*.test"}, Path: "/*", Priority: 8},
		RouteSpec{Hosts: []string{"*.a.test"}, Path: "/*"},
		RouteSpec{Hosts: []string{"B.a.test."}, Path: "/x"},
		RouteSpec{Hosts: []string{"::1", "127.0.0.1"}, Path: "/ip"},
	), []ask{
		{"GET b.a.test/x", "r3"},
		{"GET b.a.test/y", "r2 *=y"}, // the exact host has no such path
		{"GET c.a.test/x", "r2 *=x"},
		{"GET d.c.a.test/x", "r2 *=x"},
		{"GET a.test/x", "r1 *=x"},
		{"GET .a.test/x", "r1 *=x"}, // no label before the wildcard's own
		{"GET test/x", "r0 *=x"},
		{"GET other/x", "r0 *=x"},
		{"GET [::1]:8080/ip", "r4"},
		{"GET [::1]/ip", "r4"},
		{"GET 127.0.0.1:80/ip", "r4"},
	})
}

func TestTiesAreDecidedInOrder(t *testing.T) {
	get := []string{"GET"}
	header := map[string]string{"X-A": "~"}
	type entry struct {
		source  string
		created int64
		key     string
		spec    RouteSpec
	}
	for _, tc := range []struct {
		name      string
		won, lost entry
		rule      string
	}{
		{"higher priority before more predicates", entry{"consul", 9, "z", RouteSpec{Path: "/a", Priority: 1}},
			entry{"etcd", 1, "a", RouteSpec{Path: "/a", Methods: get}}, rulePriority},
		{"priority may be negative", entry{"consul", 9, "z", RouteSpec{Path: "/a"}},
			entry{"etcd", 1, "a", RouteSpec{Path: "/a", Priority: -1}}, rulePriority},
		{"more predicates before the source", entry{"consul", 9, "z", RouteSpec{Path: "/a", Methods: get, Headers: header}},
			entry{"etcd", 1, "a", RouteSpec{Path: "/a", Methods: []string{"GET", "POST"}}}, rulePredicates},
		{"etcd before file", entry{"etcd", 9, "z", RouteSpec{Path: "/a"}}, entry{"file", 1, "a", RouteSpec{Path: "/a"}}, ruleSource},
		{"file before Consul tag", entry{"file", 9, "z", RouteSpec{Path: "/a"}}, entry{"consul", 1, "a", RouteSpec{Path: "/a"}}, ruleSource},
		{"the older key", entry{"etcd", 1, "z", RouteSpec{Path: "/:a"}}, entry{"etcd", 2, "a", RouteSpec{Path: "/:b"}}, ruleAge},
		{"the first key of one age", entry{"etcd", 1, "a", RouteSpec{Path: "/a"}}, entry{"etcd", 1, "b", RouteSpec{Path: "/a"}}, ruleAge},
	} {
		t.Run(tc.name, func(t *testing.T) {
			make1 := func(name string, e entry) *Route {
				r := routeOf(t, name, e.created, &e.spec)
				r.Source, r.Key = e.source, e.key
				return r
			}
			won, lost := make1("won", tc.won), make1("lost", tc.lost)
			for _, routes := range [][]*Route{{won, lost}, {lost, won}} {
				table := &Table{index: buildIndex(routes)}
				got, _, _ := strings.Cut(whatMatches(t, table, "GET h/a", http.Header{"X-A": {"1"}}), " ")
				if got != "won" {
					t.Errorf("got %q", got)
				}
			}
			if _, rule := compareRoutes(won, lost); rule != tc.rule {
				t.Errorf("decided by %q, want %q", rule, tc.rule)
			}
		})
	}
}

func TestPredicatesPassTheRequestOn(t *testing.T) {
	table := tableOf(t,
		RouteSpec{Path: "/*"},
		RouteSpec{Hosts: []string{"h.test"}, Path: "/a", Headers: map[string]string{"x-colour": "green"}},
		RouteSpec{Hosts: []string{"h.test"}, Path: "/a", Headers: map[string]string{"User-Agent": "~Mobile|Phone", "X-B": ""}},
		RouteSpec{Hosts: []string{"h.test"}, Path: "/:p", Query: map[string]string{"v": "2 b"}},
		RouteSpec{Hosts: []string{"h.test"}, Path: "/:p", Query: map[string]string{"v": "~^3+$"}},
	)
	for _, tc := range []struct {
		name, line string
		header     http.Header
		want       string
	}{
		{"no predicate holds", "GET h.test/a", nil, "r0 *=a"},
		{"a header is equal", "GET h.test/a", http.Header{"X-Colour": {"green"}}, "r1"},
		{"one of several values is equal", "GET h.test/a", http.Header{"X-Colour": {"blue", "green"}}, "r1"},
		{"a value differs in case", "GET h.test/a", http.Header{"X-Colour": {"Green"}}, "r0 *=a"},
		{"more predicates go first", "GET h.test/a", http.Header{"X-Colour": {"green"}, "X-B": {""}, "User-Agent": {"A Phone"}}, "r2"},
		{"a header that must be empty is absent", "GET h.test/a", http.Header{"User-Agent": {"A Phone"}}, "r0 *=a"},
		{"a query value is equal once decoded", "GET h.test/a?v=2+b", nil, "r3 p=a"},
		{"a query name is equal once decoded", "GET h.test/a?x=1&%76=2%20b", nil, "r3 p=a"},
		{"a query value matches", "GET h.test/a?v=1&v=3%33", nil, "r4 p=a"},
		{"a query value does not match", "GET h.test/a?v=34", nil, "r0 *=a"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := whatMatches(t, table, tc.line, tc.header); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestMethodNotAllowed(t *testing.T) {
	table := tableOf(t,
		RouteSpec{Path: "/a", Methods: []string{"GET"}},
		RouteSpec{Path: "/a", Methods: []string{"PUT", "GET"}, Query: map[string]string{"q": "1"}},
		RouteSpec{Path: "/:x", Methods: []string{"DELETE"}},
		RouteSpec{Path: "/b", Methods: []string{"GET"}},
		RouteSpec{Path: "/b/*", Methods: []string{"POST"}},
		RouteSpec{Path: "/c", Methods: []string{"GET"}},
		RouteSpec{Hosts: []string{"wide.test"}, Path: "/*"},
		RouteSpec{Hosts: []string{"wide.test"}, Path: "/d", Methods: []string{"GET"}},
	)
	checkAnswers(t, table, []ask{
		{"GET h/a", "r0"},
		{"DELETE h/a", "r2 x=a"},
		{"POST h/a", "405 DELETE,GET"},
		{"POST h/a?q=1", "405 DELETE,GET,PUT"}, // only routes whose other predicates hold
		{"HEAD h/c", "405 DELETE,GET"},         // GET does not stand for HEAD
		{"POST h/b", "r4 *="},
		{"PATCH h/b", "405 DELETE,GET,POST"},
		{"POST h/none/x", "404"},
		{"get h/c", "405 DELETE,GET"}, // methods are case-sensitive
		{"POST wide.test/d", "r6 *=d"},
	})
}

func TestMatchFillsTheService(t *testing.T) {
	spec := RouteSpec{Path: "/a", Service: "s"}
	r := routeOf(t, "r", 1, &spec)
	r.slot = 1
	service := &Service{Name: "s"}
	table := &Table{services: []*Service{nil, service}, index: buildIndex([]*Route{r})}
	req, _ := request(t, "GET h/a")
	m := Match{Allow: []string{"stale"}, nparams: 3}
	if out := table.Match(&req, &m); out != Matched {
		t.Fatalf("outcome %v", out)
	}
	if want := (Match{Table: table, Route: r, Service: service, Path: req.Path}); !reflect.DeepEqual(m, want) {
		t.Errorf("got %+v, want %+v", m, want)
	}
	if out := (&Table{}).Match(&req, &m); out != NotFound || m.Route != nil {
		t.Errorf("an empty table: %v, %v", out, m.Route)
	}
}

func TestInvalidRouteKeepsItsPath(t *testing.T) {
	table := tableOf(t, RouteSpec{Path: "/*"}, RouteSpec{Path: "/broken/*"})
	table.routes[1].State = RouteInvalid
	checkAnswers(t, table, []ask{{"GET h/broken/x", "r1 *=x"}, {"GET h/y", "r0 *=y"}})
}

// Segments and parameters side by side at every level: the walk may look at
// each node once, and a long path costs no more.
func TestBacktrackingIsBounded(t *testing.T) {
	const depth = 10
	var specs []RouteSpec
	for bits := range 1 << depth {
		var b strings.Builder
		for i := range depth {
			if bits&(1<<i) != 0 {
				b.WriteString("/a")
			} else {
				fmt.Fprintf(&b, "/:p%d", i)
			}
		}
		specs = append(specs, RouteSpec{Path: b.String() + "/end"})
	}
	table := tableOf(t, specs...)
	path := strings.Repeat("/a", depth)
	if got := whatMatches(t, table, "GET h"+path+"/end", nil); got != fmt.Sprintf("r%d", 1<<depth-1) {
		t.Errorf("got %q", got)
	}
	if got := whatMatches(t, table, "GET h"+path+"/other", nil); got != "404" {
		t.Errorf("got %q", got)
	}
	if got := whatMatches(t, table, "GET h"+strings.Repeat("/a", 100_000), nil); got != "404" {
		t.Errorf("got %q", got)
	}
	tried := 0
	req, _ := request(t, "GET h"+path+"/end")
	s := search{req: &req, visit: func(*candidateRoute) bool { tried++; return false }}
	s.run(table.index)
	if tried != len(specs) {
		t.Errorf("%d candidates tried, want each of %d once", tried, len(specs))
	}
}

func TestIndexReusesHostsThatDidNotChange(t *testing.T) {
	table := tableOf(t,
		RouteSpec{Hosts: []string{"a.test"}, Path: "/1"},
		RouteSpec{Hosts: []string{"a.test", "*.b.test"}, Path: "/2"},
		RouteSpec{Path: "/3"},
	)
	before := table.index
	routes := slices.Clone(table.routes)
	spec := RouteSpec{Path: "/4"}
	routes[2] = routeOf(t, "r2", 9, &spec)
	after := before.with(routes)
	if after.exact["a.test"] != before.exact["a.test"] || after.wild[".b.test"] != before.wild[".b.test"] {
		t.Error("hosts whose routes are the same were built again")
	}
	if after.any == before.any {
		t.Error("a host with another route was taken over")
	}
	if got := after.with(routes[:2]); got.any != nil || got.exact["a.test"] != before.exact["a.test"] {
		t.Error("a host without routes is still there")
	}
}

func TestMatchAllocatesNothing(t *testing.T) {
	table := tableOf(t,
		RouteSpec{Hosts: []string{"*.a.test"}, Path: "/users/:id/*rest", Methods: []string{"POST"}},
		RouteSpec{Hosts: []string{"*.a.test"}, Path: "/users/:id/*rest", Methods: []string{"GET"},
			Headers: map[string]string{"X-A": "~^1"}, Query: map[string]string{"q": "a b"}, StripPrefix: "/users"},
	)
	header := http.Header{"X-A": {"12"}}
	for _, line := range []string{"GET H.A.test:80/users/1/2/3?x=1&q=a+b", "GET h.a.test//users/%40/2//3?q=a%20b"} {
		req, _ := request(t, line)
		req.Header = header
		var m Match
		if n := testing.AllocsPerRun(100, func() {
			if table.Match(&req, &m) != Matched {
				t.Fatal("no match")
			}
		}); n != 0 {
			t.Errorf("%s: Match allocates %v times", line, n)
		}
	}
	req, _ := request(t, "GET h.a.test/users/1/2/3?q=a+b")
	req.Header = header
	var m Match
	table.Match(&req, &m)
	if n := testing.AllocsPerRun(100, func() { _, _ = m.Target() }); n != 0 {
		t.Errorf("stripping a prefix allocates %v times", n)
	}
}
