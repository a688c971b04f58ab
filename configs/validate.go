package configs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/discovery/consul"
	"github.com/sluice-gateway/sluice/middleware"
	"github.com/sluice-gateway/sluice/routing"
)

// fault is one thing wrong with the settings.
type fault struct{ key, message string }

// checker gathers faults, at most one per key.
type checker struct{ faults []fault }

func (k *checker) fault(key, format string, args ...any) {
	if !k.has(key) {
		k.faults = append(k.faults, fault{key, fmt.Sprintf(format, args...)})
	}
}

func (k *checker) has(key string) bool {
	return slices.ContainsFunc(k.faults, func(f fault) bool { return f.key == key })
}

// take adds the faults of a component, each "key: message".
func (k *checker) take(section string, err error) {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			k.take(section, e)
		}
	} else if err != nil {
		key, message, ok := strings.Cut(err.Error(), ": ")
		if !ok || !strings.HasPrefix(key, section) {
			key, message = section, err.Error()
		}
		k.fault(key, "%s", message)
	}
}

// Validate returns every fault, joined, each with its key.
func (c Config) Validate() error {
	var errs []error
	for _, f := range c.faults() {
		errs = append(errs, errors.New(f.key+": "+f.message))
	}
	return errors.Join(errs...)
}

func (c Config) faults() []fault {
	k := &checker{}
	if c.Name != "" {
		if err := routing.ValidName(c.Name); err != nil {
			k.fault("name", "%s", err)
		}
	}
	c.checkListeners(k)
	c.checkAdmin(k)
	c.checkSources(k)
	for i, s := range c.TrustedProxies {
		if _, err := parseRange(s); err != nil {
			k.fault(fmt.Sprintf("trusted_proxies[%d]", i), "%s", err)
		}
	}
	c.checkLimits(k)
	c.checkLog(k)
	c.checkHeaders(k)
	return k.faults
}

func (c Config) checkListeners(k *checker) {
	if c.Listen.HTTP == "" && c.Listen.HTTPS == "" {
		k.fault("listen.http", "is empty, and listen.https too; give at least one of them, such as :8080")
	}
	checkListen(k, "listen.http", c.Listen.HTTP)
	checkListen(k, "listen.https", c.Listen.HTTPS)
	if c.Listen.HTTP != "" && c.Listen.HTTP == c.Listen.HTTPS {
		k.fault("listen.https", "is the address of listen.http; each needs its own")
	}
	if c.Listen.HTTP3 && c.Listen.HTTPS == "" {
		k.fault("listen.http3", "needs listen.https, whose address and certificates it shares")
	}
	switch port := c.Listen.HTTP3Announce; {
	case port < 0 || port > 65535:
		k.fault("listen.http3_announce", "is %d; accepted are 1 to 65535, or 0 for the port of listen.https", port)
	case port != 0 && !c.Listen.HTTP3:
		k.fault("listen.http3_announce", "is set, but listen.http3 is not")
	}
	if c.Listen.ProxyProtocol && len(c.TrustedProxies) == 0 {
		k.fault("listen.proxy_protocol", "needs trusted_proxies; a PROXY header is read from nobody else")
	}
	c.checkTLS(k)
}

func (c Config) checkTLS(k *checker) {
	if c.Listen.HTTPS != "" && len(c.TLS.Certificates) == 0 {
		k.fault("listen.https", "needs at least one entry in tls.certificates")
	}
	for i, f := range c.TLS.Certificates {
		checkPair(k, fmt.Sprintf("tls.certificates[%d].", i), f.CertFile, f.KeyFile, true)
	}
	if c.TLS.ClientCAFile != "" && len(c.TLS.Certificates) == 0 {
		k.fault("tls.client_ca_file", "needs at least one entry in tls.certificates")
	}
	checkCA(k, "tls.client_ca_file", c.TLS.ClientCAFile)
	switch auth := c.TLS.ClientAuth; {
	case auth != middleware.ClientAuthRequire && auth != middleware.ClientAuthOptional:
		k.fault("tls.client_auth", "is %q; accepted are require, optional", auth)
	case auth == middleware.ClientAuthOptional && c.TLS.ClientCAFile == "":
		k.fault("tls.client_auth", "is optional, which needs tls.client_ca_file")
	}
}

