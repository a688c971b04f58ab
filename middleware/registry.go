package middleware

import (
	"context"
	"iter"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/sluice-gateway/sluice/middleware/store"
	"github.com/sluice-gateway/sluice/routing"
)

// Registry holds what plugins keep between requests: counters, caches, key
// sets. What it holds is found by a key, so that it outlives the table and
// the document that it was made for, and is let go once no configuration
// uses it any more. Safe for concurrent use.
type Registry struct {
	log   *slog.Logger
	redis *store.Redis // nil without one

	mu       sync.Mutex
	kept     map[string]*kept
	byConfig map[any][]string // compiled configuration to the keys it uses
	ctx      context.Context  // of Run; nil before and after
	running  sync.WaitGroup

	// cookies are the names that cookieOwners among kept own.
	cookies atomic.Pointer[[]string]
}

// kept is one thing that the registry holds.
type kept struct {
	value any
	stop  context.CancelFunc // nil while nothing runs
}

// runner is a kept value that works in the background: it refreshes keys,
// reads a file again. Run returns soon after ctx ends.
type runner interface{ Run(ctx context.Context) }

// cookieOwner is a kept value that is found by a cookie of the gateway's own.
// That cookie, and those whose names go on with "-", never reach an instance,
// whatever the route: a browser sends it to all of a host.
type cookieOwner interface{ OwnCookie() string }

// NewRegistry makes an empty registry. redis is nil where the gateway has
// none.
func NewRegistry(log *slog.Logger, redis *store.Redis) *Registry {
	return &Registry{log: log, redis: redis, kept: map[string]*kept{}, byConfig: map[any][]string{}}
}

// Run runs what is kept, and what will be, until ctx ends. Nothing works in
// the background of a registry that does not run: documents can be checked
// without side effects.
func (r *Registry) Run(ctx context.Context) error {
	r.mu.Lock()
	r.ctx = ctx
	for _, k := range r.kept {
		r.start(k)
	}
	r.mu.Unlock()
	<-ctx.Done()
	r.mu.Lock()
	r.ctx = nil
	r.mu.Unlock()
	r.running.Wait()
	return nil
}

// start runs k in the background, if it has anything to do there and the
// registry runs. Under the lock.
func (r *Registry) start(k *kept) {
	run, ok := k.value.(runner)
	if !ok || r.ctx == nil || k.stop != nil {
		return
	}
	ctx, stop := context.WithCancel(r.ctx)
	k.stop = stop
	r.running.Go(func() { run.Run(ctx) })
}

// Retain lets go of what no configuration uses. Call it from the goroutine
// that builds tables, after a swap, with the configurations of the new table.
func (r *Registry) Retain(configs iter.Seq[any]) {
	r.mu.Lock()
	defer r.mu.Unlock()
	live := make(map[any]bool, len(r.byConfig))
	if len(r.byConfig) > 0 {
		for c := range configs {
			if _, keeps := r.byConfig[c]; keeps {
				live[c] = true
			}
		}
	}
	used := make(map[string]bool, len(r.kept))
	for c, keys := range r.byConfig {
		if !live[c] {
			delete(r.byConfig, c)
			continue
		}
		for _, k := range keys {
			used[k] = true
		}
	}
	for key, k := range r.kept {
		if used[key] {
			continue
		}
		delete(r.kept, key)
		if k.stop != nil {
			k.stop()
		}
	}
	r.collectCookies()
}

// collectCookies lists the cookies that what is kept owns. Under the lock.
func (r *Registry) collectCookies() {
	var names []string
	for _, k := range r.kept {
		if o, ok := k.value.(cookieOwner); ok && !slices.Contains(names, o.OwnCookie()) {
			names = append(names, o.OwnCookie())
		}
	}
	r.cookies.Store(&names)
}

// ownCookies are the cookies that must not reach an instance.
func (r *Registry) ownCookies() []string {
	if names := r.cookies.Load(); names != nil {
		return *names
	}
	return nil
}

// Len is the number of things kept.
func (r *Registry) Len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.kept)
}

// Place is where a plugin configuration stands and what Prepare may use.
type Place struct {
	routing.Place
	registry *Registry
	keys     []string
}

// At is the path of a field of the configuration, for faults.
func (p *Place) At(name string) string { return Field(p.Place.Field, name) }

// Redis is the store that gateways share, or nil.
func (p *Place) Redis() *store.Redis { return p.registry.redis }

// Log is for a plugin's own messages.
func (p *Place) Log() *slog.Logger { return p.registry.log }

// Keep returns what the registry holds under key for configurations, and
// makes it where there is nothing. The key has to name everything that make
// depends on; it begins with the plugin's name, and holds p.Key where
// documents must not share. A value with a method Run(context.Context) is run
// in the background for as long as a configuration in force uses it.
func Keep[T any](p *Place, key string, make func() T) T {
	r := p.registry
	r.mu.Lock()
	defer r.mu.Unlock()
	p.keys = append(p.keys, key)
	k := r.kept[key]
	if k == nil {
		k = &kept{value: make()}
		r.kept[key] = k
		r.start(k)
		r.collectCookies()
	}
	return k.value.(T)
}

// used notes what config keeps. Called when the configuration has no fault.
func (p *Place) used(config any) {
	if len(p.keys) == 0 {
		return
	}
	r := p.registry
	r.mu.Lock()
	defer r.mu.Unlock()
	r.byConfig[config] = p.keys
}
