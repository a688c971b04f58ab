package admin

import (
	"slices"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/routing"
)

// Status is what a gateway says of itself: under /sluice/status/GATEWAY in
// etcd and at /api/v1/status.
type Status struct {
	Gateway string `json:"gateway"`
	// Address is that of the traffic listener.
	Address string `json:"address"`
	// Revision is the etcd revision the table in force stands for;
	// Generation counts its tables.
	Revision   int64  `json:"revision"`
	Generation uint64 `json:"generation"`
	Routes     int    `json:"routes"`
	// Problems and Held explain what is not as written; Active is the choice
	// in effect by service that a route goes to. Undecided are such services
	// whose choice waits for the registry's first answer.
	Problems  []StatusProblem   `json:"problems"`
	Active    map[string]string `json:"active"`
	Held      []routing.Held    `json:"held"`
	Undecided []string          `json:"undecided,omitempty"`
	UpdatedAt time.Time         `json:"updated_at"`
}

// StatusProblem is a problem in its short form.
type StatusProblem struct {
	Key      string `json:"key"`
	Revision int64  `json:"revision"`
	Code     string `json:"code"`
	Message  string `json:"message"`
}

// Bounds of the status key: etcd refuses values over 1.5 MiB, and a thousand
// broken documents must not silence the gateway.
const (
	maxStatusProblems = 200
	maxStatusText     = 1024 // bytes of a key or a message
)

// NewStatus describes t, which may be nil.
func NewStatus(gateway, address string, t *routing.Table, now time.Time) Status {
	s := Status{
		Gateway: gateway, Address: address, UpdatedAt: now.UTC(),
		Problems: []StatusProblem{}, Active: map[string]string{}, Held: []routing.Held{},
	}
	if t == nil {
		return s
	}
	s.Revision, s.Generation, s.Routes = t.Revision, t.Generation, len(t.Routes())
	for _, p := range t.Problems() {
		if len(s.Problems) == maxStatusProblems {
			break
		}
		s.Problems = append(s.Problems, StatusProblem{clip(p.Key), p.Revision, p.Code, clip(p.Message)})
	}
	if a := t.Active(); a != nil {
		s.Active = a
	}
	s.Held = append(s.Held, t.Held()...)
	s.Undecided = t.Undecided()
	return s
}

// clip cuts text that is too long for the status key.
func clip(text string) string {
	if len(text) <= maxStatusText {
		return text
	}
	return strings.ToValidUTF8(text[:maxStatusText], "") + "…"
}

// Same says whether s and o differ in nothing but UpdatedAt and Generation.
func (s Status) Same(o Status) bool {
	if s.Revision != o.Revision || s.Routes != o.Routes || len(s.Problems) != len(o.Problems) ||
		len(s.Active) != len(o.Active) || len(s.Held) != len(o.Held) || !slices.Equal(s.Undecided, o.Undecided) {
		return false
	}
	for i := range s.Problems {
		if s.Problems[i] != o.Problems[i] {
			return false
		}
	}
	for i := range s.Held {
		if s.Held[i] != o.Held[i] {
			return false
		}
	}
	for k, v := range s.Active {
		if w, ok := o.Active[k]; !ok || v != w {
			return false
		}
	}
	return true
}
