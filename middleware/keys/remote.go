package keys

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// askEvery bounds how often tokens that name an unknown key cause a
	// fetch, whoever makes up how many of them.
	askEvery = 30 * time.Second
	// maxAbsent bounds the key names remembered as unknown to the issuer.
	maxAbsent = 1024
	// maxKid is the longest key name worth asking the issuer about, in bytes.
	maxKid = 256
	// maxWaiting bounds the requests that wait for a fetch: a flood must not
	// take up every connection while the issuer is slow.
	maxWaiting = 1000
	// retryFirst and retryMost bound the pause after a fetch that failed;
	// retryEmpty does while there are no keys at all, and nobody can pass.
	retryFirst, retryMost, retryEmpty = time.Second, 30 * time.Second, 2 * time.Second
)

// ErrNoKeys says that the key set could not be fetched, ever.
var ErrNoKeys = errors.New("the issuer's keys have not been fetched yet")

// RemoteConfig says how a published set is followed.
type RemoteConfig struct {
	Fetch Fetch
	// Set holds the newest good set; what stands there already is used until
	// the first fetch.
	Set *atomic.Pointer[Set]
	// Interval is the longest time between two fetches; a key that was taken
	// out of the set is refused after it.
	Interval time.Duration
	// Timeout bounds one fetch.
	Timeout time.Duration
	// Close ends what Fetch holds open.
	Close func()
	// Name says in the log whose keys these are; no secret.
	Name string
	Log  *slog.Logger
}

// Remote follows a published set. Safe for concurrent use.
type Remote struct {
	cfg   RemoteConfig
	first chan struct{} // closed once the first fetch has ended
	ask   chan struct{} // tells Run of a new round

	mu      sync.Mutex
	round   *round              // for tokens with unknown keys; nil while none is wanted
	askFrom time.Time           // when another round may begin
	absent  map[string]struct{} // names that a fetch did not find, until the next regular one
	ended   bool
}

// round is one fetch that requests wait for.
type round struct {
	done    chan struct{}
	started bool
	waiting int
	kids    []string // asked for before it started
}

// NewRemote makes a Remote; it fetches nothing until Run.
func NewRemote(cfg RemoteConfig) *Remote {
	return &Remote{cfg: cfg, first: make(chan struct{}), ask: make(chan struct{}, 1), absent: map[string]struct{}{}}
}

// Get returns the newest good set. Until the first fetch has ended it waits
// for that; after a first fetch that failed it returns ErrNoKeys at once.
func (r *Remote) Get(ctx context.Context) (*Set, error) {
	if s := r.cfg.Set.Load(); s != nil {
		return s, nil
	}
	select {
	case <-r.first:
	case <-ctx.Done():
	}
	if s := r.cfg.Set.Load(); s != nil {
		return s, nil
	}
	return nil, ErrNoKeys
}

// Seek is Get for a token with a key that the set does not hold. It has the
// set fetched again, at most once in askEvery, and waits for that fetch; it
// does not wait where none is due, nor where too many do already.
func (r *Remote) Seek(ctx context.Context, kid string) (*Set, error) {
	if round := r.join(kid, time.Now()); round != nil {
		select {
		case <-round.done:
		case <-ctx.Done():
			r.leave(round)
		}
	}
	return r.Get(ctx)
}

// leave takes one who waited out of a round.
func (r *Remote) leave(from *round) {
	r.mu.Lock()
	defer r.mu.Unlock()
	from.waiting--
}

// join returns the round that looks for kid, or nil.
func (r *Remote) join(kid string, now time.Time) *round {
	if len(kid) > maxKid {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, known := r.absent[kid]; known || r.ended {
		return nil
	}
	if r.round == nil {
		if now.Before(r.askFrom) {
			return nil
		}
		r.askFrom = now.Add(askEvery)
		r.round = &round{done: make(chan struct{})}
		select {
		case r.ask <- struct{}{}:
		default:
		}
	}
	if r.round.waiting >= maxWaiting {
		return nil
	}
	r.round.waiting++
	if !r.round.started && len(r.round.kids) < maxAbsent {
		r.round.kids = append(r.round.kids, kid)
	}
	return r.round
}

// Run keeps the set fresh until ctx ends.
func (r *Remote) Run(ctx context.Context) {
	defer r.cfg.Close()
	defer r.end()
	retry, said := retryFirst, ""
	for {
		next := r.cfg.Interval
		asked := r.begin()
		set, err := r.fetch(ctx)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			if said != "" {
				r.cfg.Log.Info("an issuer's keys can be fetched again", "issuer", r.cfg.Name)
			}
			said, retry = "", retryFirst
			r.cfg.Set.Store(set)
		} else {
			if err.Error() != said { // once per fault
				said = err.Error()
				r.cfg.Log.Error("an issuer's keys cannot be fetched; the last good ones stay in use",
					"issuer", r.cfg.Name, "has_keys", r.cfg.Set.Load() != nil, "error", err)
			}
			next = min(retry, r.cfg.Interval)
			retry = min(2*retry, retryMost)
			if r.cfg.Set.Load() == nil {
				retry = min(retry, retryEmpty)
			}
		}
		r.settle(set, asked)
		if !r.rest(ctx, next) {
			return
		}
	}
}

// fetch gets the set once.
func (r *Remote) fetch(ctx context.Context) (*Set, error) {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Timeout)
	defer cancel()
	return r.cfg.Fetch(ctx)
}

// begin starts the round that is wanted, if one is.
func (r *Remote) begin() *round {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.ask:
	default:
	}
	if r.round != nil {
		r.round.started = true
	}
	return r.round
}

// settle lets those go on who wait for the fetch that has ended, and notes
// which names it did not find.
func (r *Remote) settle(set *Set, asked *round) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if set != nil && asked == nil {
		clear(r.absent)
	}
	if set != nil && asked != nil {
		for _, kid := range asked.kids {
			if !set.Has(kid) && len(r.absent) < maxAbsent {
				r.absent[kid] = struct{}{}
			}
		}
	}
	if asked != nil {
		close(asked.done)
		r.round = nil
	}
	r.tried()
}

// end lets everyone go who waits for a fetch that will not come.
func (r *Remote) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = true
	if r.round != nil {
		close(r.round.done)
		r.round = nil
	}
	r.tried()
}

// tried notes that the first fetch has ended. Under the lock.
func (r *Remote) tried() {
	select {
	case <-r.first:
	default:
		close(r.first)
	}
}

// rest waits until the next fetch is due or wanted. Some of the pause is left
// to chance, so that many gateways do not ask at once.
func (r *Remote) rest(ctx context.Context, pause time.Duration) bool {
	timer := time.NewTimer(pause - rand.N(pause/10+1))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.ask:
		// begin looks at the round itself.
	case <-ctx.Done():
		return false
	}
	return true
}
