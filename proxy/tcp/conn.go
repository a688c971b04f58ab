package tcp

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// smallWrite is how much is written by a call that the scheduler is not told
// of. Copying more takes a time for which a collection should not wait.
const smallWrite = 16 << 10

// Conn is a TCP connection. Like every net.Conn it is safe for concurrent use.
type Conn struct {
	*net.TCPConn
	raw        syscall.RawConn
	in, out    transfer
	look, take func(fd uintptr)
	ahead      []byte // what was read too much; under in.mu

	mu       sync.Mutex
	deadline time.Time // of reads; zero is none
	armed    time.Time // what the poller has; zero is none
	waiting  int       // readers that wait: they see only what is armed
}

// transfer is the read or the write under way. mu is held for as long as it
// takes; what is kept here does not have to be allocated.
type transfer struct {
	mu    sync.Mutex
	try   func(fd uintptr) (done bool)
	p     []byte
	n     int
	errno syscall.Errno
	waits bool
}

// New makes a Conn of c, which is used through it from now on.
func New(c *net.TCPConn) *Conn {
	raw, _ := c.SyscallConn() // it fails for no connection that was made
	conn := &Conn{TCPConn: c, raw: raw}
	conn.in.try, conn.out.try = conn.receive, conn.send
	conn.look = func(fd uintptr) { _, conn.in.errno = peek(fd) }
	conn.take = func(fd uintptr) { conn.in.n, conn.in.errno = read(fd, conn.in.p) }
	return conn
}

// Unread has the next reads return p before anything else. c keeps p.
func (c *Conn) Unread(p []byte) {
	c.in.mu.Lock()
	defer c.in.mu.Unlock()
	c.ahead = p
}

// Read implements net.Conn.
func (c *Conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	in := &c.in
	in.mu.Lock()
	defer in.mu.Unlock()
	if len(c.ahead) > 0 {
		return c.again(p), nil
	}
	in.p = p
	defer func() { in.p = nil }()
	for {
		if err := c.begin(); err != nil {
			return 0, err
		}
		in.n, in.errno = 0, 0
		err := c.raw.Read(in.try)
		if in.waits {
			in.waits = false
			c.awake()
		}
		switch {
		case err == nil:
			return c.received()
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return 0, named("read", err)
		}
		// Was it the deadline, or what was armed for an earlier one?
	}
}

// ReadNow reads what is there. Where a read would wait, it fails with
// os.ErrDeadlineExceeded.
func (c *Conn) ReadNow(p []byte) (n int, err error) {
	in := &c.in
	in.mu.Lock()
	defer in.mu.Unlock()
	if len(c.ahead) > 0 {
		return c.again(p), nil
	}
	in.p = p
	err = c.raw.Control(c.take)
	in.p = nil
	switch {
	case err != nil:
		return 0, named("read", err)
	case in.errno == syscall.EAGAIN:
		return 0, c.fault("read", os.ErrDeadlineExceeded)
	}
	return c.received()
}

// again reads what was taken back.
func (c *Conn) again(p []byte) int {
	n := copy(p, c.ahead)
	c.ahead = c.ahead[n:]
	return n
}

// received is what the read has come to.
func (c *Conn) received() (int, error) {
	switch {
	case c.in.errno != 0:
		return 0, c.fault("read", os.NewSyscallError("read", c.in.errno))
	case c.in.n == 0:
		return 0, io.EOF
	}
	return c.in.n, nil
}

// begin fails if the deadline has passed. It disarms what would end a wait
// before its time.
func (c *Conn) begin() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.deadline.IsZero() && c.armed.IsZero() {
		return nil
	}
	now := time.Now()
	if !c.deadline.IsZero() && !now.Before(c.deadline) {
		return c.fault("read", os.ErrDeadlineExceeded)
	}
	if !c.armed.IsZero() && !now.Before(c.armed) {
		return c.arm()
	}
	return nil
}

// receive reads once. If there is nothing, the caller waits.
func (c *Conn) receive(fd uintptr) bool {
	in := &c.in
	in.n, in.errno = read(fd, in.p)
	if in.errno != syscall.EAGAIN {
		return true
	}
	if !in.waits {
		in.waits = true
		c.wait()
	}
	return false
}

// wait has SetReadDeadline reach the poller from now on. A time that is armed
// already and earlier may stand: Read looks when it is woken.
func (c *Conn) wait() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting++
	if !c.deadline.IsZero() && (c.armed.IsZero() || c.deadline.Before(c.armed)) {
		// It fails on a closed connection only, and so does the wait.
		_ = c.arm()
	}
}

func (c *Conn) awake() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting--
}

// arm tells the poller the deadline. Under the lock.
func (c *Conn) arm() error {
	c.armed = c.deadline
	return c.TCPConn.SetReadDeadline(c.deadline)
}

// Write implements net.Conn.
func (c *Conn) Write(p []byte) (int, error) {
	if len(p) > smallWrite {
		return c.TCPConn.Write(p)
	}
	out := &c.out
	out.mu.Lock()
	defer out.mu.Unlock()
	out.p, out.n, out.errno = p, 0, 0
	err := c.raw.Write(out.try)
	out.p = nil
	switch {
	case err != nil:
		err = named("write", err)
	case out.errno != 0:
		err = c.fault("write", os.NewSyscallError("write", out.errno))
	}
	return out.n, err
}

// send writes what is left. If the socket is full, the caller waits.
func (c *Conn) send(fd uintptr) bool {
	out := &c.out
	for out.n < len(out.p) {
		n, errno := write(fd, out.p[out.n:])
		switch errno {
		case 0:
			out.n += n
		case syscall.EAGAIN:
			return false
		default:
			out.errno = errno
			return true
		}
	}
	return true
}

// Quiet reports whether a read would wait: no byte, no end and no error is
// there.
func (c *Conn) Quiet() bool {
	c.in.mu.Lock()
	defer c.in.mu.Unlock()
	c.in.errno = 0
	return len(c.ahead) == 0 && c.raw.Control(c.look) == nil && c.in.errno == syscall.EAGAIN
}

// WriteTo implements io.WriterTo, by the kernel where it can.
func (c *Conn) WriteTo(w io.Writer) (int64, error) {
	c.in.mu.Lock()
	ahead := c.ahead
	c.ahead = nil
	c.in.mu.Unlock()
	if len(ahead) > 0 {
		if n, err := w.Write(ahead); err != nil {
			return int64(n), err
		}
	}
	n, err := c.writeTo(w)
	return int64(len(ahead)) + n, err
}

func (c *Conn) writeTo(w io.Writer) (int64, error) {
	c.mu.Lock()
	c.waiting++
	err := c.arm()
	c.mu.Unlock()
	defer c.awake()
	if err != nil {
		return 0, err
	}
	return c.TCPConn.WriteTo(w)
}

// SetDeadline implements net.Conn.
func (c *Conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline implements net.Conn. That the connection is closed shows in
// the next read only.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	if c.waiting == 0 {
		return nil
	}
	return c.arm()
}

// fault is err as net.TCPConn would return it.
func (c *Conn) fault(op string, err error) error {
	return &net.OpError{Op: op, Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}

// named is an error of syscall.RawConn under the name of what was called.
func named(op string, err error) error {
	if e, ok := errors.AsType[*net.OpError](err); ok {
		e.Op = op
	}
	return err
}
