package routing

import (
	"errors"
	"regexp"
	"regexp/syntax"
	"strings"
)

// Bounds of what a route says about a request.
const (
	maxPathBytes    = 2048
	maxPatternBytes = 1024
)

// acceptPath accepts a route's path.
func acceptPath(s string) string {
	if wrong := acceptPathText(s); wrong != "" {
		return wrong
	}
	if _, _, err := parseRoutePath(s); err != nil {
		return strings.Replace(err.Error(), ErrPath.Error()+": ", "", 1)
	}
	return ""
}

// acceptPathText refuses what would be read as something else than it was
// meant: a query, or text meant for another gateway's rule language, which
// would only ever match escaped.
func acceptPathText(s string) string {
	switch {
	case len(s) > maxPathBytes:
		return "is longer than 2048 bytes"
	case s[0] != '/':
		return quoted(s) + ` does not begin with "/"; accepted is a path such as /orders, /users/:id or /files/*path`
	case strings.ContainsAny(s, "?#"):
		return quoted(s) + " holds a query or fragment; accepted is a path alone"
	}
	if i := strings.IndexAny(s, "\"<>\\^`{|}"); i >= 0 || hasControl(s) {
		return quoted(s) + " holds a character that no path has; accepted are letters, digits and -._~!$&'()+,;=@/ and escapes such as %20"
	}
	return ""
}

// acceptPrefix accepts a prefix to strip.
func acceptPrefix(s string) string {
	if strings.Trim(s, "/") == "" {
		return quoted(s) + " strips nothing; accepted is a prefix such as /orders"
	}
	return acceptPathText(s)
}

// prefixOf says whether prefix can begin a request for path. Both have been
// read before.
func prefixOf(prefix, path string) bool {
	strip, _ := parsePattern(strings.TrimRight(prefix, "/"))
	whole, _ := parsePattern(path)
	for i, segment := range strip.segments {
		switch {
		case i >= len(whole.segments):
			return whole.rest != ""
		case whole.segments[i].param == "" && whole.segments[i].match != segment.match:
			return false
		}
	}
	return true
}

// acceptPredicate accepts a value to equal, or ~regexp. Neither the value nor
// the pattern is quoted: a header's can be a credential.
func acceptPredicate(s string) string {
	if hasControl(s) {
		return "holds a control character, which no request has"
	}
	pattern, isPattern := strings.CutPrefix(s, "~")
	if !isPattern {
		return ""
	}
	const accepted = "; accepted after ~ is a regular expression in RE2 syntax of at most 1024 bytes"
	if len(pattern) > maxPatternBytes {
		return "is a regular expression of more than 1024 bytes" + accepted
	}
	if _, err := regexp.Compile(pattern); err != nil {
		why := "it cannot be read"
		if se, ok := errors.AsType[*syntax.Error](err); ok {
			why = se.Code.String()
		}
		return "is not a regular expression (" + why + ")" + accepted
	}
	return ""
}
