package proxy

import (
	"context"
	"net"
	"net/http"

	"github.com/sluice-gateway/sluice/proxy/wire"
	"github.com/sluice-gateway/sluice/routing"
)

// NewEngine makes the engine that u asks for. The fast one is for plain
// HTTP/1.1; every other protocol is NewStdEngine's.
func NewEngine(u routing.Upstream) (Engine, error) {
	std, err := NewStdEngine(u)
	if err != nil || u.Engine != routing.EngineFast || u.Protocol != routing.ProtocolHTTP && u.Protocol != "" {
		return std, err
	}
	dialer := newDialer(u)
	client, err := wire.New(wire.Config{
		Dial: func(ctx context.Context, address string) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp", address)
		},
		ResponseHeader: u.ResponseHeader,
		IdleTimeout:    idleConnTimeout,
		IdlePerAddress: idleConnsPerHost,
		MaxHead:        maxResponseHeader,
	})
	if err != nil {
		return nil, err
	}
	return &fastEngine{client: client, std: std}, nil
}

// fastEngine sends what it can on the request's own goroutine, and everything
// else with the other engine.
type fastEngine struct {
	client *wire.Client
	std    Engine
}

// RoundTrip implements Engine.
func (e *fastEngine) RoundTrip(req *http.Request, trip *Trip) (*http.Response, error) {
	if !wire.Fits(req) {
		if trip.Quick() {
			req = req.WithContext(trip.Watch())
		}
		return e.std.RoundTrip(req, trip)
	}
	return e.client.RoundTrip(req, trip, idempotent(req))
}

// CloseIdle implements Engine.
func (e *fastEngine) CloseIdle() {
	e.client.CloseIdle()
	e.std.CloseIdle()
}

var (
	_ Engine     = (*fastEngine)(nil)
	_ wire.Trace = (*Trip)(nil)
)
