package middleware

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/middleware/keys"
	"github.com/sluice-gateway/sluice/middleware/remote"
	"github.com/sluice-gateway/sluice/routing"
)

const (
	defaultRefresh         = 5 * time.Minute
	minRefresh, maxRefresh = time.Second, 24 * time.Hour
	maxRemoteTimeout       = 30 * time.Second
	keySources             = "secret_env, secret_file, public_key_file, jwks_url, discovery"
)

// fixedKeys are keys that stand here: in a file or a variable.
type fixedKeys func() *keys.Set

func (f fixedKeys) Get(context.Context) (*keys.Set, error)          { return f(), nil }
func (f fixedKeys) Seek(context.Context, string) (*keys.Set, error) { return f(), nil }

// findKeys makes or finds the source of the keys. The other fields are good.
func (c *JWTConfig) findKeys(at *Place) (keySource, routing.Faults) {
	var given []string
	for _, s := range [][2]string{{"secret_env", c.SecretEnv}, {"secret_file", c.SecretFile},
		{"public_key_file", c.PublicKeyFile}, {"jwks_url", c.JWKSURL}, {"discovery", c.Discovery}} {
		if s[1] != "" {
			given = append(given, s[0])
		}
	}
	switch {
	case len(given) == 0:
		return nil, routing.Faults{{Field: at.At("jwks_url"), Message: "is missing; give one of " + keySources}}
	case len(given) > 1:
		return nil, routing.Faults{{Field: at.At(given[1]), Message: "stands beside " + given[0] + "; give one of " + keySources}}
	}
	if c.JWKSURL != "" || c.Discovery != "" {
		return c.remoteKeys(at)
	}
	var faults routing.Faults
	for _, f := range []struct {
		field string
		given bool
	}{{"refresh_interval", c.RefreshInterval != nil}, {"timeout", c.Timeout != nil}, {"ca_file", c.CAFile != ""}} {
		if f.given {
			faults = append(faults, routing.Fault{Field: at.At(f.field), Message: "is only for jwks_url and discovery"})
		}
	}
	if faults != nil {
		return nil, faults
	}
	secret := func(text []byte) (*keys.Set, error) {
		return keys.NewSecret([]byte(strings.TrimSpace(string(text))), c.Algorithms)
	}
	// Algorithms are part of how a file is read: a key that suits none of
	// them is as bad as none.
	kind := "jwt " + strings.Join(c.Algorithms, " ")
	switch {
	case c.SecretEnv != "":
		set, err := secret([]byte(os.Getenv(c.SecretEnv)))
		if err != nil {
			return nil, routing.Faults{{Field: at.At("secret_env"), Message: err.Error()}}
		}
		return fixedKeys(func() *keys.Set { return set }), nil
	case c.SecretFile != "":
		return fileKeys(KeepFile(at, "secret_file", kind+" secret", c.SecretFile, secret))
	}
	return fileKeys(KeepFile(at, "public_key_file", kind+" public", c.PublicKeyFile, func(content []byte) (*keys.Set, error) {
		set, err := keys.ParsePEM(content)
		if err != nil {
			return nil, err
		}
		for _, a := range c.Algorithms {
			if !set.Suits(a) {
				return nil, fmt.Errorf("holds no key for %s", a)
			}
		}
		return set, nil
	}))
}

func fileKeys(f *File[*keys.Set], faults routing.Faults) (keySource, routing.Faults) {
	if faults != nil {
		return nil, faults
	}
	return fixedKeys(f.Get), nil
}

// remoteKeys makes or finds what follows a published key set.
func (c *JWTConfig) remoteKeys(at *Place) (keySource, routing.Faults) {
	field, address := "jwks_url", c.JWKSURL
	if c.Discovery != "" {
		field, address = "discovery", c.Discovery
	}
	if err := remote.CheckURL(address); err != nil {
		return nil, routing.Faults{{Field: at.At(field), Message: err.Error()}}
	}
	u, err := url.Parse(address)
	if err != nil || c.Discovery != "" && u.RawQuery != "" {
		return nil, routing.Faults{{Field: at.At(field), Message: "holds a query, which an issuer's address does not have"}}
	}
	refresh, timeout := defaultRefresh, remote.DefaultTimeout
	if c.RefreshInterval != nil {
		refresh = time.Duration(*c.RefreshInterval)
	}
	if c.Timeout != nil {
		timeout = time.Duration(*c.Timeout)
	}
	if refresh < minRefresh || refresh > maxRefresh {
		return nil, routing.Faults{{Field: at.At("refresh_interval"), Message: fmt.Sprintf("must be %s to %s", minRefresh, maxRefresh)}}
	}
	if timeout <= 0 || timeout > maxRemoteTimeout {
		return nil, routing.Faults{{Field: at.At("timeout"), Message: fmt.Sprintf("must be above 0s and at most %s", maxRemoteTimeout)}}
	}
	client, err := remote.NewClient(timeout, c.CAFile)
	if err != nil {
		return nil, routing.Faults{{Field: at.At("ca_file"), Message: err.Error()}}
	}
	fetch, issuer := keys.FromAddress(client, address), ""
	if c.Discovery != "" {
		issuer = c.Issuer
		fetch = keys.FromDiscovery(client, address, issuer)
	}
	key := fmt.Sprintf("%q %q %q %q", field, address, issuer, c.CAFile)
	// Apart from what follows it, so that whoever changes an interval while
	// the issuer is away does not lose the keys.
	newest := Keep(at, "jwt/set "+key, func() *atomic.Pointer[keys.Set] { return new(atomic.Pointer[keys.Set]) })
	return Keep(at, fmt.Sprintf("jwt/keys %s %s %s", key, refresh, timeout), func() *keys.Remote {
		return keys.NewRemote(keys.RemoteConfig{Fetch: fetch, Set: newest, Interval: refresh, Timeout: timeout,
			Close: client.CloseIdleConnections, Name: u.Host, Log: at.Log()})
	}), nil
}
