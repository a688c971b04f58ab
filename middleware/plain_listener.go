package middleware

import (
	"context"
	"errors"
	"net"
	"sync"

	"github.com/sluice-gateway/sluice/middleware/http1"
)

// plainListener serves the plain requests of a listener without TLS, and is
// the listener from which net/http gets the connections of all others.
type plainListener struct {
	*limitedListener
	server *http1.Server
	others chan net.Conn // handed over, to be accepted
	faults chan error    // of accepting
	ended  chan struct{} // closed when accept has returned

	stopping sync.Once // no connection is accepted any more
	stopped  chan struct{}
	closing  sync.Once // nothing is handed over any more
	closed   chan struct{}
}

// newPlainListener makes one of ln. conf lacks where connections are handed
// over to.
func newPlainListener(ln *limitedListener, conf http1.Config) *plainListener {
	l := &plainListener{
		limitedListener: ln, others: make(chan net.Conn), faults: make(chan error),
		ended: make(chan struct{}), stopped: make(chan struct{}), closed: make(chan struct{}),
	}
	conf.HandOver = l.handOver
	l.server = http1.New(conf)
	go l.accept()
	return l
}

// accept has connections served until stop. Who takes its errors decides how
// soon it goes on.
func (l *plainListener) accept() {
	defer close(l.ended)
	for {
		c, err := l.limitedListener.Accept()
		if err == nil {
			go l.server.ServeConn(c.(http1.Conn)) // until Shutdown of the server
			continue
		}
		select {
		case <-l.stopped: // which is the error's cause
			return
		default:
		}
		select {
		case <-l.stopped:
			return
		case l.faults <- err:
		}
	}
}

func (l *plainListener) handOver(c net.Conn) {
	select {
	case l.others <- c:
	case <-l.closed:
		_ = c.Close()
	}
}

// Accept returns the next connection that is net/http's to serve.
func (l *plainListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.others:
		return c, nil
	case err := <-l.faults:
		return nil, err
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// stop ends accepting.
func (l *plainListener) stop() {
	l.stopping.Do(func() {
		close(l.stopped)
		_ = l.limitedListener.Close()
	})
}

// Close ends accepting and handing over.
func (l *plainListener) Close() error {
	l.stop()
	l.closing.Do(func() { close(l.closed) })
	return nil
}

// shutDown has what is being served end. Once nothing is left to be handed
// over it calls settled.
func (l *plainListener) shutDown(ctx context.Context, settled func()) error {
	l.stop()
	return l.server.Shutdown(ctx, settled)
}

// finish closes what still serves, and waits for accept. A handler that does
// not mind the end of its request is not waited for, as net/http does not.
func (l *plainListener) finish() {
	_ = l.Close()
	ended, end := context.WithCancelCause(context.Background())
	end(errors.New("the listener is closed"))
	_ = l.server.Shutdown(ended, func() {})
	<-l.ended
}
