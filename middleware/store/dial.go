package store

import (
	"context"
	"net"
	"time"

	"github.com/redis/go-redis/v9"
)

// dial connects as the client would by itself, except that it never fails: a
// connection that could not be made is one on which nothing works. After as
// many failed dials as its pool is large the client would stop dialing but
// for once a second, and the gateway would notice a Redis that is back only
// then. It is this package that decides how often to ask.
func dial(opt *redis.Options) func(ctx context.Context, network, addr string) (net.Conn, error) {
	connect := redis.NewDialer(opt)
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := connect(ctx, network, addr)
		if err != nil {
			return unconnected{err}, nil
		}
		return conn, nil
	}
}

// unconnected is a connection that was never made.
type unconnected struct{ err error }

func (c unconnected) Read([]byte) (int, error)         { return 0, c.err }
func (c unconnected) Write([]byte) (int, error)        { return 0, c.err }
func (c unconnected) Close() error                     { return nil }
func (c unconnected) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (c unconnected) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (c unconnected) SetDeadline(time.Time) error      { return nil }
func (c unconnected) SetReadDeadline(time.Time) error  { return nil }
func (c unconnected) SetWriteDeadline(time.Time) error { return nil }
