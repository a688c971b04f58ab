package keys

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
)

const (
	// maxKeys bounds one set.
	maxKeys = 256
	// maxTries bounds the keys that one token is tried with, where its header
	// does not say which it is.
	maxTries = 8
	// RSA keys below the lower bound are no longer safe (RFC 7518 section
	// 3.3), and those above the upper one cost too much to check with.
	minRSABits, maxRSABits = 2048, 8192
)

// Algorithms are the signature algorithms that tokens may use (RFC 7518
// section 3.1, RFC 8037).
var algorithms = []string{
	"HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
}

// Algorithms lists the signature algorithms that there are keys for.
func Algorithms() []string { return slices.Clone(algorithms) }

// Symmetric says that the algorithm signs and verifies with one secret.
func Symmetric(algorithm string) bool { return len(algorithm) > 2 && algorithm[:2] == "HS" }

// Set is the keys that signatures are checked with. It is immutable.
type Set struct {
	id   [sha256.Size]byte
	keys []key
}

// key is one key and what it may be used for.
type key struct {
	id        string // kid; "" fits every token
	algorithm string // the only one it is for; "" is every one that suits it
	material  any
}

// ID names the content that the set was read from: what was verified with a
// set holds for as long as the ID is the same.
func (s *Set) ID() [sha256.Size]byte { return s.id }

// Find returns the keys that a token may be signed with which names this
// algorithm and, unless kid is "", this key.
func (s *Set) Find(algorithm, kid string) []any {
	var found []any
	for _, k := range s.keys {
		if (kid == "" || k.id == "" || k.id == kid) && k.suits(algorithm) && len(found) < maxTries {
			found = append(found, k.material)
		}
	}
	return found
}

// Has says whether the set holds a key of that name, whatever its algorithm,
// or one that has no name.
func (s *Set) Has(kid string) bool {
	return slices.ContainsFunc(s.keys, func(k key) bool { return k.id == "" || k.id == kid })
}

// Suits says whether any key of the set may be used with the algorithm.
func (s *Set) Suits(algorithm string) bool {
	return slices.ContainsFunc(s.keys, func(k key) bool { return k.suits(algorithm) })
}

func (k key) suits(algorithm string) bool {
	if k.algorithm != "" && k.algorithm != algorithm {
		return false
	}
	switch m := k.material.(type) {
	case []byte:
		return Symmetric(algorithm)
	case *rsa.PublicKey:
		return slices.Contains([]string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}, algorithm)
	case *ecdsa.PublicKey:
		switch m.Curve {
		case elliptic.P256():
			return algorithm == "ES256"
		case elliptic.P384():
			return algorithm == "ES384"
		case elliptic.P521():
			return algorithm == "ES512"
		}
	case ed25519.PublicKey:
		return algorithm == "EdDSA"
	}
	return false
}

// NewSecret makes a set of one HMAC secret for the algorithms. A secret has
// to be as long as the digest (RFC 7518 section 3.2): a shorter one can be
// guessed from a single token, by anyone and at leisure.
func NewSecret(secret []byte, algorithms []string) (*Set, error) {
	for _, a := range algorithms {
		if need := map[string]int{"HS256": 32, "HS384": 48, "HS512": 64}[a]; len(secret) < need {
			return nil, fmt.Errorf("the secret has %d bytes; %s needs at least %d", len(secret), a, need)
		}
	}
	return &Set{id: sha256.Sum256(secret), keys: []key{{material: slices.Clone(secret)}}}, nil
}

// ParsePEM reads public keys and certificates. Private keys are refused: they
// have no business on a gateway.
func ParsePEM(content []byte) (*Set, error) {
	s := &Set{id: sha256.Sum256(content)}
	for rest := content; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		material, err := parseBlock(block)
		if err != nil {
			return nil, err
		}
		if len(s.keys) == maxKeys {
			return nil, fmt.Errorf("holds more than %d keys", maxKeys)
		}
		s.keys = append(s.keys, key{material: material})
	}
	if len(s.keys) == 0 {
		return nil, errors.New("holds no public key in PEM form")
	}
	return s, nil
}

func parseBlock(block *pem.Block) (material any, err error) {
	switch block.Type {
	case "PUBLIC KEY":
		material, err = x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		material, err = x509.ParsePKCS1PublicKey(block.Bytes)
	case "CERTIFICATE":
		var cert *x509.Certificate
		if cert, err = x509.ParseCertificate(block.Bytes); err == nil {
			material = cert.PublicKey
		}
	default:
		return nil, fmt.Errorf("holds a block of type %q where a public key is needed", block.Type)
	}
	if err != nil {
		return nil, fmt.Errorf("read the %s: %w", block.Type, err)
	}
	return material, check(material)
}

// check says why a key cannot be used, or nil.
func check(material any) error {
	switch m := material.(type) {
	case *rsa.PublicKey:
		if bits := m.N.BitLen(); bits < minRSABits || bits > maxRSABits {
			return fmt.Errorf("an RSA key has %d bits; %d to %d are accepted", bits, minRSABits, maxRSABits)
		}
		return nil
	case *ecdsa.PublicKey:
		if slices.Contains([]elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()}, m.Curve) {
			return nil
		}
	case ed25519.PublicKey:
		return nil
	}
	return errors.New("a key is of a kind that no algorithm uses; RSA, EC (P-256, P-384, P-521) and Ed25519 are accepted")
}
