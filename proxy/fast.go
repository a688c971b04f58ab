package proxy

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"

	"github.com/sluice-gateway/sluice/proxy/wire"
	"github.com/sluice-gateway/sluice/routing"
)

// NewEngine makes the engine that u asks for. The fast one is for HTTP/1.1;
// protocols that are HTTP/2 alone are NewStdEngine's.
func NewEngine(u routing.Upstream) (Engine, error) {
	std, err := NewStdEngine(u)
	if err != nil || u.Engine == routing.EngineStd || multiplexed(u.Protocol) {
		return std, err
	}
	dialer := newDialer(u)
	conf := wire.Config{
		Dial: func(ctx context.Context, address string) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp", address)
		},
		Handshake:      dialer.Timeout,
		ResponseHeader: u.ResponseHeader,
		IdleTimeout:    idleConnTimeout,
		IdlePerAddress: idleConnsPerHost,
		MaxHead:        maxResponseHeader,
	}
	if secure(u.Protocol) {
		if conf.TLS, err = tlsConfig(u.TLS); err != nil {
			return nil, err
		}
		conf.TLS.NextProtos = []string{"h2", "http/1.1"}
	}
	client, err := wire.New(conf)
	if err != nil {
		return nil, err
	}
	return &fastEngine{client: client, std: std}, nil
}

// fastEngine sends what it can on the request's own goroutine, and everything
// else with the other engine.
//
// Over TLS the instance has the choice between HTTP/1.1 and HTTP/2, as it has
// with the other engine. Which one it is shows when the first connection to
// its address is made; HTTP/2 is the other engine's from then on, until the
// instance leaves.
type fastEngine struct {
	client *wire.Client
	std    Engine
	http2  sync.Map // addresses that chose HTTP/2
}

// RoundTrip implements Engine.
func (e *fastEngine) RoundTrip(req *http.Request, trip *Trip) (*http.Response, error) {
	if !wire.Fits(req) {
		return e.other(req, trip)
	}
	if req.URL.Scheme == "https" {
		if _, ok := e.http2.Load(req.URL.Host); ok {
			return e.other(req, trip)
		}
	}
	resp, err := e.client.RoundTrip(req, trip, trip.replay)
	if errors.Is(err, wire.ErrProtocol) {
		e.http2.Store(req.URL.Host, nil)
		return e.other(req, trip)
	}
	return resp, err
}

// other sends req with the engine that needs to know from the start when the
// round trip has to end.
func (e *fastEngine) other(req *http.Request, trip *Trip) (*http.Response, error) {
	if trip.Quick() {
		req = req.WithContext(trip.Watch())
	}
	return e.std.RoundTrip(req, trip)
}

// Quick implements QuickEngine.
func (e *fastEngine) Quick() {}

// Leave implements Engine.
func (e *fastEngine) Leave(address string) {
	e.http2.Delete(address)
	e.client.Leave(address)
	e.std.Leave(address)
}

// Connections implements Engine.
func (e *fastEngine) Connections(address string) (open, idle int, ok bool) {
	if _, other := e.http2.Load(address); other {
		return e.std.Connections(address)
	}
	open, idle = e.client.Connections(address)
	return open, idle, true
}

// CloseIdle implements Engine.
func (e *fastEngine) CloseIdle() {
	e.client.CloseIdle()
	e.std.CloseIdle()
}

var (
	_ QuickEngine = (*fastEngine)(nil)
	_ wire.Trace  = (*Trip)(nil)
)
