package middleware

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

const (
	// quicSilence is how long a peer may be silent before its connection is
	// given up. It is asked for a sign of life twice in that time, so this is
	// not the idle timeout: that counts requests and is the connection's own.
	quicSilence = 45 * time.Second
	// quicStreams is how many streams of its own a client may have open beside
	// its requests: HTTP/3 needs three.
	quicStreams = 8
	// defaultStreams is for those who configure no limit: QUIC has to have one.
	defaultStreams = 100
	// mostUnverified is how many handshakes may be under way before clients
	// have to show that they are where their packets say (RFC 9000 section
	// 8.1.2), at the cost of a round trip.
	mostUnverified = 64
)

var (
	errTooManyConnections = errors.New("too many connections are open")
	errLeaving            = errors.New("the gateway is leaving")
)

// HTTP3 serves HTTP/3 (RFC 9114) on one UDP socket: the same handler,
// certificates and limits as over TCP. Early data is never accepted: it can be
// replayed, and its sender's address is not known to be its own.
type HTTP3 struct {
	handler http.Handler
	cfg     ServerConfig
	limiter *limiter

	socket    net.PacketConn
	transport *quic.Transport
	listener  *quic.Listener
	// handshakes counts connections whose handshake is not over.
	handshakes atomic.Int64

	// draining ends when shutdown begins; until is set by then.
	draining context.Context
	drain    context.CancelFunc

	mu     sync.Mutex
	until  context.Context // how long requests have
	open   int             // connections that are served
	last   chan struct{}   // closed when open has come down to 0 in shutdown
	closed bool
}

// ListenHTTP3 opens the UDP socket that belongs to a TLS listener's address.
// It needs a certificate. Its connections count against the server's limits,
// and Shutdown ends them with the others.
func (s *Server) ListenHTTP3(ctx context.Context, address string) (*HTTP3, error) {
	if s.keys == nil {
		return nil, errors.New("listen.http3: needs at least one entry in tls.certificates")
	}
	socket, err := (&net.ListenConfig{}).ListenPacket(ctx, "udp", address)
	if err != nil {
		return nil, fmt.Errorf("listen for http3 on %s: %w", address, err)
	}
	h := &HTTP3{handler: s.http.Handler, cfg: s.cfg, limiter: s.limiter, socket: socket, last: make(chan struct{})}
	h.draining, h.drain = context.WithCancel(context.WithoutCancel(ctx))
	h.transport = &quic.Transport{Conn: socket, ConnContext: h.admit, VerifySourceAddress: h.doubt}
	h.listener, err = h.transport.Listen(http3.ConfigureTLSConfig(s.keys.listenerConfig()), h.cfg.quic())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen for http3 on %s: %w", address, err), h.Close())
	}
	s.http3 = append(s.http3, h)
	return h, nil
}

func (c ServerConfig) streams() int { return cmp.Or(c.MaxStreams, defaultStreams) }

// quic is the part of the settings that QUIC itself enforces.
func (c ServerConfig) quic() *quic.Config {
	return &quic.Config{
		HandshakeIdleTimeout: c.ReadHeaderTimeout / 2, // it gives a handshake twice that
		MaxIdleTimeout:       quicSilence,
		KeepAlivePeriod:      quicSilence / 3,
		MaxIncomingStreams:   int64(c.streams()),
		// A client may not have more under way here than over HTTP/2.
		InitialStreamReceiveWindow:     streamWindow,
		MaxStreamReceiveWindow:         streamWindow,
		InitialConnectionReceiveWindow: connectionWindow,
		MaxConnectionReceiveWindow:     connectionWindow,
		MaxIncomingUniStreams:          quicStreams,
		Allow0RTT:                      false,
		EnableDatagrams:                false,
	}
}

// Addr is the UDP address that is listened on.
func (h *HTTP3) Addr() net.Addr { return h.socket.LocalAddr() }

// Close closes the socket at once, whatever is under way. It is for one that
// never served; else use the server's Shutdown.
func (h *HTTP3) Close() error {
	return errors.Join(h.transport.Close(), h.socket.Close())
}

// arrival is a connection from its first packet on. The connection's context
// carries it.
type arrival struct {
	seat    *seat
	settled sync.Once // the handshake is over
}

type arrivalKey struct{}

func (h *HTTP3) settle(a *arrival) { a.settled.Do(func() { h.handshakes.Add(-1) }) }

// admit counts a connection, from its first packet until its end.
func (h *HTTP3) admit(ctx context.Context, info *quic.ClientInfo) (context.Context, error) {
	if h.draining.Err() != nil {
		return nil, errLeaving
	}
	a := &arrival{seat: h.limiter.enter(udpAddr(info.RemoteAddr))}
	if a.seat == nil {
		return nil, errTooManyConnections
	}
	h.handshakes.Add(1)
	context.AfterFunc(ctx, func() {
		a.seat.leave()
		h.settle(a)
	})
	return context.WithValue(ctx, arrivalKey{}, a), nil
}

// doubt says whether a client has to prove its address first: under load, and
// before a stranger could use up the connections of the address that it
// pretends to have.
func (h *HTTP3) doubt(from net.Addr) bool {
	return h.handshakes.Load() >= mostUnverified || h.limiter.crowded(udpAddr(from))
}

func udpAddr(a net.Addr) netip.Addr {
	udp, ok := a.(*net.UDPAddr)
	if !ok {
		return netip.Addr{}
	}
	return udp.AddrPort().Addr().Unmap().WithZone("")
}

// Serve takes connections until the server's Shutdown is over; then it
// returns nil.
func (h *HTTP3) Serve() error {
	for {
		conn, err := h.listener.Accept(context.Background()) // the socket's end is its end
		if err != nil {
			if h.draining.Err() != nil {
				return nil
			}
			return fmt.Errorf("serve http3 on %s: %w", h.Addr(), err)
		}
		if a, ok := conn.Context().Value(arrivalKey{}).(*arrival); ok {
			h.settle(a)
		}
		if !h.enter() {
			continue // shutdown closes what nobody serves
		}
		go func() {
			defer h.exit()
			newHTTP3Conn(h, conn).serve()
		}()
	}
}

// enter counts a connection that is served, also while the gateway leaves: it
// is told so at once.
func (h *HTTP3) enter() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return false
	}
	h.open++
	return true
}

func (h *HTTP3) exit() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.open--
	h.finish()
}

// finish ends the service if it is leaving and nobody is left. Under the lock.
func (h *HTTP3) finish() {
	if h.until != nil && h.open == 0 && !h.closed {
		h.closed = true
		close(h.last)
	}
}

// shutdown tells clients to go (GOAWAY), refuses new connections, lets
// requests finish until ctx ends, and closes the socket.
func (h *HTTP3) shutdown(ctx context.Context) error {
	h.mu.Lock()
	h.until = ctx
	h.drain()
	h.finish()
	h.mu.Unlock()
	<-h.last // each connection ends with ctx
	// Handshakes that nobody has accepted end here.
	return errors.Join(context.Cause(ctx), h.listener.Close(), h.Close())
}
