package limit

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Algorithm is how a rule counts.
type Algorithm string

// The algorithms; see the package comment.
const (
	TokenBucket   Algorithm = "token_bucket"
	LeakyBucket   Algorithm = "leaky_bucket"
	FixedWindow   Algorithm = "fixed_window"
	SlidingWindow Algorithm = "sliding_window"
)

// Algorithms lists every algorithm.
func Algorithms() []Algorithm {
	return []Algorithm{TokenBucket, LeakyBucket, FixedWindow, SlidingWindow}
}

// Rule is one limit: Requests per Per. It is immutable.
type Rule struct {
	Algorithm Algorithm
	Requests  int
	Per       time.Duration
	// Burst is how many tokens a full token bucket holds.
	Burst int
	// Queue is how many requests may wait in a leaky bucket, and MaxWait how
	// long one may.
	Queue   int
	MaxWait time.Duration
}

// String writes the rule in a form that no other rule has.
func (r Rule) String() string {
	s := fmt.Sprintf("%s:%d:%s", r.Algorithm, r.Requests, r.Per)
	switch r.Algorithm {
	case TokenBucket:
		s += fmt.Sprintf(":%d", r.Burst)
	case LeakyBucket:
		s += fmt.Sprintf(":%d:%s", r.Queue, r.MaxWait)
	}
	return s
}

// Share is what one of n gateways admits of r while they cannot count
// together: together never more than r, but for each at least one request.
func (r Rule) Share(n int) Rule {
	r.Requests = max(r.Requests/n, 1)
	if r.Algorithm == TokenBucket {
		r.Burst = max(r.Burst/n, 1)
	}
	r.Queue /= n
	return r
}

// Sort puts rules in the one order in which they are held, without repeats.
func Sort(rules []Rule) []Rule {
	slices.SortFunc(rules, func(a, b Rule) int { return cmp.Compare(a.String(), b.String()) })
	return slices.Compact(rules)
}

// interval is the time between two requests of a bucket, in units of unit,
// rounded up.
func (r Rule) interval(unit time.Duration) int64 {
	n := int64(r.Requests) * int64(unit)
	return (int64(r.Per) + n - 1) / n
}

// slack is how far ahead of time a request of a bucket may come.
func (r Rule) slack(unit time.Duration) int64 {
	if r.Algorithm == LeakyBucket {
		return min(int64(r.Queue)*r.interval(unit), int64(r.MaxWait/unit))
	}
	return int64(r.Burst-1) * r.interval(unit)
}

// Decision is what becomes of one request.
type Decision struct {
	Allowed bool
	// Wait is how long an allowed request has to wait for its turn.
	Wait time.Duration
	// RetryAfter is when a refused one would pass if no other came first.
	RetryAfter time.Duration
	// Rule is the place of the rule that refused, or of the one that has least
	// left; Remaining is what it has left, and Reset the time until that is
	// the whole again (fixed_window, buckets) or grows (sliding_window).
	Rule      int
	Remaining int
	Reset     time.Duration
}
