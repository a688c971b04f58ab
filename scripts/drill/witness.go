package main

import (
	"encoding/json"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/test/testenv"
)

const (
	// witnessEvery is how often a witness asks.
	witnessEvery = 5 * time.Millisecond
	// redisTimeout is the gateway's bound for a call, its default.
	redisTimeout = 50 * time.Millisecond
)

// span is a stretch of time.
type span struct{ from, to time.Time }

func (s span) meets(o span) bool { return !s.to.Before(o.from) && !s.from.After(o.to) }

// around is s made longer at both ends.
func (s span) around(by time.Duration) span { return span{s.from.Add(-by), s.to.Add(by)} }

// meetsAny says whether s meets one of others, each made longer at both ends.
func (s span) meetsAny(others []span, by time.Duration) bool {
	for _, o := range others {
		if s.meets(o.around(by)) {
			return true
		}
	}
	return false
}

// witness asks what takes part in a drill, each a small question at a time,
// and remembers when its turn and the answer together took longer than the
// gateway waits for Redis: then the machine, or that process, paused.
type witness struct {
	stop chan struct{}
	done sync.WaitGroup

	mu     sync.Mutex
	pauses []span
	by     map[string]int // how many, by whom
}

// watch begins to ask: Redis servers by PING, gateways for their health, and
// a Redis of its own that nothing happens to.
func watch(p testenv.TB, servers []*testenv.Redis, gateways []*testenv.Gateway) *witness {
	w := &witness{stop: make(chan struct{}), by: map[string]int{}}
	for _, r := range servers {
		w.ask("redis", r.Addr, "PING\r\n")
	}
	w.ask("the machine", testenv.StartRedis(p).Addr, "PING\r\n")
	for _, g := range gateways {
		w.ask("the gateway", g.Addr, "HEAD /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
	}
	return w
}

// ask asks addr question again and again, over one connection while that
// lasts. What does not answer at all is no pause.
func (w *witness) ask(name, addr, question string) {
	w.done.Go(func() {
		var conn net.Conn
		for {
			began := time.Now()
			select {
			case <-w.stop:
				if conn != nil {
					_ = conn.Close()
				}
				return
			case <-time.After(witnessEvery):
			}
			var err error
			if conn == nil {
				if conn, err = net.DialTimeout("tcp", addr, time.Second); err != nil {
					conn = nil
					continue
				}
			}
			if err = exchange(conn, question); err != nil {
				_ = conn.Close()
				conn = nil
				continue
			}
			if now := time.Now(); now.Sub(began) > redisTimeout {
				w.mu.Lock()
				w.pauses = append(w.pauses, span{began, now})
				w.by[name]++
				w.mu.Unlock()
			}
		}
	})
}

// exchange sends a question and reads the answer, which is short.
func exchange(conn net.Conn, question string) error {
	if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, question); err != nil {
		return err
	}
	_, err := conn.Read(make([]byte, 4096))
	return err
}

// end stops the witness. Then pauses and by stand still.
func (w *witness) end() {
	close(w.stop)
	w.done.Wait()
}

// spell is a stretch in which a gateway counted Redis as away, by its log, and
// the error that made it.
type spell struct {
	span
	cause string
}

// spells reads a gateway's log. One that has not ended lasts until now.
func spells(g *testenv.Gateway) []spell {
	var all []spell
	for line := range strings.Lines(g.Log()) {
		var entry struct {
			Time       time.Time
			Msg, Error string
		}
		if json.Unmarshal([]byte(line), &entry) != nil {
			continue // not every line is the log's
		}
		switch {
		case strings.HasPrefix(entry.Msg, "redis is away"):
			all = append(all, spell{span{entry.Time, time.Now()}, entry.Error})
		case entry.Msg == "redis is back" && len(all) > 0:
			all[len(all)-1].to = entry.Time
		}
	}
	return all
}
