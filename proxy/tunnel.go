package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/routing"
	"github.com/sluice-gateway/sluice/routing/balance"
)

// closeWait is how long a close frame may take to leave.
const closeWait = time.Second

// goingAway is a WebSocket close frame as servers send it, unmasked, with
// status 1001 (RFC 6455 sections 5.5.1 and 7.4.1).
var goingAway = []byte{0x88, 0x02, 0x03, 0xE9}

// tunnel hands the client's connection over to the instance's after both
// agreed to a 101 response, and returns when both directions have ended.
func (c *call) tunnel(a *attempt) *routing.Refusal {
	upstream := a.resp.Body.(io.ReadWriteCloser)
	c.deadline.stop()
	c.informing.Lock()
	c.answered = true
	c.informing.Unlock()
	c.headArrived()

	h := c.w.Header()
	removeHopByHop(a.resp.Header)
	mergeHeader(h, a.resp.Header)
	c.setCookies(h, a)
	h["Connection"] = []string{"Upgrade"}
	h["Upgrade"] = []string{"websocket"}
	c.w.WriteHeader(http.StatusSwitchingProtocols)
	if now, ok := c.w.(interface{ WriteHeaderNow() }); ok {
		now.WriteHeaderNow() // Gin only notes the status
	}
	conn, buffered, err := c.client.Hijack()
	if err != nil {
		c.f.log.Error("connection cannot be taken over", "error", err)
		c.abort(a, "client", balance.Neutral)
	}
	defer conn.Close()
	if err := errors.Join(conn.SetDeadline(time.Time{}), buffered.Flush()); err != nil {
		c.x.Aborted = "client"
		a.finish(balance.Neutral)
		return nil
	}
	// The server's reader is left behind: it takes a half-close for a client
	// that went away.
	early, _ := buffered.Reader.Peek(buffered.Reader.Buffered())
	t := &tunnel{client: conn, early: io.MultiReader(bytes.NewReader(early), conn), upstream: upstream, idle: c.svc.Idle}
	c.f.obs.Tunnels(c.svc.Name, 1)
	defer c.f.obs.Tunnels(c.svc.Name, -1)
	t.run(c.r.Context(), &c.f.tunnels)
	a.finish(balance.Success)
	return nil
}

// tunnel is two connections that are copied into each other.
type tunnel struct {
	client   net.Conn
	early    io.Reader // the client's bytes, with what the server had read ahead
	upstream io.ReadWriteCloser
	idle     time.Duration

	last atomic.Int64 // time since base of the last byte
	base time.Time

	mu     sync.Mutex // held while writing to the client
	frames frameTracker
	// leaving is set once a close frame went out: the client may answer it
	// for a moment.
	leaving atomic.Bool
}

// run copies until both directions ended, one failed, both were silent for
// too long, or ctx ended.
func (t *tunnel) run(ctx context.Context, all *tunnels) {
	if !all.add(t) {
		t.goAway()
		return
	}
	defer all.remove(t)
	t.base = time.Now()
	stop := context.AfterFunc(ctx, t.close)
	defer stop()
	if t.idle > 0 {
		watch := t.watch()
		defer watch()
	}
	var up sync.WaitGroup
	up.Go(func() { t.copy(t.upstream, t.early, t.upstream) })
	t.copy((*clientWriter)(t), t.upstream, t.client)
	up.Wait()
	t.close()
}

// watch closes the tunnel after idle without a byte; the returned function
// ends the watch.
func (t *tunnel) watch() (stop func()) {
	var mu sync.Mutex
	var timer *time.Timer
	over := false
	mu.Lock()
	defer mu.Unlock()
	timer = time.AfterFunc(t.idle, func() {
		mu.Lock()
		defer mu.Unlock()
		silent := time.Since(t.base) - time.Duration(t.last.Load())
		switch {
		case over:
		case silent < t.idle:
			timer.Reset(t.idle - silent)
		default:
			t.close()
		}
	})
	return func() {
		mu.Lock()
		defer mu.Unlock()
		over = true
		timer.Stop()
	}
}

// copy moves bytes until src ends, which ends the sending side of dst, or
// until one of them fails, which ends both.
func (t *tunnel) copy(dst io.Writer, src io.Reader, side io.Closer) {
	buf := copyBuffers.Get().(*copyBuffer)
	defer copyBuffers.Put(buf)
	for {
		n, rerr := src.Read(buf[:])
		if n > 0 {
			t.last.Store(int64(time.Since(t.base)))
			if _, err := dst.Write(buf[:n]); err != nil {
				t.close()
				if !t.leaving.Load() {
					return
				}
				// What the client still says is read and dropped: closing over
				// unread bytes would reset the close frame away.
			}
		}
		if rerr == nil {
			continue
		}
		half, ok := side.(interface{ CloseWrite() error })
		if rerr != io.EOF || !ok || half.CloseWrite() != nil {
			t.close()
		}
		return
	}
}

// clientWriter writes towards the client and keeps track of the frames.
type clientWriter tunnel

func (w *clientWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.leaving.Load() {
		return 0, net.ErrClosed
	}
	w.frames.see(p)
	return w.client.Write(p)
}

// close ends both connections; the client's stays for run to close while it
// has the time to read the close frame.
func (t *tunnel) close() {
	t.upstream.Close()
	if !t.leaving.Load() {
		t.client.Close()
	}
}

// goAway ends both connections, with a close frame where the client has just
// had whole frames.
func (t *tunnel) goAway() {
	// A write that waits for a client that does not read lets go of mu.
	_ = t.client.SetDeadline(time.Now().Add(closeWait))
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.frames.between() && !t.leaving.Load() {
		if _, err := t.client.Write(goingAway); err == nil {
			t.leaving.Store(true)
		}
	}
	t.close()
}

// tunnels are the open ones.
type tunnels struct {
	mu     sync.Mutex
	open   map[*tunnel]struct{}
	closed bool
}

// add reports false once all were closed.
func (s *tunnels) add(t *tunnel) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	if s.open == nil {
		s.open = map[*tunnel]struct{}{}
	}
	s.open[t] = struct{}{}
	return true
}

func (s *tunnels) remove(t *tunnel) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, t)
}

func (s *tunnels) closeAll() int {
	s.mu.Lock()
	s.closed = true
	open := make([]*tunnel, 0, len(s.open))
	for t := range s.open {
		open = append(open, t)
	}
	s.mu.Unlock()
	var all sync.WaitGroup
	for _, t := range open {
		all.Go(t.goAway)
	}
	all.Wait()
	return len(open)
}
