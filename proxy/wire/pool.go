package wire

import (
	"sync"
	"sync/atomic"
	"time"
)

// pool keeps idle connections by address. There is no lock that requests to
// different addresses share.
type pool struct {
	timeout time.Duration
	limit   int
	shelves sync.Map    // address → *shelf
	closing atomic.Bool // between closeIdle and the next request
}

// shelf is the idle connections of one address, the latest used at the end.
type shelf struct {
	mu    sync.Mutex
	idle  []*conn
	timer *time.Timer // runs while something is idle
	gone  bool        // off the map: nothing may be put here
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

// put keeps c, unless there is no room for it.
func (p *pool) put(c *conn) {
	c.freeBuffer()
	c.answered = false
	c.use = nil
	c.idleSince = time.Now()
	for {
		v, ok := p.shelves.Load(c.address)
		if !ok {
			v, _ = p.shelves.LoadOrStore(c.address, &shelf{})
		}
		switch kept, gone := p.shelve(v.(*shelf), c); {
		case gone:
			continue
		case !kept:
			c.close()
		}
		return
	}
}

func (p *pool) shelve(s *shelf, c *conn) (kept, gone bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.gone:
		return false, true
	case p.closing.Load() || len(s.idle) >= p.limit:
		return false, false
	}
	s.idle = append(s.idle, c)
	if s.timer == nil {
		s.timer = time.AfterFunc(p.timeout, func() { p.sweep(c.address, s) })
	}
	return true, false
}

// sweep closes what was idle for too long, and takes an empty shelf away.
func (p *pool) sweep(address string, s *shelf) {
	s.mu.Lock()
	now := time.Now()
	old := 0
	for old < len(s.idle) && now.Sub(s.idle[old].idleSince) >= p.timeout {
		old++
	}
	closing := append([]*conn(nil), s.idle[:old]...)
	n := copy(s.idle, s.idle[old:])
	clear(s.idle[n:])
	s.idle = s.idle[:n]
	switch {
	case s.gone:
	case n > 0:
		s.timer.Reset(p.timeout - now.Sub(s.idle[0].idleSince))
	default:
		s.gone = true
		p.shelves.CompareAndDelete(address, s)
	}
	s.mu.Unlock()
	for _, c := range closing {
		c.close()
	}
}

func (p *pool) closeIdle() {
	p.closing.Store(true)
	p.shelves.Range(func(address, v any) bool {
		s := v.(*shelf)
		s.mu.Lock()
		idle := s.idle
		s.idle, s.gone = nil, true
		if s.timer != nil {
			s.timer.Stop()
		}
		p.shelves.CompareAndDelete(address, s)
		s.mu.Unlock()
		for _, c := range idle {
			c.close()
		}
		return true
	})
}
