package keys_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/sluice-gateway/sluice/middleware/keys"
)

func rsaKey(t testing.TB, bits int) *rsa.PrivateKey {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func ecKey(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func edKey(t testing.TB) ed25519.PublicKey {
	t.Helper()
	k, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func pemOf(t testing.TB, public any) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

func jwk(t testing.TB, k jose.JSONWebKey) string {
	t.Helper()
	text, err := json.Marshal(k)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func jwks(texts ...string) []byte { return []byte(`{"keys":[` + strings.Join(texts, ",") + `]}`) }

// suits lists the algorithms that a set has keys for.
func suits(s *keys.Set) []string {
	return slices.DeleteFunc(keys.Algorithms(), func(a string) bool { return !s.Suits(a) })
}

// TestRow56AKeyIsUsedOnlyAsWhatItIs: whatever a token says, a key has the
// algorithms of its kind and of its curve.
func TestRow56AKeyIsUsedOnlyAsWhatItIs(t *testing.T) {
	rsas := []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}
	for _, c := range []struct {
		name   string
		public any
		want   []string
	}{
		{"RSA", &rsaKey(t, 2048).PublicKey, rsas},
		{"P-256", &ecKey(t, elliptic.P256()).PublicKey, []string{"ES256"}},
		{"P-384", &ecKey(t, elliptic.P384()).PublicKey, []string{"ES384"}},
		{"P-521", &ecKey(t, elliptic.P521()).PublicKey, []string{"ES512"}},
		{"Ed25519", edKey(t), []string{"EdDSA"}},
	} {
		s, err := keys.ParsePEM(pemOf(t, c.public))
		if err != nil || !slices.Equal(suits(s), c.want) {
			t.Errorf("%s as PEM suits %v (%v), want %v", c.name, suits(s), err, c.want)
		}
		s, err = keys.ParseJWKS(jwks(jwk(t, jose.JSONWebKey{Key: c.public, KeyID: "a"})))
		if err != nil || !slices.Equal(suits(s), c.want) {
			t.Errorf("%s as JWK suits %v (%v), want %v", c.name, suits(s), err, c.want)
		}
	}
	s, err := keys.NewSecret(make([]byte, 64), []string{"HS512"})
	if err != nil || !slices.Equal(suits(s), []string{"HS256", "HS384", "HS512"}) {
		t.Errorf("a secret suits %v (%v)", suits(s), err)
	}
}

func TestASecretIsAsLongAsItsDigest(t *testing.T) {
	for algorithm, need := range map[string]int{"HS256": 32, "HS384": 48, "HS512": 64} {
		if _, err := keys.NewSecret(make([]byte, need), []string{algorithm}); err != nil {
			t.Errorf("%s with %d bytes: %v", algorithm, need, err)
		}
		_, err := keys.NewSecret([]byte(strings.Repeat("s", need-1)), []string{algorithm})
		if err == nil || strings.Contains(err.Error(), "sss") {
			t.Errorf("%s with %d bytes: %v", algorithm, need-1, err)
		}
	}
}

func TestAKeySetLeavesOutWhatCannotBeUsed(t *testing.T) {
	good := jwk(t, jose.JSONWebKey{Key: &rsaKey(t, 2048).PublicKey, KeyID: "good", Use: "sig", Algorithm: "RS256"})
	private := ecKey(t, elliptic.P256())
	ec := jwk(t, jose.JSONWebKey{Key: &private.PublicKey, KeyID: "bad"})
	for name, bad := range map[string]string{
		"a secret":                  `{"kty":"oct","kid":"bad","k":"c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0MTI"}`,
		"a private key":             jwk(t, jose.JSONWebKey{Key: private, KeyID: "bad"}),
		"a key for encryption":      jwk(t, jose.JSONWebKey{Key: &private.PublicKey, KeyID: "bad", Use: "enc"}),
		"a key that may not verify": strings.Replace(ec, "{", `{"key_ops":["encrypt"],`, 1),
		"a small RSA key":           jwk(t, jose.JSONWebKey{Key: &rsaKey(t, 1024).PublicKey, KeyID: "bad"}),
		"an RSA key of 16384 bits":  `{"kty":"RSA","kid":"bad","e":"AQAB","n":"` + strings.Repeat("_", 2731) + `"}`,
		"an unknown kind":           `{"kty":"LWE","kid":"bad"}`,
		"an unknown curve":          `{"kty":"EC","crv":"secp256k1","kid":"bad","x":"AA","y":"AA"}`,
		"a point off the curve":     `{"kty":"EC","crv":"P-256","kid":"bad","x":"` + strings.Repeat("A", 43) + `","y":"` + strings.Repeat("A", 43) + `"}`,
		"a short Ed25519 key":       `{"kty":"OKP","crv":"Ed25519","kid":"bad","x":"AA"}`,
		"an algorithm of another":   jwk(t, jose.JSONWebKey{Key: &private.PublicKey, KeyID: "bad", Algorithm: "RS256"}),
		"an encryption algorithm":   jwk(t, jose.JSONWebKey{Key: &private.PublicKey, KeyID: "bad", Algorithm: "ECDH-ES"}),
		"what is no object":         `"bad"`,
	} {
		s, err := keys.ParseJWKS(jwks(bad, good))
		if err != nil || s.Has("bad") || !s.Has("good") {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := suits(s); !slices.Equal(got, []string{"RS256"}) {
			t.Errorf("%s: the set suits %v", name, got)
		}
		if _, err := keys.ParseJWKS(jwks(bad)); err == nil {
			t.Errorf("%s alone makes a set", name)
		}
	}
}

func TestRow63WhatIsNoKeySetIsAnError(t *testing.T) {
	for name, body := range map[string]string{
		"nothing": "", "HTML": "<html>down for maintenance</html>", "an empty set": `{"keys":[]}`, "no set": `{}`,
		"null": `null`, "another form": `{"keys":{}}`,
		"far too many": string(jwks(slices.Repeat([]string{`{}`}, 257)...)),
	} {
		if s, err := keys.ParseJWKS([]byte(body)); err == nil {
			t.Errorf("%s made a set %v", name, s)
		}
	}
}

func TestFindGivesTheKeysThatATokenMayMean(t *testing.T) {
	var texts []string
	for i := range 12 {
		texts = append(texts, jwk(t, jose.JSONWebKey{Key: edKey(t), KeyID: fmt.Sprint("ed", i)}))
	}
	texts = append(texts, jwk(t, jose.JSONWebKey{Key: &rsaKey(t, 2048).PublicKey, KeyID: "rsa", Algorithm: "PS256"}))
	s, err := keys.ParseJWKS(jwks(texts...))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		algorithm, kid string
		want           int
	}{
		{"EdDSA", "ed3", 1}, {"EdDSA", "rsa", 0}, {"EdDSA", "nope", 0}, {"RS256", "rsa", 0}, {"PS256", "rsa", 1},
		{"PS256", "", 1}, {"HS256", "", 0}, {"none", "", 0},
		{"EdDSA", "", 8}, // a bound on the work for one token
	} {
		if got := s.Find(c.algorithm, c.kid); len(got) != c.want {
			t.Errorf("%s %q: %d keys, want %d", c.algorithm, c.kid, len(got), c.want)
		}
	}
}

func TestAPEMFileHoldsPublicKeysOnly(t *testing.T) {
	ec := ecKey(t, elliptic.P256())
	der, err := x509.MarshalPKCS8PrivateKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	good := pemOf(t, &ec.PublicKey)
	for name, content := range map[string][]byte{
		"nothing":           nil,
		"text":              []byte("-----BEGIN"),
		"a private key":     pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}),
		"one of each":       append(slices.Clone(good), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})...),
		"rubbish":           pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte("x")}),
		"a small RSA key":   pemOf(t, &rsaKey(t, 1024).PublicKey),
		"an uncommon curve": pemOf(t, &ecKey(t, elliptic.P224()).PublicKey),
	} {
		if _, err := keys.ParsePEM(content); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	both, err := keys.ParsePEM(append(slices.Clone(good), pemOf(t, edKey(t))...))
	if err != nil || !slices.Equal(suits(both), []string{"ES256", "EdDSA"}) {
		t.Errorf("two keys suit %v (%v)", suits(both), err)
	}
	one, err := keys.ParsePEM(good)
	if err != nil || one.ID() == both.ID() {
		t.Errorf("different files have the same ID (%v)", err)
	}
}
