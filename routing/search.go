package routing

import (
	"bytes"
	"slices"
	"strings"
)

// Match finds the route of req and fills m in place, without allocating. The
// order is total: most specific host (exact, longest wildcard, any); most
// specific path (static over ":param" over "*", segment by segment, and a
// path that ends over a catch-all's parent); higher priority; more
// predicates; etcd over file over Consul tag; the older key, then the key's
// name. A route whose predicates or methods do not hold passes the request on
// to the next in that order, whatever its host and path.
//
// MethodNotAllowed means that no route took the request and at least one
// would have, but for its method; m.Allow then has the methods of all such
// routes, sorted.
func (t *Table) Match(req *Request, m *Match) Outcome {
	*m = Match{Table: t, Path: req.Path}
	s := search{req: req, match: m}
	switch {
	case s.run(t.index):
		if m.Route.slot >= 0 {
			m.Service = t.services[m.Route.slot]
		}
		return Matched
	case s.methodMissed:
		m.Allow = t.allow(req)
		return MethodNotAllowed
	}
	return NotFound
}

// allow walks again for the methods that would have matched: those who ask
// wrongly pay for it, not everyone.
func (t *Table) allow(req *Request) []string {
	var methods []string
	s := search{req: req, visit: func(c *candidateRoute) bool {
		if c.failed == nil {
			methods = append(methods, c.route.matcher.methods...)
		}
		return false
	}}
	s.run(t.index)
	slices.Sort(methods)
	return slices.Compact(methods)
}

// candidateRoute is a route whose host and path match a request, and what
// else became of it.
type candidateRoute struct {
	route *Route
	host  string // as the index has it, "" for any
	// wrongMethod says that the route does not serve the request's method;
	// failed is the predicate that does not hold, which stands in field.
	wrongMethod bool
	field       string
	failed      *predicate
}

// search is one walk through an index, over candidates in their total order.
type search struct {
	req *Request
	// match takes the first candidate that holds; nil where visit looks.
	match *Match
	// visit, if set, is shown every candidate until it returns true.
	visit func(*candidateRoute) bool

	host string
	// spans are the parameters passed on the way to the current node.
	spans [MaxParams]span
	n     int
	// methodMissed: some candidate failed by its method only.
	methodMissed bool
}

// span is a parameter's value within Path.Match: the bytes, and the number of
// segments before it.
type span struct{ start, end, segments int }

// run walks every trie that has routes for the request's host, and says
// whether a candidate was taken.
func (s *search) run(x *index) bool {
	if x == nil {
		return false
	}
	var buf [maxHost]byte
	host := hostKey(s.req.Host, &buf)
	if len(host) > 0 && len(x.exact) > 0 && s.in(x.exact[string(host)]) {
		return true
	}
	if len(x.wild) > 0 {
		for i := bytes.IndexByte(host, '.'); i >= 0; {
			if i > 0 && s.in(x.wild[string(host[i:])]) {
				return true
			}
			next := bytes.IndexByte(host[i+1:], '.')
			if next < 0 {
				break
			}
			i += 1 + next
		}
	}
	return s.in(x.any)
}

func (s *search) in(h *hostIndex) bool {
	if h == nil || s.req.Path.Match == "" {
		return false
	}
	s.host, s.n = h.host, 0
	return s.walk(h.root, 1, 0)
}

// walk tries everything at and below n, most specific first. at is where the
// next segment of the path begins, one past its end if there is none;
// segments is how many came before.
func (s *search) walk(n *pathNode, at, segments int) bool {
	path := s.req.Path.Match
	if at > len(path) {
		return s.try(n.exact) || s.tryRest(n.rest, at, segments)
	}
	end := strings.IndexByte(path[at:], '/')
	if end += at; end < at {
		end = len(path)
	}
	if next := n.static.get(path[at:end]); next != nil && s.walk(next, end+1, segments+1) {
		return true
	}
	if n.param != nil && end > at {
		s.spans[s.n] = span{at, end, segments}
		s.n++
		if s.walk(n.param, end+1, segments+1) {
			return true
		}
		s.n--
	}
	return s.tryRest(n.rest, at, segments)
}

func (s *search) tryRest(routes []*Route, at, segments int) bool {
	if len(routes) == 0 {
		return false
	}
	end := len(s.req.Path.Match)
	s.spans[s.n] = span{min(at, end), end, segments}
	s.n++
	found := s.try(routes)
	s.n--
	return found
}

// try looks at the predicates of routes in their order.
func (s *search) try(routes []*Route) bool {
	for _, r := range routes {
		if s.visit != nil {
			c := candidateRoute{route: r, host: s.host, wrongMethod: !r.matcher.hasMethod(s.req.Method)}
			c.field, c.failed = r.matcher.failing(s.req)
			if s.visit(&c) {
				return true
			}
			continue
		}
		method := r.matcher.hasMethod(s.req.Method)
		if !method && s.methodMissed {
			continue
		}
		if r.matcher.predicates > 0 {
			if _, failed := r.matcher.failing(s.req); failed != nil {
				continue
			}
		}
		if method {
			s.take(r)
			return true
		}
		s.methodMissed = true
	}
	return false
}

// take makes r the match.
func (s *search) take(r *Route) {
	s.match.Route = r
	s.match.nparams = len(r.matcher.params)
	for i, name := range r.matcher.params {
		s.match.params[i] = Param{name, s.value(s.spans[i], i == len(r.matcher.params)-1 && r.matcher.path.rest != "")}
	}
}

// value returns what a span stands for as it was sent: a parameter's value is
// its segment of Path.Forward, a catch-all's is all that follows, "//" in it
// included but none before it.
func (s *search) value(sp span, rest bool) string {
	p := &s.req.Path
	if len(p.Match) == len(p.Forward) {
		// Folding only ever takes away: the same length is the same string.
		return p.Match[sp.start:sp.end]
	}
	v := afterSegments(p.Forward, sp.segments)
	v = strings.TrimLeft(v, "/")
	if rest {
		return v
	}
	if end := strings.IndexByte(v, '/'); end >= 0 {
		v = v[:end]
	}
	return v
}
