package routing

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The oracle is the contract's matching, read from the documents anew for
// every request and with no index: slow, plain and of no use of what it
// checks but Normalize.

// oracleCandidate is one host of one route that takes a request's host and
// path.
type oracleCandidate struct {
	route    *Route
	host     string
	kinds    []int // by segment: 0 static, 1 parameter, 2 catch-all
	params   []Param
	asks     int
	failing  bool
	noMethod bool
}

func oracleHost(pattern, host string) bool {
	if suffix, ok := strings.CutPrefix(pattern, "*"); ok {
		return strings.HasSuffix(host, suffix) && len(host) > len(suffix)
	}
	return pattern == "" || pattern == host
}

// oraclePath matches segments one by one; sent are the path's segments as
// they were sent, "" only at the end.
func oraclePath(pattern, match string, sent []string, rest string) (kinds []int, params []Param, ok bool) {
	want, have := strings.Split(pattern[1:], "/"), strings.Split(match[1:], "/")
	for i, w := range want {
		switch {
		case strings.HasPrefix(w, "*"):
			name := w
			if w != "*" {
				name = w[1:]
			}
			return append(kinds, 2), append(params, Param{name, oracleRest(rest, i)}), true
		case i >= len(have):
			return nil, nil, false
		case strings.HasPrefix(w, ":"):
			if have[i] == "" {
				return nil, nil, false
			}
			kinds, params = append(kinds, 1), append(params, Param{w[1:], sent[i]})
		default:
			if w != have[i] {
				return nil, nil, false
			}
			kinds = append(kinds, 0)
		}
	}
	return kinds, params, len(want) == len(have)
}

var (
	oracleSegment = regexp.MustCompile(`^/+[^/]+`)
	oracleSlashes = regexp.MustCompile(`^/+`)
)

// oracleRest is forward without its first n segments and the slashes after.
func oracleRest(forward string, n int) string {
	for range n {
		forward = oracleSegment.ReplaceAllString(forward, "")
	}
	return oracleSlashes.ReplaceAllString(forward, "")
}

func oracleValue(want string, got []string) bool {
	return slices.ContainsFunc(got, func(v string) bool {
		if expr, ok := strings.CutPrefix(want, "~"); ok {
			return regexp.MustCompile(expr).MatchString(v)
		}
		return want == v
	})
}

func oracleCandidates(routes []*Route, req *Request) []oracleCandidate {
	host := strings.ToLower(req.Host)
	if i := strings.LastIndexByte(host, ':'); i >= 0 {
		host = host[:i]
	}
	host = strings.TrimSuffix(host, ".")
	sent := strings.FieldsFunc(req.Path.Forward, func(r rune) bool { return r == '/' })
	if strings.HasSuffix(req.Path.Forward, "/") {
		sent = append(sent, "")
	}
	query, err := url.ParseQuery(req.RawQuery)
	if err != nil {
		panic(err)
	}
	var out []oracleCandidate
	for _, r := range routes {
		c := oracleCandidate{route: r, asks: len(r.Spec.Headers) + len(r.Spec.Query)}
		if len(r.Spec.Methods) > 0 {
			c.asks++
			c.noMethod = !slices.Contains(r.Spec.Methods, req.Method)
		}
		for name, want := range r.Spec.Headers {
			c.failing = c.failing || !oracleValue(want, req.Header.Values(name))
		}
		for name, want := range r.Spec.Query {
			c.failing = c.failing || !oracleValue(want, query[name])
		}
		var ok bool
		if c.kinds, c.params, ok = oraclePath(r.Spec.Path, req.Path.Match, sent, req.Path.Forward); !ok {
			continue
		}
		hosts := r.Spec.Hosts
		if len(hosts) == 0 {
			hosts = []string{""}
		}
		for _, h := range hosts {
			if c.host = h; oracleHost(h, host) {
				out = append(out, c)
			}
		}
	}
	return out
}

