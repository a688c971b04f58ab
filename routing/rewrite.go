package routing

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// rewrite is how the path of a matched request changes, and where a redirect
// leads. The zero value changes nothing.
type rewrite struct {
	// strip is the prefix to take away, in Match form without a trailing
	// slash, and stripped the number of its segments.
	strip    string
	stripped int
	// path replaces the whole path; nil for none.
	path *template
	// to is the path of a redirect, after origin ("https://a.test", or "" to
	// stay) and before query. ownQuery says that the redirect names its query
	// itself, be it empty.
	to       *template
	origin   string
	query    string
	fragment string
	ownQuery bool
}

// template is a pattern whose parameters are filled in from a match.
type template struct {
	pattern
	// from is, for each segment and for the rest, the place of its value
	// among the parameters of the match; -1 for a static segment.
	from []int
}

// compileRewrite compiles strip_prefix, rewrite and redirect.to. params are
// the parameters of the route's path.
func compileRewrite(spec *RouteSpec, params []string) (rewrite, Faults) {
	var r rewrite
	var faults Faults
	given := routeParams{names: params}
	if last := spec.Path[strings.LastIndexByte(spec.Path, '/')+1:]; strings.HasPrefix(last, "*") && len(params) > 0 {
		given.rest = params[len(params)-1]
	}
	fault := func(field string, err error) {
		faults = append(faults, Fault{Field: field, Message: err.Error(), Code: ProblemField})
	}
	if spec.StripPrefix != "" && spec.Rewrite != "" {
		fault("strip_prefix", errors.New("cannot stand beside rewrite, which replaces the whole path"))
	}
	if spec.StripPrefix != "" {
		if err := r.compileStrip(spec.StripPrefix); err != nil {
			fault("strip_prefix", err)
		}
	}
	if spec.Rewrite != "" {
		t, err := parseTemplate(spec.Rewrite, given)
		if err != nil {
			fault("rewrite", err)
		}
		r.path = t
	}
	if spec.Redirect != nil {
		if err := r.compileRedirect(spec.Redirect.To, given); err != nil {
			fault("redirect.to", err)
		}
	}
	return r, faults
}

func (r *rewrite) compileStrip(text string) error {
	p, err := parsePattern(text)
	if err != nil {
		return err
	}
	if len(p.names()) > 0 {
		return errors.New(`is a plain prefix such as "/orders"; to leave out parameters use rewrite`)
	}
	for _, s := range p.segments {
		if s.match != "" { // a trailing slash says nothing
			r.strip += "/" + s.match
			r.stripped++
		}
	}
	return nil
}

// routeParams are the parameters that a template may name: those of a route's
// path, of which the last may be its catch-all.
type routeParams struct {
	names []string
	rest  string
}

func parseTemplate(text string, given routeParams) (*template, error) {
	if strings.ContainsAny(text, "?#") {
		return nil, errors.New("is a path: the query goes on as sent")
	}
	p, err := parsePattern(text)
	if err != nil {
		return nil, err
	}
	t := &template{pattern: p}
	for _, s := range p.segments {
		i := -1
		if s.param != "" {
			if i = slices.Index(given.names, s.param); i < 0 || s.param == given.rest {
				return nil, fmt.Errorf("parameter %q is not in the route's path", ":"+s.param)
			}
		}
		t.from = append(t.from, i)
	}
	if p.rest == "" {
		return t, nil
	}
	// A path has one catch-all at most, so one without a name on either side
	// can only mean that one.
	if given.rest == "" || given.rest != p.rest && given.rest != restName && p.rest != restName {
		return nil, fmt.Errorf("parameter %q is not in the route's path", "*"+strings.TrimPrefix(p.rest, restName))
	}
	t.from = append(t.from, len(given.names)-1)
	return t, nil
}

func (r *rewrite) compileRedirect(to string, given routeParams) error {
	if strings.ContainsFunc(to, func(c rune) bool { return c <= ' ' || c == 0x7f || c == '\\' }) {
		return errors.New("holds a space, a control character or a backslash")
	}
	to, r.fragment, _ = strings.Cut(to, "#")
	to, r.query, r.ownQuery = strings.Cut(to, "?")
	path := to
	switch scheme, rest, absolute := strings.Cut(to, "://"); {
	case strings.HasPrefix(to, "//"):
		return errors.New(`begins with "//", which leads to another host: write https:// and the host`)
	case strings.HasPrefix(to, "/"):
	case absolute && (strings.EqualFold(scheme, "http") || strings.EqualFold(scheme, "https")):
		slash := strings.IndexByte(rest, '/')
		if slash < 0 {
			slash = len(rest)
		}
		r.origin, path = to[:len(scheme)+3+slash], rest[slash:]
		u, err := url.Parse(r.origin)
		if err != nil || u.Hostname() == "" || u.User != nil {
			return errors.New("names no host that can be read, as in https://example.com/path")
		}
	default:
		return errors.New(`is neither a path that begins with "/" nor an http or https URL`)
	}
	if path == "" {
		path = "/"
	}
	t, err := parseTemplate(path, given)
	r.to = t
	return err
}

