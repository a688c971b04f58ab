package wire

import (
	"sync"
	"time"
)

// pool keeps the connections to each address. There is no lock that requests
// to different addresses share.
type pool struct {
	timeout time.Duration
	limit   int      // of the idle ones of an address
	shelves sync.Map // address → *shelf
}

// shelf is the connections to one address. It is on the map as long as there
// is one.
type shelf struct {
	pool    *pool
	address string

	mu   sync.Mutex
	open int     // all that are made, or being made, and not closed
	idle []*conn // the latest used at the end
	// era grows when all that is open shall go: a connection of an earlier one
	// is not kept.
	era   int
	timer *time.Timer
	armed bool // the timer runs
	gone  bool // off the map
}

// place counts a connection that is about to be made.
func (p *pool) place(address string) (s *shelf, era int) {
	for {
		v, ok := p.shelves.Load(address)
		if !ok {
			v, _ = p.shelves.LoadOrStore(address, &shelf{pool: p, address: address})
		}
		s := v.(*shelf)
		s.mu.Lock()
		if !s.gone {
			s.open++
			era := s.era
			s.mu.Unlock()
			return s, era
		}
		s.mu.Unlock()
	}
}

// displace takes back what place counted.
func (s *shelf) displace() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open--; s.open > 0 {
		return
	}
	s.gone = true
	if s.timer != nil {
		s.timer.Stop()
	}
	s.pool.shelves.CompareAndDelete(s.address, s)
}

// get takes the connection that was used last and is still fit, or nil.
func (p *pool) get(address string) *conn {
	v, ok := p.shelves.Load(address)
	if !ok {
		return nil
	}
	s := v.(*shelf)
	for {
		c := s.pop()
		if c == nil {
			return nil
		}
		if time.Since(c.idleSince) < p.timeout && c.quiet() {
			return c
		}
		c.close()
	}
}

func (s *shelf) pop() *conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := len(s.idle) - 1
	if last < 0 {
		return nil
	}
	c := s.idle[last]
	s.idle[last] = nil
	s.idle = s.idle[:last]
	return c
}

// put keeps c, unless there is no room for it or its time is over.
func (s *shelf) put(c *conn) {
	c.freeBuffer()
	c.answered = false
	c.use = nil
	c.idleSince = time.Now()
	if !s.shelve(c) {
		c.close()
	}
}

func (s *shelf) shelve(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.era != s.era || len(s.idle) >= s.pool.limit {
		return false
	}
	s.idle = append(s.idle, c)
	switch {
	case s.timer == nil:
		s.timer = time.AfterFunc(s.pool.timeout, s.sweep)
	case !s.armed:
		s.timer.Reset(s.pool.timeout)
	}
	s.armed = true
	return true
}

// sweep closes what was idle for too long.
func (s *shelf) sweep() {
	s.mu.Lock()
	now := time.Now()
	old := 0
	for old < len(s.idle) && now.Sub(s.idle[old].idleSince) >= s.pool.timeout {
		old++
	}
	closing := s.take(old)
	if s.armed = len(s.idle) > 0; s.armed {
		s.timer.Reset(s.pool.timeout - now.Sub(s.idle[0].idleSince))
	}
	s.mu.Unlock()
	for _, c := range closing {
		c.close()
	}
}

// take removes the n that are idle for longest.
func (s *shelf) take(n int) []*conn {
	taken := append([]*conn(nil), s.idle[:n]...)
	rest := copy(s.idle, s.idle[n:])
	clear(s.idle[rest:])
	s.idle = s.idle[:rest]
	return taken
}

// retire closes what is idle, and has what is in use closed once it is free.
func (s *shelf) retire() {
	s.mu.Lock()
	s.era++
	closing := s.take(len(s.idle))
	s.mu.Unlock()
	for _, c := range closing {
		c.close()
	}
}

func (p *pool) retire(address string) {
	if v, ok := p.shelves.Load(address); ok {
		v.(*shelf).retire()
	}
}

func (p *pool) retireAll() {
	p.shelves.Range(func(_, v any) bool {
		v.(*shelf).retire()
		return true
	})
}

// count returns how many connections to address there are, and how many of
// them are idle.
func (p *pool) count(address string) (open, idle int) {
	v, ok := p.shelves.Load(address)
	if !ok {
		return 0, 0
	}
	s := v.(*shelf)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open, len(s.idle)
}