// oracleBefore is the contract's sentence on which route wins.
func oracleBefore(a, b oracleCandidate) bool {
	rank := func(h string) int {
		switch {
		case h == "":
			return 0
		case h[0] == '*':
			return len(h)
		}
		return 1000
	}
	if x, y := rank(a.host), rank(b.host); x != y {
		return x > y
	}
	for i := range min(len(a.kinds), len(b.kinds)) {
		if a.kinds[i] != b.kinds[i] {
			return a.kinds[i] < b.kinds[i]
		}
	}
	if len(a.kinds) != len(b.kinds) {
		return len(a.kinds) < len(b.kinds) // the longer one goes on with a catch-all
	}
	if x, y := a.route.Spec.Priority, b.route.Spec.Priority; x != y {
		return x > y
	}
	if a.asks != b.asks {
		return a.asks > b.asks
	}
	order := "etcd file consul"
	if x, y := strings.Index(order, a.route.Source), strings.Index(order, b.route.Source); x != y {
		return x < y
	}
	if a.route.Created != b.route.Created {
		return a.route.Created < b.route.Created
	}
	return a.route.Key < b.route.Key
}

func oracleMatch(routes []*Route, req *Request) (Outcome, *Route, []Param, []string) {
	var won *oracleCandidate
	var allow []string
	for _, c := range oracleCandidates(routes, req) {
		switch {
		case c.failing:
		case c.noMethod:
			allow = append(allow, c.route.Spec.Methods...)
		case won == nil || oracleBefore(c, *won):
			won = &c
		}
	}
	if won != nil {
		return Matched, won.route, won.params, nil
	}
	slices.Sort(allow)
	if allow = slices.Compact(allow); len(allow) > 0 {
		return MethodNotAllowed, nil, nil, allow
	}
	return NotFound, nil, nil, nil
}

// chooser spends fuzz bytes on choices; it chooses the first when they end.
type chooser struct{ bytes []byte }

func pick[T any](c *chooser, from ...T) T {
	if len(c.bytes) == 0 {
		return from[0]
	}
	b := c.bytes[0]
	c.bytes = c.bytes[1:]
	return from[int(b)%len(from)]
}

func (c *chooser) spec() RouteSpec {
	var s RouteSpec
	for range pick(c, 0, 0, 1, 2) {
		s.Hosts = append(s.Hosts, pick(c, "a.test", "b.a.test", "*.a.test", "*.test", "*.c.b.a.test"))
	}
	for i := range pick(c, 1, 2, 3, 4) {
		s.Path += "/" + pick(c, "a", "b", "@", "a%2Fb", fmt.Sprintf(":p%d", i))
	}
	switch pick(c, "", "", "/", "/*", "/*rest", "alone", "root") {
	case "/":
		s.Path += "/"
	case "/*":
		s.Path += "/*"
	case "/*rest":
		s.Path += "/*rest"
	case "alone":
		s.Path = "/*"
	case "root":
		s.Path = "/"
	}
	s.Methods = pick(c, nil, nil, []string{"GET"}, []string{"POST"}, []string{"GET", "PUT"})
	s.Headers = pick(c, nil, nil, map[string]string{"X-A": "1"}, map[string]string{"X-A": "~[12]", "X-B": "1"})
	s.Query = pick(c, nil, nil, map[string]string{"q": "1"}, map[string]string{"q": "~^.$"})
	s.Priority = pick(c, 0, 0, 1, -1)
	return s
}

func (c *chooser) request() Request {
	raw := ""
	for range pick(c, 1, 2, 3, 4, 5) {
		raw += pick(c, "/", "/", "/", "//") + pick(c, "a", "b", "@", "%40", "a%2fb", "%61", "c", ".", "..", "")
	}
	p, err := Normalize(raw)
	if err != nil {
		p, _ = Normalize("/a")
	}
	req := Request{Method: pick(c, "GET", "POST", "DELETE"), Path: p, Header: http.Header{},
		Host:     pick(c, "a.test", "B.A.test:80", "c.b.a.test.", "d.c.b.a.test", "x.test", "other", ""),
		RawQuery: pick(c, "", "q=1", "q=2&q=1", "q=%31", "q=12")}
	for _, name := range []string{"X-A", "X-B"} {
		if v := pick(c, "", "1", "2"); v != "" {
			req.Header[name] = []string{v}
		}
	}
	return req
}

