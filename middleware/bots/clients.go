package bots

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"time"
)

// shards are locked apart, so that requests of different clients do not wait
// for each other.
const shards = 16

// assessEvery is how many requests of a client that is no suspect share one
// look at it.
const assessEvery = 4

// Clients is what is known of the clients. Safe for concurrent use.
type Clients struct {
	seed  maphash.Seed
	epoch time.Time
	parts [shards]shard
}

type shard struct {
	mu      sync.Mutex
	max     int
	clients map[netip.Addr]*client
	// newest.lru.older leads from the client that was seen last to the first.
	newest, oldest *client
}

// links are a client's place in the order in which clients were seen.
type links struct {
	key          netip.Addr
	newer, older *client
}

// New makes room for at most max clients (at least 16).
func New(max int) *Clients {
	c := &Clients{seed: maphash.MakeSeed(), epoch: time.Now()}
	for i := range c.parts {
		c.parts[i] = shard{max: max / shards, clients: map[netip.Addr]*client{}}
	}
	return c
}

// Visit is what became of one request.
type Visit struct {
	// Score is the client's; Suspect says that it reaches the threshold.
	Score   int
	Suspect bool
	// Blocked is for how long the client is blocked; 0 if it is not.
	Blocked time.Duration

	key netip.Addr
	n   uint64
}

// Arrive takes in a request and judges its client. A blocked client's
// requests are not taken in; once its time is over it is a stranger again.
func (c *Clients) Arrive(addr netip.Addr, path string, rules *Rules) Visit {
	key := subscriber(addr)
	now := time.Since(c.epoch)
	hash := uint32(maphash.String(c.seed, path))
	s := c.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	cl := s.get(key)
	if cl.blocked > 0 && (now >= cl.blocked || rules.BlockFor == 0) {
		*cl = client{lru: cl.lru}
	}
	if cl.blocked > 0 {
		return Visit{Score: cl.score, Suspect: true, Blocked: cl.blocked - now}
	}
	cl.record(request{at: now, path: hash}, rules.Window)
	if cl.n%assessEvery == 0 || cl.score >= rules.Threshold {
		cl.score = cl.assess(now, rules)
	}
	v := Visit{Score: cl.score, Suspect: cl.score >= rules.Threshold, key: key, n: cl.n}
	if v.Suspect && rules.BlockFor > 0 {
		cl.blocked = now + rules.BlockFor
		v.Blocked = rules.BlockFor
	}
	return v
}

// Failed notes that the request of v was answered as those of scanners are:
// not known, not allowed, not there.
func (c *Clients) Failed(v Visit) {
	s := c.shard(v.key)
	s.mu.Lock()
	defer s.mu.Unlock()
	cl := s.clients[v.key]
	if cl != nil && v.n > 0 && v.n <= cl.n && cl.n-v.n < recent {
		cl.ring[(v.n-1)%recent].failed = true
	}
}

// Len is the number of clients that are known.
func (c *Clients) Len() (n int) {
	for i := range c.parts {
		s := &c.parts[i]
		s.mu.Lock()
		n += len(s.clients)
		s.mu.Unlock()
	}
	return n
}

// subscriber is what clients are told apart by.
func subscriber(addr netip.Addr) netip.Addr {
	if !addr.Is6() {
		return addr
	}
	p, err := addr.WithZone("").Prefix(64)
	if err != nil {
		return addr
	}
	return p.Addr()
}

func (c *Clients) shard(key netip.Addr) *shard {
	return &c.parts[maphash.Comparable(c.seed, key)%shards]
}

// get finds or makes a client and makes it the newest. Under the lock.
func (s *shard) get(key netip.Addr) *client {
	cl := s.clients[key]
	switch {
	case cl != nil:
		s.unlink(cl)
	case len(s.clients) >= s.max: // the oldest makes room, and its memory is used again
		cl = s.oldest
		s.unlink(cl)
		delete(s.clients, cl.lru.key)
		*cl = client{lru: links{key: key}}
		s.clients[key] = cl
	default:
		cl = &client{lru: links{key: key}}
		s.clients[key] = cl
	}
	cl.lru.older = s.newest
	if s.newest != nil {
		s.newest.lru.newer = cl
	}
	s.newest = cl
	if s.oldest == nil {
		s.oldest = cl
	}
	return cl
}

func (s *shard) unlink(cl *client) {
	newer, older := cl.lru.newer, cl.lru.older
	if newer != nil {
		newer.lru.older = older
	} else {
		s.newest = older
	}
	if older != nil {
		older.lru.newer = newer
	} else {
		s.oldest = newer
	}
	cl.lru.newer, cl.lru.older = nil, nil
}
