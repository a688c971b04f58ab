package routing

// matcher is the compiled form of what a RouteSpec says a request must look
// like, and of how its path is rewritten. It is immutable.
type matcher struct{}

// compileMatcher compiles the hosts, path, methods, predicates and rewrites
// of spec.
func compileMatcher(spec *RouteSpec) (matcher, Faults) { return matcher{}, nil }

// signature is equal for two routes with the same match (hosts, path,
// methods, predicates and priority): of those only one can serve.
func (m *matcher) signature(priority int) string { return "" }
