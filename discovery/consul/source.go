package consul

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/discovery"
)

// Source follows one Consul agent. Its methods may be called from any
// goroutine; Run is called once.
type Source struct {
	cfg     Config
	log     *slog.Logger
	client  *client
	budget  budget
	timing  timing
	counts  counts
	changed chan struct{} // something to report or to settle; capacity 1
	more    chan struct{} // the queue is not empty; capacity 1

	mu       sync.Mutex
	ctx      context.Context // of Run; nil before and after
	group    sync.WaitGroup  // the watches of Run
	sink     discovery.Sink
	wanted   map[discovery.ServiceRef]bool
	services map[discovery.ServiceRef]*service // wanted or announced
	catalog  catalog                           // of the agent's own datacenter
	shared   map[string]*shared                // by datacenter
	running  map[watch]context.CancelFunc
	failing  map[watch]bool         // watches whose last query failed
	answered bool                   // there was a good answer
	lost     bool                   // the agent is out of reach
	back     time.Time              // it was back in reach
	tables   map[watch]uint64       // last index of watches over a datacenter
	fell     map[string]time.Time   // when such an index fell, by datacenter
	urgent   []discovery.ServiceRef // to read now
	slow     []discovery.ServiceRef // to read when nothing is urgent
	waiters  []waiter
	report   report
	// remembered stands for answers until the first report.
	remembered discovery.State
}

// timing holds the durations that tests shorten.
type timing struct {
	waitLow, waitHigh time.Duration // of one blocking query
	slack             time.Duration // deadline beyond the wait
	read              time.Duration // deadline of a query that does not block
	hold              time.Duration // what a fallen index keeps alive
	rotateLow         time.Duration // a shared service is read again
	rotateHigh        time.Duration // within these
}

func defaultTiming() timing {
	return timing{
		waitLow: 30 * time.Second, waitHigh: 60 * time.Second,
		slack: 5 * time.Second, read: 10 * time.Second, hold: 30 * time.Second,
		rotateLow: 20 * time.Second, rotateHigh: 40 * time.Second,
	}
}

type counts struct {
	queries, failures, changes, rereads, sweeps atomic.Uint64
}

// Stats counts what the source did since it was made.
type Stats struct {
	Queries  uint64 // asked of the agent
	Failures uint64 // of them, without a good answer
	Changes  uint64 // answers that changed something
	Rereads  uint64 // services read because of a shared watch or in rotation
	Sweeps   uint64 // all shared services read because none could be singled out

	Connections int // open now
	Direct      int // services with a blocking query of their own
	Shared      int // services that share the watches of their datacenter
}

var _ discovery.Source = (*Source)(nil)

// New makes a source for the agent in cfg. It connects to nothing yet; its
// errors are those of the configuration and the files it names.
func New(cfg Config, log *slog.Logger) (*Source, error) {
	if cfg.Address == "" {
		return nil, errors.New("consul.address: is empty, so consul is switched off")
	}
	if err := errors.Join(cfg.Validate("consul")...); err != nil {
		return nil, err
	}
	log = log.With("source", discovery.SourceConsul)
	c, err := newClient(cfg, sourceConnections(cfg.MaxConnections), log)
	if err != nil {
		return nil, err
	}
	return &Source{
		cfg: cfg, log: log, client: c,
		budget:   divide(cfg.MaxConnections),
		timing:   defaultTiming(),
		changed:  make(chan struct{}, 1),
		more:     make(chan struct{}, 1),
		wanted:   make(map[discovery.ServiceRef]bool),
		services: make(map[discovery.ServiceRef]*service),
		shared:   make(map[string]*shared),
		running:  make(map[watch]context.CancelFunc),
		failing:  make(map[watch]bool),
		tables:   make(map[watch]uint64),
		fell:     make(map[string]time.Time),
	}, nil
}

// Name is discovery.SourceConsul.
func (s *Source) Name() string { return discovery.SourceConsul }

// Remember gives the source the state that an earlier run has stored. What an
// agent has lost since is held as if this run had seen it. Call it before Run.
func (s *Source) Remember(st discovery.State) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remembered = st
	if s.cfg.SelfRegisteredRoutes && st.Announced != nil {
		s.catalog = catalog{announced: maps.Clone(st.Announced), held: make(map[string]time.Time), index: uint64(st.Revision)}
	}
}

// Run follows the agent until ctx ends; then it returns nil. The first report
// comes once the agent answered and every service known so far has been
// answered or has failed.
func (s *Source) Run(ctx context.Context, sink discovery.Sink) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.mu.Lock()
	s.ctx, s.sink = ctx, sink
	s.reconcile()
	for range s.budget.readers {
		s.group.Go(func() { s.readQueue(ctx) })
	}
	s.group.Go(func() { s.tend(ctx) })
	s.mu.Unlock()
	s.wake()

	s.publish(ctx)

	s.mu.Lock()
	s.ctx = nil // no watch starts from here on
	s.mu.Unlock()
	cancel()
	s.group.Wait()
	s.client.transport.CloseIdleConnections()
	return nil
}

// Want sets the services that documents name, exactly. It takes effect at
// once, before Run or during it.
func (s *Source) Want(refs []discovery.ServiceRef) {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.wanted)
	for _, r := range refs {
		s.wanted[r] = true
	}
	s.reconcile()
	s.wake()
}

// Pending is how many of the services that are wanted or announced have
// neither been answered nor failed so far, and one for the catalog of
// announcements as long as that holds for it.
func (s *Source) Pending() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pending()
}

func (s *Source) pending() int {
	n := 0
	if s.cfg.SelfRegisteredRoutes && !s.catalog.settled {
		n = 1
	}
	for _, svc := range s.services {
		if !svc.settled {
			n++
		}
	}
	return n
}

// Synced says whether nothing is pending.
func (s *Source) Synced() bool { return s.Pending() == 0 }

type waiter struct {
	refs []discovery.ServiceRef
	done chan struct{}
}

// Settled returns a channel that is closed once each of refs has been
// answered, and the answer reported, or has failed at least once since it was
// wanted. A service that nothing wants counts as settled. Nothing is settled
// before Run, so a caller brings its own time limit.
func (s *Source) Settled(refs []discovery.ServiceRef) <-chan struct{} {
	w := waiter{refs: refs, done: make(chan struct{})}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiters = append(s.waiters, w)
	s.wake()
	return w.done
}

// Stats returns the counts of this moment.
func (s *Source) Stats() Stats {
	st := Stats{
		Queries:     s.counts.queries.Load(),
		Failures:    s.counts.failures.Load(),
		Changes:     s.counts.changes.Load(),
		Rereads:     s.counts.rereads.Load(),
		Sweeps:      s.counts.sweeps.Load(),
		Connections: int(s.client.open.Load()),
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, svc := range s.services {
		if svc.direct {
			st.Direct++
		} else {
			st.Shared++
		}
	}
	return st
}

// wake makes publish look; it never blocks.
func (s *Source) wake() { signal(s.changed) }

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
