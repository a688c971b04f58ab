package middleware

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-gateway/sluice/middleware/http1"
)

// ServerConfig is how the proxy listeners treat connections. The zero value
// of a limit is "none", unless said otherwise.
type ServerConfig struct {
	TLS TLSConfig
	// ReadHeaderTimeout bounds a TLS handshake and, apart from it, the time a
	// client may take to send a request's head. A new connection without TLS
	// may be silent for as long before.
	ReadHeaderTimeout time.Duration
	// IdleTimeout is how long a connection is kept without a request.
	IdleTimeout time.Duration
	// MaxHeaderBytes bounds the head of a request; net/http adds 4 KiB to it
	// for HTTP/1. An HTTP/2 client can pin it once per stream.
	MaxHeaderBytes int
	// MaxStreams is how many requests one HTTP/2 or HTTP/3 connection may have
	// open.
	MaxStreams int
	// MaxConnections bounds open connections; one more is answered 503 and
	// closed. 0 is derived from the limit of open files: half of it, since a
	// request holds two, less some for everything else.
	MaxConnections int
	// MaxConnectionsPerIP bounds the open connections of one address; 0 is
	// none. TrustedProxies are exempt: theirs are many clients'.
	MaxConnectionsPerIP int
	TrustedProxies      []netip.Prefix
	// ProxyProtocol makes TrustedProxies begin each connection with a PROXY
	// header, version 1 or 2, within ReadHeaderTimeout. The client that it
	// names counts as the peer, for limits and for whose word is believed.
	ProxyProtocol bool
}

// What a client may have under way of its requests, of all on a connection and
// of one, over HTTP/2 and HTTP/3.
const (
	connectionWindow = 1 << 20
	streamWindow     = 256 << 10
)

// DefaultServerConfig is the configuration where nothing else is said.
func DefaultServerConfig() ServerConfig {
	return ServerConfig{
		ReadHeaderTimeout:   10 * time.Second,
		IdleTimeout:         2 * time.Minute,
		MaxHeaderBytes:      32 << 10,
		MaxStreams:          100,
		MaxConnectionsPerIP: 1024,
	}
}

func (c ServerConfig) validate() error {
	var errs []error
	for _, l := range []struct {
		key string
		bad bool
	}{
		{"limits.read_header_timeout", c.ReadHeaderTimeout < 0},
		{"limits.idle_timeout", c.IdleTimeout < 0},
		{"limits.max_header_bytes", c.MaxHeaderBytes < 0},
		{"limits.max_streams", c.MaxStreams < 0},
		{"limits.max_connections", c.MaxConnections < 0},
		{"limits.max_connections_per_ip", c.MaxConnectionsPerIP < 0},
	} {
		if l.bad {
			errs = append(errs, errors.New(l.key+": must not be negative"))
		}
	}
	if c.ProxyProtocol && len(c.TrustedProxies) == 0 {
		errs = append(errs, errors.New("listen.proxy_protocol: needs trusted_proxies: from nobody else a PROXY header is read"))
	}
	return errors.Join(errs...)
}

// Server accepts connections for a handler: HTTP/1.1 and HTTP/2, over TLS and
// without (h2c by prior knowledge), and HTTP/3.
type Server struct {
	cfg     ServerConfig
	http    *http.Server
	http3   []*HTTP3 // those that were listened with, until Shutdown
	log     *slog.Logger
	limiter *limiter
	keys    *keyring       // nil without certificates
	proxied *proxyProtocol // nil where no PROXY header is read

	mu    sync.Mutex
	plain []*plainListener // those that are served
}

