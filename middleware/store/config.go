package store

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// Config says where Redis is.
type Config struct {
	// Address is HOST:PORT of a server, or several separated by commas: the
	// nodes of a cluster, or the sentinels where SentinelMaster is set. "" is
	// no Redis.
	Address        string `mapstructure:"address"`
	SentinelMaster string `mapstructure:"sentinel_master"`
	// Cluster makes a single address one of a cluster.
	Cluster  bool   `mapstructure:"cluster"`
	Username string `mapstructure:"username"`
	Password string `mapstructure:"password" json:"-"`
	// PasswordFile is read when the gateway starts, in place of Password.
	PasswordFile string `mapstructure:"password_file"`
	DB           int    `mapstructure:"db"`
	// Timeout bounds each call.
	Timeout time.Duration `mapstructure:"timeout"`
	TLS     TLS           `mapstructure:"tls"`
}

// TLS is how Redis is spoken to. The other fields need Enabled.
type TLS struct {
	Enabled bool `mapstructure:"enabled"`
	// CAFile replaces the system's roots.
	CAFile string `mapstructure:"ca_file"`
	// CertFile and KeyFile are the gateway's own certificate.
	CertFile string `mapstructure:"cert_file"`
	KeyFile  string `mapstructure:"key_file"`
	// ServerName is the name to verify instead of the address's host.
	ServerName         string `mapstructure:"server_name"`
	InsecureSkipVerify bool   `mapstructure:"insecure_skip_verify"`
}

// Default is no Redis, and the timeout for one.
func Default() Config { return Config{Timeout: 50 * time.Millisecond} }

// Validate returns every fault, each beginning with its key.
func (c Config) Validate() error {
	var errs []error
	fault := func(key, format string, args ...any) {
		errs = append(errs, errors.New("redis."+key+": "+fmt.Sprintf(format, args...)))
	}
	if c.Address == "" {
		if c.Password != "" || c.PasswordFile != "" || c.SentinelMaster != "" || c.Cluster || c.TLS != (TLS{}) {
			fault("address", "is empty, but other keys under redis are set; give HOST:PORT, such as 127.0.0.1:6379")
		}
		return errors.Join(errs...)
	}
	for _, a := range c.addresses() {
		host, port, err := net.SplitHostPort(a)
		n, perr := strconv.ParseUint(port, 10, 16)
		if err != nil || host == "" || perr != nil || n == 0 {
			fault("address", "is not HOST:PORT, such as 127.0.0.1:6379, or several separated by commas")
			break
		}
	}
	if c.Cluster && c.SentinelMaster != "" {
		fault("cluster", "stands beside redis.sentinel_master; give one of them")
	}
	if c.DB < 0 || c.DB > 0 && (c.Cluster || len(c.addresses()) > 1 && c.SentinelMaster == "") {
		fault("db", "is %d; a cluster has only 0, a server 0 and above", c.DB)
	}
	if c.Password != "" && c.PasswordFile != "" {
		fault("password_file", "stands beside redis.password; give one of them")
	}
	if c.Timeout < time.Millisecond || c.Timeout > 5*time.Second {
		fault("timeout", "is %s; accepted is 1ms to 5s", c.Timeout)
	}
	if !c.TLS.Enabled && c.TLS != (TLS{}) {
		fault("tls.enabled", "is false, but other keys under redis.tls are set")
	}
	if (c.TLS.CertFile == "") != (c.TLS.KeyFile == "") {
		fault("tls.cert_file", "and key_file belong together")
	}
	return errors.Join(errs...)
}

func (c Config) addresses() []string {
	var out []string
	for a := range strings.SplitSeq(c.Address, ",") {
		out = append(out, strings.TrimSpace(a))
	}
	return out
}

// password reads PasswordFile where that is set.
func (c Config) password() (string, error) {
	if c.PasswordFile == "" {
		return c.Password, nil
	}
	data, err := os.ReadFile(c.PasswordFile)
	if err != nil {
		return "", fmt.Errorf("redis.password_file: %w", err)
	}
	return strings.TrimSpace(string(data)), nil
}

func (t TLS) client() (*tls.Config, error) {
	if !t.Enabled {
		return nil, nil
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName, InsecureSkipVerify: t.InsecureSkipVerify}
	if t.CAFile != "" {
		pem, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, fmt.Errorf("redis.tls.ca_file: %w", err)
		}
		if conf.RootCAs = x509.NewCertPool(); !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("redis.tls.ca_file: %s holds no certificate in PEM form", t.CAFile)
		}
	}
	if t.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("redis.tls.cert_file: %w", err)
		}
		conf.Certificates = []tls.Certificate{pair}
	}
	return conf, nil
}
