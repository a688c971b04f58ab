package keys

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4"

	"github.com/sluice-gateway/sluice/middleware/remote"
)

// ParseJWKS reads a JSON Web Key Set. Keys that cannot be used here are left
// out, as RFC 7517 section 5 wants: those of unknown kinds or curves, those
// for encryption, weak ones. Secrets and private keys are left out too, since
// whoever can read the set has them. A set without any usable key is an
// error: it is far more often a fault of the issuer's than the wish to refuse
// everyone.
func ParseJWKS(body []byte) (*Set, error) {
	var doc struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(body, &doc); err != nil {
		return nil, errors.New("the key set is not JSON of that form")
	}
	if len(doc.Keys) > maxKeys {
		return nil, fmt.Errorf("the key set holds more than %d keys", maxKeys)
	}
	s := &Set{id: sha256.Sum256(body)}
	for _, raw := range doc.Keys {
		if k, ok := parseJWK(raw); ok {
			s.keys = append(s.keys, k)
		}
	}
	if len(s.keys) == 0 {
		return nil, fmt.Errorf("none of the %d keys in the set can be used", len(doc.Keys))
	}
	return s, nil
}

func parseJWK(raw []byte) (key, bool) {
	var jwk jose.JSONWebKey
	var more struct {
		KeyOps []string `json:"key_ops"`
		X      string   `json:"x"`
	}
	if jwk.UnmarshalJSON(raw) != nil || json.Unmarshal(raw, &more) != nil || !jwk.IsPublic() {
		return key{}, false
	}
	if jwk.Use != "" && jwk.Use != "sig" || more.KeyOps != nil && !slices.Contains(more.KeyOps, "verify") {
		return key{}, false
	}
	k := key{id: jwk.KeyID, algorithm: jwk.Algorithm, material: jwk.Key}
	if k.suits("EdDSA") {
		// go-jose fills a short key up with zeros, and there are points of
		// small order that everything verifies against.
		if x, err := base64.RawURLEncoding.DecodeString(more.X); err != nil || len(x) != 32 {
			return key{}, false
		}
	}
	return k, check(k.material) == nil && slices.ContainsFunc(algorithms, k.suits)
}

// Fetch gets the set from where it is published.
type Fetch func(ctx context.Context) (*Set, error)

// FromAddress fetches the set that stands at an address.
func FromAddress(client *http.Client, address string) Fetch {
	return func(ctx context.Context) (*Set, error) {
		body, err := remote.Get(ctx, client, address)
		if err != nil {
			return nil, fmt.Errorf("fetch the key set: %w", err)
		}
		return ParseJWKS(body)
	}
}

// FromDiscovery fetches the set that the OpenID provider at the address
// announces (OpenID Connect Discovery 1.0 section 4). What the provider calls
// itself has to be issuer.
func FromDiscovery(client *http.Client, address, issuer string) Fetch {
	return func(ctx context.Context) (*Set, error) {
		body, err := remote.Get(ctx, client, strings.TrimSuffix(address, "/")+"/.well-known/openid-configuration")
		if err != nil {
			return nil, fmt.Errorf("discover the issuer: %w", err)
		}
		var doc struct {
			Issuer  string `json:"issuer"`
			JWKSURI string `json:"jwks_uri"`
		}
		if err := json.Unmarshal(body, &doc); err != nil {
			return nil, errors.New("discover the issuer: the answer is not JSON of that form")
		}
		switch {
		case doc.Issuer != issuer:
			return nil, fmt.Errorf("discover the issuer: it calls itself %q, not %q", doc.Issuer, issuer)
		case remote.CheckURL(doc.JWKSURI) != nil:
			return nil, errors.New("discover the issuer: its jwks_uri is not an http or https address")
		case strings.HasPrefix(address, "https:") && !strings.HasPrefix(doc.JWKSURI, "https:"):
			return nil, errors.New("discover the issuer: its jwks_uri is not secured by TLS, unlike itself")
		}
		return FromAddress(client, doc.JWKSURI)(ctx)
	}
}
