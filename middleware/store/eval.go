package store

import (
	"context"
	"crypto/sha1" // by it Redis knows a script
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"
)

// Script is a Lua script that Redis runs by the name it gives it.
type Script struct{ source, name string }

// NewScript makes a script.
func NewScript(source string) *Script {
	sum := sha1.Sum([]byte(source))
	return &Script{source: source, name: hex.EncodeToString(sum[:])}
}

// once is a command that the client does not send again by itself: in a
// cluster it otherwise does once a connection breaks, and the script may have
// run.
type once struct{ *redis.Cmd }

// NoRetry implements the library's interface.
func (once) NoRetry() bool { return true }

// Eval runs a script on keys, which lie in one slot of a cluster, and returns
// the whole numbers that it answers. Calls that come while others are under
// way leave together, in one pipeline. Deadline and errors are as with Do; the
// deadline includes the time that a call waits for its pipeline. A script
// whose call failed may have run; it is never sent again unless Redis said
// that it did not run it.
func (r *Redis) Eval(ctx context.Context, s *Script, keys []string, args []any) ([]int64, error) {
	if r.away.Load() {
		return nil, ErrAway
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("ask redis: %w", err)
	}
	command := make([]any, 0, 3+len(keys)+len(args))
	command = append(command, "evalsha", s.name, len(keys))
	for _, key := range keys {
		command = append(command, key)
	}
	c := &call{script: s, deadline: time.Now().Add(r.timeout), cmd: redis.NewCmd(ctx, append(command, args...)...)}
	if err := r.ask(ctx, keys[0], c); err != nil {
		return nil, fmt.Errorf("ask redis: %w", err)
	}
	answer, err := c.cmd.Int64Slice()
	if err != nil {
		return nil, fmt.Errorf("ask redis: %w", err)
	}
	return answer, nil
}

// ask returns once c is answered, or the reason why it was not sent or left.
func (r *Redis) ask(ctx context.Context, key string, c *call) error {
	to, err := r.holder(ctx, key)
	if err != nil {
		return err
	}
	batch, err := r.lines.turn(ctx, to, c)
	if err != nil {
		return err
	}
	if batch != nil {
		r.send(to, batch)
	}
	return c.err
}

// holder is the client of the Redis that holds key. The nodes of a cluster
// have each a line of their own: one that stands still keeps nobody from the
// others.
func (r *Redis) holder(ctx context.Context, key string) (redis.UniversalClient, error) {
	cluster, ok := r.client.(*redis.ClusterClient)
	if !ok {
		return r.client, nil
	}
	returns := r.returns.Load()
	bounded, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	node, err := cluster.MasterForKey(bounded, key)
	if err != nil && ctx.Err() == nil {
		r.observe(err, returns)
	}
	return node, err
}

// send sends a batch in one pipeline and wakes its other callers. It does not
// end with the client of the caller that happens to send.
//
// A pipeline counts as one call, however many it carries: one broken
// connection must not make Redis away. It failed if its last script did;
// answers come in order, so that one is the newest word on Redis's health.
func (r *Redis) send(to redis.UniversalClient, batch []*call) {
	last := batch[len(batch)-1]
	defer func() {
		for _, c := range batch[:len(batch)-1] {
			c.woken <- nil
		}
	}()
	defer r.lines.next(to)
	if r.away.Load() { // since they began to wait
		for _, c := range batch {
			c.err = ErrAway
		}
		return
	}
	returns := r.returns.Load()
	ctx, cancel := context.WithDeadline(context.Background(), last.deadline)
	defer cancel()
	pipeline(ctx, to, batch)
	if again := refused(batch); again != nil {
		pipeline(ctx, r.client, again)
	}
	r.observe(last.cmd.Err(), returns)
}

// pipeline sends a batch and returns once each call has its answer or error.
// The client closes a connection on which answers are outstanding.
func pipeline(ctx context.Context, to redis.UniversalClient, batch []*call) {
	if len(batch) == 1 {
		_ = to.Process(ctx, once{batch[0].cmd})
		return
	}
	p := to.Pipeline()
	for _, c := range batch {
		_ = p.Process(ctx, once{c.cmd}) // to a pipeline it adds
	}
	_, _ = p.Exec(ctx) // each command has its own
}

// refused returns those of a batch that were certainly not run, as commands
// that will be: a Redis that restarted does not know the script, a node of a
// cluster has given its keys to another, which the cluster's client finds.
func refused(batch []*call) (again []*call) {
	for _, c := range batch {
		err := c.cmd.Err()
		_, moved := redis.IsMovedError(err)
		_, ask := redis.IsAskError(err)
		if moved || ask || redis.HasErrorPrefix(err, "NOSCRIPT") {
			args := slices.Clone(c.cmd.Args())
			args[0], args[1] = "eval", c.script.source
			c.cmd = redis.NewCmd(context.Background(), args...)
			again = append(again, c)
		}
	}
	return again
}
