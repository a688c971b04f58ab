package configs

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/sluice-gateway/sluice/discovery/consul"
	"github.com/sluice-gateway/sluice/discovery/etcd"
	"github.com/sluice-gateway/sluice/discovery/file"
	"github.com/sluice-gateway/sluice/middleware"
	"github.com/sluice-gateway/sluice/middleware/store"
	"github.com/sluice-gateway/sluice/routing"
)

// Config is every setting of the gateway. It does not change after Load.
type Config struct {
	// Name is this gateway among others: its status key and its ID in
	// Consul. Load fills in host name and port where it is empty.
	Name   string `mapstructure:"name"`
	Listen Listen `mapstructure:"listen"`
	TLS    TLS    `mapstructure:"tls"`
	Admin  Admin  `mapstructure:"admin"`
	// HealthPath is answered by the gateway itself on the proxy listeners;
	// "" turns it off.
	HealthPath string      `mapstructure:"health_path"`
	Consul     Consul      `mapstructure:"consul"`
	Etcd       etcd.Config `mapstructure:"etcd"`
	// Redis is where plugins share state.
	Redis store.Config `mapstructure:"redis"`
	File  file.Config  `mapstructure:"file"`
	// StateDir keeps the last good state for a cold start; "" keeps none.
	StateDir string `mapstructure:"state_dir"`
	// TrustedProxies are addresses and ranges whose X-Forwarded-* is believed.
	TrustedProxies []string `mapstructure:"trusted_proxies"`
	// IdentityHeaders are further headers that only the gateway may set
	// towards instances; what clients send of them is removed.
	IdentityHeaders []string `mapstructure:"identity_headers"`
	Defaults        Defaults `mapstructure:"defaults"`
	Limits          Limits   `mapstructure:"limits"`
	Shutdown        Shutdown `mapstructure:"shutdown"`
	Log             Log      `mapstructure:"log"`
	Tracing         Tracing  `mapstructure:"tracing"`
}

// Listen is where requests come in; "" switches a listener off.
type Listen struct {
	HTTP  string `mapstructure:"http"`
	HTTPS string `mapstructure:"https"`
	// HTTP3 is spoken at the address of HTTPS, over UDP.
	HTTP3 bool `mapstructure:"http3"`
	// HTTP3Announce is announced to clients where it is not the port of HTTPS: 0
	// is that.
	HTTP3Announce int `mapstructure:"http3_announce"`
	// ProxyProtocol makes TrustedProxies begin each connection with a PROXY
	// header.
	ProxyProtocol bool `mapstructure:"proxy_protocol"`
}

// TLS is what listen.https shows and demands.
type TLS struct {
	Certificates []Certificate `mapstructure:"certificates"`
	// ClientCAFile, where set, must have signed what clients show.
	ClientCAFile string `mapstructure:"client_ca_file"`
	// ClientAuth says whether they have to show one: require, optional.
	ClientAuth string `mapstructure:"client_auth"`
}

// Certificate is a certificate chain and its key, both PEM files.
type Certificate struct {
	CertFile string `mapstructure:"cert_file"`
	KeyFile  string `mapstructure:"key_file"`
}

// Admin is the second listener: health, metrics, API.
type Admin struct {
	Listen string `mapstructure:"listen"`
	// Token is asked of callers; Load reads it from TokenFile where that is
	// set. Without one only a loopback address may be listened on.
	Token     Secret `mapstructure:"token"`
	TokenFile string `mapstructure:"token_file"`
}

// Consul is the source's own settings and whether the gateway registers
// itself.
type Consul struct {
	consul.Config `mapstructure:",squash"`
	Register      bool `mapstructure:"register"`
}

// Defaults are for what routes and services leave out.
type Defaults struct {
	// Timeout bounds a request; 0 is none.
	Timeout time.Duration `mapstructure:"timeout"`
	// ConnectTimeout, ResponseHeaderTimeout and IdleTimeout bound the stages
	// of one attempt; 0 is none.
	ConnectTimeout        time.Duration `mapstructure:"connect_timeout"`
	ResponseHeaderTimeout time.Duration `mapstructure:"response_header_timeout"`
	IdleTimeout           time.Duration `mapstructure:"idle_timeout"`
	// Retries counts further attempts after the first.
	Retries int `mapstructure:"retries"`
}

// Limits bound what clients may take; 0 is none unless said otherwise.
type Limits struct {
	// MaxHeaderBytes and MaxHeaders bound the head of a request.
	MaxHeaderBytes int   `mapstructure:"max_header_bytes"`
	MaxHeaders     int   `mapstructure:"max_headers"`
	MaxBodyBytes   int64 `mapstructure:"max_body_bytes"`
	// ReadHeaderTimeout bounds the arrival of a head, BodyReadTimeout the
	// silence within a body, IdleTimeout the time between requests.
	ReadHeaderTimeout time.Duration `mapstructure:"read_header_timeout"`
	BodyReadTimeout   time.Duration `mapstructure:"body_read_timeout"`
	IdleTimeout       time.Duration `mapstructure:"idle_timeout"`
	// MaxConnections of 0 is derived from the limit of open files.
	MaxConnections      int `mapstructure:"max_connections"`
	MaxConnectionsPerIP int `mapstructure:"max_connections_per_ip"`
	// MaxStreams is per HTTP/2 or HTTP/3 connection.
	MaxStreams int `mapstructure:"max_streams"`
}

