package proxy

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
)

// replayLimit is how much of a request body is kept for another attempt.
const replayLimit = 64 << 10

// errDetached ends the reads of an attempt that is over.
var errDetached = errors.New("the attempt is over")

// requestBody is the client's body, shared by the attempts of one request.
// Each attempt reads it through a view of its own; what an abandoned view
// still reads from the client is kept for the next one.
type requestBody struct {
	src    io.Reader
	length int64 // -1 is unknown
	onEnd  func()

	n     atomic.Int64          // bytes read from the client
	ended atomic.Bool           // the body was read to its end
	fault atomic.Pointer[error] // what the client's side failed with

	read sync.Mutex // held while reading src, which may block
	buf  []byte     // what was read, as long as it is kept

	state   sync.Mutex // held for moments only
	keep    bool
	lost    bool // bytes were read that are not kept
	waiting bool // a read waits for the client
	halted  bool // no read may start any more
}

func newRequestBody(src io.Reader, length int64, keep bool, onEnd func()) *requestBody {
	return &requestBody{src: src, length: length, onEnd: onEnd, keep: keep && length <= replayLimit}
}

// complete reports whether the client's whole body has been read.
func (b *requestBody) complete() bool {
	return b == nil || b.ended.Load() || b.length >= 0 && b.n.Load() >= b.length
}

// err is what reading the client's body failed with, if it did.
func (b *requestBody) err() error {
	if b == nil {
		return nil
	}
	if p := b.fault.Load(); p != nil {
		return *p
	}
	return nil
}

// replayable reports whether a new view would see the body from its start.
func (b *requestBody) replayable() bool {
	if b == nil {
		return true
	}
	b.state.Lock()
	defer b.state.Unlock()
	return !b.lost
}

// halt has every further read fail and reports whether one is waiting for the
// client just now.
func (b *requestBody) halt() (waiting bool) {
	if b == nil {
		return false
	}
	b.state.Lock()
	defer b.state.Unlock()
	b.halted = true
	return b.waiting
}

// settle stops keeping: no further attempt will follow.
func (b *requestBody) settle() {
	if b == nil {
		return
	}
	b.state.Lock()
	b.keep = false
	b.state.Unlock()
}

// view returns a reader from the body's start; the one before must be closed
// and replayable true.
func (b *requestBody) view() *bodyView { return &bodyView{body: b} }

// bodyView is one attempt's reader. Close does not wait for a Read that is
// blocked on the client.
type bodyView struct {
	body   *requestBody
	off    int
	closed bool // under body.state
}

// Close implements io.Closer.
func (v *bodyView) Close() error {
	v.body.state.Lock()
	v.closed = true
	v.body.state.Unlock()
	return nil
}

// closeUnlessWaiting closes v, unless it waits for the client: then the time
// that passes is the client's. A nil view has no body to wait for.
func (v *bodyView) closeUnlessWaiting() bool {
	if v == nil {
		return true
	}
	v.body.state.Lock()
	defer v.body.state.Unlock()
	if v.body.waiting {
		return false
	}
	v.closed = true
	return true
}

// Read implements io.Reader.
func (v *bodyView) Read(p []byte) (int, error) {
	b := v.body
	b.read.Lock()
	defer b.read.Unlock()

	room, err := v.admit()
	if err != nil {
		return 0, err
	}
	if v.off < len(b.buf) {
		n := copy(p, b.buf[v.off:])
		v.off += n
		return n, nil
	}
	defer b.rest()
	if room > 0 && len(p) > room {
		p = p[:room]
	}
	n, err := b.src.Read(p)
	b.n.Add(int64(n))
	if room > 0 {
		b.store(p[:n])
		v.off += n
	}
	switch {
	case err == io.EOF:
		b.end()
	case err != nil:
		b.fault.CompareAndSwap(nil, &err)
	}
	return n, err
}

// admit decides, in one step with Close and halt, whether v may read, and
// whether it will wait for the client. room is how many bytes may still be
// kept: 0 when what is read now is lost for a replay.
func (v *bodyView) admit() (room int, err error) {
	b := v.body
	b.state.Lock()
	defer b.state.Unlock()
	switch {
	case v.closed || b.halted:
		return 0, errDetached
	case v.off < len(b.buf):
		return 0, nil
	case b.err() != nil:
		return 0, b.err()
	case b.ended.Load():
		return 0, io.EOF
	}
	if b.keep {
		room = replayLimit - len(b.buf)
	}
	if room == 0 && !b.complete() {
		b.lost = true
	}
	b.waiting = true
	return room, nil
}

// rest ends what admit began.
func (b *requestBody) rest() {
	b.state.Lock()
	b.waiting = false
	b.state.Unlock()
}

// store keeps p; called with read held.
func (b *requestBody) store(p []byte) {
	if b.buf == nil && b.length > 0 {
		b.buf = make([]byte, 0, b.length)
	}
	b.buf = append(b.buf, p...)
}

func (b *requestBody) end() {
	if !b.ended.Swap(true) && b.onEnd != nil {
		b.onEnd()
	}
}
