package wire

import (
	"errors"
	"fmt"
	"io"
)

var errBodyClosed = errors.New("read of a closed response body")

// body is a response's body on the connection it comes from. It gives the
// connection back at its end, and closes it everywhere else.
type body struct {
	*exchange
	reusable   bool
	left       int64 // of the length, or of the chunk
	chunks     *chunks
	untilClose bool
	end        error // sticky; the connection is no longer ours
}

// Read implements io.Reader. io.EOF comes with the last bytes.
func (b *body) Read(p []byte) (int, error) {
	if b.end != nil {
		return 0, b.end
	}
	if len(p) == 0 {
		return 0, nil
	}
	n, err := b.read(p)
	if err != nil {
		b.finish(err)
		return n, b.end
	}
	return n, nil
}

// Close implements io.Closer.
func (b *body) Close() error {
	if b.end == nil {
		b.finish(errBodyClosed)
	}
	return nil
}

func (b *body) finish(err error) {
	if err == io.EOF {
		b.end = err
		b.release(b.reusable && !b.untilClose)
		return
	}
	b.end = err
	if fault := b.up.err(); fault != nil {
		b.end = fmt.Errorf("send request body: %w", fault)
	}
	if cause := b.ended(); cause != nil && err != errBodyClosed {
		b.end = cause
	}
	b.drop()
}

func (b *body) read(p []byte) (int, error) {
	switch {
	case b.untilClose:
		return b.some(p)
	case b.chunks != nil:
		return b.readChunks(p)
	}
	n, err := b.part(p)
	if err == nil && b.left == 0 {
		err = io.EOF
	}
	return n, err
}

// part reads bytes that are known to belong to the body: at most left.
func (b *body) part(p []byte) (int, error) {
	if int64(len(p)) > b.left {
		p = p[:b.left]
	}
	n, err := b.some(p)
	b.left -= int64(n)
	switch {
	case err == io.EOF && b.left > 0:
		err = io.ErrUnexpectedEOF
	case err == io.EOF:
		err = nil
		b.reusable = false
	}
	return n, err
}

// some takes what is buffered, or else reads from the connection.
func (b *body) some(p []byte) (int, error) {
	c := b.conn
	if c.buffered() == 0 && b.chunks != nil && b.left < readSize {
		// What follows the rest of the chunk is wanted too.
		if err := c.fill(readSize); err != nil {
			return 0, err
		}
	}
	if c.buffered() > 0 {
		n := copy(p, c.buf[c.r:c.w])
		c.r += n
		return n, nil
	}
	c.freeBuffer() // the reader has its own
	return b.exchange.read(p)
}
