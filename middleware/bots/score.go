package bots

import (
	"math"
	"math/bits"
	"time"
)

// recent is how many of a client's requests are looked at.
const recent = 64

// MinRequests and MaxRequests bound Rules.MinRequests.
const (
	MinRequests = 8
	MaxRequests = recent
)

// What each sign can add to the score, which ends at 100. No one of them is
// enough by itself for the usual threshold of 60.
const (
	pointsRate    = 25
	pointsSpread  = 25
	pointsFailed  = 25
	pointsRegular = 35
)

const (
	// A gap between requests shorter than this is no pause: a page and what
	// belongs to it arrive at once, from people too.
	leastPause = 100 * time.Millisecond
	// With fewer pauses their entropy says nothing.
	leastPauses = 12
	// From this share of different paths on spread counts, and fully half
	// above it, where some may still fall on one hash.
	fewPaths = 3.0 / 8
	// Pauses are counted by their octave (50 to 100 ms, 100 to 200 ms…). A
	// script's all fall into one or two: at most 1 bit. Those of a person, or
	// of many behind one address, spread over eight and more: 2.5 bits.
	machineBits, humanBits = 1.0, 2.2
)

// Rules say what is suspicious.
type Rules struct {
	// MinRequests within Window are needed before a client is judged.
	MinRequests int
	Window      time.Duration
	// MaxRate is the rate, in requests a second over Window, that counts
	// fully against a client.
	MaxRate float64
	// Threshold is the score from which a client is a suspect.
	Threshold int
	// BlockFor is how long a suspect is blocked; 0 blocks nobody.
	BlockFor time.Duration
}

// request is what is held of one.
type request struct {
	at     time.Duration // since the epoch of Clients
	path   uint32        // a hash
	failed bool
}

// client is one client's sketch.
type client struct {
	ring  [recent]request
	n     uint64 // requests so far; the last is ring[(n-1)%recent]
	score int
	// blocked is until when; 0 is not.
	blocked time.Duration
	// count and before are the requests of the current window and of the one
	// before it.
	window        int64
	count, before int

	lru links
}

// record takes in a request.
func (c *client) record(r request, window time.Duration) {
	c.ring[c.n%recent] = r
	c.n++
	switch w := int64(r.at / window); {
	case w == c.window:
	case w == c.window+1:
		c.window, c.before, c.count = w, c.count, 0
	default:
		c.window, c.before, c.count = w, 0, 0
	}
	c.count++
}

// rate is the requests a second over the last window: those of the current
// one, and of the one before as many as would still be in it.
func (c *client) rate(now, window time.Duration) float64 {
	into := float64(now%window) / float64(window)
	return (float64(c.count) + float64(c.before)*(1-into)) / window.Seconds()
}

// assess scores what the client has done up to now.
func (c *client) assess(now time.Duration, rules *Rules) int {
	var paths [32]uint64 // one bit for each of 2048 hashes
	var octaves [48]int
	requests, failed, pauses := 0, 0, 0
	var later time.Duration
	for i := range min(c.n, recent) {
		r := &c.ring[(c.n-1-i)%recent]
		if now-r.at > rules.Window {
			break
		}
		if gap := later - r.at; i > 0 && gap >= leastPause {
			octaves[bits.Len64(uint64(gap/leastPause))]++
			pauses++
		}
		later = r.at
		paths[r.path%2048/64] |= 1 << (r.path % 64)
		if r.failed {
			failed++
		}
		requests++
	}
	if requests < rules.MinRequests {
		return 0
	}
	distinct := 0
	for _, word := range paths {
		distinct += bits.OnesCount64(word)
	}
	n := float64(requests)
	rate := unit(c.rate(now, rules.Window) / rules.MaxRate)
	regular := rate // without pauses: how long it has gone on so
	if pauses >= leastPauses {
		regular = unit((humanBits - entropy(octaves[:], pauses)) / (humanBits - machineBits))
	}
	score := pointsRate*rate + pointsSpread*unit((float64(distinct)/n-fewPaths)*2) +
		pointsFailed*unit(float64(failed)/n*2) + pointsRegular*regular
	return min(int(score), 100)
}

// entropy is that of counts, in bits; total is their sum.
func entropy(counts []int, total int) float64 {
	h := math.Log2(float64(total))
	for _, c := range counts {
		if c > 1 {
			h -= float64(c) / float64(total) * math.Log2(float64(c))
		}
	}
	return h
}

// unit bounds x to 0…1.
func unit(x float64) float64 { return min(max(x, 0), 1) }