// FuzzMatch compares the index with the oracle, for tables and requests made
// of the fuzzed bytes.
func FuzzMatch(f *testing.F) {
	f.Add([]byte("routes"), []byte("requests"))
	f.Add([]byte("\x00\x01\x04\x03\x02\x01\x00\x02\x04\x04\x03\x01\x01\x00\x03\x02\x03\x04\x01"), []byte("\x02\x00\x01\x00\x03\x01\x01\x02\x02\x01"))
	f.Add([]byte(strings.Repeat("\x03\x01\x04\x01\x05\x09\x02\x06\x05\x03\x05\x08\x09\x07", 12)), []byte(strings.Repeat("\x02\x07\x01\x08\x02\x08", 20)))
	f.Fuzz(func(t *testing.T, tableBytes, requestBytes []byte) {
		checkTables(t, tableBytes[:min(len(tableBytes), 2000)], requestBytes[:min(len(requestBytes), 400)])
	})
}

func TestIndexAgreesWithOracle(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	bytes := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		return b
	}
	outcomes := map[Outcome]int{}
	for i := range 200 {
		for outcome, n := range checkTables(t, bytes(20+5*i), bytes(400)) {
			outcomes[outcome] += n
		}
	}
	for _, o := range []Outcome{NotFound, MethodNotAllowed, Matched} {
		if outcomes[o] < 100 {
			t.Errorf("outcome %d came up %d times only: %v", o, outcomes[o], outcomes)
		}
	}
}

// checkTables makes a table and requests of the bytes, compares index and
// oracle for each, and counts the outcomes.
func checkTables(t *testing.T, tableBytes, requestBytes []byte) map[Outcome]int {
	t.Helper()
	c := &chooser{tableBytes}
	var routes []*Route
	taken := map[string]bool{}
	for len(c.bytes) > 0 {
		spec := c.spec()
		r := routeOf(t, fmt.Sprintf("r%03d", len(routes)), int64(pick(c, 1, 1, 2, 3)), &spec)
		r.Source = pick(c, "etcd", "file", "consul")
		if sig := r.matcher.signature(spec.Priority); !taken[sig] {
			taken[sig] = true
			routes = append(routes, r)
		}
	}
	table := &Table{index: buildIndex(routes)}
	outcomes := map[Outcome]int{}
	c = &chooser{requestBytes}
	for once := true; once || len(c.bytes) > 0; once = false {
		req := c.request()
		outcomes[checkAgainstOracle(t, table, routes, &req)]++
	}
	return outcomes
}

func checkAgainstOracle(t *testing.T, table *Table, routes []*Route, req *Request) Outcome {
	t.Helper()
	var m Match
	got := table.Match(req, &m)
	want, route, params, allow := oracleMatch(routes, req)
	if got != want || m.Route != route || !slices.Equal(m.Params(), params) || !slices.Equal(m.Allow, allow) {
		t.Fatalf("%s %q %+v?%s %v:\ngot  %v %s %v %v\nwant %v %s %v %v", req.Method, req.Host, req.Path, req.RawQuery, req.Header,
			got, describe(m.Route), m.Params(), m.Allow, want, describe(route), params, allow)
	}

	// Explain walks the same way: its losers and winner are all candidates,
	// and it names the same winner.
	e := table.Explain(req, nil)
	if (e.Winner == nil) != (route == nil) || e.Winner != nil && e.Winner.Name != route.Name {
		t.Fatalf("Explain: winner %+v, want %s", e.Winner, describe(route))
	}
	var named, candidates []string
	for _, l := range e.Losers {
		named = append(named, l.Name)
	}
	if route != nil {
		named = append(named, route.Name)
	}
	for _, c := range oracleCandidates(routes, req) {
		candidates = append(candidates, c.route.Name)
	}
	slices.Sort(named)
	slices.Sort(candidates)
	if candidates = slices.Compact(candidates); !reflect.DeepEqual(named, candidates) {
		t.Fatalf("Explain names %v, want %v", named, candidates)
	}
	return got
}

func describe(r *Route) string {
	if r == nil {
		return "none"
	}
	return fmt.Sprintf("%s%+v", r.Name, *r.Spec)
}
