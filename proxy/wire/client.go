package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// Config says how connections are made and kept. Dial is needed.
type Config struct {
	// Dial makes a connection; it ends when the context does. Only those of
	// package tcp can be looked at, and so kept.
	Dial func(ctx context.Context, address string) (net.Conn, error)
	// TLS is set up on every connection; nil is plain TCP. Without a server
	// name, the certificate must name the host of the address.
	TLS *tls.Config
	// Handshake bounds the setting up of TLS; 0 is none.
	Handshake time.Duration
	// ResponseHeader bounds the wait for a response's head once the request
	// was written; 0 is none.
	ResponseHeader time.Duration
	// IdleTimeout is how long a connection is kept without a request.
	IdleTimeout time.Duration
	// IdlePerAddress bounds the connections kept for one address.
	IdlePerAddress int
	// MaxHead bounds a response's head, and its trailers, in bytes.
	MaxHead int
}

// Trace is told how far a round trip came, on the goroutine that makes it.
type Trace interface {
	// Asked: the request is well formed and a connection is looked for. A
	// second call means that all began anew, on a fresh connection.
	Asked()
	// Connected: there is one, which had served before or not.
	Connected(reused bool)
	// Wrote: something of the request may have left.
	Wrote()
	// Answered: the first byte of an answer came.
	Answered()
	// Fresh: no kept connection will do.
	Fresh() bool
	// Quick: the request's context does not bound the exchange. Before
	// anything waits for long, Watch is asked for the one that does.
	Quick() bool
	Watch() context.Context
	// Room is where the exchange is kept; nil for new memory.
	Room() *Room
	// Informed takes an informational response other than 100 and 101; an
	// error ends the round trip.
	Informed(code int, header http.Header) error
}

// Patience is how long a quick exchange may take before it is watched. Most
// are over by then: they cost no context, and no timer.
const Patience = 20 * time.Millisecond

// Client sends requests over connections that it keeps by address. Safe for
// concurrent use. Without use it holds nothing but idle connections, which it
// closes in time.
type Client struct {
	conf Config
	pool pool
}

// New makes a Client.
func New(conf Config) (*Client, error) {
	if conf.Dial == nil || conf.IdleTimeout <= 0 || conf.IdlePerAddress <= 0 || conf.MaxHead <= 0 {
		return nil, errors.New("make HTTP/1.1 client: a dial function and bounds above zero are needed")
	}
	c := &Client{conf: conf}
	c.pool.timeout, c.pool.limit = conf.IdleTimeout, conf.IdlePerAddress
	return c, nil
}

// CloseIdle closes connections that no request uses, and those in use once
// they are free. Later requests make new ones.
func (c *Client) CloseIdle() { c.pool.retireAll() }

// Leave is CloseIdle for the connections to one address.
func (c *Client) Leave(address string) { c.pool.retire(address) }

// Connections returns how many connections to address there are, those that
// are being made included, and how many of them serve no request.
func (c *Client) Connections(address string) (open, idle int) { return c.pool.count(address) }

// RoundTrip sends req to req.URL.Host and returns the response. The request
// must be one that Fits accepts. Its context bounds the exchange until the
// response's body was read to the end or closed. The body is for one
// goroutine at a time.
//
// A connection that had been idle and turns out closed before any byte of an
// answer came is replaced once by a fresh one, if nothing was written, or if
// replay says that req may run twice and its body was sent with the head.
//
// A body that is larger than MaxBody, or whose length is not known, is sent
// while the answer is read, on a goroutine that lasts as long as a Read of the
// body does, also after RoundTrip has returned and the response has ended.
//
// After ErrProtocol, req can be sent in another way: its body is as it was.
func (c *Client) RoundTrip(req *http.Request, trace Trace, replay bool) (*http.Response, error) {
	out, err := newOutgoing(req)
	if err != nil {
		return nil, err
	}
	defer out.free()
	resp, err, stale := c.try(req, out, trace, !trace.Fresh(), replay)
	if stale {
		resp, err, _ = c.try(req, out, trace, false, false)
	}
	if errors.Is(err, ErrProtocol) {
		out.giveBack(req)
	}
	return resp, err
}

// try makes one exchange. stale reports that a kept connection failed in a
// way that a fresh one may mend.
func (c *Client) try(req *http.Request, out *outgoing, trace Trace, kept, replay bool) (resp *http.Response, err error, stale bool) {
	ctx := req.Context()
	trace.Asked()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx), false
	}
	cn, reused, err := c.connect(ctx, req.URL.Host, kept, trace)
	if err != nil {
		return nil, err, false
	}
	trace.Connected(reused)
	room := trace.Room()
	if room == nil {
		room = new(Room)
	}
	room.Reset(true)
	x := &room.exchange
	x.conn, x.trace, x.room = cn, trace, room
	cn.use = x
	resp, wrote, err := x.run(c, req, out)
	if err == nil {
		return resp, nil, false
	}
	silent := !cn.answered
	x.drop()
	if err := x.ended(); err != nil {
		return nil, err, false
	}
	if fault := x.up.err(); fault != nil {
		return nil, fmt.Errorf("send request body: %w", fault), false
	}
	timeout, isNet := errors.AsType[net.Error](err)
	stale = reused && silent && (wrote == 0 || replay && x.up == nil) && !(isNet && timeout.Timeout())
	return nil, err, stale
}

// connect returns a kept connection, if there is one and it may be had, or a
// fresh one.
func (c *Client) connect(ctx context.Context, address string, kept bool, trace Trace) (cn *conn, reused bool, err error) {
	if kept {
		if cn := c.pool.get(address); cn != nil {
			return cn, true, nil
		}
	}
	if trace.Quick() {
		ctx = trace.Watch()
	}
	shelf, era := c.pool.place(address)
	sock, err := c.dial(ctx, address)
	if err != nil {
		shelf.displace()
		return nil, false, err
	}
	return newConn(sock, shelf, era), false, nil
}

func (c *Client) dial(ctx context.Context, address string) (*socket, error) {
	nc, err := c.conf.Dial(ctx, address)
	if err != nil {
		return nil, err
	}
	sock := newSocket(nc)
	if c.conf.TLS != nil {
		err = sock.secure(ctx, c.conf.TLS, address, c.conf.Handshake)
	}
	return sock, err
}
