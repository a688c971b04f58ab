package routing

import (
	"strings"
	"time"
)

// Codes of problems; the label of sluice_route_problems.
const (
	ProblemSyntax   = "invalid_document" // not JSON or YAML, or not a mapping
	ProblemField    = "invalid_field"    // a field is unknown or its value is not accepted
	ProblemPlugin   = "invalid_plugin"   // a plugin is unknown or its configuration wrong
	ProblemConflict = "conflict"         // another, older route has the same match
	ProblemActive   = "invalid_active"   // the active key cannot be read or names no subset
	ProblemKey      = "invalid_key"      // the key's name cannot be one
	ProblemTag      = "invalid_tag"      // a Consul tag cannot be read
)

// What a problem's document still serves.
const (
	ServingLastGood = "last_good"
	ServingNothing  = "nothing"
)

// Problem says why one document is not serving as written.
type Problem struct {
	Key      string    `json:"key"`
	Revision int64     `json:"revision"`
	Code     string    `json:"code"`
	Message  string    `json:"message"`
	Since    time.Time `json:"since"`
	Serving  string    `json:"serving"`
}

// Fault is one thing wrong with a document.
type Fault struct {
	// Field is the path to the field: "plugins.jwt.leeway", "targets[1].address".
	Field string
	// Message says what is wrong and what is accepted. It never quotes a
	// value that may be secret.
	Message string
	// Code is one of the Problem codes.
	Code string
}

// Error gives "field: message".
func (f Fault) Error() string {
	if f.Field == "" {
		return f.Message
	}
	return f.Field + ": " + f.Message
}

// Faults is every fault of one document.
type Faults []Fault

// Error joins the faults with "; ".
func (fs Faults) Error() string {
	parts := make([]string, len(fs))
	for i, f := range fs {
		parts[i] = f.Error()
	}
	return strings.Join(parts, "; ")
}