// NewServer makes a server for h. The errors name the configuration keys.
// What clients do wrong goes to log at level debug. reg takes the metrics of
// the certificates; nil is nobody.
func NewServer(cfg ServerConfig, h http.Handler, reg prometheus.Registerer, log *slog.Logger) (*Server, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	keys, err := newKeyring(cfg.TLS, log)
	if err != nil {
		return nil, err
	}
	if keys != nil && reg != nil {
		if err := reg.Register(keys); err != nil {
			return nil, fmt.Errorf("register the metrics of certificates: %w", err)
		}
	}
	if cfg.MaxConnections == 0 {
		cfg.MaxConnections = connectionsFromFileLimit()
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	var proxied *proxyProtocol
	if cfg.ProxyProtocol {
		proxied = &proxyProtocol{timeout: cfg.ReadHeaderTimeout, log: log}
	}
	return &Server{
		cfg:     cfg,
		log:     log,
		keys:    keys,
		proxied: proxied,
		limiter: newLimiter(cfg.MaxConnections, cfg.MaxConnectionsPerIP, unmapPrefixes(cfg.TrustedProxies)),
		http: &http.Server{
			Handler:           h,
			ReadHeaderTimeout: cfg.ReadHeaderTimeout,
			IdleTimeout:       cfg.IdleTimeout,
			MaxHeaderBytes:    cfg.MaxHeaderBytes,
			Protocols:         protocols,
			HTTP2: &http.HTTP2Config{
				MaxConcurrentStreams: cfg.MaxStreams,
				// What a client may have under way is memory here.
				MaxReceiveBufferPerConnection: connectionWindow,
				MaxReceiveBufferPerStream:     streamWindow,
				// A peer that is gone without a word is noticed.
				SendPingTimeout:  30 * time.Second,
				PingTimeout:      15 * time.Second,
				WriteByteTimeout: time.Minute,
			},
			// net/http would answer "OPTIONS *" past the engine.
			DisableGeneralOptionsHandler: true,
			ErrorLog:                     slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		},
	}, nil
}

// Listen opens a listener on address ("host:port"). secure wraps it in TLS and
// needs a certificate. It counts against the server's connection limits
// whichever listener a connection comes by.
func (s *Server) Listen(ctx context.Context, address string, secure bool) (net.Listener, error) {
	if secure && s.keys == nil {
		return nil, errors.New("listen.https: needs at least one entry in tls.certificates")
	}
	lc := net.ListenConfig{KeepAliveConfig: net.KeepAliveConfig{Enable: true}}
	ln, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	limited := &limitedListener{Listener: ln, limiter: s.limiter, secure: secure, headTimeout: s.http.ReadHeaderTimeout, proxied: s.proxied}
	if secure {
		return tls.NewListener(limited, s.keys.listenerConfig()), nil
	}
	return limited, nil
}

// Run follows the files of TLS until ctx ends: a new certificate is shown from
// the next handshake on, and no connection is closed for it.
func (s *Server) Run(ctx context.Context) error {
	if s.keys == nil {
		<-ctx.Done()
		return nil
	}
	s.keys.Run(ctx)
	return nil
}

// Serve accepts connections from a listener that Listen returned, until
// Shutdown; then it returns nil.
func (s *Server) Serve(ln net.Listener) error {
	var err error
	if limited, ok := ln.(*limitedListener); ok {
		err = s.servePlain(limited)
	} else {
		err = s.http.Serve(ln)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve %s: %w", ln.Addr(), err)
}

// servePlain serves a listener without TLS.
func (s *Server) servePlain(ln *limitedListener) error {
	l := newPlainListener(ln, http1.Config{
		Handler: s.http.Handler, FirstTimeout: s.cfg.ReadHeaderTimeout, IdleTimeout: s.cfg.IdleTimeout, Log: s.log,
	})
	s.mu.Lock()
	s.plain = append(s.plain, l)
	s.mu.Unlock()
	err := s.http.Serve(l)
	if !errors.Is(err, http.ErrServerClosed) { // else Shutdown finishes it
		l.finish()
	}
	return err
}

// Shutdown closes the listeners, lets requests finish until ctx ends, then
// closes what is left. Upgraded connections are not the server's any more.
func (s *Server) Shutdown(ctx context.Context) error {
	var quic sync.WaitGroup
	errs := make([]error, len(s.http3))
	for i, h := range s.http3 {
		quic.Go(func() { errs[i] = h.shutdown(ctx) })
	}
	err := s.shutDownTCP(ctx)
	quic.Wait()
	if err := errors.Join(append(errs, err)...); err != nil {
		return errors.Join(fmt.Errorf("shut down with requests under way: %w", err), s.http.Close())
	}
	return nil
}

// shutDownTCP shuts net/http down once nothing can be handed over to it any
// more. Until then it has its clients leave with the responses that they get.
func (s *Server) shutDownTCP(ctx context.Context) error {
	s.http.SetKeepAlivesEnabled(false)
	s.mu.Lock()
	plain := s.plain
	s.mu.Unlock()
	var settled, ended sync.WaitGroup
	errs := make([]error, len(plain))
	for i, l := range plain {
		settled.Add(1)
		ended.Go(func() { errs[i] = l.shutDown(ctx, settled.Done) })
	}
	settled.Wait()
	err := s.http.Shutdown(ctx)
	ended.Wait()
	for _, l := range plain {
		l.finish()
	}
	return errors.Join(append(errs, err)...)
}
