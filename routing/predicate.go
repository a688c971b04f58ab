package routing

import (
	"errors"
	"maps"
	"net/http"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
)

// predicate is what one header or query parameter must be: equal to a value,
// or matched by a regular expression. A parameter that comes several times
// holds if one of its values does.
type predicate struct {
	name  string
	value string
	// re is set for a value written "~regexp". It is searched for, as in
	// nginx and Traefik: "^" and "$" anchor it.
	re *regexp.Regexp
}

// compilePredicates compiles the header or query predicates of a route,
// sorted by name. field is "headers" or "query"; canonical gives the names
// their one form.
func compilePredicates(field string, in map[string]string, canonical func(string) string) ([]predicate, Faults) {
	var out []predicate
	var faults Faults
	for _, name := range slices.Sorted(maps.Keys(in)) {
		p := predicate{name: canonical(name), value: in[name]}
		at := field + "." + name
		if slices.ContainsFunc(out, func(o predicate) bool { return o.name == p.name }) {
			faults = append(faults, Fault{Field: at, Code: ProblemField, Message: "stands twice, in different case"})
			continue
		}
		if expr, ok := strings.CutPrefix(p.value, "~"); ok {
			re, err := regexp.Compile(expr)
			if err != nil {
				faults = append(faults, Fault{Field: at, Code: ProblemField,
					Message: "is not a regular expression in RE2 syntax: " + regexpFault(err)})
				continue
			}
			p.re = re
		}
		out = append(out, p)
	}
	return out, faults
}

// regexpFault says what is wrong with an expression without quoting it: what a
// header must be may be a secret.
func regexpFault(err error) string {
	var e *syntax.Error
	if errors.As(err, &e) {
		return string(e.Code)
	}
	return "it cannot be read"
}

// compileHeaders refuses Host, which the request does not carry as a header.
func compileHeaders(in map[string]string) ([]predicate, Faults) {
	out, faults := compilePredicates("headers", in, http.CanonicalHeaderKey)
	for _, p := range out {
		if p.name == "Host" {
			faults = append(faults, Fault{Field: "headers.Host", Code: ProblemField, Message: "is matched by hosts"})
		}
	}
	return out, faults
}

func (p *predicate) accepts(value string) bool {
	if p.re != nil {
		return p.re.MatchString(value)
	}
	return p.value == value
}

func (p *predicate) inHeader(h http.Header) bool {
	for _, v := range h[p.name] {
		if p.accepts(v) {
			return true
		}
	}
	return false
}

// inQuery reads the query as browsers write it (WHATWG URL section 5.1):
// pairs between "&" only, "+" for a space, and a malformed escape stands for
// itself. Nothing is dropped, whatever else is in the query.
func (p *predicate) inQuery(raw string) bool {
	for raw != "" {
		var pair string
		pair, raw, _ = strings.Cut(raw, "&")
		if pair == "" {
			continue
		}
		name, value, _ := strings.Cut(pair, "=")
		if !queryEqual(name, p.name) {
			continue
		}
		if p.re == nil && queryEqual(value, p.value) || p.re != nil && p.re.MatchString(queryDecode(value)) {
			return true
		}
	}
	return false
}

// queryByte reads the first byte of s as queries encode it, and how many
// bytes of s it took.
func queryByte(s string) (c byte, n int) {
	if s[0] == '+' {
		return ' ', 1
	}
	if s[0] == '%' {
		if v, ok := unescape(s); ok {
			return v, 3
		}
	}
	return s[0], 1
}

// queryEqual says whether s decodes to want.
func queryEqual(s, want string) bool {
	for s != "" {
		c, n := queryByte(s)
		if want == "" || want[0] != c {
			return false
		}
		s, want = s[n:], want[1:]
	}
	return want == ""
}

func queryDecode(s string) string {
	if !strings.ContainsAny(s, "%+") {
		return s
	}
	out := make([]byte, 0, len(s))
	for s != "" {
		c, n := queryByte(s)
		out, s = append(out, c), s[n:]
	}
	return string(out)
}

// appendTo adds p to a signature.
func (p *predicate) appendTo(b []byte) []byte {
	return strconv.AppendQuote(append(strconv.AppendQuote(b, p.name), '='), p.value)
}
