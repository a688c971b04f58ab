package routing

import (
	"fmt"
	"strings"
)

// Outcomes of an Explanation.
const (
	ExplainMatched          = "matched"
	ExplainNotFound         = "not_found"
	ExplainMethodNotAllowed = "method_not_allowed"
	ExplainRefused          = "refused" // the path cannot be normalised or rewritten
)

// Explanation says which route takes a request and why.
type Explanation struct {
	Outcome string `json:"outcome"`
	// Generation and Revision are those of the table that was asked.
	Generation uint64 `json:"generation"`
	Revision   int64  `json:"revision"`

	Method string `json:"method"`
	Host   string `json:"host"`
	// NormalisedPath is what goes on, MatchedPath what routes are matched
	// against where that differs.
	NormalisedPath string `json:"normalised_path,omitempty"`
	MatchedPath    string `json:"matched_path,omitempty"`
	// Refusal says why the path is refused.
	Refusal string   `json:"refusal,omitempty"`
	Allow   []string `json:"allow,omitempty"`

	Winner *ExplainedRoute `json:"winner,omitempty"`
	// Answer is the gateway's own, in place of an instance's, to a request
	// that matches and that the plugins let through; nil where the table
	// knows of none.
	Answer *ExplainedAnswer `json:"answer,omitempty"`
	// Losers are the other routes whose host and path match, in the order in
	// which they would be tried.
	Losers []ExplainedLoser `json:"losers"`

	Params []ExplainedParam `json:"params,omitempty"`
	// ForwardPath is the path that the instance sees; Location where a
	// redirect leads.
	ForwardPath string `json:"forward_path,omitempty"`
	Location    string `json:"location,omitempty"`
	// Plugins are those that the route uses, in the order in which they run.
	Plugins []string `json:"plugins"`

	Service string `json:"service,omitempty"`
	// Subset is the colour that the route is pinned to; Shares are the
	// colours in effect where it is not.
	Subset    string              `json:"subset,omitempty"`
	Shares    []Share             `json:"shares,omitempty"`
	Instances []ExplainedInstance `json:"instances,omitempty"`
}

// ExplainedRoute is the route that takes the request.
type ExplainedRoute struct {
	Name     string   `json:"name"`
	Source   string   `json:"source"`
	Key      string   `json:"key"`
	Revision int64    `json:"revision"`
	State    string   `json:"state"`
	Hosts    []string `json:"hosts,omitempty"`
	Path     string   `json:"path"`
	// Why names the rule that put it before the next route that would have
	// taken the request.
	Why string `json:"why"`
}

// ExplainedAnswer is an answer of the gateway's own.
type ExplainedAnswer struct {
	Status int    `json:"status"`
	Code   Code   `json:"code"`
	Detail string `json:"detail"`
}

// ExplainedLoser is a route whose host and path match, and why it does not
// take the request.
type ExplainedLoser struct {
	Name   string `json:"name"`
	Source string `json:"source"`
	Key    string `json:"key"`
	Reason string `json:"reason"`
}

// ExplainedParam is one path parameter, in its escaped form.
type ExplainedParam struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// ExplainedInstance is one instance that the request may go to.
type ExplainedInstance struct {
	ID      string `json:"id"`
	Address string `json:"address"`
	// Weight is relative to the other instances.
	Weight int      `json:"weight"`
	State  string   `json:"state"`
	Reason string   `json:"reason,omitempty"`
	Tags   []string `json:"tags,omitempty"`
}

// Explain says what Match would do with req and why, by the same walk.
// req.Path.Forward is the path as sent, normalised or not; plugins names the
// plugins by slot.
func (t *Table) Explain(req *Request, plugins []string) Explanation {
	e := Explanation{
		Outcome: ExplainRefused, Generation: t.Generation, Revision: t.Revision,
		Method: req.Method, Host: req.Host,
		Losers: []ExplainedLoser{}, Plugins: []string{},
	}
	path, err := Normalize(req.Path.Forward)
	if err != nil {
		e.Refusal = err.Error()
		return e
	}
	e.NormalisedPath = path.Forward
	if path.Match != path.Forward {
		e.MatchedPath = path.Match
	}
	asked := *req
	asked.Path = path

	var m Match
	switch t.Match(&asked, &m) {
	case NotFound:
		e.Outcome = ExplainNotFound
	case MethodNotAllowed:
		e.Outcome, e.Allow = ExplainMethodNotAllowed, m.Allow
	case Matched:
		e.Outcome = ExplainMatched
	}
	e.explainCandidates(t, &asked)
	if m.Route != nil {
		e.explainMatch(&m, asked.RawQuery, plugins)
	}
	return e
}

