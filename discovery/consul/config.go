package consul

import (
	"errors"
	"fmt"
	"net/url"
	"os"
)

// Config says which agent to follow and how. The zero value is switched off;
// Default is what stands in the documentation.
type Config struct {
	// Address is the agent's HTTP API: http://, https:// or unix://PATH.
	// Empty switches Consul off.
	Address string `mapstructure:"address" json:"address"`
	// Token is the ACL token. It is never printed.
	Token string `mapstructure:"token" json:"-"`
	// TokenFile holds the ACL token; it is read again when it changes.
	TokenFile string `mapstructure:"token_file" json:"token_file,omitempty"`
	// Datacenter is asked where a reference names none; empty is the agent's.
	Datacenter string `mapstructure:"datacenter" json:"datacenter,omitempty"`
	// TLS applies to an https address.
	TLS TLS `mapstructure:"tls" json:"tls"`
	// TagPrefix starts the tags that are meant for the gateway.
	TagPrefix string `mapstructure:"tag_prefix" json:"tag_prefix"`
	// SelfRegisteredRoutes follows every service with such tags.
	SelfRegisteredRoutes bool `mapstructure:"self_registered_routes" json:"self_registered_routes"`
	// MaxConnections is the most TCP connections ever open to the agent, the
	// gateway's own registration included.
	MaxConnections int `mapstructure:"max_connections" json:"max_connections"`
}

// TLS is how to speak https with the agent. A client certificate is read
// again for every new connection.
type TLS struct {
	CAFile             string `mapstructure:"ca_file" json:"ca_file,omitempty"`
	CertFile           string `mapstructure:"cert_file" json:"cert_file,omitempty"`
	KeyFile            string `mapstructure:"key_file" json:"key_file,omitempty"`
	ServerName         string `mapstructure:"server_name" json:"server_name,omitempty"`
	InsecureSkipVerify bool   `mapstructure:"insecure_skip_verify" json:"insecure_skip_verify,omitempty"`
}

// The bounds of MaxConnections. Below the lower one there is no room for
// each of the kinds of queries.
const (
	minConnections = 12
	maxConnections = 10_000
)

// Default is the configuration of a gateway beside an agent on this host.
func Default() Config {
	return Config{
		Address:              "http://127.0.0.1:8500",
		TagPrefix:            "sluice.",
		SelfRegisteredRoutes: true,
		MaxConnections:       64,
	}
}

// Validate returns every fault; field is where the configuration stands, for
// example "consul". A configuration that is switched off has none.
func (c Config) Validate(field string) []error {
	if c.Address == "" {
		return nil
	}
	var errs []error
	fault := func(key, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s.%s: "+format, append([]any{field, key}, args...)...))
	}
	if _, err := parseAddress(c.Address); err != nil {
		fault("address", "%w; accepted are http://HOST:PORT, https://HOST:PORT and unix://PATH", err)
	}
	if c.Token != "" && c.TokenFile != "" {
		fault("token_file", "cannot stand beside %s.token: give one of them", field)
	}
	if c.SelfRegisteredRoutes && c.TagPrefix == "" {
		fault("tag_prefix", "is empty, so every tag would be a route: give a prefix such as \"sluice.\", or set %s.self_registered_routes to false", field)
	}
	if c.MaxConnections < minConnections || c.MaxConnections > maxConnections {
		fault("max_connections", "is %d: accepted is %d to %d", c.MaxConnections, minConnections, maxConnections)
	}
	if (c.TLS.CertFile == "") != (c.TLS.KeyFile == "") {
		fault("tls", "cert_file and key_file belong together: give both or neither")
	}
	for key, path := range map[string]string{
		"token_file": c.TokenFile, "tls.ca_file": c.TLS.CAFile,
		"tls.cert_file": c.TLS.CertFile, "tls.key_file": c.TLS.KeyFile,
	} {
		if path == "" {
			continue
		}
		if info, err := os.Stat(path); err != nil {
			fault(key, "%w", err)
		} else if info.IsDir() {
			fault(key, "%s is a directory, a file is accepted", path)
		}
	}
	return errs
}

// String is the configuration without its token, so that printing it by
// mistake gives nothing away.
func (c Config) String() string {
	return fmt.Sprintf("consul at %s, %d connections", c.Address, c.MaxConnections)
}

// GoString is String, for %#v.
func (c Config) GoString() string { return c.String() }

func parseAddress(address string) (*url.URL, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, errors.New("is not a URL")
	}
	switch {
	case u.User != nil:
		return nil, errors.New("must hold no user or password")
	case u.Scheme == "unix" && u.Host == "" && u.Path != "":
		return u, nil
	case (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() != "" && u.RawQuery == "" && u.Fragment == "":
		return u, nil
	}
	return nil, fmt.Errorf("%q does not name an agent", address)
}
