package limit

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/sluice-gateway/sluice/middleware/store"
)

//go:embed limit.lua
var source string

// tick is the unit of the script's times.
const tick = 100 * time.Nanosecond

// Shared holds the requests of each key to several rules in Redis, together
// with every other gateway that does. It is safe for concurrent use.
type Shared struct {
	redis  *store.Redis
	script *store.Script
	scope  string
	suffix []string
	args   []any
}

// NewShared makes a limiter of rules of one algorithm, in the order of Sort.
// Those with the same scope and rule count together.
func NewShared(r *store.Redis, scope string, rules []Rule) *Shared {
	s := &Shared{redis: r, script: store.NewScript(source), scope: scope, args: []any{string(rules[0].Algorithm)}}
	for _, rule := range rules {
		s.suffix = append(s.suffix, "}:"+rule.String())
		var interval, slack int64
		if rule.Algorithm == TokenBucket || rule.Algorithm == LeakyBucket {
			interval, slack = rule.interval(tick), rule.slack(tick)
		}
		s.args = append(s.args, rule.Requests, int64(rule.Per/tick), interval, slack)
	}
	return s
}

// Take counts a request of key now, if it fits within every rule: one round
// trip, shared with what else is asked meanwhile. The error is the store's; then the request may have been counted.
func (s *Shared) Take(ctx context.Context, key []byte) (Decision, error) {
	reply, err := s.redis.Eval(ctx, s.script, s.keys(key), s.args)
	if err != nil {
		return Decision{}, err
	}
	if len(reply) != 5 {
		return Decision{}, fmt.Errorf("the script answered %d numbers, not 5", len(reply))
	}
	d := Decision{Allowed: reply[0] == 1, Rule: int(reply[2]) - 1, Remaining: int(reply[3]), Reset: time.Duration(reply[4]) * tick}
	if d.Allowed {
		d.Wait = time.Duration(reply[1]) * tick
	} else {
		d.RetryAfter = time.Duration(reply[1]) * tick
	}
	return d, nil
}

// keys names what Redis keeps for key. All share a hash tag, so that they lie
// in one slot of a cluster; it is a digest, because a key may hold a secret
// and be of any length.
func (s *Shared) keys(key []byte) []string {
	tuple := make([]byte, 0, 256)
	tuple = binary.AppendUvarint(tuple, uint64(len(s.scope)))
	tuple = append(append(tuple, s.scope...), key...)
	digest := sha256.Sum256(tuple)
	tag := "sluice:limit:{" + base64.RawURLEncoding.EncodeToString(digest[:18])
	keys := make([]string, len(s.suffix))
	for i, suffix := range s.suffix {
		keys[i] = tag + suffix
	}
	return keys
}
