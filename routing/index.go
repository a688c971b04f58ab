package routing

// index finds the routes of a request without looking at the others. It is
// immutable.
type index struct{}

// buildIndex builds an index over routes. prev, if not nil, is the index
// before; hosts whose routes did not change are taken from it.
func buildIndex(prev *index, routes []*Route) *index { return &index{} }

// Match finds the route of a request; see the contract's total order.
func (t *Table) Match(req *Request, m *Match) Outcome { return NotFound }

// Target returns the path to forward for m: prefix stripped or path
// rewritten, normalised again, still below its rewrite; an error is the
// client's fault (400).
func (m *Match) Target() (string, error) { return m.Path.Forward, nil }

// Normalize makes a request path safe to match and forward.
func Normalize(raw string) (Path, error) { return Path{raw, raw}, nil }
