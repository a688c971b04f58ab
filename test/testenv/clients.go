package testenv

import (
	"sync"
	"sync/atomic"
	"time"
)

// Clients send one request after the other, each waiting for its answer,
// until Stop. Safe for concurrent use.
type Clients struct {
	t       TB
	sent    atomic.Int64
	failed  atomic.Int64
	why     atomic.Pointer[error] // of the first failure
	stop    chan struct{}
	working sync.WaitGroup
}

// StartClients starts n of them; send sends one request and says what was
// wrong with its answer.
func StartClients(t TB, n int, send func() error) *Clients {
	c := &Clients{t: t, stop: make(chan struct{})}
	for range n {
		c.working.Go(func() { c.run(send) })
	}
	return c
}

func (c *Clients) run(send func() error) {
	for {
		select {
		case <-c.stop:
			return
		default:
		}
		c.sent.Add(1)
		if err := send(); err != nil {
			c.failed.Add(1)
			c.why.CompareAndSwap(nil, &err)
		}
	}
}

// Await waits until as many more requests were sent.
func (c *Clients) Await(more int64) {
	c.t.Helper()
	before := c.sent.Load()
	Eventually(c.t, 30*time.Second, "the clients go on", func() bool { return c.sent.Load() >= before+more })
}

// Stop waits for the requests under way. The test fails if any has failed.
func (c *Clients) Stop() {
	c.t.Helper()
	close(c.stop)
	c.working.Wait()
	if n := c.failed.Load(); n != 0 {
		c.t.Fatalf("%d of %d requests failed, the first with: %v", n, c.sent.Load(), *c.why.Load())
	}
}
