package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"time"
)

// ErrProtocol says that the other side chose another protocol than HTTP/1.1
// when TLS was set up. Nothing was sent to it.
var ErrProtocol = errors.New("the other side chose another protocol than HTTP/1.1")

// socket is what lies under a connection: a look at it tells whether the other
// side has sent or closed.
//
// TLS keeps bytes of its own, and not all that comes is for us: a session
// ticket or a change of keys may arrive at any time. So there the look is a
// read through TLS that finds the socket empty instead of waiting, after which
// nothing but whole records without data was taken in.
type socket struct {
	net.Conn
	now looker    // nil: there is no way to look
	tls *tls.Conn // nil: plain

	// Under TLS.
	looking bool
	records records
}

// looker is what package tcp's Conn can do beyond a net.Conn.
type looker interface {
	Quiet() bool
	ReadNow(p []byte) (int, error)
}

func newSocket(nc net.Conn) *socket {
	s := &socket{Conn: nc}
	s.now, _ = nc.(looker)
	return s
}

// secure sets TLS up. conf names the server; without a name, that is the host
// of address. An error leaves the connection closed.
func (s *socket) secure(ctx context.Context, conf *tls.Config, address string, within time.Duration) error {
	if conf.ServerName == "" {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			host = address
		}
		conf = conf.Clone()
		conf.ServerName = host
	}
	if within > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, within)
		defer cancel()
	}
	s.tls = tls.Client(s, conf)
	err := s.tls.HandshakeContext(ctx)
	if err != nil {
		err = fmt.Errorf("TLS handshake with %s: %w", address, err)
	} else if p := s.tls.ConnectionState().NegotiatedProtocol; p != "" && p != "http/1.1" {
		err = ErrProtocol
	}
	if err != nil {
		s.Close()
	}
	return err
}

// Read implements net.Conn for TLS.
func (s *socket) Read(p []byte) (n int, err error) {
	if s.looking {
		n, err = s.now.ReadNow(p)
	} else {
		n, err = s.Conn.Read(p)
	}
	s.records.follow(p[:n])
	return n, err
}

// quiet reports whether the other side is known to have neither closed the
// connection nor sent anything unasked.
func (s *socket) quiet() bool {
	switch {
	case s.now == nil:
		return false
	case s.tls == nil:
		return s.now.Quiet()
	}
	s.looking = true
	var b [1]byte
	n, err := s.tls.Read(b[:])
	s.looking = false
	return n == 0 && errors.Is(err, os.ErrDeadlineExceeded) && s.records.whole()
}

// records follows the records of TLS as they come in.
type records struct {
	header [5]byte
	have   int // of the header of the next one
	left   int // of the one that is coming in
}

// whole reports whether no record is there in part.
func (r *records) whole() bool { return r.have == 0 && r.left == 0 }

func (r *records) follow(p []byte) {
	for len(p) > 0 {
		if r.left > 0 {
			n := min(r.left, len(p))
			r.left -= n
			p = p[n:]
			continue
		}
		n := copy(r.header[r.have:], p)
		r.have += n
		p = p[n:]
		if r.have == len(r.header) {
			r.have, r.left = 0, int(r.header[3])<<8|int(r.header[4])
		}
	}
}
