package proxy

// frameTracker follows the frames of a WebSocket stream (RFC 6455 section
// 5.2) just closely enough to know where one ends. It reads and holds no
// payload.
type frameTracker struct {
	head   [14]byte // of the frame that is coming in
	have   int      // bytes of head so far
	left   uint64   // bytes of payload still to come
	closed bool     // a close frame went by: nothing may follow it
}

// between reports whether the stream stands between two frames and is open.
func (f *frameTracker) between() bool { return f.have == 0 && f.left == 0 && !f.closed }

// see takes the next bytes of the stream.
func (f *frameTracker) see(p []byte) {
	for len(p) > 0 {
		if f.left > 0 {
			n := min(f.left, uint64(len(p)))
			f.left -= n
			p = p[n:]
			continue
		}
		f.head[f.have] = p[0]
		f.have++
		p = p[1:]
		if f.have >= 2 && f.have == f.headLen() {
			f.left = f.payload()
			f.closed = f.closed || f.head[0]&0x0f == 0x8
			f.have = 0
		}
	}
}

// headLen is the length of the head, known from its second byte.
func (f *frameTracker) headLen() int {
	n := 2
	switch f.head[1] & 0x7f {
	case 126:
		n += 2
	case 127:
		n += 8
	}
	if f.head[1]&0x80 != 0 {
		n += 4 // masking key
	}
	return n
}

// payload is the length that a complete head announces.
func (f *frameTracker) payload() uint64 {
	size := uint64(f.head[1] & 0x7f)
	ext := 0
	switch size {
	case 126:
		ext = 2
	case 127:
		ext = 8
	default:
		return size
	}
	size = 0
	for _, b := range f.head[2 : 2+ext] {
		size = size<<8 | uint64(b)
	}
	return size
}
