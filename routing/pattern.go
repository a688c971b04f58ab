package routing

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// restName is the name of a catch-all that was given none.
const restName = "*"

// segment is what stands between two slashes of a pattern.
type segment struct {
	// param is the parameter's name; "" for a static segment.
	param string
	// match and forward are a static segment's two forms (see Path). A last
	// segment may be empty: the trailing slash.
	match, forward string
}

// pattern is a path in Gin's syntax, as routes and rewrites write it: static
// segments, ":param" for one whole segment that is not empty, and a last
// "*name" for all that follows.
type pattern struct {
	segments []segment
	// rest is the catch-all's name, "*" where it was given none, "" without
	// one.
	rest string
}

// parsePattern reads a pattern. Static segments are normalised as request
// paths are, so that "/café" and "/caf%C3%A9" are one.
func parsePattern(text string) (pattern, error) {
	if !strings.HasPrefix(text, "/") {
		return pattern{}, errors.New(`must begin with "/"`)
	}
	var p pattern
	parts := strings.Split(text[1:], "/")
	for i, part := range parts {
		last := i == len(parts)-1
		switch {
		case part == "" && !last:
			return pattern{}, errors.New(`holds "//", which requests are matched without: write one "/"`)
		case strings.HasPrefix(part, "*"):
			if !last {
				return pattern{}, fmt.Errorf("%q must be the last segment, because it stands for all that follows", part)
			}
			if p.rest = part[1:]; p.rest == "" {
				p.rest = restName
			} else if !paramName(p.rest) {
				return pattern{}, badParam(part)
			}
		case strings.HasPrefix(part, ":"):
			if !paramName(part[1:]) {
				return pattern{}, badParam(part)
			}
			p.segments = append(p.segments, segment{param: part[1:]})
		default:
			s, err := staticSegment(part)
			if err != nil {
				return pattern{}, err
			}
			p.segments = append(p.segments, s)
		}
	}
	return p, nil
}

func staticSegment(part string) (segment, error) {
	if i := strings.IndexAny(part, ":*"); i >= 0 {
		return segment{}, fmt.Errorf("segment %q holds %q, which begins a whole segment only: write %%%X for the character itself",
			part, part[i], part[i])
	}
	if dotSegment(part) {
		return segment{}, fmt.Errorf("holds the dot segment %q, which no request has once it is normalised", part)
	}
	n, err := Normalize("/" + part)
	if err != nil {
		return segment{}, fmt.Errorf("segment %q: %w", part, err)
	}
	if strings.Count(n.Forward, "/") != 1 || n.Forward == "/" && part != "" {
		return segment{}, fmt.Errorf("holds the dot segment %q, which no request has once it is normalised", part)
	}
	return segment{match: n.Match[1:], forward: n.Forward[1:]}, nil
}

func badParam(part string) error {
	return fmt.Errorf("parameter %q needs a name of letters, digits, %q and %q", part, '_', '-')
}

func paramName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if pathClass[c] != classUnreserved || c == '.' || c == '~' {
			return false
		}
	}
	return s != ""
}

// names lists the parameters in the order they stand.
func (p *pattern) names() []string {
	var names []string
	for _, s := range p.segments {
		if s.param != "" {
			names = append(names, s.param)
		}
	}
	if p.rest != "" {
		names = append(names, p.rest)
	}
	return names
}

// shape is the pattern without the names of its parameters: equal for
// patterns that match the same paths.
func (p *pattern) shape() string {
	var b strings.Builder
	for _, s := range p.segments {
		b.WriteByte('/')
		if s.param != "" {
			b.WriteByte(':')
		} else {
			// A plain ":" in a static segment must not pass for a parameter.
			b.WriteString(strings.ReplaceAll(strings.ReplaceAll(s.match, ":", "%3A"), "*", "%2A"))
		}
	}
	if p.rest != "" {
		b.WriteString("/*")
	}
	return b.String()
}

// parseRoutePath reads the pattern of a route and the names of its
// parameters.
func parseRoutePath(text string) (pattern, []string, error) {
	if text == "" {
		return pattern{}, nil, errors.New(`is required, as in "/orders/*"`)
	}
	p, err := parsePattern(text)
	if err != nil {
		return pattern{}, nil, err
	}
	names := p.names()
	if len(names) > MaxParams {
		return pattern{}, nil, fmt.Errorf("has %d parameters; at most %d are accepted", len(names), MaxParams)
	}
	for i, n := range names {
		if slices.Contains(names[:i], n) {
			return pattern{}, nil, fmt.Errorf("names the parameter %q twice", n)
		}
	}
	return p, names, nil
}
