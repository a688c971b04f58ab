package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// ErrAway says that Redis counts as away and was not asked.
var ErrAway = errors.New("redis is away")

const (
	// failuresToAway in a row make Redis count as away. One alone may be a
	// pause of this process; calls under way at once fail together, so three
	// take no longer than one timeout under load.
	failuresToAway = 3
	// probeEvery is how often a Redis that is away is asked whether it is
	// back, after a first time at once: well below the second within which it
	// must be used again.
	probeEvery = 100 * time.Millisecond
)

// Redis is a shared store that may be away. Safe for concurrent use.
type Redis struct {
	client   redis.UniversalClient
	log      *slog.Logger
	timeout  time.Duration
	lines    lines
	failures atomic.Int32
	away     atomic.Bool
	returns  atomic.Int64  // how often it has come back
	wake     chan struct{} // tells Run that Redis went away
}

// New makes a store; it connects when it is first used. The errors name the
// configuration keys.
func New(cfg Config, log *slog.Logger) (*Redis, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	password, err := cfg.password()
	if err != nil {
		return nil, err
	}
	secure, err := cfg.TLS.client()
	if err != nil {
		return nil, err
	}
	dialTimeout := max(cfg.Timeout, 250*time.Millisecond)
	client := redis.NewUniversalClient(&redis.UniversalOptions{
		Addrs: cfg.addresses(), MasterName: cfg.SentinelMaster, IsClusterMode: cfg.Cluster,
		Username: cfg.Username, Password: password, DB: cfg.DB, TLSConfig: secure,
		// Only a context's deadline bounds a call to a server that stands
		// still, and only where this is set.
		ContextTimeoutEnabled: true,
		MaxRetries:            -1, // a script that timed out may have run
		DialTimeout:           dialTimeout,
		DialerRetries:         1,
		Dialer:                dial(&redis.Options{DialTimeout: dialTimeout, TLSConfig: secure}),
		ReadTimeout:           cfg.Timeout, WriteTimeout: cfg.Timeout, PoolTimeout: cfg.Timeout,
		PipelinePoolSize:         -1, // the same connections serve pipelines
		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	})
	return &Redis{
		client: client, log: log, timeout: cfg.Timeout, wake: make(chan struct{}, 1),
		lines: lines{to: map[redis.UniversalClient]*line{}},
	}, nil
}

// Run notices when a Redis that was away is back, until ctx ends; then it
// closes the connections. It asks at once, since what made the calls fail may
// have been a pause that is over, of Redis or of the gateway itself.
func (r *Redis) Run(ctx context.Context) error {
	defer func() { _ = r.client.Close() }()
	ticker := time.NewTicker(probeEvery)
	ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.wake:
			ticker.Reset(probeEvery)
		case <-ticker.C:
		}
		if r.probe(ctx) {
			ticker.Stop()
			r.returns.Add(1)
			r.failures.Store(0)
			r.away.Store(false)
			r.log.Info("redis is back")
		}
	}
}

// probe says whether Redis can be used again. It may take its time over a new
// connection, but then it must answer within the bound that calls have, or
// they would fail and it would be away again at once.
func (r *Redis) probe(ctx context.Context) bool {
	return r.write(ctx, max(r.timeout, 250*time.Millisecond)) && r.write(ctx, r.timeout)
}

// write says whether Redis takes a write within bound: a replica that is still
// to be promoted answers, and refuses what the gateway needs.
func (r *Redis) write(ctx context.Context, bound time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	return r.client.Set(ctx, "sluice:probe", 1, time.Minute).Err() == nil
}

// Away says whether Redis counts as away.
func (r *Redis) Away() bool { return r.away.Load() }

// Do calls f with a client and a context that ends after Config.Timeout. It
// returns ErrAway without calling f while Redis counts as away. An answer of
// Redis's own that is no sign of its health (redis.Nil, a script's error)
// comes back as it is. A call has a connection to itself meanwhile. Sessions
// are read so: answers of kilobytes would hold up whatever shares a pipeline.
func (r *Redis) Do(ctx context.Context, f func(ctx context.Context, c redis.UniversalClient) error) error {
	if r.away.Load() {
		return ErrAway
	}
	returns := r.returns.Load()
	bounded, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	err := f(bounded, r.client)
	switch {
	case err == nil, errors.Is(err, redis.Nil):
		r.observe(nil, returns)
		return err
	case ctx.Err() != nil: // the caller left, which says nothing of Redis
		return fmt.Errorf("ask redis: %w", ctx.Err())
	}
	r.observe(err, returns)
	return fmt.Errorf("ask redis: %w", err)
}

// observe counts a call that ended with err towards Redis's health. It began
// when Redis had come back that often.
func (r *Redis) observe(err error, returns int64) {
	if err != nil && unhealthy(err) {
		r.failed(err, returns)
	} else if r.failures.Load() != 0 {
		r.failures.Store(0)
	}
}

// failed counts the failure of a call. One that began before Redis came back
// for the last time tells of what is over.
func (r *Redis) failed(err error, returns int64) {
	if returns != r.returns.Load() {
		return
	}
	if r.failures.Add(1) < failuresToAway || !r.away.CompareAndSwap(false, true) {
		return
	}
	r.log.Warn("redis is away; plugins do what their on_store_error says", "error", err)
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// unhealthy says whether err means that Redis cannot be used now, rather
// than that it did not like a command.
func unhealthy(err error) bool {
	var reply redis.Error
	if !errors.As(err, &reply) {
		return true // no answer: a timeout, a refused or broken connection
	}
	for _, state := range []func(error) bool{
		redis.IsReadOnlyError, redis.IsLoadingError, redis.IsClusterDownError, redis.IsTryAgainError,
		redis.IsMasterDownError, redis.IsMaxClientsError, redis.IsOOMError, redis.IsAuthError, redis.IsPermissionError,
	} {
		if state(err) {
			return true
		}
	}
	var network net.Error
	return errors.As(err, &network)
}

// LogTo has the client library write what it says of itself to log, at level
// debug, instead of in lines of its own to standard error. It is one setting
// for the whole process.
func LogTo(log *slog.Logger) { redis.SetLogger(libraryLog{log}) }

type libraryLog struct{ log *slog.Logger }

// Printf implements the library's logger.
func (l libraryLog) Printf(ctx context.Context, format string, args ...any) {
	l.log.DebugContext(ctx, "redis client", "says", fmt.Sprintf(format, args...))
}
