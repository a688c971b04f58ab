package middleware

import (
	"context"
	"encoding/base64"
	"errors"
	"slices"
	"strings"

	"github.com/golang-jwt/jwt/v5"

	"github.com/sluice-gateway/sluice/middleware/keys"
)

var (
	errSegments  = errors.New("the token is not three segments in base64url")
	errAlgorithm = errors.New("the token's algorithm is not accepted")
	errKey       = errors.New("no key fits the token")
	errSignature = errors.New("the signature is not right")
)

// base64url is strict: a token has one spelling, or one that was refused or
// revoked would come back as another.
var base64url = base64.RawURLEncoding.Strict()

// verify checks a token in full. The parser of golang-jwt reads the claims
// and asks for a key before it has checked anything, passes over crit and
// takes the last of two fields with one name; so the parts are read here, in
// the order in which they can be trusted, and its signature methods and its
// validator do the rest.
func (c *JWTConfig) verify(ctx context.Context, set *keys.Set, token string) (*passport, error) {
	dot := strings.LastIndexByte(token, '.')
	if dot < 0 || strings.Count(token, ".") != 2 {
		return nil, errSegments
	}
	signed := token[:dot]
	head, body, _ := strings.Cut(signed, ".")
	signature, err := base64url.DecodeString(token[dot+1:])
	if err != nil {
		return nil, errSegments
	}
	algorithm, kid, err := readHeader(head)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(c.Algorithms, algorithm) {
		return nil, errAlgorithm
	}
	if kid != "" && !set.Has(kid) {
		if set, err = c.keys.Seek(ctx, kid); err != nil {
			return nil, errKey
		}
	}
	if err := verifySignature(set.Find(algorithm, kid), algorithm, signed, signature); err != nil {
		return nil, err
	}
	raw, err := base64url.DecodeString(body)
	if err != nil {
		return nil, errSegments
	}
	claims, err := strictObject(raw)
	if err != nil {
		return nil, err
	}
	p, err := c.read("jwt", claims)
	if err != nil {
		return nil, err
	}
	p.source = set.ID()
	return p, nil
}

// readHeader reads a token's header and refuses what would have the gateway
// check the token in another way than it is configured: critical extensions,
// none of which it knows (RFC 7515 section 4.1.11), an unencoded payload (RFC
// 7797), and keys that come with the token or from where it says. A token of
// another type, such as a logout token or a proof of possession, is no access
// token, even if the same issuer signed it (RFC 8725 section 3.11).
func readHeader(segment string) (algorithm, kid string, err error) {
	raw, err := base64url.DecodeString(segment)
	if err != nil {
		return "", "", errSegments
	}
	header, err := strictObject(raw)
	if err != nil {
		return "", "", err
	}
	for _, name := range []string{"crit", "b64", "jku", "jwk", "x5u", "x5c"} {
		if _, ok := header[name]; ok {
			return "", "", errors.New("the token's header holds " + name)
		}
	}
	if v, ok := header["typ"]; ok {
		typ, _ := v.(string)
		typ = strings.TrimPrefix(strings.ToLower(typ), "application/")
		if typ != "jwt" && typ != "at+jwt" {
			return "", "", errors.New("the token is not of type JWT or at+jwt")
		}
	}
	if v, ok := header["kid"]; ok {
		if kid, ok = v.(string); !ok {
			return "", "", errors.New("the token's kid is no string")
		}
	}
	algorithm, ok := header["alg"].(string)
	if !ok {
		return "", "", errAlgorithm
	}
	return algorithm, kid, nil
}

// verifySignature tries the keys, which are of the algorithm's kind.
func verifySignature(candidates []any, algorithm, signed string, signature []byte) error {
	method := jwt.GetSigningMethod(algorithm)
	if len(candidates) == 0 || method == nil {
		return errKey
	}
	for _, k := range candidates {
		if method.Verify(signed, signature, k) == nil {
			return nil
		}
	}
	return errSignature
}
