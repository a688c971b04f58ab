package session

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"sync/atomic"
	"time"

	"github.com/gorilla/securecookie"
)

// MinSecret is the fewest bytes that a secret may have.
const MinSecret = 32

// LoginLifetime is how long a user may take to log in.
const LoginLifetime = 10 * time.Minute

// ErrSecret says that there is no secret to sign with.
var ErrSecret = errors.New("there is no secret of at least 32 bytes to sign cookies with")

// Login is what has to be remembered of a browser while its user is at the
// issuer. The browser keeps it, encrypted.
type Login struct {
	State    string `json:"s"`
	Nonce    string `json:"n"`
	Verifier string `json:"v"`
	// Return is the local path to go on at.
	Return string `json:"r"`
}

// Signer makes the values of cookies and reads them back. The secret may have
// several lines: the first signs, all are accepted, so that it can be changed
// without logging anybody out.
type Signer struct {
	secret   func() []byte
	lifetime time.Duration
	current  atomic.Pointer[codecs]
}

type codecs struct {
	secret          []byte
	sessions, login []securecookie.Codec
}

// NewSigner makes a signer of a secret that may change. What it signs for a
// session is accepted for lifetime.
func NewSigner(secret func() []byte, lifetime time.Duration) (*Signer, error) {
	s := &Signer{secret: secret, lifetime: lifetime}
	_, err := s.codecs()
	return s, err
}

func (s *Signer) codecs() (*codecs, error) {
	secret := s.secret()
	if c := s.current.Load(); c != nil && bytes.Equal(c.secret, secret) {
		return c, nil
	}
	c := &codecs{secret: secret}
	for line := range bytes.Lines(secret) {
		if line = bytes.TrimSpace(line); len(line) < MinSecret {
			continue
		}
		signing, err := hkdf.Key(sha256.New, line, nil, "sluice session cookie", 32)
		if err != nil {
			return nil, err
		}
		sealing, err := hkdf.Key(sha256.New, line, nil, "sluice login cookie", 64)
		if err != nil {
			return nil, err
		}
		session := securecookie.New(signing, nil).SetSerializer(securecookie.NopEncoder{}).MaxAge(int(s.lifetime / time.Second))
		login := securecookie.New(sealing[:32], sealing[32:]).SetSerializer(securecookie.JSONEncoder{}).MaxAge(int(LoginLifetime / time.Second))
		c.sessions, c.login = append(c.sessions, session), append(c.login, login)
	}
	if len(c.sessions) == 0 {
		return nil, ErrSecret
	}
	s.current.Store(c)
	return c, nil
}

// SignID makes the value of the cookie that names a session.
func (s *Signer) SignID(cookie, id string) (string, error) {
	c, err := s.codecs()
	if err != nil {
		return "", err
	}
	return securecookie.EncodeMulti(cookie, []byte(id), c.sessions...)
}

// ID reads it; "" for what was not signed here, or too long ago.
func (s *Signer) ID(cookie, value string) (string, error) {
	c, err := s.codecs()
	if err != nil {
		return "", err
	}
	var id []byte
	for _, codec := range c.sessions {
		if codec.Decode(cookie, value, &id) == nil {
			return string(id), nil
		}
	}
	return "", nil
}

// SealLogin makes the value of the cookie that remembers a login under way.
func (s *Signer) SealLogin(cookie string, l *Login) (string, error) {
	c, err := s.codecs()
	if err != nil {
		return "", err
	}
	return securecookie.EncodeMulti(cookie, l, c.login...)
}

// Login reads it; nil for what was not sealed here, or too long ago.
func (s *Signer) Login(cookie, value string) (*Login, error) {
	c, err := s.codecs()
	if err != nil {
		return nil, err
	}
	for _, codec := range c.login {
		var l Login
		if codec.Decode(cookie, value, &l) == nil && l.State != "" {
			return &l, nil
		}
	}
	return nil, nil
}
