package routing

import "net/http"

// MaxParams is how many parameters one path may have.
const MaxParams = 16

// Request is what matching looks at. It is a value, so that asking costs no
// allocation and explain can ask without a request.
type Request struct {
	Method string
	// Host is the authority as sent; case, port and a trailing dot do not
	// matter.
	Host string
	// Path is the normalised path.
	Path Path
	// RawQuery and Header are read by predicates only.
	RawQuery string
	Header   http.Header
}

// Path is a request path after normalisation (see Normalize): dot segments
// resolved, needless escapes decoded, %2F kept as data.
type Path struct {
	// Forward is what goes to the instance: "//" kept as sent.
	Forward string
	// Match is what routes are matched against: "//" folded into "/", and
	// escapes of reserved characters decoded. It is the same string as
	// Forward where there was nothing to fold.
	Match string
}

// Param is one path parameter: the name in the route's path ("*" for a
// catch-all without one), and the value as it stands in Path.Forward, in its
// escaped form. A catch-all's value has no leading slash.
type Param struct{ Name, Value string }

// Outcome is what looking up a request came to.
type Outcome uint8

// Outcomes of Table.Match.
const (
	NotFound Outcome = iota
	MethodNotAllowed
	Matched
)

// Match is what one request matched in one table. It is filled in place by
// Table.Match, without allocating, and belongs to one request.
type Match struct {
	Table *Table
	Route *Route
	// Service is nil for redirect and respond routes.
	Service *Service
	Path    Path
	params  [MaxParams]Param
	nparams int
	// Allow lists the methods that would have matched, with
	// MethodNotAllowed only.
	Allow []string
}

// Params returns the path parameters in the order they stand in the path.
// The slice is valid as long as the Match.
func (m *Match) Params() []Param { return m.params[:m.nparams] }
