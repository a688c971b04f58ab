package session

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxSessions bounds what is kept in memory: some kilobytes each.
	maxSessions = 100_000
	sweepEvery  = time.Minute
)

// Memory keeps sessions in this process: those of other gateways it does not
// know, and all are gone when it ends.
type Memory struct {
	sessions sync.Map // id to *entry: reading takes no lock

	mu     sync.Mutex
	count  int
	once   map[string]time.Time // when to forget it
	locked map[string]bool
}

type entry struct {
	subject, sid string
	ends         time.Time
	data         atomic.Pointer[[]byte]
	idle         atomic.Int64 // when it ends unless asked for, in unix nanoseconds
}

// NewMemory makes an empty store.
func NewMemory() *Memory { return &Memory{once: map[string]time.Time{}, locked: map[string]bool{}} }

// Run drops what has ended, until ctx ends.
func (m *Memory) Run(ctx context.Context) {
	ticker := time.NewTicker(sweepEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			m.sweep(now)
		}
	}
}

func (m *Memory) sweep(now time.Time) {
	m.deleteIf(func(e *entry) bool { return e.over(now) })
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, until := range m.once {
		if now.After(until) {
			delete(m.once, name)
		}
	}
}

func (e *entry) over(now time.Time) bool {
	return now.UnixNano() > e.idle.Load() || now.After(e.ends)
}

func (m *Memory) deleteIf(is func(*entry) bool) {
	m.sessions.Range(func(id, value any) bool {
		if is(value.(*entry)) {
			m.remove(id)
		}
		return true
	})
}

func (m *Memory) remove(id any) {
	if _, was := m.sessions.LoadAndDelete(id); was {
		m.mu.Lock()
		m.count--
		m.mu.Unlock()
	}
}

// Get implements Store.
func (m *Memory) Get(_ context.Context, id string, idle time.Duration) ([]byte, error) {
	value, ok := m.sessions.Load(id)
	if !ok {
		return nil, nil
	}
	e, now := value.(*entry), time.Now()
	if e.over(now) {
		m.remove(id)
		return nil, nil
	}
	e.idle.Store(now.Add(idle).UnixNano())
	return *e.data.Load(), nil
}

// Put implements Store.
func (m *Memory) Put(_ context.Context, id string, s *Session, data []byte, idle time.Duration) error {
	m.mu.Lock()
	full := m.count >= maxSessions
	if !full {
		m.count++
	}
	m.mu.Unlock()
	if full {
		return ErrFull
	}
	e := &entry{subject: s.Subject, sid: s.SID, ends: s.Ends}
	e.data.Store(&data)
	e.idle.Store(time.Now().Add(idle).UnixNano())
	m.sessions.Store(id, e)
	return nil
}

// Replace implements Store.
func (m *Memory) Replace(_ context.Context, id string, data []byte, idle time.Duration) (bool, error) {
	value, ok := m.sessions.Load(id)
	if !ok {
		return false, nil
	}
	e := value.(*entry)
	e.data.Store(&data)
	e.idle.Store(time.Now().Add(idle).UnixNano())
	return true, nil
}

// Delete implements Store.
func (m *Memory) Delete(_ context.Context, id string) error {
	m.remove(id)
	return nil
}

// End implements Store. It looks at every session: an issuer seldom asks.
func (m *Memory) End(_ context.Context, sid, subject string) error {
	m.deleteIf(func(e *entry) bool {
		return sid != "" && e.sid == sid || sid == "" && e.subject == subject
	})
	return nil
}

// Once implements Store.
func (m *Memory) Once(_ context.Context, name string, ttl time.Duration) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	if until, seen := m.once[name]; seen && now.Before(until) {
		return false, nil
	}
	if len(m.once) >= maxSessions {
		return false, ErrFull
	}
	m.once[name] = now.Add(ttl)
	return true, nil
}

// Lock implements Store. Whoever holds a lock here cannot vanish, so it has no
// end of its own.
func (m *Memory) Lock(_ context.Context, id string, _ time.Duration) (func(), bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.locked[id] {
		return nil, false, nil
	}
	m.locked[id] = true
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.locked, id)
	}, true, nil
}