// explainCandidates fills in the winner and the losers.
func (e *Explanation) explainCandidates(t *Table, req *Request) {
	var winner, runnerUp *candidateRoute
	seen := map[*Route]bool{}
	s := search{req: req, visit: func(c *candidateRoute) bool {
		if seen[c.route] {
			return false // known by a more specific host of its own
		}
		seen[c.route] = true
		loser := ExplainedLoser{c.route.Name, c.route.Source, c.route.Key, c.failure(req)}
		if loser.Reason == "" {
			switch {
			case winner == nil:
				winner = c
				return false
			case runnerUp == nil:
				runnerUp = c
			}
			_, loser.Reason = winner.before(c)
		}
		e.Losers = append(e.Losers, loser)
		return false
	}}
	s.run(t.index)
	if winner == nil {
		return
	}
	r := winner.route
	e.Winner = &ExplainedRoute{
		Name: r.Name, Source: r.Source, Key: r.Key, Revision: r.Revision, State: r.State,
		Hosts: r.matcher.hosts, Path: r.path(), Why: "no other route takes the request",
	}
	if runnerUp != nil {
		rule, reason := winner.before(runnerUp)
		e.Winner.Why = fmt.Sprintf("%s: of %s, %s", rule, runnerUp.route.Name, reason)
	}
}

// failure says why c does not take req, or "".
func (c *candidateRoute) failure(req *Request) string {
	if c.failed != nil {
		// What it must be is not said: a header's value may be a secret.
		return fmt.Sprintf("predicate %s.%s does not hold", c.field, c.failed.name)
	}
	if c.wrongMethod {
		return fmt.Sprintf("method %s is not one of %s", req.Method, strings.Join(c.route.matcher.methods, ", "))
	}
	return ""
}

// before names the rule by which c goes before l, and says it as a sentence
// about l.
func (c *candidateRoute) before(l *candidateRoute) (rule, reason string) {
	a, b := c.route, l.route
	if c.host != l.host {
		return ruleHost, fmt.Sprintf("its host (%s) is less specific than %s", hostText(l.host), hostText(c.host))
	}
	if a.matcher.path.shape() != b.matcher.path.shape() {
		return rulePath, fmt.Sprintf("its path %s is less specific than %s", b.path(), a.path())
	}
	switch _, rule = compareRoutes(a, b); rule {
	case rulePriority:
		reason = fmt.Sprintf("its priority %d is lower than %d", b.priority(), a.priority())
	case rulePredicates:
		reason = fmt.Sprintf("its predicates are %d, fewer than %d", b.matcher.predicates, a.matcher.predicates)
	case ruleSource:
		reason = fmt.Sprintf("its source %s comes after %s", b.Source, a.Source)
	default:
		reason = fmt.Sprintf("its key %s is not older than %s", b.Key, a.Key)
	}
	return rule, reason
}

func hostText(host string) string {
	if host == "" {
		return "any"
	}
	return host
}

func (r *Route) path() string {
	if r.Spec == nil {
		return ""
	}
	return r.Spec.Path
}

// explainMatch fills in what follows from the route that matched.
func (e *Explanation) explainMatch(m *Match, rawQuery string, plugins []string) {
	for _, p := range m.Params() {
		e.Params = append(e.Params, ExplainedParam(p))
	}
	for slot, name := range plugins {
		if slot < len(m.Route.Plugins) && m.Route.Plugins[slot] != nil {
			e.Plugins = append(e.Plugins, name)
		}
	}
	var err error
	switch {
	case m.Route.matcher.rewrite.to != nil:
		e.Location, err = m.Location(rawQuery)
	case m.Service != nil:
		e.ForwardPath, err = m.Target()
	}
	if err != nil {
		e.Outcome, e.Refusal = ExplainRefused, err.Error()
	}
	if m.Route.State == RouteInvalid {
		e.answer(CodeRouteInvalid, "the route's configuration is not valid, and it never had one that was")
	}
	if m.Service == nil {
		return
	}
	e.Service, e.Subset = m.Service.Name, m.Route.Subset
	subset := m.Service.All
	if e.Subset != "" {
		subset = m.Service.subsets[e.Subset]
	} else {
		e.Shares = m.Service.Shares()
	}
	e.explainInstances(subset)
	if e.Outcome == ExplainMatched && e.Answer == nil && !m.Service.serves(e.Subset) {
		e.answer(CodeNoHealthyInstance, "no instance of "+m.Service.wanted(e.Subset)+" passes")
	}
}

func (e *Explanation) answer(code Code, detail string) {
	e.Answer = &ExplainedAnswer{Status: code.Status(), Code: code, Detail: detail}
}

// serves says whether a request to s, pinned to a colour or not, may meet a
// subset with instances, as Choose would find it.
func (s *Service) serves(pin string) bool {
	sub := s.All
	switch {
	case pin != "":
		sub = s.subsets[pin]
	case len(s.split.shares) > 0:
		return true
	case len(s.choice.serving) > 0:
		sub = s.split.fallback
	}
	return sub != nil && len(sub.Instances) > 0 || s.standIn != nil && len(s.standIn.Instances) > 0
}

// wanted names what serves asks about.
func (s *Service) wanted(pin string) string {
	if pin == "" {
		pin = s.choice.serving.String()
	}
	if pin == "" {
		return "service " + s.Name
	}
	return "service " + s.Name + " in " + pin
}

func (e *Explanation) explainInstances(subset *Subset) {
	if subset == nil {
		return
	}
	for i, in := range subset.Instances {
		x := ExplainedInstance{ID: in.ID, Address: in.Address, Weight: in.Weight, Tags: in.Tags}
		if i < len(subset.Endpoints) {
			x.State, x.Reason, _ = subset.Endpoints[i].Status()
		}
		e.Instances = append(e.Instances, x)
	}
}