func (c Config) checkAdmin(k *checker) {
	if c.Admin.Listen == "" {
		k.fault("admin.listen", "is empty; give an address such as 127.0.0.1:8081")
		return
	}
	checkListen(k, "admin.listen", c.Admin.Listen)
	host, _, err := net.SplitHostPort(c.Admin.Listen)
	if err != nil {
		return
	}
	ip, err := netip.ParseAddr(host)
	loopback := host == "localhost" || err == nil && ip.Unmap().IsLoopback()
	if !loopback && c.Admin.Token == "" && c.Admin.TokenFile == "" {
		k.fault("admin.listen", "is not a loopback address, and there is no token: anyone could read the admin API; set admin.token or admin.token_file, or listen on 127.0.0.1")
	}
	if t := c.Admin.Token.Reveal(); strings.ContainsFunc(t, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		k.fault("admin.token", "holds a space, a control character or one outside ASCII, which no header can carry")
	}
}

func (c Config) checkSources(k *checker) {
	if c.Consul.Address == "" && !c.Etcd.Enabled() && c.File.Path == "" {
		k.fault("consul.address", "is empty, and etcd.endpoints and file.path too: there is nothing to take routes from; give at least one of them")
	}
	k.take("consul", errors.Join(c.Consul.Validate("consul")...))
	k.take("etcd", c.Etcd.Validate())
	k.take("file", c.File.Validate())
	if c.Consul.Address != "" {
		t := c.Consul.TLS
		checkCA(k, "consul.tls.ca_file", t.CAFile)
		checkPair(k, "consul.tls.", t.CertFile, t.KeyFile, false)
		if !strings.HasPrefix(c.Consul.Address, "https://") && !strings.HasPrefix(c.Consul.Address, "unix://") && t != (consul.TLS{}) {
			k.fault("consul.tls", "is set, but consul.address is not https")
		}
	}
	if c.Etcd.Enabled() {
		checkCA(k, "etcd.tls.ca_file", c.Etcd.TLS.CAFile)
		checkPair(k, "etcd.tls.", c.Etcd.TLS.CertFile, c.Etcd.TLS.KeyFile, false)
		checkFile(k, "etcd.password_file", c.Etcd.PasswordFile)
	}
	if info, err := os.Stat(c.File.Path); c.File.Path != "" && err == nil && !info.IsDir() {
		k.fault("file.path", "%s is not a directory", c.File.Path)
	}
	if info, err := os.Stat(c.StateDir); c.StateDir != "" && err == nil && !info.IsDir() {
		k.fault("state_dir", "%s is not a directory", c.StateDir)
	}
	k.take("redis", c.Redis.Validate())
	checkCA(k, "redis.tls.ca_file", c.Redis.TLS.CAFile)
	checkPair(k, "redis.tls.", c.Redis.TLS.CertFile, c.Redis.TLS.KeyFile, false)
	checkFile(k, "redis.password_file", c.Redis.PasswordFile)
}

func (c Config) checkLimits(k *checker) {
	for _, n := range []struct {
		key       string
		value     int64
		low, high int64
	}{
		{"defaults.retries", int64(c.Defaults.Retries), 0, 10},
		{"limits.max_header_bytes", int64(c.Limits.MaxHeaderBytes), 1 << 10, 16 << 20},
		{"limits.max_headers", int64(c.Limits.MaxHeaders), 0, 100_000},
		{"limits.max_body_bytes", c.Limits.MaxBodyBytes, 0, 1 << 60},
		{"limits.max_connections", int64(c.Limits.MaxConnections), 0, 10_000_000},
		{"limits.max_connections_per_ip", int64(c.Limits.MaxConnectionsPerIP), 0, 10_000_000},
		{"limits.max_streams", int64(c.Limits.MaxStreams), 1, 100_000},
	} {
		if n.value < n.low || n.value > n.high {
			k.fault(n.key, "is %d; accepted is %d to %d", n.value, n.low, n.high)
		}
	}
	for _, d := range []struct {
		key        string
		value, low time.Duration
	}{
		{"defaults.timeout", c.Defaults.Timeout, 0},
		{"defaults.connect_timeout", c.Defaults.ConnectTimeout, 0},
		{"defaults.response_header_timeout", c.Defaults.ResponseHeaderTimeout, 0},
		{"defaults.idle_timeout", c.Defaults.IdleTimeout, 0},
		// Without these a client that sends nothing holds a connection for ever.
		{"limits.read_header_timeout", c.Limits.ReadHeaderTimeout, 100 * time.Millisecond},
		{"limits.idle_timeout", c.Limits.IdleTimeout, 100 * time.Millisecond},
		{"limits.body_read_timeout", c.Limits.BodyReadTimeout, 0},
		{"shutdown.delay", c.Shutdown.Delay, 0},
		{"shutdown.timeout", c.Shutdown.Timeout, 0},
	} {
		if d.value < d.low {
			k.fault(d.key, "is %s; accepted is %s or more", d.value, d.low)
		}
	}
}