// Shutdown is how the gateway leaves.
type Shutdown struct {
	// Delay is how long it answers on after it stopped being ready.
	Delay time.Duration `mapstructure:"delay"`
	// Timeout bounds the wait for requests under way after that.
	Timeout time.Duration `mapstructure:"timeout"`
}

// Log is what is written to standard error.
type Log struct {
	Level  string `mapstructure:"level"`
	Format string `mapstructure:"format"`
	// Access writes one line per request.
	Access bool `mapstructure:"access"`
}

// SlogLevel is Level for slog.
func (l Log) SlogLevel() slog.Level {
	var level slog.Level
	if level.UnmarshalText([]byte(l.Level)) != nil {
		return slog.LevelInfo // Validate has refused it
	}
	return level
}

// Tracing is where spans go. Endpoint is refused by this version.
type Tracing struct {
	Endpoint    string   `mapstructure:"endpoint"`
	Exporter    string   `mapstructure:"exporter"`
	Propagators []string `mapstructure:"propagators"`
	SampleRatio float64  `mapstructure:"sample_ratio"`
}

// Default is the configuration where nothing is set.
func Default() Config {
	return Config{
		Listen:     Listen{HTTP: ":8080"},
		TLS:        TLS{ClientAuth: middleware.ClientAuthRequire},
		Admin:      Admin{Listen: "127.0.0.1:8081"},
		HealthPath: "/health",
		Consul:     Consul{Config: consul.Default(), Register: true},
		Etcd:       etcd.Default(),
		Redis:      store.Default(),
		Defaults: Defaults{
			Timeout:        30 * time.Second,
			ConnectTimeout: 2 * time.Second,
			IdleTimeout:    5 * time.Minute,
			Retries:        1,
		},
		Limits: Limits{
			MaxHeaderBytes:      32 << 10,
			MaxHeaders:          200,
			ReadHeaderTimeout:   5 * time.Second,
			BodyReadTimeout:     time.Minute,
			IdleTimeout:         3 * time.Minute,
			MaxConnectionsPerIP: 1024,
			MaxStreams:          100,
		},
		Shutdown: Shutdown{Timeout: 30 * time.Second},
		Log:      Log{Level: "info", Format: "json", Access: true},
		Tracing:  Tracing{Exporter: "otlp", Propagators: []string{"tracecontext", "baggage"}, SampleRatio: 1},
	}
}

// RoutingDefaults is what routing takes for what documents leave out.
func (c Config) RoutingDefaults() routing.Defaults {
	d := c.Defaults
	return routing.Defaults{
		Timeout: d.Timeout, Connect: d.ConnectTimeout, ResponseHeader: d.ResponseHeaderTimeout,
		Idle: d.IdleTimeout, Retries: d.Retries,
	}
}

// Engine is the part of the settings that the request path needs.
func (c Config) Engine() middleware.Config {
	return middleware.Config{
		HealthPath:      c.HealthPath,
		TrustedProxies:  c.proxies(),
		IdentityHeaders: c.IdentityHeaders,
		MaxHeaders:      c.Limits.MaxHeaders,
		MaxBodyBytes:    c.Limits.MaxBodyBytes,
		BodyReadTimeout: c.Limits.BodyReadTimeout,
		AltSvc:          c.altSvc(),
		AccessLog:       c.Log.Access,
	}
}

// altSvc announces HTTP/3 for a day, after which clients ask again.
func (c Config) altSvc() string {
	if !c.Listen.HTTP3 {
		return ""
	}
	_, port, _ := net.SplitHostPort(c.Listen.HTTPS)
	if c.Listen.HTTP3Announce != 0 {
		port = strconv.Itoa(c.Listen.HTTP3Announce)
	}
	return fmt.Sprintf(`h3=":%s"; ma=86400`, port)
}

// Server is the part of the settings that the proxy listeners need.
func (c Config) Server() middleware.ServerConfig {
	s := middleware.ServerConfig{
		TLS:                 middleware.TLSConfig{ClientCAFile: c.TLS.ClientCAFile, ClientAuth: c.TLS.ClientAuth},
		ReadHeaderTimeout:   c.Limits.ReadHeaderTimeout,
		IdleTimeout:         c.Limits.IdleTimeout,
		MaxHeaderBytes:      c.Limits.MaxHeaderBytes,
		MaxStreams:          c.Limits.MaxStreams,
		MaxConnections:      c.Limits.MaxConnections,
		MaxConnectionsPerIP: c.Limits.MaxConnectionsPerIP,
		TrustedProxies:      c.proxies(),
		ProxyProtocol:       c.Listen.ProxyProtocol,
	}
	for _, f := range c.TLS.Certificates {
		s.TLS.Certificates = append(s.TLS.Certificates, middleware.CertificateFiles{CertFile: f.CertFile, KeyFile: f.KeyFile})
	}
	return s
}

// proxies is TrustedProxies as ranges. Validate has refused what is none.
func (c Config) proxies() []netip.Prefix {
	var out []netip.Prefix
	for _, s := range c.TrustedProxies {
		if p, err := parseRange(s); err == nil {
			out = append(out, p)
		}
	}
	return out
}
