package etcd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	// statusTTL is how long the status of a gateway that died stands, in
	// seconds.
	statusTTL = 10
	// statusGap bounds the writes of one gateway to ten a second.
	statusGap = 100 * time.Millisecond
	// farewellTimeout bounds the removal of the key at the end.
	farewellTimeout = 500 * time.Millisecond
)

// StatusPublisher keeps PREFIX/status/GATEWAY at the value published last,
// under a lease: the key goes when the gateway does.
type StatusPublisher struct {
	cfg Config
	key string
	log *slog.Logger

	mu    sync.Mutex
	value []byte
	// changed has room for one: it says that value is newer than what was
	// written.
	changed chan struct{}
}

// NewStatusPublisher returns a publisher for the gateway of that name. cfg
// must be enabled.
func NewStatusPublisher(cfg Config, gateway string, log *slog.Logger) (*StatusPublisher, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	if gateway == "" || strings.Contains(gateway, "/") {
		return nil, fmt.Errorf("status key: gateway name %q must not be empty or hold a slash", gateway)
	}
	return &StatusPublisher{
		cfg: cfg, key: cfg.statusPrefix() + gateway, log: log, changed: make(chan struct{}, 1),
	}, nil
}

// Publish makes value the status. It returns at once; of several values in a
// tenth of a second the newest is written. The value must not change
// afterwards.
func (p *StatusPublisher) Publish(value []byte) {
	p.mu.Lock()
	p.value = value
	p.mu.Unlock()
	p.touch()
}

func (p *StatusPublisher) touch() {
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

func (p *StatusPublisher) latest() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.value
}

// Run writes until ctx ends, then removes the key. Like a source it outlives
// every failure of etcd.
func (p *StatusPublisher) Run(ctx context.Context) error {
	var wait retry
	for {
		start := time.Now()
		err := p.session(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if time.Since(start) > steady {
			wait.reset()
		}
		p.log.Debug("status key is not kept", "key", p.key, "error", err)
		if !sleep(ctx, wait.next(err)) {
			return nil
		}
	}
}

// session keeps the key under one lease.
func (p *StatusPublisher) session(ctx context.Context) error {
	// The client outlives ctx by the farewell.
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	stop := context.AfterFunc(ctx, func() {
		time.AfterFunc(farewellTimeout, end)
	})
	defer stop()
	client, err := p.cfg.dial(life)
	if err != nil {
		return err
	}
	defer client.Close()

	grant, cancel := context.WithTimeout(ctx, callTimeout)
	lease, err := client.Grant(grant, statusTTL)
	cancel()
	if err != nil {
		return fmt.Errorf("grant a lease: %w", err)
	}
	defer func() {
		if ctx.Err() != nil {
			_, _ = client.Revoke(life, lease.ID)
		}
	}()
	alive, err := client.KeepAlive(life, lease.ID)
	if err != nil {
		return fmt.Errorf("keep the lease: %w", err)
	}
	return p.write(ctx, client, lease.ID, alive)
}

// write puts each newer value while the lease lives.
func (p *StatusPublisher) write(ctx context.Context, client *clientv3.Client, lease clientv3.LeaseID,
	alive <-chan *clientv3.LeaseKeepAliveResponse) error {
	if p.latest() != nil {
		p.touch()
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case _, ok := <-alive:
			if !ok {
				return errors.New("the lease is gone")
			}
		case <-p.changed:
			put, cancel := context.WithTimeout(ctx, callTimeout)
			_, err := client.Put(put, p.key, string(p.latest()), clientv3.WithLease(lease))
			cancel()
			if err != nil {
				return fmt.Errorf("put %s: %w", p.key, err)
			}
			if !sleep(ctx, statusGap) {
				return ctx.Err()
			}
		}
	}
}

// WatchStatuses calls fn with the status of every live gateway, by name, now
// and after each change, until fn returns true. The map is fn's own. It goes
// on through failures of etcd, and returns an error only when ctx ends first
// or access is denied.
func (w *Writer) WatchStatuses(ctx context.Context, fn func(map[string][]byte) (done bool)) error {
	var wait retry
	for {
		done, err := w.watchStatuses(ctx, fn)
		if done {
			return nil
		}
		if errors.Is(err, ErrDenied) {
			return err
		}
		w.log.Debug("statuses are listed again", "error", err)
		if !sleep(ctx, wait.next(err)) {
			return fmt.Errorf("watch statuses: %w", errors.Join(ctx.Err(), err))
		}
	}
}

func (w *Writer) watchStatuses(ctx context.Context, fn func(map[string][]byte) bool) (done bool, err error) {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	prefix := w.cfg.statusPrefix()
	entries, revision, err := w.List(ctx, prefix)
	if err != nil {
		return false, err
	}
	statuses := make(map[string][]byte, len(entries))
	for _, e := range entries {
		statuses[strings.TrimPrefix(e.Key, prefix)] = e.Value
	}
	if fn(maps.Clone(statuses)) {
		return true, nil
	}
	client, err := w.connect()
	if err != nil {
		return false, err
	}
	for res := range client.Watch(ctx, prefix, clientv3.WithPrefix(), clientv3.WithRev(revision+1)) {
		if err := res.Err(); err != nil {
			return false, explain(err)
		}
		for _, ev := range res.Events {
			name := strings.TrimPrefix(string(ev.Kv.Key), prefix)
			if ev.Type == clientv3.EventTypeDelete {
				delete(statuses, name)
			} else {
				statuses[name] = ev.Kv.Value
			}
		}
		if fn(maps.Clone(statuses)) {
			return true, nil
		}
	}
	return false, errors.New("the watch ended")
}
