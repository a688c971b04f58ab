package routing

import (
	"time"

	"github.com/sluice-gateway/sluice/discovery"
	"github.com/sluice-gateway/sluice/routing/balance"
)

// Deps is what Build needs beside the previous table and the snapshot.
type Deps struct {
	Plugins  Plugins
	Pool     *balance.Pool
	Defaults Defaults
	// TagPrefix marks the Consul tags that make routes ("sluice."); "" makes
	// none.
	TagPrefix string
	// Now is the clock of Since, Built and grace periods.
	Now func() time.Time
	// Remembered is what an earlier run of this gateway left behind; only
	// read where the previous table does not know.
	Remembered Remembered
}

// Defaults are the gateway's own values for what documents leave out.
type Defaults struct {
	// Timeout bounds a request; 0 is none.
	Timeout time.Duration
	// Connect, ResponseHeader and Idle bound the stages of an attempt; 0 is
	// none.
	Connect, ResponseHeader, Idle time.Duration
	// Retries counts further attempts after the first.
	Retries int
}

// Remembered is what outlives a restart through the state directory.
type Remembered struct {
	// Active is the active value in effect by service: where a flip is held,
	// the old choice.
	Active map[string]string `json:"active,omitempty"`
	// Good holds, by key, the last good version of documents whose newest
	// version is wrong.
	Good map[string]*discovery.Document `json:"good,omitempty"`
}

// Remembered returns what a restart of the gateway should know of t.
func (t *Table) Remembered() Remembered {
	r := Remembered{Active: t.choices, Good: map[string]*discovery.Document{}}
	for id := range t.memory.faulty {
		if e := t.memory.entries.get(id); e.good != nil {
			r.Good[e.doc.Key] = e.good
		}
	}
	return r
}
