package routing

import (
	"errors"
	"strings"

	"github.com/sluice-gateway/sluice/discovery"
)

// maxNameBytes is the length of the longest name of a document, service or
// subset.
const maxNameBytes = 128

// ValidName says whether name can be the name of a document, service or
// subset: a letter or digit, then letters, digits and _ . - up to 128
// characters. A colon is no part of it, because consul:NAME is how a route
// from Consul tags is called.
func ValidName(name string) error {
	if wrong := acceptName(name); wrong != "" {
		return errors.New(wrong)
	}
	return nil
}

func acceptName(s string) string {
	const accepted = " is not a name: accepted are letters, digits and _ . - after a letter or digit, at most 128 characters"
	if s == "" || len(s) > maxNameBytes || !isAlphanumeric(s[0]) {
		return quoted(s) + accepted
	}
	for i := range len(s) {
		if c := s[i]; !isAlphanumeric(c) && c != '_' && c != '.' && c != '-' {
			return quoted(s) + accepted
		}
	}
	return ""
}

// acceptFolder accepts the folder of a key that holds a document.
func acceptFolder(folder string) string {
	var folders []string
	for _, k := range discovery.Kinds() {
		if folder == string(k) {
			return ""
		}
		folders = append(folders, string(k))
	}
	accepted := "accepted are " + list(folders)
	if folder == "" {
		return "the key is in no folder, so it is not read; " + accepted
	}
	return quoted(folder) + " is not a folder of documents, so the key is not read" + suggestion(folder, folders) + "; " + accepted
}

// acceptTag accepts a Consul tag to compare with.
func acceptTag(s string) string {
	if len(s) > 255 || hasControl(s) {
		return "is not a tag: accepted are up to 255 bytes without control characters"
	}
	return ""
}

// acceptToken accepts an RFC 9110 token: the name of a header or cookie.
func acceptToken(s string) string {
	if s == "" || len(s) > 256 {
		return "is not a name of 1 to 256 characters"
	}
	for i := range len(s) {
		if !isTokenByte(s[i]) {
			return "is not a name: accepted are letters, digits and !#$%&'*+-.^_`|~ (RFC 9110)"
		}
	}
	return ""
}

// acceptMethod accepts what a route may be for. CONNECT and TRACE never reach
// a route.
func acceptMethod(s string) string {
	const accepted = "; accepted are methods in upper case, such as GET, POST, PUT, PATCH, DELETE, HEAD and OPTIONS"
	switch {
	case acceptToken(s) != "" || len(s) > 32:
		return quoted(s) + " is not a method" + accepted
	case s != strings.ToUpper(s):
		return quoted(s) + " is not in upper case" + accepted
	case s == "CONNECT" || s == "TRACE":
		return s + " is refused before any route is looked at" + accepted
	}
	return ""
}

// acceptText accepts text on one line.
func acceptText(s string) string {
	if hasControl(s) {
		return "holds a control character; accepted is text on one line"
	}
	return ""
}

func isAlphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

func isTokenByte(c byte) bool {
	return isAlphanumeric(c) || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

// hasControl says whether s holds a control byte other than a tab.
func hasControl(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return true
		}
	}
	return false
}
