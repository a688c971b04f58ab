package wire

import (
	"context"
	"errors"
	"io"
	"strconv"
	"sync"
	"time"
)

// lastWrite is how long the last bytes of a body may take to be written when
// the whole answer has come already. They were read to be answered so: what is
// still missing is that the write returns.
const lastWrite = 100 * time.Millisecond

var errLongBody = errors.New("the body is longer than its announced length")

// pieces are what bodies are sent in: data with room around it for a chunk's
// framing.
var pieces = sync.Pool{New: func() any { return new([32 << 10]byte) }}

const (
	beforePiece = len("7fff\r\n")
	afterPiece  = len("\r\n0\r\n\r\n")
)

// upload sends a body on a goroutine of its own, while that of the request
// reads the answer. It writes to the connection and does not read from it. It
// ends when the body does, when a write fails, or when reading the body fails:
// then it closes the socket, so that nobody takes the body for complete.
type upload struct {
	conn *conn
	ctx  context.Context
	src  io.ReadCloser
	left int64 // of the length; -1: chunked
	// head bounds the wait for the answer's head once all is sent; 0 is none.
	head time.Duration

	mu       sync.Mutex
	state    uploadState
	fault    error // what reading the body failed with
	answered bool  // the answer's head came
	heir     bool  // the answer has ended: the connection is the upload's to give back
}

type uploadState int

const (
	sending uploadState = iota
	ending              // all of the body was read, and is about to be written
	sent
	failed
)

func (u *upload) run() {
	defer u.src.Close()
	p := pieces.Get().(*[32 << 10]byte)
	defer pieces.Put(p)
	for {
		b, last, err := u.next(p)
		if err != nil {
			u.failed(err)
			return
		}
		if last {
			u.mu.Lock()
			u.state = ending
			u.mu.Unlock()
		}
		if _, err := u.conn.nc.Write(b); err != nil {
			// The answer may be there all the same; else reading fails as well.
			u.ended(failed)
			return
		}
		if last {
			u.ended(sent)
			return
		}
	}
}

// next reads what is to be written next, and tells whether it is the last.
func (u *upload) next(p *[32 << 10]byte) (b []byte, last bool, err error) {
	const start = beforePiece
	n, err := readSome(u.src, p[start:len(p)-afterPiece])
	switch {
	case err != nil && err != io.EOF:
		return nil, false, err
	case u.left < 0:
		return chunk(p, n, err == io.EOF), err == io.EOF, nil
	case int64(n) > u.left:
		return nil, false, errLongBody
	}
	u.left -= int64(n)
	if err == io.EOF && u.left > 0 {
		return nil, false, io.ErrUnexpectedEOF
	}
	return p[start : start+n], u.left == 0, nil
}

func readSome(r io.Reader, p []byte) (n int, err error) {
	for range 100 {
		if n, err = r.Read(p); n > 0 || err != nil {
			return n, err
		}
	}
	return 0, io.ErrNoProgress
}

// chunk frames the n bytes in p, and ends the body with them if they are the
// last.
func chunk(p *[32 << 10]byte, n int, last bool) []byte {
	start, end := beforePiece, beforePiece+n
	if n > 0 {
		var digits [beforePiece]byte
		size := append(strconv.AppendInt(digits[:0], int64(n), 16), "\r\n"...)
		start -= len(size)
		copy(p[start:], size)
		end += copy(p[end:], "\r\n")
	}
	if last {
		end += copy(p[end:], "0\r\n\r\n")
	}
	return p[start:end]
}

// failed ends the upload where reading the body failed.
func (u *upload) failed(err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.state, u.fault = failed, err
	u.conn.sock.Close()
}

// ended is the end of an upload whose body was read without a fault.
func (u *upload) ended(s uploadState) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.state = s
	switch {
	case u.heir && s == sent && u.conn.nc.SetWriteDeadline(time.Time{}) == nil:
		u.conn.shelf.put(u.conn)
	case u.heir:
		u.conn.close()
	case s == sent && !u.answered && u.head > 0:
		_ = u.conn.nc.SetReadDeadline(time.Now().Add(u.head))
		if u.ctx.Err() != nil { // the interrupt may have been undone by that
			u.conn.interrupt()
		}
	}
}

// answerCame lifts the bound on the wait for the answer's head.
func (u *upload) answerCame() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.answered = true
}

// release is for when the answer has ended. A connection on which the body has
// not is of no further use.
func (u *upload) release(reusable bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case u.state == sent && reusable:
		u.conn.shelf.put(u.conn)
	case u.state == ending && reusable && u.conn.nc.SetWriteDeadline(time.Now().Add(lastWrite)) == nil:
		u.heir = true
	default:
		u.conn.close()
	}
}

// err is what reading the body failed with, if it did.
func (u *upload) err() error {
	if u == nil {
		return nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.fault
}
