package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
	"golang.org/x/sync/singleflight"
	"golang.org/x/time/rate"

	"github.com/sluice-gateway/sluice/middleware/remote"
)

const (
	// discoverEvery is how long the issuer's description is believed.
	discoverEvery = time.Hour
	// awayFor is how long an issuer that did not answer is left alone.
	awayFor = time.Second
)

// algorithms are those of public keys, whichever of them the issuer says that
// it uses: it may change its mind before it is asked again, and what a key
// verifies is bound to its kind.
var algorithms = []string{oidc.RS256, oidc.RS384, oidc.RS512, oidc.PS256, oidc.PS384, oidc.PS512,
	oidc.ES256, oidc.ES384, oidc.ES512, oidc.EdDSA}

// Client is the gateway as the issuer knows it. Secret is "" for a public one.
type Client struct {
	ID     string
	Secret string
}

// Provider is an issuer, found by discovery when it is first needed.
type Provider struct {
	issuer string
	id     string // of the client
	http   *http.Client

	flight singleflight.Group
	found  atomic.Pointer[found]
	away   atomic.Int64 // until when it is left alone, in unix nanoseconds
}

// found is what discovery told. It is immutable.
type found struct {
	until         time.Time // when to ask again
	endpoint      oauth2.Endpoint
	verifier      *oidc.IDTokenVerifier
	logouts       *oidc.IDTokenVerifier
	EndSession    string   `json:"end_session_endpoint"`
	JWKS          string   `json:"jwks_uri"`
	TokenAuth     []string `json:"token_endpoint_auth_methods_supported"`
	SendsIssuer   bool     `json:"authorization_response_iss_parameter_supported"`
	TokenEndpoint string   `json:"token_endpoint"`
}

// NewProvider makes a provider that talks through client.
func NewProvider(issuer, clientID string, client *http.Client) *Provider {
	bounded := *client
	bounded.Transport = bodies{client.Transport}
	return &Provider{issuer: issuer, id: clientID, http: &bounded}
}

// discovered returns what is known of the issuer, and asks it where nothing
// is. What is old serves on where the issuer does not answer.
func (p *Provider) discovered(ctx context.Context) (*found, error) {
	if f := p.found.Load(); f != nil && time.Now().Before(f.until) {
		return f, nil
	}
	v, err, _ := p.flight.Do("", func() (any, error) {
		old := p.found.Load()
		if old != nil && time.Now().Before(old.until) {
			return old, nil
		}
		f, err := p.discover(context.WithoutCancel(ctx))
		if err != nil && old != nil {
			again := *old
			again.until = time.Now().Add(time.Minute)
			f, err = &again, nil
		}
		if err != nil {
			return nil, err
		}
		p.found.Store(f)
		return f, nil
	})
	if err != nil {
		return nil, err
	}
	return v.(*found), nil
}

func (p *Provider) discover(ctx context.Context) (*found, error) {
	if err := p.reachable(); err != nil {
		return nil, err
	}
	ctx = oidc.ClientContext(ctx, p.http)
	provider, err := oidc.NewProvider(ctx, p.issuer)
	if err != nil {
		return nil, p.unreachable("discover", err)
	}
	f := &found{until: time.Now().Add(discoverEvery), endpoint: provider.Endpoint()}
	if err := provider.Claims(f); err != nil {
		return nil, p.unreachable("discover", err)
	}
	if f.endpoint.AuthURL == "" || f.TokenEndpoint == "" || f.JWKS == "" {
		return nil, p.unreachable("discover", errors.New("its description lacks an endpoint"))
	}
	f.endpoint.AuthStyle = oauth2.AuthStyleInHeader
	if len(f.TokenAuth) > 0 && !slices.Contains(f.TokenAuth, "client_secret_basic") {
		f.endpoint.AuthStyle = oauth2.AuthStyleInParams
	}
	config := &oidc.Config{ClientID: p.id, SupportedSigningAlgs: algorithms}
	f.verifier = provider.VerifierContext(ctx, config)
	// Anybody can send logout tokens that name unknown keys; that must not
	// make the gateway ask the issuer for its keys each time.
	slow := *p.http
	slow.Transport = limited{p.http.Transport, rate.NewLimiter(rate.Every(30*time.Second), 2)}
	f.logouts = provider.VerifierContext(oidc.ClientContext(ctx, &slow), config)
	return f, nil
}

// reachable fails while the issuer is left alone.
func (p *Provider) reachable() error {
	if time.Now().UnixNano() < p.away.Load() {
		return ErrAway
	}
	return nil
}

// unreachable notes that the issuer did not answer as it should.
func (p *Provider) unreachable(doing string, err error) error {
	p.away.Store(time.Now().Add(awayFor).UnixNano())
	return fmt.Errorf("%s %s: %w: %w", doing, p.issuer, ErrAway, quiet(err))
}

// config is the client as x/oauth2 wants it.
func (f *found) config(c Client, redirect string, scopes []string) *oauth2.Config {
	endpoint := f.endpoint
	if c.Secret == "" {
		endpoint.AuthStyle = oauth2.AuthStyleInParams
	}
	return &oauth2.Config{ClientID: c.ID, ClientSecret: c.Secret, Endpoint: endpoint, RedirectURL: redirect, Scopes: scopes}
}

// bodies bounds what is read of each answer.
type bodies struct{ next http.RoundTripper }

func (t bodies) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.next.RoundTrip(r)
	if err == nil {
		resp.Body = &body{ReadCloser: resp.Body, left: remote.MaxBody}
	}
	return resp, err
}

// CloseIdleConnections is what http.Client looks for.
func (t bodies) CloseIdleConnections() { (&http.Client{Transport: t.next}).CloseIdleConnections() }

type body struct {
	io.ReadCloser
	left int64
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, remote.ErrTooLarge
	}
	return n, err
}

// limited bounds how often something is asked for. It never waits.
type limited struct {
	next  http.RoundTripper
	limit *rate.Limiter
}

func (t limited) RoundTrip(r *http.Request) (*http.Response, error) {
	if !t.limit.Allow() {
		return nil, errors.New("asked too often")
	}
	return t.next.RoundTrip(r)
}
