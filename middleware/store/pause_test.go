package store

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// slow runs f beside a store, in a bubble of its own time, whose Redis takes
// delay for each answer.
func slow(t *testing.T, delay time.Duration, f func(r *Redis)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var answering sync.WaitGroup
		defer answering.Wait()
		client := redis.NewClient(&redis.Options{
			ContextTimeoutEnabled: true, MaxRetries: -1, DisableIdentity: true, Protocol: 2,
			MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
			Dialer: func(context.Context, string, string) (net.Conn, error) {
				ours, theirs := net.Pipe()
				answering.Go(func() { answer(theirs, delay) })
				return ours, nil
			},
		})
		r := &Redis{client: client, log: slog.New(slog.DiscardHandler), timeout: Default().Timeout, wake: make(chan struct{}, 1)}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- r.Run(ctx) }()
		f(r)
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// answer says OK to every command but the greeting, which it does not know. A
// command is an array of strings: after the line with their number come two
// lines for each.
func answer(conn net.Conn, delay time.Duration) {
	defer conn.Close()
	r := bufio.NewReader(conn)
	for {
		head, err := r.ReadString('\n')
		if err != nil {
			return
		}
		reply := "+OK\r\n"
		for range 2 * int(strings.TrimSpace(head)[1]-'0') {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			if line == "hello\r\n" {
				reply = "-ERR unknown command\r\n"
			}
		}
		if delay > 0 {
			<-time.After(delay)
		}
		if _, err := io.WriteString(conn, reply); err != nil {
			return
		}
	}
}

func TestAPauseThatIsOverIsForgottenAtOnce(t *testing.T) {
	slow(t, 0, func(r *Redis) {
		begun := time.Now()
		fail := func(calls int, returns int64) {
			for range calls {
				r.failed(errors.New("a timeout"), returns)
			}
			synctest.Wait()
		}
		fail(failuresToAway, 0)
		if r.Away() || r.returns.Load() != 1 || time.Since(begun) > 0 {
			t.Errorf("away: %v, back %d times after %s", r.Away(), r.returns.Load(), time.Since(begun))
		}
		fail(10, 0)
		if r.returns.Load() != 1 {
			t.Error("other calls that the same pause had failed made it away again")
		}
		fail(failuresToAway, 1)
		if r.returns.Load() != 2 {
			t.Error("calls that began since failed, and it was not away")
		}
	})
}

func TestARedisTooSlowForCallsIsNotBack(t *testing.T) {
	slow(t, 2*Default().Timeout, func(r *Redis) {
		for range failuresToAway {
			r.failed(errors.New("a timeout"), 0)
		}
		<-time.After(time.Minute)
		if !r.Away() || r.returns.Load() > 0 {
			t.Errorf("away: %v, back %d times", r.Away(), r.returns.Load())
		}
	})
}
