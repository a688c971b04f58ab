package middleware

import (
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"
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
	exempt       []netip.Prefix

	mu   sync.Mutex
	open int
	byIP map[netip.Addr]int
}

func newLimiter(total, perIP int, exempt []netip.Prefix) *limiter {
	return &limiter{total: total, perIP: perIP, exempt: exempt, byIP: map[netip.Addr]int{}}
}

// admit counts a connection from addr, unless it is one too many.
func (l *limiter) admit(addr netip.Addr) bool {
	counted := l.counted(addr)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open >= l.total || counted && l.byIP[addr] >= l.perIP {
		return false
	}
	l.open++
	if counted {
		l.byIP[addr]++
	}
	return true
}

func (l *limiter) release(addr netip.Addr) {
	counted := l.counted(addr)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open--
	if !counted {
		return
	}
	if l.byIP[addr]--; l.byIP[addr] == 0 {
		delete(l.byIP, addr)
	}
}

func (l *limiter) counted(addr netip.Addr) bool { return l.perIP > 0 && !contains(l.exempt, addr) }

// limitedListener turns away connections past the limits: with an answer
// where it can be read, and without where TLS would have to be spoken first.
type limitedListener struct {
	net.Listener
	limiter *limiter
	secure  bool
}

// Accept returns the next connection within the limits.
func (l *limitedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		tcp, ok := c.(*net.TCPConn)
		if !ok {
			return c, nil
		}
		addr := tcp.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap().WithZone("")
		if l.limiter.admit(addr) {
			return &limitedConn{TCPConn: tcp, release: sync.OnceFunc(func() { l.limiter.release(addr) })}, nil
		}
		if !l.secure {
			_ = tcp.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
			_, _ = io.WriteString(tcp, shed)
			_ = tcp.CloseWrite()
		}
		_ = tcp.Close()
	}
}

// limitedConn gives its place back when it is closed. It embeds the concrete
// type, so that net/http still finds what it copies with in the kernel.
type limitedConn struct {
	*net.TCPConn
	release func()
}

func (c *limitedConn) Close() error {
	err := c.TCPConn.Close()
	c.release()
	return err
}
