package routing

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// matcher is the compiled form of what a RouteSpec says a request must look
// like, and of how its path is rewritten. It is immutable.
type matcher struct {
	// methods are sorted; none means any. GET does not stand for HEAD, nor
	// anything for OPTIONS: as in Traefik, APISIX and the Kubernetes Gateway
	// API, what is listed is what is served.
	methods []string
	// predicates counts what the route asks beyond host and path: its methods
	// are one, each header and each query parameter one.
	predicates int
	rewrite    rewrite

	headers []predicate
	query   []predicate
	// hosts are in the form of parseHost, sorted; none means any.
	hosts []string
	path  pattern
	// params names the parameters of path.
	params []string
}

// compileMatcher compiles the hosts, path, methods, predicates and rewrites
// of spec.
func compileMatcher(spec *RouteSpec) (matcher, Faults) {
	var m matcher
	var faults Faults
	fault := func(field string, err error) {
		faults = append(faults, Fault{Field: field, Message: err.Error(), Code: ProblemField})
	}
	for i, text := range spec.Hosts {
		h, err := parseHost(text)
		if err != nil {
			fault(fmt.Sprintf("hosts[%d]", i), err)
		}
		m.hosts = append(m.hosts, h)
	}
	slices.Sort(m.hosts)
	m.hosts = slices.Compact(m.hosts)

	var err error
	if m.path, m.params, err = parseRoutePath(spec.Path); err != nil {
		fault("path", err)
	}
	for i, method := range spec.Methods {
		if err := checkMethod(method); err != nil {
			fault(fmt.Sprintf("methods[%d]", i), err)
		}
	}
	m.methods = slices.Compact(slices.Sorted(slices.Values(spec.Methods)))

	var fs Faults
	m.headers, fs = compileHeaders(spec.Headers)
	faults = append(faults, fs...)
	m.query, fs = compilePredicates("query", spec.Query, func(s string) string { return s })
	faults = append(faults, fs...)

	m.predicates = len(m.headers) + len(m.query)
	if len(m.methods) > 0 {
		m.predicates++
	}
	if err == nil { // what names parameters can only be read with the path
		m.rewrite, fs = compileRewrite(spec, m.params)
		faults = append(faults, fs...)
	}
	if len(faults) > 0 {
		return matcher{}, faults
	}
	return m, nil
}

// checkMethod wants a token (RFC 9110 section 9.1) in upper case, as every
// method in use is.
func checkMethod(method string) error {
	for i := range len(method) {
		c := method[i]
		if (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune("!#$%&'*+-.^_`|~", rune(c)) {
			return fmt.Errorf("%q is not a method in upper case, such as GET", method)
		}
	}
	if method == "" {
		return fmt.Errorf("is empty; write a method in upper case, such as GET")
	}
	return nil
}

// signature is equal for two routes with the same match (hosts, path,
// methods, predicates and priority): of those only one can serve.
func (m *matcher) signature(priority int) string {
	b := make([]byte, 0, 128)
	for _, h := range m.hosts {
		b = append(append(b, h...), ' ')
	}
	b = append(b, m.path.shape()...)
	for _, method := range m.methods {
		b = append(append(b, ' '), method...)
	}
	for i := range m.headers {
		b = m.headers[i].appendTo(append(b, " header "...))
	}
	for i := range m.query {
		b = m.query[i].appendTo(append(b, " query "...))
	}
	return string(strconv.AppendInt(append(b, ' '), int64(priority), 10))
}

// hostsOrAny is hosts, or "" for any.
func (m *matcher) hostsOrAny() []string {
	if len(m.hosts) == 0 {
		return []string{""}
	}
	return m.hosts
}

// hasMethod says whether the route serves method.
func (m *matcher) hasMethod(method string) bool {
	return len(m.methods) == 0 || slices.Contains(m.methods, method)
}

// failing returns the first header or query predicate that does not hold for
// req, with the field it stands in, or nil.
func (m *matcher) failing(req *Request) (field string, p *predicate) {
	for i := range m.headers {
		if !m.headers[i].inHeader(req.Header) {
			return "headers", &m.headers[i]
		}
	}
	for i := range m.query {
		if !m.query[i].inQuery(req.RawQuery) {
			return "query", &m.query[i]
		}
	}
	return "", nil
}
