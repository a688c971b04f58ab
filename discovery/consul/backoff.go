package consul

import (
	"context"
	"math/rand/v2"
	"time"
)

// The distance between retries: at least a tenth of the step and at most the
// whole of it, so that many gateways come back spread out, and none later
// than a second after the agent.
const (
	backoffBase = 250 * time.Millisecond
	backoffCap  = time.Second
)

// backoff counts failures in a row. Any answer resets it.
type backoff struct{ failures int }

func (b *backoff) reset() { b.failures = 0 }

// next is how long to wait before the next try.
func (b *backoff) next() time.Duration {
	step := backoffCap
	if b.failures < 2 {
		step = backoffBase << b.failures
	}
	b.failures++
	return between(step/10, step)
}

// wait sleeps for next and says whether ctx is still alive.
func (b *backoff) wait(ctx context.Context) bool {
	t := time.NewTimer(b.next())
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// between is a random duration in [low, high).
func between(low, high time.Duration) time.Duration {
	if high <= low {
		return low
	}
	return low + rand.N(high-low)
}
