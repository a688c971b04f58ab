package middleware_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/golang-jwt/jwt/v5"
)

// claims are those of a token.
type claims map[string]any

// with returns claims with others put in; nil takes one out.
func (c claims) with(more claims) claims {
	out := maps.Clone(c)
	for k, v := range more {
		if out[k] = v; v == nil {
			delete(out, k)
		}
	}
	return out
}

// key is a pair of keys and its name.
type key struct {
	id      string
	method  jwt.SigningMethod
	private any
	public  any
}

func newRSA(t testing.TB, id string) *key {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return &key{id, jwt.SigningMethodRS256, k, &k.PublicKey}
}

func newEC(t testing.TB, id string, curve elliptic.Curve) *key {
	t.Helper()
	k, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &key{id, jwt.SigningMethodES256, k, &k.PublicKey}
}

func newEd(t testing.TB, id string) *key {
	t.Helper()
	public, k, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &key{id, jwt.SigningMethodEdDSA, k, public}
}

// pem is the public key as a file holds it.
func (k *key) pem(t testing.TB) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(k.public)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

func (k *key) jwk(t testing.TB) string {
	t.Helper()
	text, err := json.Marshal(jose.JSONWebKey{Key: k.public, KeyID: k.id})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// sign makes an ordinary token.
func (k *key) sign(t testing.TB, c claims) string {
	t.Helper()
	return k.forge(t, fmt.Sprintf(`{"alg":%q,"typ":"JWT","kid":%q}`, k.method.Alg(), k.id), jsonOf(t, c))
}

// forge signs whatever header and claims say, by the key's own method.
func (k *key) forge(t testing.TB, header, body string) string {
	t.Helper()
	return forge(t, k.method, k.private, header, body)
}

func forge(t testing.TB, method jwt.SigningMethod, private any, header, body string) string {
	t.Helper()
	signed := b64(header) + "." + b64(body)
	signature, err := method.Sign(signed, private)
	if err != nil {
		t.Fatal(err)
	}
	return signed + "." + b64(string(signature))
}

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

func jsonOf(t testing.TB, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// alice is what a good token says.
func alice() claims {
	return claims{"sub": "alice", "iss": "https://issuer.test", "aud": "api", "role": "user",
		"iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix()}
}

// publisher serves a key set, or whatever else a test has it serve.
type publisher struct {
	*httptest.Server
	t       testing.TB
	mu      sync.Mutex
	handler http.HandlerFunc
	hits    atomic.Int64
}

// publish starts a publisher of the keys.
func publish(t testing.TB, keys ...*key) *publisher {
	t.Helper()
	p := &publisher{t: t}
	p.keys(keys...)
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.hits.Add(1)
		p.mu.Lock()
		h := p.handler
		p.mu.Unlock()
		h(w, r)
	}))
	t.Cleanup(p.Close)
	return p
}

// keys has the publisher serve these keys from now on.
func (p *publisher) keys(keys ...*key) {
	p.t.Helper()
	var texts []string
	for _, k := range keys {
		texts = append(texts, k.jwk(p.t))
	}
	p.answers(200, `{"keys":[`+strings.Join(texts, ",")+`]}`)
}

func (p *publisher) answers(status int, body string) {
	p.does(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	})
}

func (p *publisher) does(h http.HandlerFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.handler = h
}

// file writes a file for a configuration to name.
func file(t testing.TB, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// bearer makes a request with a token, or without one where it is "".
func bearer(path, token string) *http.Request {
	r := httptest.NewRequest("GET", path, nil)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	return r
}

// jsonLog is a log that a test can read while it is written.
type jsonLog struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *jsonLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *jsonLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// tlsPublisher is a publisher behind a certificate that no root signed.
type tlsPublisher struct {
	*httptest.Server
	pem []byte
}

func newTLSPublisher(t testing.TB, p *publisher) *tlsPublisher {
	t.Helper()
	s := httptest.NewUnstartedServer(p.Config.Handler)
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // it says that the gateway hung up
	s.StartTLS()
	t.Cleanup(s.Close)
	return &tlsPublisher{s, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})}
}