// fill puts the parameters of m into t. The result begins with one slash.
func (t *template) fill(m *Match) string {
	var b strings.Builder
	for i, s := range t.segments {
		b.WriteByte('/')
		if t.from[i] >= 0 {
			b.WriteString(m.params[t.from[i]].Value)
		} else {
			b.WriteString(s.forward)
		}
	}
	if t.rest != "" {
		rest := m.params[t.from[len(t.from)-1]].Value
		// "/orders" matched "/orders/*" by its parent: "/v2/*rest" is "/v2".
		if rest != "" || strings.HasSuffix(m.Path.Match, "/") {
			b.WriteByte('/')
			b.WriteString(rest)
		}
	}
	if b.Len() == 0 {
		return "/"
	}
	return b.String()
}

// Target returns the path to forward for m: unchanged, with its prefix
// stripped segment by segment, or rewritten. Where "//" stood behind a
// stripped prefix, one slash is left, so that no path begins with "//" that
// was not sent so. An error wraps ErrPath and is the client's fault (400).
// Nothing is allocated where nothing is rewritten.
func (m *Match) Target() (string, error) {
	if m.Route == nil {
		return m.Path.Forward, nil
	}
	r := &m.Route.matcher.rewrite
	switch {
	case r.path != nil:
		return stillNormal(r.path.fill(m))
	case r.strip != "" && belowSegments(m.Path.Match, r.strip):
		return stillNormal(singleSlash(afterSegments(m.Path.Forward, r.stripped)))
	}
	return m.Path.Forward, nil
}

// Location returns where the redirect of m leads, its parameters filled in.
// The query of the request goes along unless the redirect has its own. A
// location that stays on the host begins with exactly one slash and holds no
// backslash, so that no browser takes it for another host.
func (m *Match) Location(rawQuery string) (string, error) {
	if m.Route == nil || m.Route.matcher.rewrite.to == nil {
		return "", errors.New("making a location: the route is no redirect")
	}
	r := &m.Route.matcher.rewrite
	path, err := stillNormal(r.to.fill(m))
	if err != nil {
		return "", err
	}
	if strings.HasPrefix(path, "//") {
		return "", fmt.Errorf("%w: the redirect would begin with \"//\"", ErrPath)
	}
	if r.ownQuery {
		rawQuery = r.query
	}
	location := r.origin + path
	if rawQuery != "" {
		location += "?" + headerSafe(rawQuery)
	}
	if r.fragment != "" {
		location += "#" + r.fragment
	}
	return location, nil
}

// stillNormal returns path if normalising it again changes nothing. What a
// rewrite puts together from the segments of a normalised path always is; a
// path that is not has left its place below the rewrite.
func stillNormal(path string) (string, error) {
	n, err := Normalize(path)
	if err != nil {
		return "", fmt.Errorf("rewriting: %w", err)
	}
	if n.Forward != path {
		return "", fmt.Errorf("rewriting: %w: it would leave its rewrite", ErrPath)
	}
	return path, nil
}

// belowSegments says whether path is prefix or lies below it.
func belowSegments(path, prefix string) bool {
	return strings.HasPrefix(path, prefix) && (len(path) == len(prefix) || path[len(prefix)] == '/')
}

// afterSegments returns what follows the first n segments of path that are
// not empty, from the slash behind them on.
func afterSegments(path string, n int) string {
	i := 0
	for ; n > 0; n-- {
		for i < len(path) && path[i] == '/' {
			i++
		}
		for i < len(path) && path[i] != '/' {
			i++
		}
	}
	return path[i:]
}

// singleSlash makes path begin with one slash.
func singleSlash(path string) string {
	if path == "" {
		return "/"
	}
	for len(path) > 1 && path[1] == '/' {
		path = path[1:]
	}
	return path
}

// headerSafe escapes what may not stand in the query of a Location.
func headerSafe(query string) string {
	bad := func(c byte) bool { return c <= ' ' || c >= 0x7f || c == '#' || c == '"' || c == '<' || c == '>' }
	for i := range len(query) {
		if !bad(query[i]) {
			continue
		}
		var b strings.Builder
		for j := range len(query) {
			if c := query[j]; bad(c) {
				writeEscape(&b, c)
			} else {
				b.WriteByte(c)
			}
		}
		return b.String()
	}
	return query
}
