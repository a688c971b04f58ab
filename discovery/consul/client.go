package consul

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/consul/api"
)

// client is Consul's API over a transport that holds at most a fixed number
// of connections.
type client struct {
	*api.Client
	transport *http.Transport
	open      atomic.Int64 // connections now
}

const dialTimeout = 2 * time.Second

func newClient(cfg Config, connections int, log *slog.Logger) (*client, error) {
	address, err := parseAddress(cfg.Address)
	if err != nil {
		return nil, fmt.Errorf("consul address: %w", err)
	}
	c := &client{}
	dialer := &net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}
	c.transport = &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			if address.Scheme == "unix" {
				network, addr = "unix", address.Path
			}
			conn, err := dialer.DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			c.open.Add(1)
			return &countedConn{Conn: conn, open: &c.open}, nil
		},
		MaxConnsPerHost:     connections,
		MaxIdleConnsPerHost: connections,
		IdleConnTimeout:     90 * time.Second,
		TLSHandshakeTimeout: 5 * time.Second,
		// The agent is next door: compressing costs it more than the bytes.
		DisableCompression: true,
		ForceAttemptHTTP2:  true,
		// Over HTTP/2 a query that runs into its deadline resets one stream
		// and leaves a dead connection in use; pings find it.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 10 * time.Second, PingTimeout: 5 * time.Second},
	}
	if c.transport.TLSClientConfig, err = cfg.TLS.client(); err != nil {
		return nil, err
	}
	token, err := newToken(cfg, log)
	if err != nil {
		return nil, err
	}
	conf := &api.Config{
		Address:    cfg.Address,
		Scheme:     address.Scheme,
		Datacenter: cfg.Datacenter,
		HttpClient: &http.Client{Transport: &authorized{next: c.transport, token: token}},
	}
	if address.Scheme == "unix" {
		// The dialer above goes to the socket; the API's own handling of
		// unix:// would replace the transport and its limit.
		conf.Address, conf.Scheme = "http://agent", "http"
	}
	if c.Client, err = api.NewClient(conf); err != nil {
		return nil, fmt.Errorf("make the consul client: %w", err)
	}
	return c, nil
}

// client builds the TLS side of the transport.
func (t TLS) client() (*tls.Config, error) {
	conf := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		ServerName:         t.ServerName,
		InsecureSkipVerify: t.InsecureSkipVerify,
	}
	if t.CAFile != "" {
		pem, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, fmt.Errorf("consul tls.ca_file: %w", err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("consul tls.ca_file: %s holds no certificate in PEM", t.CAFile)
		}
	}
	if t.CertFile != "" || t.KeyFile != "" {
		load := func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
			return &pair, err
		}
		if _, err := load(nil); err != nil {
			return nil, fmt.Errorf("consul tls.cert_file: %w", err)
		}
		conf.GetClientCertificate = load
	}
	return conf, nil
}

// countedConn counts itself out when it is closed.
type countedConn struct {
	net.Conn
	open *atomic.Int64
	once sync.Once
}

func (c *countedConn) Close() error {
	c.once.Do(func() { c.open.Add(-1) })
	return c.Conn.Close()
}

// authorized puts the token of the moment on every request, and nothing from
// the environment.
type authorized struct {
	next  http.RoundTripper
	token *token
}

func (a *authorized) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	if t := a.token.get(); t != "" {
		r.Header.Set("X-Consul-Token", t)
	} else {
		r.Header.Del("X-Consul-Token")
	}
	return a.next.RoundTrip(r)
}

// token is the ACL token, read again from its file when that changes.
type token struct {
	file string
	log  *slog.Logger

	mu      sync.Mutex
	value   string
	read    os.FileInfo
	checked time.Time
	broken  bool
}

// tokenEvery bounds how often the file is looked at.
const tokenEvery = 500 * time.Millisecond

func newToken(cfg Config, log *slog.Logger) (*token, error) {
	t := &token{file: cfg.TokenFile, log: log, value: cfg.Token}
	if t.file == "" {
		return t, nil
	}
	if err := t.load(); err != nil {
		return nil, fmt.Errorf("consul token_file: %w", err)
	}
	return t, nil
}

// get returns the token. A file that cannot be read leaves the last one.
func (t *token) get() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.file == "" || time.Since(t.checked) < tokenEvery {
		return t.value
	}
	err := t.load()
	if err != nil && !t.broken {
		t.log.Warn("consul token file not read, the last token stays", "file", t.file, "error", err)
	}
	t.broken = err != nil
	return t.value
}

func (t *token) load() error {
	t.checked = time.Now()
	info, err := os.Stat(t.file)
	if err != nil {
		return err
	}
	if t.read != nil && os.SameFile(t.read, info) && t.read.ModTime().Equal(info.ModTime()) && t.read.Size() == info.Size() {
		return nil
	}
	data, err := os.ReadFile(t.file)
	if err != nil {
		return err
	}
	value := strings.TrimSpace(string(data))
	if value == "" || strings.ContainsAny(value, "\r\n") {
		return fmt.Errorf("%s must hold one token on one line", t.file)
	}
	t.value, t.read = value, info
	return nil
}

var (
	errFiltered = errors.New("acls filtered the answer: the token may not read all of it")
	errNoIndex  = errors.New("the answer has no X-Consul-Index: it did not come from consul")
)

// refused says whether Consul was reached and would not answer, as opposed
// to an agent that could not be reached.
func refused(err error) bool {
	var status api.StatusError
	return errors.As(err, &status) || errors.Is(err, errFiltered)
}

// advise adds to a refusal what of the configuration to look at.
func advise(err error) error {
	var status api.StatusError
	var certificate *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	switch {
	case errors.Is(err, errFiltered), errors.As(err, &status) && status.Code == http.StatusForbidden:
		return fmt.Errorf("%w (consul.token, or the token in consul.token_file, needs service:read and node:read for all that routes name)", err)
	case errors.As(err, &certificate), errors.As(err, &record), strings.Contains(err.Error(), "HTTP response to HTTPS client"),
		strings.Contains(err.Error(), "HTTP request to an HTTPS server"), strings.Contains(err.Error(), "remote error: tls"):
		return fmt.Errorf("%w (consul.address must say https:// where Consul speaks TLS; consul.tls.ca_file must have signed its certificate, and consul.tls.cert_file and key_file must be what it accepts)", err)
	}
	return err
}
