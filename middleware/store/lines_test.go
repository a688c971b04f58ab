package store

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
)

// caller is one that waits in a line for a second at most.
type caller struct {
	*call
	leave context.CancelFunc
	batch chan []*call
	err   chan error
}

// ask has somebody wait for a turn.
func ask(l *lines, to redis.UniversalClient) caller {
	ctx, leave := context.WithCancel(context.Background())
	c := caller{&call{deadline: time.Now().Add(time.Second)}, leave, make(chan []*call, 1), make(chan error, 1)}
	go func() {
		batch, err := l.turn(ctx, to, c.call)
		c.batch <- batch
		c.err <- err
	}()
	synctest.Wait()
	return c
}

// full is a line on which no more pipelines may leave.
func full(t *testing.T) (*lines, redis.UniversalClient) {
	l, to := &lines{to: map[redis.UniversalClient]*line{}}, &redis.Client{}
	for range maxUnderWay {
		c := ask(l, to)
		if batch := <-c.batch; len(batch) != 1 || batch[0] != c.call {
			t.Fatalf("a call with nothing before it got %v", batch)
		}
	}
	return l, to
}

func TestTheYoungestOfABatchSendsItAndTheOldestAreInIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, to := full(t)
		var waiting []caller
		for range maxBatch + 2 {
			waiting = append(waiting, ask(l, to))
			time.Sleep(time.Microsecond) // the bubble's clock: deadlines differ
		}
		l.next(to)
		sender := waiting[maxBatch-1]
		batch := <-sender.batch
		if len(batch) != maxBatch || batch[0] != waiting[0].call || batch[maxBatch-1] != sender.call {
			t.Errorf("a batch of %d left", len(batch))
		}
		l.next(to)
		if batch := <-waiting[maxBatch+1].batch; len(batch) != 2 || batch[0] != waiting[maxBatch].call {
			t.Errorf("then one of %d", len(batch))
		}
		for _, c := range append(waiting[:maxBatch-1:maxBatch-1], waiting[maxBatch]) {
			c.woken <- nil
			if batch, err := <-c.batch, <-c.err; batch != nil || err != nil {
				t.Errorf("an answered call got %v, %v", batch, err)
			}
		}
		for range maxUnderWay {
			l.next(to)
		}
		if len(l.to) != 0 {
			t.Error("a line on which nothing is was kept")
		}
	})
}

func TestWhoeverLeavesTheLineIsNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, to := full(t)
		late, stays, gone := ask(l, to), ask(l, to), ask(l, to)
		stays.deadline = stays.deadline.Add(time.Hour)
		gone.leave()
		if err := <-gone.err; !errors.Is(err, context.Canceled) {
			t.Errorf("who left got %v", err)
		}
		if err := <-late.err; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("at its deadline a call got %v", err)
		}
		if err := <-stays.err; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("at its deadline a call got %v", err)
		}
		last := ask(l, to)
		l.next(to)
		if batch := <-last.batch; len(batch) != 1 || batch[0] != last.call {
			t.Errorf("%d left, want the one that stayed", len(batch))
		}
	})
}

func TestWhoLeavesAsItsTurnComesSendsOrLetsAnotherSend(t *testing.T) {
	for range 500 {
		synctest.Test(t, func(t *testing.T) {
			l, to := full(t)
			older, younger := ask(l, to), ask(l, to)
			go younger.leave()
			go l.next(to)
			synctest.Wait()
			batch, err := <-younger.batch, <-younger.err
			if err != nil { // it left in time
				batch = <-older.batch
			} else {
				older.woken <- nil
			}
			if len(batch) == 0 || batch[0] != older.call {
				t.Errorf("nobody sends the other call: %v, %v", batch, err)
			}
		})
	}
}

func TestALineHoldsSoManyAndNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, to := full(t)
		for range maxWaiting {
			if _, err := l.join(to, &call{}); err != nil {
				t.Fatal(err)
			}
		}
		if c := ask(l, to); !errors.Is(<-c.err, errWaiting) {
			t.Error("one more waits")
		}
		if c := ask(l, &redis.Client{}); <-c.batch == nil {
			t.Error("another Redis's line is full as well")
		}
	})
}