func (c Config) checkLog(k *checker) {
	for _, w := range []struct {
		key, value string
		words      []string
	}{
		{"log.level", c.Log.Level, []string{"debug", "info", "warn", "error"}},
		{"log.format", c.Log.Format, []string{"json", "text"}},
		{"tracing.exporter", c.Tracing.Exporter, []string{"otlp", "zipkin"}},
	} {
		if !slices.Contains(w.words, w.value) {
			k.fault(w.key, "is %q; accepted are %s", w.value, strings.Join(w.words, ", "))
		}
	}
	propagators := []string{"tracecontext", "baggage", "b3"}
	for i, p := range c.Tracing.Propagators {
		if !slices.Contains(propagators, p) {
			k.fault(fmt.Sprintf("tracing.propagators[%d]", i), "is %q; accepted are %s", p, strings.Join(propagators, ", "))
		}
	}
	if c.Tracing.Endpoint != "" {
		k.fault("tracing.endpoint", "is not supported by this version; leave it empty")
	}
	if !(c.Tracing.SampleRatio >= 0 && c.Tracing.SampleRatio <= 1) {
		k.fault("tracing.sample_ratio", "is %v; accepted is 0 to 1", c.Tracing.SampleRatio)
	}
}

// checkListen checks an address to listen on; "" is none.
func checkListen(k *checker, key, address string) {
	if address == "" {
		return
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil || !validPort(port, 0) || strings.ContainsAny(host, "/@ ") {
		k.fault(key, "%q is not an address to listen on; accepted are :PORT and HOST:PORT, such as :8080 or [::1]:8080", address)
	}
}

func validPort(s string, low uint64) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n >= low
}

// checkFile checks that a file can be read.
func checkFile(k *checker, key, path string) bool {
	if path == "" {
		return false
	}
	f, err := os.Open(path)
	if err != nil {
		k.fault(key, "%s", err)
		return false
	}
	defer func() { _ = f.Close() }()
	if info, err := f.Stat(); err != nil || info.IsDir() {
		k.fault(key, "%s is a directory; want a file", path)
		return false
	}
	return true
}

// checkCA checks a bundle of certificates.
func checkCA(k *checker, key, path string) {
	if !checkFile(k, key, path) {
		return
	}
	pem, err := readBounded(path)
	if err != nil || !x509.NewCertPool().AppendCertsFromPEM(pem) {
		k.fault(key, "%s holds no certificate in PEM form", path)
	}
}

// checkPair checks a certificate and its key; prefix ends where the names of
// the two begin.
func checkPair(k *checker, prefix, cert, key string, required bool) {
	if !required && (cert == "" || key == "") {
		return // none, or the component has said that one is missing
	}
	for name, path := range map[string]string{"cert_file": cert, "key_file": key} {
		if path == "" {
			k.fault(prefix+name, "is missing; cert_file and key_file belong together")
		}
	}
	certThere, keyThere := checkFile(k, prefix+"cert_file", cert), checkFile(k, prefix+"key_file", key)
	if !certThere || !keyThere {
		return
	}
	if _, err := tls.LoadX509KeyPair(cert, key); err != nil {
		k.fault(prefix+"cert_file", "%s and %s are no certificate and its key: %s", cert, key, err)
	}
}

// parseRange reads an address or a range of addresses.
func parseRange(s string) (netip.Prefix, error) {
	const accepted = "accepted are addresses and ranges such as 10.0.0.5, 10.0.0.0/8 and fd00::/8"
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is no address; %s", s, accepted)
	}
	if p != p.Masked() {
		return netip.Prefix{}, fmt.Errorf("%s has address bits after its mask; write %s", p, p.Masked())
	}
	return p, nil
}

// checkHeaders checks what the request path takes as it is.
func (c Config) checkHeaders(k *checker) {
	if p := c.HealthPath; p != "" {
		if n, err := routing.Normalize(p); p[0] != '/' || err != nil || n.Match != p {
			k.fault("health_path", `is not a plain path such as /health; "" turns it off`)
		}
	}
	for i, h := range c.IdentityHeaders {
		if h == "" || strings.ContainsFunc(h, func(r rune) bool {
			return r > 'z' || !('a' <= r || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-' || r == '_')
		}) {
			k.fault(fmt.Sprintf("identity_headers[%d]", i), "%q is not a header's name, such as X-User-ID", h)
		}
	}
}
