package middleware

import (
	"fmt"
	"hash/maphash"
	"sync"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/sluice-gateway/sluice/routing"
)

// MaxInFlightConfig is the configuration of the max_in_flight plugin: how
// many requests of one key may be under way at once, in this gateway. A
// request is under way until its answer has been sent, an upgraded connection
// until it is closed.
type MaxInFlightConfig struct {
	Requests int `json:"requests"`
	// Key and IPv6Prefix are those of rate_limit.
	Key        any `json:"key"`
	IPv6Prefix int `json:"ipv6_prefix"`

	key    limitKey
	counts *inFlight
}

const maxInFlightRequests = 1_000_000

func maxInFlightPlugin() *Plugin {
	return Define[MaxInFlightConfig]("max_in_flight", func(c *gin.Context, x *routing.Exchange, config *MaxInFlightConfig) {
		var buf [128]byte
		place := config.counts.enter(config.key.appendTo(buf[:0], c.Request, x), config.Requests)
		if place == nil {
			Reject(c, "max_in_flight", &routing.Refusal{Code: routing.CodeRateLimited,
				Detail: "too many requests at once", RetryAfter: time.Second})
			return
		}
		defer place.leave() // whatever ends the request, a panic too
		c.Next()
	})
}

// Prepare implements PluginConfig.
func (c *MaxInFlightConfig) Prepare(at *Place) routing.Faults {
	key, faults := compileKey(at, c.Key, c.IPv6Prefix)
	if c.Requests < 1 || c.Requests > maxInFlightRequests {
		faults = append(faults, routing.Fault{Field: at.At("requests"),
			Message: fmt.Sprintf("is %d; accepted is 1 to %d", c.Requests, maxInFlightRequests)})
	}
	if len(faults) > 0 {
		return faults
	}
	c.key = key
	c.counts = Keep(at, fmt.Sprintf("max_in_flight/%q/%s", at.Key, key), newInFlight)
	return nil
}

// inFlight counts the requests under way by key. It holds nothing of a key
// that has none. Safe for concurrent use.
type inFlight struct {
	seed   maphash.Seed
	shards [64]inFlightShard
}

type inFlightShard struct {
	mu   sync.Mutex
	keys map[string]*place
	_    [40]byte // a cache line of its own
}

// place is one key's requests under way.
type place struct {
	shard *inFlightShard
	key   string
	count int
}

func newInFlight() *inFlight { return &inFlight{seed: maphash.MakeSeed()} }

// enter counts a request in, or returns nil where most are under way.
func (f *inFlight) enter(key []byte, most int) *place {
	s := &f.shards[maphash.Bytes(f.seed, key)%uint64(len(f.shards))]
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.keys[string(key)]
	if p == nil {
		if s.keys == nil {
			s.keys = map[string]*place{}
		}
		p = &place{shard: s, key: string(key)}
		s.keys[p.key] = p
	}
	if p.count >= most {
		return nil
	}
	p.count++
	return p
}

// leave counts the request out. To be called once for each enter.
func (p *place) leave() {
	p.shard.mu.Lock()
	defer p.shard.mu.Unlock()
	if p.count--; p.count == 0 {
		delete(p.shard.keys, p.key)
	}
}
