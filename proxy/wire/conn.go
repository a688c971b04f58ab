package wire

import (
	"io"
	"net"
	"sync"
	"time"
)

// readSize is the buffer a response's head and the start of its body are read
// into; what is left of a body goes to the reader's own.
const readSize = 4 << 10

var readBuffers = sync.Pool{New: func() any { b := make([]byte, readSize); return &b }}

// past is a deadline that has passed.
var past = time.Unix(1, 0)

// conn is a connection. One exchange owns it, or the pool.
type conn struct {
	nc    net.Conn // what is written and read: the socket, or TLS over it
	sock  *socket
	shelf *shelf
	era   int // of the shelf, when the connection was begun
	// interrupt makes every read and write fail from now on.
	interrupt func()

	box      *[]byte // where buf goes back to; nil while idle
	buf      []byte
	r, w     int // buf[r:w] was read and not taken
	answered bool
	bounded  bool // a read deadline is set
	use      *exchange
	closed   bool

	idleSince time.Time
}

func newConn(sock *socket, s *shelf, era int) *conn {
	c := &conn{nc: sock.Conn, sock: sock, shelf: s, era: era}
	if sock.tls != nil {
		c.nc = sock.tls
	}
	c.interrupt = func() { _ = sock.SetDeadline(past) }
	return c
}

// quiet reports whether the connection can serve another request.
func (c *conn) quiet() bool { return c.sock.quiet() }

// close ends the connection. TLS does not take leave first: that could wait
// for an other side that does not read, and HTTP's own framing tells what is
// complete.
func (c *conn) close() {
	if c.closed {
		return
	}
	c.closed = true
	c.sock.Close()
	c.freeBuffer()
	c.shelf.displace()
}

func (c *conn) buffered() int { return c.w - c.r }

// fill reads more into the buffer, which grows up to limit bytes if what is
// in it was not taken.
func (c *conn) fill(limit int) error {
	switch {
	case c.box == nil:
		c.box = readBuffers.Get().(*[]byte)
		c.buf = *c.box
	case c.r == c.w:
		c.r, c.w = 0, 0
	case c.w < len(c.buf):
	case c.r > 0:
		c.w = copy(c.buf, c.buf[c.r:c.w])
		c.r = 0
	case len(c.buf) >= limit:
		return errTooLong
	default:
		larger := make([]byte, min(2*len(c.buf), max(limit, readSize)))
		c.w = copy(larger, c.buf[:c.w])
		c.buf = larger
	}
	n, err := c.use.read(c.buf[c.w:])
	c.w += n
	if n > 0 {
		c.answered = true
		return nil
	}
	if err == nil {
		return io.ErrNoProgress
	}
	return err
}

// freeBuffer gives the buffer back; an idle connection holds none.
func (c *conn) freeBuffer() {
	if c.box != nil {
		readBuffers.Put(c.box)
		c.box, c.buf = nil, nil
	}
	c.r, c.w = 0, 0
}
