package middleware

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/golang-jwt/jwt/v5"

	"github.com/sluice-gateway/sluice/routing"
)

// TokenRules is what the plugins that read bearer tokens have in common:
// where the token stands, what it has to say, and what the instance is told.
type TokenRules struct {
	// Cookie or Header name where the token stands, in place of
	// "Authorization: Bearer".
	Cookie string `json:"cookie"`
	Header string `json:"header"`
	// MaxTokenBytes bounds a token before anything of it is read.
	MaxTokenBytes int `json:"max_token_bytes"`
	// ForwardToken says whether the instance sees the token; true where it is
	// not given.
	ForwardToken *bool `json:"forward_token"`
	// Optional lets requests without a token pass, as nobody in particular.
	Optional bool `json:"optional"`
	// Issuer, Audience (any of them) and Scopes (all of them) are what the
	// token has to name; "" and none are not looked at.
	Issuer   string   `json:"issuer"`
	Audience []string `json:"audience"`
	Scopes   []string `json:"scopes"`
	// Leeway is how far the clocks may be apart.
	Leeway routing.Duration `json:"leeway"`
	// ClaimsToHeaders tells the instance claims by header.
	ClaimsToHeaders map[string]string `json:"claims_to_headers"`

	validator *jwt.Validator
	headers   []claimHeader
}

const (
	defaultTokenBytes = 8 << 10
	// maxTokenBytes is what a request's head may take by default.
	maxTokenBytes = 64 << 10
	// maxLeeway is more than clocks are ever apart that anybody looks after.
	maxLeeway = 10 * time.Minute
)

var (
	errNoToken  = errors.New("there is no token")
	errBadToken = errors.New("there is not exactly one well-formed token")
	errScopes   = errors.New("the token lacks a scope")
)

// prepare checks and compiles the rules.
func (t *TokenRules) prepare(at *Place, options ...jwt.ParserOption) (faults routing.Faults) {
	fault := func(field, format string, args ...any) {
		faults = append(faults, routing.Fault{Field: at.At(field), Message: fmt.Sprintf(format, args...)})
	}
	if t.Cookie != "" && t.Header != "" {
		fault("cookie", "stands beside header; a token is read from one place")
	}
	if t.Cookie != "" && !validHeaderName(t.Cookie) {
		fault("cookie", "is not a cookie name")
	}
	if t.Header != "" {
		switch t.Header = canonical(t.Header); {
		case !validHeaderName(t.Header):
			fault("header", "is not a header name")
		case newScrubber(nil).claim(t.Header) != anyone:
			fault("header", "is removed from every client's request; use another one")
		}
	}
	if t.MaxTokenBytes == 0 {
		t.MaxTokenBytes = defaultTokenBytes
	}
	if t.MaxTokenBytes < 0 || t.MaxTokenBytes > maxTokenBytes {
		fault("max_token_bytes", "must be 1 to %d", maxTokenBytes)
	}
	if time.Duration(t.Leeway) > maxLeeway {
		fault("leeway", "must be at most %s", maxLeeway)
	}
	if slices.Contains(t.Audience, "") {
		fault("audience", "holds an empty entry")
	}
	for _, s := range t.Scopes {
		if s == "" || strings.ContainsAny(s, " \"\\") {
			fault("scopes", "holds what is not a single scope")
		}
	}
	if t.Issuer != "" {
		options = append(options, jwt.WithIssuer(t.Issuer))
	}
	if len(t.Audience) > 0 {
		options = append(options, jwt.WithAudience(t.Audience...))
	}
	t.validator = jwt.NewValidator(append(options, jwt.WithIssuedAt(), jwt.WithLeeway(time.Duration(t.Leeway)))...)
	t.headers = compileClaimHeaders(t.ClaimsToHeaders, t.Header, at.At("claims_to_headers"), &faults)
	return faults
}

// OwnHeaders implements routing.HeaderOwner.
func (t *TokenRules) OwnHeaders() []string {
	names := make([]string, len(t.headers))
	for i, h := range t.headers {
		names[i] = h.name
	}
	return names
}

