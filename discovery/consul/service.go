package consul

import (
	"slices"
	"time"

	"github.com/sluice-gateway/sluice/discovery"
)

// service is what is known of one set of instances. Source.mu guards it.
type service struct {
	instances []discovery.Instance // immutable
	index     uint64               // of the last good answer
	known     bool                 // there was a good answer
	settled   bool                 // there was an answer or a failure
	seen      time.Time            // of the last answer with instances
	heldUntil time.Time            // instances are kept against an empty answer

	direct bool // it has a blocking query of its own
	// What follows is for services without one.
	queued         place
	reading, again bool
	failed         bool
	retry          backoff
	next           time.Time // when to read it again
}

// apply takes a good answer for svc; an empty one is held back until keep,
// or for hold where the index fell. It says whether instances changed.
func (svc *service) apply(found []discovery.Instance, index uint64, now, keep time.Time, hold time.Duration) bool {
	if index < svc.index && svc.heldUntil.IsZero() && keep.Before(now.Add(hold)) {
		keep = now.Add(hold)
	}
	first := !svc.known
	svc.index, svc.known, svc.settled = index, true, true
	if len(found) == 0 && len(svc.instances) > 0 {
		if keep.After(now) && keep.After(svc.heldUntil) {
			svc.heldUntil = keep
		}
		if !svc.heldUntil.IsZero() {
			return false
		}
	} else {
		svc.heldUntil = time.Time{}
	}
	if len(found) > 0 {
		svc.seen = now
	}
	if !first && sameInstances(found, svc.instances) {
		return false
	}
	svc.instances = found
	return true
}

// expire ends a hold that has run out. It says whether instances changed.
func (svc *service) expire(now time.Time) bool {
	if svc.heldUntil.IsZero() || now.Before(svc.heldUntil) {
		return false
	}
	svc.heldUntil, svc.instances = time.Time{}, []discovery.Instance{}
	return true
}

// catalog is what services announce. Source.mu guards it.
type catalog struct {
	announced map[string][]string // the lists are immutable
	held      map[string]time.Time
	index     uint64
	settled   bool
}

// apply takes a good answer. It says whether announcements changed.
func (c *catalog) apply(found map[string][]string, index uint64, now time.Time, hold time.Duration) bool {
	fell := index < c.index
	changed := c.announced == nil
	c.index, c.settled = index, true
	if c.announced == nil {
		c.announced, c.held = make(map[string][]string), make(map[string]time.Time)
	}
	for name, tags := range found {
		delete(c.held, name)
		if old, ok := c.announced[name]; !ok || !slices.Equal(old, tags) {
			c.announced[name] = tags
			changed = true
		}
	}
	for name := range c.announced {
		if _, ok := found[name]; ok {
			continue
		}
		if _, ok := c.held[name]; !ok {
			if fell {
				c.held[name] = now.Add(hold)
				continue
			}
			delete(c.announced, name)
			changed = true
		}
	}
	return changed
}

// expire drops what was held long enough. It says whether announcements
// changed.
func (c *catalog) expire(now time.Time) bool {
	changed := false
	for name, until := range c.held {
		if !now.Before(until) {
			delete(c.held, name)
			delete(c.announced, name)
			changed = true
		}
	}
	return changed
}
