package proxy

import (
	"io"
	"runtime"
)

// ahead reads a body on a goroutine of its own, a piece ahead of whoever
// passes it on: so that one sees whether there is more just now. A unary gRPC
// response, whose head, message and trailers come together, goes out in one
// write and not in three; a message of a stream does not wait for the next.
type ahead struct {
	body   io.ReadCloser
	pieces chan piece
	quit   chan struct{}
}

// piece is what one Read came to.
type piece struct {
	buf *[32 << 10]byte
	n   int
	err error
}

func (p piece) free() { copyBuffers.Put(p.buf) }

// readAhead begins to read body; stop must be called.
func readAhead(body io.ReadCloser) *ahead {
	a := &ahead{body: body, pieces: make(chan piece), quit: make(chan struct{})}
	go a.run()
	return a
}

func (a *ahead) run() {
	defer close(a.pieces)
	for {
		p := piece{buf: copyBuffers.Get().(*[32 << 10]byte)}
		p.n, p.err = a.body.Read(p.buf[:])
		select {
		case a.pieces <- p:
		case <-a.quit:
			p.free()
			return
		}
		if p.err != nil {
			return
		}
	}
}

// next returns the next piece. Where there is none yet, idle is called before
// it waits for one.
func (a *ahead) next(idle func()) piece {
	select {
	case p := <-a.pieces:
		return p
	default:
	}
	// What came together with the last piece may only have to be handed over.
	runtime.Gosched()
	select {
	case p := <-a.pieces:
		return p
	default:
	}
	idle()
	return <-a.pieces
}

// stop ends the reading and returns when nobody reads any more.
func (a *ahead) stop() {
	close(a.quit)
	a.body.Close()
	for p := range a.pieces {
		p.free()
	}
}
