package wire

import (
	"bytes"
	"errors"
	"io"
	"net/http"
)

// chunks is where the reading of a chunked body stands.
type chunks struct {
	trailer *http.Header
	limit   int  // of the trailer section
	inside  bool // a chunk was begun: its end must follow
	last    bool // the last chunk was read: only trailers follow
	// excess is what framing took beyond a fair share of the data.
	excess int64
}

const (
	// maxChunkLine bounds a chunk's size with its extensions.
	maxChunkLine = 4 << 10
	// maxExcess bounds what a body may spend on framing beyond 16 bytes a
	// chunk and twice its data.
	maxExcess = 16 << 10
)

var (
	errChunkLine  = errors.New("a chunk's size is malformed")
	errChunkEnd   = errors.New("a chunk does not end where its size says")
	errChunkWaste = errors.New("the chunks hold too little data")
)

// readChunks reads data of one chunk, or of several as far as they were
// received already.
func (b *body) readChunks(p []byte) (n int, err error) {
	for n < len(p) {
		// What was read does not wait for what may be long in coming.
		switch {
		case n > 0 && !b.ready():
			return n, nil
		case b.chunks.last:
			return n, b.trailers()
		case b.left == 0:
			if err := b.nextChunk(); err != nil {
				return n, err
			}
			continue
		}
		m, err := b.part(p[n:])
		n += m
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// ready reports whether the buffer holds what comes next: data, the line that
// opens a chunk, or all trailers.
func (b *body) ready() bool {
	have := b.conn.buf[b.conn.r:b.conn.w]
	switch {
	case b.chunks.last:
		return bytes.HasPrefix(have, []byte("\r\n")) || bytes.Contains(have, []byte("\r\n\r\n"))
	case b.left > 0:
		return len(have) > 0
	case b.chunks.inside:
		have = have[min(2, len(have)):]
	}
	return bytes.IndexByte(have, '\n') >= 0
}

// nextChunk reads the line that opens a chunk.
func (b *body) nextChunk() error {
	s := b.chunks
	if s.inside {
		end, err := b.conn.line(2)
		if err != nil {
			return err
		}
		if len(end) != 0 {
			return errChunkEnd
		}
		s.inside = false
	}
	line, err := b.conn.line(maxChunkLine)
	if err != nil {
		return err
	}
	size, err := chunkSize(line)
	if err != nil {
		return err
	}
	s.excess = max(s.excess+int64(len(line))+2-16-2*size, 0)
	if s.excess > maxExcess {
		return errChunkWaste
	}
	b.left, s.inside, s.last = size, size > 0, size == 0
	return nil
}

// trailers reads the fields after the last chunk, and then says io.EOF.
func (b *body) trailers() error {
	s := b.chunks
	text, err := b.conn.section(s.limit)
	if err != nil {
		return err
	}
	if text != "" {
		fields := http.Header{}
		if err := parseFields(text, fields, make([]string, lines(text))); err != nil {
			return err
		}
		if *s.trailer == nil {
			*s.trailer = fields
		}
		for name, values := range fields {
			(*s.trailer)[name] = values
		}
	}
	return io.EOF
}

// line takes a line of at most limit bytes with its end, and returns it
// without. It holds until the next read.
func (c *conn) line(limit int) ([]byte, error) {
	for seen := 0; ; {
		b := c.buf[c.r:c.w]
		for ; seen < len(b) && seen < limit; seen++ {
			if b[seen] != '\n' {
				continue
			}
			if seen == 0 || b[seen-1] != '\r' {
				return nil, errBareLF
			}
			c.r += seen + 1
			return b[:seen-1], nil
		}
		if seen >= limit {
			return nil, errChunkLine
		}
		if err := c.fill(max(limit, readSize)); err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
}

// chunkSize reads a line that opens a chunk. Blanks after the size are
// common; extensions mean nothing here.
func chunkSize(line []byte) (int64, error) {
	var n int64
	i := 0
	for ; i < len(line); i++ {
		d := unhex(line[i])
		if d < 0 {
			break
		}
		if n >= 1<<58 {
			return 0, errChunkLine
		}
		n = n<<4 | int64(d)
	}
	rest := line[i:]
	for len(rest) > 0 && (rest[0] == ' ' || rest[0] == '\t') {
		rest = rest[1:]
	}
	if i == 0 || i > 16 || len(rest) > 0 && rest[0] != ';' {
		return 0, errChunkLine
	}
	for _, ch := range rest {
		if ch == '\r' || ch == 0 {
			return 0, errChunkLine
		}
	}
	return n, nil
}

func unhex(b byte) int {
	switch {
	case '0' <= b && b <= '9':
		return int(b - '0')
	case 'a' <= b && b <= 'f':
		return int(b-'a') + 10
	case 'A' <= b && b <= 'F':
		return int(b-'A') + 10
	}
	return -1
}
