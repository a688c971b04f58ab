package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"time"

	"github.com/sluice-gateway/sluice/proxy/tcp"
	"github.com/sluice-gateway/sluice/routing"
)

const (
	// idleConnTimeout lies below the keep-alive of common servers (Node
	// closes after 5 s): whoever closes first does not lose the race between
	// a close and the next request.
	idleConnTimeout = 4 * time.Second
	// idleConnsPerHost is above what one instance gets in parallel: a
	// connection closed for want of room is a handshake later.
	idleConnsPerHost = 4096
	// maxResponseHeader bounds a response head; more is a broken upstream.
	maxResponseHeader = 256 << 10
	// expectTimeout is how long an instance may take to say 100 Continue
	// before the body is sent all the same (RFC 9110 section 10.1.1).
	expectTimeout = time.Second
	// maxInformational bounds the 1xx responses before a final one.
	maxInformational = 32

	// An HTTP/2 connection without a frame for pingAfter is pinged and, with
	// no answer in pingTimeout, closed. gRPC servers take more than two pings
	// in five minutes of silence for an attack and end the connection with
	// every stream on it, so theirs are rarer; TCP keep-alive finds a dead
	// host meanwhile.
	pingAfter     = 15 * time.Second
	pingAfterGRPC = 5*time.Minute + 10*time.Second
	pingTimeout   = 5 * time.Second

	defaultConnect = 2 * time.Second
)

// stdEngine is an Engine over http.Transport.
type stdEngine struct {
	transport *http.Transport
	// upgrades makes one fresh HTTP/1.1 connection per upgrade: such a
	// request cannot be repeated, so it must not meet a stale connection,
	// and what a failed handshake leaves behind must not be reused.
	upgrades *http.Transport
}

// NewStdEngine makes an Engine over http.Transport. It reads the certificate
// files that u names; an error says which one is wrong.
func NewStdEngine(u routing.Upstream) (Engine, error) {
	dialer := newDialer(u)
	protocols := new(http.Protocols)
	ping := pingAfter
	switch u.Protocol {
	case routing.ProtocolHTTP, "":
		protocols.SetHTTP1(true)
	case routing.ProtocolHTTPS:
		protocols.SetHTTP1(true)
		protocols.SetHTTP2(true)
	case routing.ProtocolH2C:
		protocols.SetUnencryptedHTTP2(true)
	case routing.ProtocolGRPC:
		protocols.SetUnencryptedHTTP2(true)
		ping = pingAfterGRPC
	case routing.ProtocolGRPCS:
		protocols.SetHTTP2(true)
		ping = pingAfterGRPC
	default:
		return nil, errors.New("protocol " + u.Protocol + " is not known")
	}
	t := &http.Transport{
		Proxy:                  nil, // the environment does not decide where instances are
		DialContext:            dialer.DialContext,
		TLSHandshakeTimeout:    dialer.Timeout,
		DisableCompression:     true,
		MaxIdleConnsPerHost:    idleConnsPerHost,
		IdleConnTimeout:        idleConnTimeout,
		ResponseHeaderTimeout:  u.ResponseHeader,
		ExpectContinueTimeout:  expectTimeout,
		MaxResponseHeaderBytes: maxResponseHeader,
		Protocols:              protocols,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: ping, PingTimeout: pingTimeout},
	}
	if secure(u.Protocol) {
		conf, err := tlsConfig(u.TLS)
		if err != nil {
			return nil, err
		}
		t.TLSClientConfig = conf
	}
	e := &stdEngine{transport: t}
	if !multiplexed(u.Protocol) {
		e.upgrades = t.Clone()
		e.upgrades.DisableKeepAlives = true
		e.upgrades.Protocols = new(http.Protocols)
		e.upgrades.Protocols.SetHTTP1(true)
	}
	return e, nil
}

// dialer connects to instances.
type dialer struct{ net.Dialer }

// DialContext implements what net.Dialer does.
func (d *dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := d.Dialer.DialContext(ctx, network, address)
	if t, ok := c.(*net.TCPConn); ok {
		return tcp.New(t), err
	}
	return c, err
}

// newDialer makes what connects to the instances of u.
func newDialer(u routing.Upstream) *dialer {
	connect := u.Connect
	if connect <= 0 {
		connect = defaultConnect
	}
	return &dialer{net.Dialer{
		Timeout: connect,
		KeepAliveConfig: net.KeepAliveConfig{
			Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3,
		},
	}}
}

// secure tells the protocols that run over TLS.
func secure(protocol string) bool {
	return protocol == routing.ProtocolHTTPS || protocol == routing.ProtocolGRPCS
}

// multiplexed tells the protocols that only speak HTTP/2, on which no
// upgrade is possible.
func multiplexed(protocol string) bool {
	switch protocol {
	case routing.ProtocolH2C, routing.ProtocolGRPC, routing.ProtocolGRPCS:
		return true
	}
	return false
}

// RoundTrip implements Engine.
func (e *stdEngine) RoundTrip(req *http.Request, trip *Trip) (*http.Response, error) {
	tr := &tracer{trip: trip}
	req = req.WithContext(httptrace.WithClientTrace(req.Context(), tr.hooks()))
	t := e.transport
	upgrade := req.Header["Upgrade"] != nil && e.upgrades != nil
	if upgrade {
		t = e.upgrades
	}
	resp, err := t.RoundTrip(req)
	if err == nil && upgrade && resp.StatusCode == http.StatusSwitchingProtocols {
		if rw, ok := resp.Body.(io.ReadWriteCloser); ok {
			resp.Body = &rawConn{ReadWriteCloser: rw, conn: tr.conn}
		}
	}
	return resp, err
}

// Leave implements Engine. http.Transport closes idle connections to all
// addresses or to none; those to this one end with idleConnTimeout.
func (e *stdEngine) Leave(string) {}

// Connections implements Engine. http.Transport does not tell.
func (e *stdEngine) Connections(string) (open, idle int, ok bool) { return 0, 0, false }

// CloseIdle implements Engine.
func (e *stdEngine) CloseIdle() {
	e.transport.CloseIdleConnections()
	if e.upgrades != nil {
		e.upgrades.CloseIdleConnections()
	}
}

// tracer fills a Trip from what http.Transport tells of itself. It is never
// reused: the transport may call it after the round trip returned.
type tracer struct {
	trip     *Trip
	conn     net.Conn // set before RoundTrip returns a response
	informed int
}

func (t *tracer) hooks() *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		GetConn:              func(string) { t.trip.Asked() },
		GotConn:              t.gotConn,
		WroteHeaders:         t.trip.Wrote,
		GotFirstResponseByte: t.trip.Answered,
		Got1xxResponse:       t.got1xx,
	}
}

func (t *tracer) gotConn(info httptrace.GotConnInfo) {
	t.conn = info.Conn
	t.trip.Connected(info.Reused)
}

// got1xx counts, because a transport that hands 1xx responses over no longer
// bounds them.
func (t *tracer) got1xx(code int, header textproto.MIMEHeader) error {
	if t.informed++; t.informed > maxInformational {
		return errors.New("too many informational responses")
	}
	return t.trip.Informed(code, http.Header(header))
}

// rawConn is the body of a 101 response with the half-close of the
// connection under it.
type rawConn struct {
	io.ReadWriteCloser
	conn net.Conn
}

// CloseWrite ends the sending side only.
func (c *rawConn) CloseWrite() error {
	if h, ok := c.conn.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return c.Close()
}

var _ Engine = (*stdEngine)(nil)
