package middleware

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/golang-jwt/jwt/v5"

	"github.com/sluice-gateway/sluice/routing"
)

// passport is what is kept of a token that was found good. It is immutable
// and shared by requests.
type passport struct {
	// source names what the token was checked against.
	source    [32]byte
	identity  routing.Identity
	headers   []headerEdit
	notBefore time.Time
	expires   time.Time // the zero time where the token does not say
	// size is what an answer about the token takes beside it, in bytes.
	size int
}

// read makes a passport of a token's claims, which are known to be genuine,
// or says what is wrong with them.
func (t *TokenRules) read(plugin string, claims map[string]any) (*passport, error) {
	for _, name := range []string{"exp", "nbf", "iat"} {
		if err := checkDate(claims[name]); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	mc := jwt.MapClaims(claims)
	if err := t.validator.Validate(mc); err != nil {
		return nil, err
	}
	subject, err := mc.GetSubject()
	if err != nil {
		return nil, err
	}
	p := &passport{identity: routing.Identity{Plugin: plugin, Subject: subject, Claims: claims}}
	leeway := time.Duration(t.Leeway)
	if exp, _ := mc.GetExpirationTime(); exp != nil {
		p.expires = exp.Add(leeway)
	}
	if nbf, _ := mc.GetNotBefore(); nbf != nil {
		p.notBefore = nbf.Add(-leeway)
	}
	scope := claims["scope"] // RFC 8693 section 4.2
	if scope == nil {
		scope = claims["scp"]
	}
	if p.identity.Scopes, err = words(scope); err != nil {
		return nil, fmt.Errorf("scope: %w", err)
	}
	if p.identity.Groups, err = words(claims["groups"]); err != nil {
		return nil, fmt.Errorf("groups: %w", err)
	}
	for _, h := range t.headers {
		text, err := headerText(claimAt(claims, h.claim))
		if err != nil {
			return nil, fmt.Errorf("the claim for %s: %w", h.name, err)
		}
		if text != "" {
			p.headers = append(p.headers, headerEdit{h.name, []string{text}})
		}
	}
	return p, nil
}

// checkDate refuses what is no time between 1970 and 9999: numbers further
// out wrap around in a time.Time.
func checkDate(v any) error {
	if v == nil {
		return nil
	}
	n, ok := v.(json.Number)
	if !ok {
		return errors.New("is not a number")
	}
	if f, err := n.Float64(); err != nil || f < 0 || f > 253402300799 {
		return errors.New("is not a time")
	}
	return nil
}

// words reads a list of words: strings, or one string with spaces between.
func words(v any) ([]string, error) {
	switch v := v.(type) {
	case nil:
		return nil, nil
	case string:
		return strings.Fields(v), nil
	case []any:
		list := make([]string, 0, len(v))
		for _, e := range v {
			s, ok := e.(string)
			if !ok {
				return nil, errors.New("holds what is no string")
			}
			list = append(list, s)
		}
		return list, nil
	}
	return nil, errors.New("is neither a string nor a list")
}

// claimAt finds a claim by its name, or by a path into objects such as
// realm_access.roles. nil is none.
func claimAt(claims map[string]any, path string) any {
	if v, ok := claims[path]; ok {
		return v
	}
	for i := range len(path) {
		if path[i] != '.' {
			continue
		}
		if inner, ok := claims[path[:i]].(map[string]any); ok {
			if v := claimAt(inner, path[i+1:]); v != nil {
				return v
			}
		}
	}
	return nil
}

// claimHeader is one claim that the instance is told.
type claimHeader struct{ claim, name string }

// compileClaimHeaders reads claims_to_headers. taken is the header that the
// token stands in.
func compileClaimHeaders(config map[string]string, taken, field string, faults *routing.Faults) (out []claimHeader) {
	seen := map[string]bool{}
	for _, claim := range sortedKeys(config) {
		name := canonical(config[claim])
		message := headerNameFault(config[claim])
		switch {
		case message != "":
		case strings.Contains(name, "_"):
			message = `names a header with "_", which many servers take for "-"`
		case ordinaryHeaders[name] || name == taken:
			message = "names a header that clients send themselves; it would be taken from all of their requests"
		case seen[name]:
			message = "names the same header as another claim"
		case claim == "":
			message = "stands behind an empty claim name"
		}
		if message != "" {
			*faults = append(*faults, routing.Fault{Field: Field(field, claim), Message: message})
		}
		seen[name] = true
		out = append(out, claimHeader{claim, name})
	}
	return out
}

// ordinaryHeaders are those that HTTP or every other client uses.
var ordinaryHeaders = map[string]bool{
	"Accept": true, "Accept-Encoding": true, "Accept-Language": true, "Authorization": true, "Cache-Control": true,
	"Content-Disposition": true, "Content-Encoding": true, "Content-Language": true, "Content-Type": true, "Cookie": true,
	"Grpc-Timeout": true, "If-Match": true, "If-Modified-Since": true, "If-None-Match": true, "If-Range": true,
	"If-Unmodified-Since": true, "Origin": true, "Pragma": true, "Range": true, "Referer": true, "User-Agent": true,
}

// headerText writes a claim as the value of a header, so that no two claims
// that differ read the same to the instance: what a header cannot carry
// faithfully is an error. "" is nothing to send.
func headerText(v any) (string, error) {
	switch v := v.(type) {
	case nil:
		return "", nil
	case string:
		return v, checkText(v)
	case json.Number:
		return v.String(), nil
	case bool:
		if v {
			return "true", nil
		}
		return "false", nil
	case []any:
		list := make([]string, len(v))
		for i, e := range v {
			s, ok := e.(string)
			if !ok || s == "" || strings.Contains(s, ",") {
				return "", errors.New("is a list that a header cannot carry")
			}
			if err := checkText(s); err != nil {
				return "", err
			}
			list[i] = s
		}
		return strings.Join(list, ","), nil
	}
	return "", errors.New("is of a kind that a header cannot carry")
}

func checkText(s string) error {
	for _, r := range s {
		if unicode.IsControl(r) || r == utf8.RuneError {
			return errors.New("holds a control character or what is no text")
		}
	}
	if s != strings.TrimSpace(s) {
		return errors.New("begins or ends with a space")
	}
	return nil
}
