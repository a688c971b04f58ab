package etcd

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"

	"github.com/sluice-gateway/sluice/discovery"
)

// Config says which etcd to follow and how to get in.
type Config struct {
	// Endpoints are client URLs of the members, "http://host:port" or
	// "https://host:port". None switches etcd off.
	Endpoints []string `mapstructure:"endpoints" json:"endpoints"`
	// Prefix is the folder of all keys, without a slash at its end.
	Prefix string `mapstructure:"prefix" json:"prefix"`
	// Username is empty where etcd asks for none.
	Username string `mapstructure:"username" json:"username,omitempty"`
	// Password is never printed.
	Password string `mapstructure:"password" json:"-"`
	// PasswordFile holds the password instead; it is read again at each
	// connection, so that it can change while the gateway runs.
	PasswordFile string `mapstructure:"password_file" json:"password_file,omitempty"`
	TLS          TLS    `mapstructure:"tls" json:"tls"`
}

// TLS is how to speak to https endpoints. Files are read again at each
// connection.
type TLS struct {
	// CAFile replaces the system's roots.
	CAFile string `mapstructure:"ca_file" json:"ca_file,omitempty"`
	// CertFile and KeyFile are the client's own certificate.
	CertFile string `mapstructure:"cert_file" json:"cert_file,omitempty"`
	KeyFile  string `mapstructure:"key_file" json:"key_file,omitempty"`
	// ServerName is the name to verify instead of the endpoint's host.
	ServerName string `mapstructure:"server_name" json:"server_name,omitempty"`
	// InsecureSkipVerify accepts any certificate.
	InsecureSkipVerify bool `mapstructure:"insecure_skip_verify" json:"insecure_skip_verify,omitempty"`
}

// Default is an etcd on this machine.
func Default() Config {
	return Config{Endpoints: []string{"http://127.0.0.1:2379"}, Prefix: "/sluice"}
}

// Enabled reports whether there is an etcd to follow.
func (c Config) Enabled() bool {
	for _, e := range c.Endpoints {
		if e != "" {
			return true
		}
	}
	return false
}

// String leaves the password out.
func (c Config) String() string {
	return fmt.Sprintf("etcd %s prefix %s user %q", strings.Join(c.Endpoints, ","), c.Prefix, c.Username)
}

// Validate returns every fault, joined, each with the key it stands under.
func (c Config) Validate() error {
	if !c.Enabled() {
		return nil
	}
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	secure := 0
	for i, e := range c.Endpoints {
		u, err := url.Parse(e)
		if err != nil || u.Host == "" || u.Port() == "" || (u.Scheme != "http" && u.Scheme != "https") ||
			strings.Trim(u.Path, "/") != "" || u.User != nil || u.RawQuery != "" {
			fault("etcd.endpoints[%d]: must be http://HOST:PORT or https://HOST:PORT", i)
			continue
		}
		if u.Scheme == "https" {
			secure++
		}
	}
	if secure != 0 && secure != len(c.Endpoints) {
		fault("etcd.endpoints: must be all http or all https")
	}
	if secure == 0 && c.TLS != (TLS{}) {
		fault("etcd.tls: is set, but no endpoint is https")
	}
	if p := c.prefix(); !strings.HasPrefix(p, "/") || len(p) < 2 || strings.Contains(p, "//") {
		fault("etcd.prefix: %q must start with / and name a folder, as /sluice", c.Prefix)
	}
	if c.Password != "" && c.PasswordFile != "" {
		fault("etcd.password_file: set either this or etcd.password")
	}
	hasPassword := c.Password != "" || c.PasswordFile != ""
	if c.Username != "" && !hasPassword {
		fault("etcd.password: is needed with etcd.username (or etcd.password_file)")
	}
	if c.Username == "" && hasPassword {
		fault("etcd.username: is needed with a password")
	}
	if (c.TLS.CertFile == "") != (c.TLS.KeyFile == "") {
		fault("etcd.tls.cert_file, etcd.tls.key_file: set both or neither")
	}
	return errors.Join(errs...)
}

// prefix is Prefix without a slash at its end.
func (c Config) prefix() string { return strings.TrimRight(c.Prefix, "/") }

// Key is the full name of a document: "/sluice/routes/orders".
func (c Config) Key(kind discovery.Kind, name string) string {
	return c.prefix() + "/" + string(kind) + "/" + name
}

// statusPrefix is the folder of the gateways' status keys.
func (c Config) statusPrefix() string { return c.prefix() + "/status/" }

func (c Config) password() (string, error) {
	if c.PasswordFile == "" {
		return c.Password, nil
	}
	data, err := os.ReadFile(c.PasswordFile)
	if err != nil {
		return "", fmt.Errorf("etcd.password_file: %w", err)
	}
	password := strings.TrimRight(string(data), "\r\n")
	if password == "" {
		return "", fmt.Errorf("etcd.password_file: %s is empty", c.PasswordFile)
	}
	return password, nil
}

// tls returns nil for http endpoints.
func (c Config) tls() (*tls.Config, error) {
	if !strings.HasPrefix(c.Endpoints[0], "https://") {
		return nil, nil
	}
	out := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		ServerName:         c.TLS.ServerName,
		InsecureSkipVerify: c.TLS.InsecureSkipVerify,
	}
	if c.TLS.CAFile != "" {
		pem, err := os.ReadFile(c.TLS.CAFile)
		if err != nil {
			return nil, fmt.Errorf("etcd.tls.ca_file: %w", err)
		}
		out.RootCAs = x509.NewCertPool()
		if !out.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("etcd.tls.ca_file: %s holds no PEM certificate", c.TLS.CAFile)
		}
	}
	if c.TLS.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(c.TLS.CertFile, c.TLS.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("etcd.tls.cert_file, etcd.tls.key_file: %w", err)
		}
		out.Certificates = []tls.Certificate{pair}
	}
	return out, nil
}
