package store

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// maxUnderWay pipelines go to one Redis at one time. Under load, those to
	// a Redis that stands still fail together: as many as make it away.
	maxUnderWay = failuresToAway
	// maxBatch calls leave in one pipeline. The first is answered only once
	// the last is: this is some 1 ms of a Redis.
	maxBatch = 128
	// maxWaiting calls wait for each Redis. It bounds memory; in time they
	// are bounded by their deadlines.
	maxWaiting = 4096
)

var errWaiting = errors.New("too many calls wait for redis")

// call is one script to run. Whoever sends it writes its answer, and nobody
// else touches it until then; its caller may have left.
type call struct {
	script   *Script
	deadline time.Time
	cmd      *redis.Cmd
	err      error // it was not sent
	// woken gets the batch that the caller is to send, or nil once others
	// have sent the call and it is answered.
	woken chan []*call
}

// lines are the calls on their way to each Redis, which is one unless there
// is a cluster. They start no goroutines: a caller sends what waits with it,
// then passes the turn on.
type lines struct {
	mu sync.Mutex
	// to holds a line while something is on it, so that nodes which left a
	// cluster are forgotten.
	to map[redis.UniversalClient]*line
}

type line struct {
	underWay int
	waiting  []*call // the oldest first; empty unless maxUnderWay are under way
}

// turn returns at once with c alone if a pipeline may leave. Otherwise c waits
// until it is told to send a batch whose last call it is, or, with a nil
// batch, until c is answered. It returns ctx's error, or DeadlineExceeded,
// once c leaves; then c may yet be sent. Every batch ends with next.
func (l *lines) turn(ctx context.Context, to redis.UniversalClient, c *call) ([]*call, error) {
	switch now, err := l.join(to, c); {
	case err != nil:
		return nil, err
	case now:
		return []*call{c}, nil
	}
	timer := time.NewTimer(time.Until(c.deadline))
	defer timer.Stop()
	var err error
	select {
	case batch := <-c.woken:
		return batch, nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-timer.C:
		err = context.DeadlineExceeded
	}
	l.leave(to, c)
	select {
	case batch := <-c.woken: // others count on it
		return batch, nil
	default:
		return nil, err
	}
}

// join says whether c may be sent at once; if not, c waits.
func (l *lines) join(to redis.UniversalClient, c *call) (bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	on := l.to[to]
	if on == nil {
		on = &line{}
		l.to[to] = on
	}
	if on.underWay < maxUnderWay {
		on.underWay++
		return true, nil
	}
	if len(on.waiting) >= maxWaiting {
		return false, errWaiting
	}
	c.woken = make(chan []*call, 1)
	on.waiting = append(on.waiting, c)
	return false, nil
}

// leave takes c out of those that wait. After it, c is in a batch or gone.
func (l *lines) leave(to redis.UniversalClient, c *call) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if on := l.to[to]; on != nil {
		if i := slices.Index(on.waiting, c); i >= 0 {
			on.waiting = slices.Delete(on.waiting, i, i+1)
		}
	}
}

// next ends a pipeline and hands its place to the calls that wait. The
// youngest of them sends: its deadline is the last, so that none of the
// others is cut short and it is not kept longer than its own.
func (l *lines) next(to redis.UniversalClient) {
	l.mu.Lock()
	defer l.mu.Unlock()
	on := l.to[to]
	n := min(len(on.waiting), maxBatch)
	if n == 0 {
		if on.underWay--; on.underWay == 0 {
			delete(l.to, to)
		}
		return
	}
	batch := on.waiting[:n:n]
	on.waiting = on.waiting[n:]
	batch[n-1].woken <- batch
}