// find returns the request's token, which is not too long; more than one is
// none.
func (t *TokenRules) find(h http.Header) (string, error) {
	var token string
	var err error
	switch {
	case t.Cookie != "":
		token, err = cookieToken(h["Cookie"], t.Cookie)
	case t.Header != "":
		token, err = oneLine(h[t.Header])
	default:
		if token, err = oneLine(h["Authorization"]); err == nil {
			const scheme = "Bearer "
			if len(token) < len(scheme) || !strings.EqualFold(token[:len(scheme)], scheme) {
				return "", errBadToken
			}
			token = strings.TrimLeft(token[len(scheme):], " ")
		}
	}
	if err != nil {
		return "", err
	}
	if token == "" || len(token) > t.MaxTokenBytes {
		return "", errBadToken
	}
	return token, nil
}

func oneLine(lines []string) (string, error) {
	switch len(lines) {
	case 0:
		return "", errNoToken
	case 1:
		return lines[0], nil
	}
	return "", errBadToken
}

// cookieToken finds a cookie by its exact name.
func cookieToken(lines []string, name string) (string, error) {
	found, n := "", 0
	for _, line := range lines {
		for pair := range strings.SplitSeq(line, ";") {
			if k, v, _ := strings.Cut(strings.TrimSpace(pair), "="); k == name {
				found = v
				n++
			}
		}
	}
	switch n {
	case 0:
		return "", errNoToken
	case 1:
		return found, nil
	}
	return "", errBadToken
}

// wellFormed says whether a token is of the characters that RFC 6750 section
// 2.1 gives it. Tokens that were found good before are known to be.
func wellFormed(token string) bool {
	for i := range len(token) {
		switch c := token[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case strings.IndexByte("-._~+/=", c) < 0:
			return false
		}
	}
	return true
}

// strip takes the token out of what goes to the instance.
func (t *TokenRules) strip(h http.Header) {
	switch {
	case t.Header != "":
		delete(h, t.Header)
	case t.Cookie == "":
		delete(h, "Authorization")
	default:
		var lines []string
		for _, line := range h["Cookie"] {
			var pairs []string
			for pair := range strings.SplitSeq(line, ";") {
				pair = strings.TrimSpace(pair)
				if k, _, _ := strings.Cut(pair, "="); k != t.Cookie && pair != "" {
					pairs = append(pairs, pair)
				}
			}
			if len(pairs) > 0 {
				lines = append(lines, strings.Join(pairs, "; "))
			}
		}
		if delete(h, "Cookie"); len(lines) > 0 {
			h["Cookie"] = lines
		}
	}
}

// admit lets a request go on as the bearer of p, or refuses it for want of a
// scope.
func (t *TokenRules) admit(c *gin.Context, x *routing.Exchange, p *passport) {
	for _, s := range t.Scopes {
		if !slices.Contains(p.identity.Scopes, s) {
			t.refuse(c, p.identity.Plugin, errScopes)
			return
		}
	}
	x.Identity = &p.identity
	if t.ForwardToken != nil && !*t.ForwardToken {
		t.strip(c.Request.Header)
	}
	for _, h := range p.headers {
		c.Request.Header[h.name] = h.values
	}
}

// refuse answers in the form of RFC 6750 section 3. What is wrong with a
// token stands in the log alone: it would help whoever is forging one. Errors
// that wrap errAway are not the token's fault.
func (t *TokenRules) refuse(c *gin.Context, plugin string, err error) {
	ref := &routing.Refusal{Code: routing.CodeUnauthenticated, Detail: "the token is not valid", Cause: err}
	challenge := `Bearer realm="sluice", error="invalid_token"`
	switch {
	case errors.Is(err, errAway):
		ref.Code, ref.Detail, ref.RetryAfter = routing.CodeOverloaded, "tokens cannot be checked at the moment", time.Second
		challenge = ""
	case errors.Is(err, errNoToken):
		ref.Detail, ref.Cause = "this route needs a token", nil
		challenge = `Bearer realm="sluice"`
	case errors.Is(err, errScopes):
		ref.Code, ref.Detail = routing.CodeForbidden, "the token does not allow this"
		challenge = `Bearer realm="sluice", error="insufficient_scope", scope="` + strings.Join(t.Scopes, " ") + `"`
	}
	if challenge != "" {
		c.Writer.Header().Set("WWW-Authenticate", challenge)
	}
	Reject(c, plugin, ref)
}

// errAway says that whoever vouches for tokens cannot be asked.
var errAway = errors.New("tokens cannot be checked")
