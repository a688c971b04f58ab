package middleware

import (
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/sluice-gateway/sluice/proxy/tcp"
)

// shed answers a connection too many. It is written by hand because no
// request has been read.
const shed = "HTTP/1.1 503 Service Unavailable\r\n" +
	"Content-Type: application/problem+json\r\nConnection: close\r\nRetry-After: 1\r\nContent-Length: 136\r\n\r\n" +
	`{"type":"urn:sluice:overloaded","title":"Service Unavailable","status":503,"code":"overloaded","detail":"too many connections are open"}`

// Without a known limit of open files, and never fewer than the least.
const (
	defaultConnections = 10000
	leastConnections   = 64
	otherFiles         = 500
)

// connectionsFromFileLimit is how many clients can be served at two files
// each: beyond it, accepting one would fail another's upstream connection.
func connectionsFromFileLimit() int {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil {
		return defaultConnections
	}
	if r.Cur > 4<<20 { // "unlimited"
		return 2 << 20
	}
	return max(int(r.Cur)/2-otherFiles, leastConnections)
}

// limiter counts open connections, in all and by address. Safe for concurrent
// use.
type limiter struct {
	total, perIP int
	trusted      []netip.Prefix // proxies: their connections are many clients'

	mu   sync.Mutex
	open int
	byIP map[netip.Addr]int
}

// seat is a connection's place among the open ones. Its limiter's lock
// guards it.
type seat struct {
	limiter *limiter
	addr    netip.Addr
	left    bool
}

func newLimiter(total, perIP int, trusted []netip.Prefix) *limiter {
	return &limiter{total: total, perIP: perIP, trusted: trusted, byIP: map[netip.Addr]int{}}
}

// enter counts a connection from addr. It returns nil for one too many.
func (l *limiter) enter(addr netip.Addr) *seat {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open >= l.total || !l.count(addr) {
		return nil
	}
	l.open++
	return &seat{limiter: l, addr: addr}
}

// move counts the connection as addr's instead, unless that is one too many
// or the connection has been closed.
func (p *seat) move(addr netip.Addr) bool {
	l := p.limiter
	l.mu.Lock()
	defer l.mu.Unlock()
	if p.left || !l.count(addr) {
		return false
	}
	l.uncount(p.addr)
	p.addr = addr
	return true
}

// leave gives the place back. Only the first call does anything.
func (p *seat) leave() {
	l := p.limiter
	l.mu.Lock()
	defer l.mu.Unlock()
	if p.left {
		return
	}
	p.left = true
	l.open--
	l.uncount(p.addr)
}

// count takes one of the connections that addr may have, if one is left.
// Under the lock.
func (l *limiter) count(addr netip.Addr) bool {
	if l.exempt(addr) {
		return true
	}
	if l.byIP[addr] >= l.perIP {
		return false
	}
	l.byIP[addr]++
	return true
}

// uncount gives back what count took. Under the lock.
func (l *limiter) uncount(addr netip.Addr) {
	if l.exempt(addr) {
		return
	}
	if l.byIP[addr]--; l.byIP[addr] == 0 {
		delete(l.byIP, addr)
	}
}

// crowded says whether addr has half of the connections that it may have.
func (l *limiter) crowded(addr netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.exempt(addr) && 2*l.byIP[addr] >= l.perIP
}

func (l *limiter) exempt(addr netip.Addr) bool { return l.perIP <= 0 || contains(l.trusted, addr) }

// limitedListener turns away connections past the limits, and has those of
// trusted proxies begin with a PROXY header if that is asked for.
type limitedListener struct {
	net.Listener
	limiter *limiter
	secure  bool
	// headTimeout is ServerConfig.ReadHeaderTimeout.
	headTimeout time.Duration
	// proxied is nil where no PROXY header is read.
	proxied *proxyProtocol
}

// Accept returns the next connection within the limits.
func (l *limitedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		client, ok := c.(*net.TCPConn)
		if !ok {
			return c, nil
		}
		addr := client.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap().WithZone("")
		seat := l.limiter.enter(addr)
		if seat == nil {
			turnAway(client, l.secure)
			_ = client.Close()
			continue
		}
		conn := &limitedConn{Conn: tcp.New(client), seat: seat}
		if !l.secure { // a handshake begins once
			conn.anew = l.headTimeout
		}
		if l.proxied != nil && contains(l.limiter.trusted, addr) {
			return l.proxied.conn(conn, l.secure), nil
		}
		return conn, nil
	}
}

// turnAway answers a connection too many where that can be read: not where
// TLS would have to be spoken first.
func turnAway(c *net.TCPConn, secure bool) {
	if secure {
		return
	}
	_ = c.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
	_, _ = io.WriteString(c, shed)
	_ = c.CloseWrite()
}

// limitedConn gives its place back when it is closed. It embeds the concrete
// type, so that net/http still finds what it copies with in the kernel.
//
// The time for the first head begins anew with its first bytes. net/http
// counts it from the connection's start, and reads 14 bytes by themselves to
// see whether they are HTTP/2's: where a client had kept a connection spare
// and that time passed just then, "GET /a HTTP/1." was all of the request, and
// answered 400.
type limitedConn struct {
	*tcp.Conn
	seat *seat
	anew time.Duration // 0: not, or not any more
}

func (c *limitedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.anew > 0 && n > 0 {
		if serr := c.SetReadDeadline(time.Now().Add(c.anew)); err == nil {
			err = serr
		}
		c.anew = 0
	}
	return n, err
}

func (c *limitedConn) Close() error {
	err := c.Conn.Close()
	c.seat.leave()
	return err
}
