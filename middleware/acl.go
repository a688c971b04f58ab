package middleware

import (
	"fmt"
	"slices"
	"strings"

	"github.com/gin-gonic/gin"

	"github.com/sluice-gateway/sluice/routing"
)

// Bounds on one access list, per list in it.
const (
	maxACLRules  = 500
	maxACLValues = 200
)

// ACLConfig is the configuration of the acl plugin: who may do what, by what
// an authentication plugin before it found out. The most specific path of all
// rules that a request's path matches decides; of the rules for that path and
// the request's method one has to let the request pass, and none that denies
// may hold. Whatever no rule lets pass is refused.
type ACLConfig struct {
	Rules []ACLRule `json:"rules"`

	paths *routing.PathSet
	// rules are those of each path of the set.
	rules [][]*ACLRule
}

// ACLRule says who may use some paths with some methods.
type ACLRule struct {
	// Paths are in the syntax of routes; every path if there is none.
	Paths []string `json:"paths"`
	// Methods are in upper case; every method if there is none.
	Methods []string `json:"methods"`

	// Of these there is one: Anyone asks for nothing, Authenticated for an
	// identity; Claim and Of name what is compared with the lists below.
	Anyone        bool   `json:"anyone"`
	Authenticated bool   `json:"authenticated"`
	Claim         string `json:"claim"`
	Of            string `json:"of"`

	// All that are given must hold.
	AnyOf  []string `json:"any_of"`
	AllOf  []string `json:"all_of"`
	NoneOf []string `json:"none_of"`

	// Deny turns the rule around: where it holds, the request is refused.
	Deny bool `json:"deny"`
}

// What a rule's "of" may name.
const (
	ofGroup    = "group"
	ofScope    = "scope"
	ofConsumer = "consumer"
	ofSubject  = "subject"
)

func aclPlugin() *Plugin {
	return Define[ACLConfig]("acl", func(c *gin.Context, x *routing.Exchange, config *ACLConfig) {
		if ref := config.refuses(x.Match.Path, c.Request.Method, x.Identity); ref != nil {
			Reject(c, "acl", ref)
		}
	})
}

// Prepare implements PluginConfig.
func (c *ACLConfig) Prepare(at *Place) routing.Faults {
	if len(c.Rules) == 0 {
		return routing.Faults{{Field: at.At("rules"), Message: "is missing or empty; without a rule nobody could pass"}}
	}
	var faults routing.Faults
	if len(c.Rules) > maxACLRules {
		faults = append(faults, routing.Fault{Field: at.At("rules"),
			Message: fmt.Sprintf("has %d rules; at most %d are accepted", len(c.Rules), maxACLRules)})
	}
	c.paths = new(routing.PathSet)
	for i := range c.Rules {
		r := &c.Rules[i]
		field := fmt.Sprintf("%s[%d]", at.At("rules"), i)
		faults = append(faults, r.check(field)...)
		if len(r.Paths) == 0 {
			r.Paths = []string{"/*"}
		}
		for j, path := range r.Paths {
			n, err := c.paths.Add(path)
			if err != nil {
				faults = append(faults, routing.Fault{Field: fmt.Sprintf("%s.paths[%d]", field, j), Message: err.Error()})
				continue
			}
			if n == len(c.rules) {
				c.rules = append(c.rules, nil)
			}
			if !slices.Contains(c.rules[n], r) {
				c.rules[n] = append(c.rules[n], r)
			}
		}
	}
	return faults
}

// check returns what is wrong with the rule, its paths excepted.
func (r *ACLRule) check(field string) (faults routing.Faults) {
	fault := func(name, format string, args ...any) {
		faults = append(faults, routing.Fault{Field: Field(field, name), Message: fmt.Sprintf(format, args...)})
	}
	for i, m := range r.Methods {
		if m == "" || m != strings.ToUpper(m) || !validHeaderName(m) {
			fault(fmt.Sprintf("methods[%d]", i), "is not a method in upper case, such as GET")
		}
	}
	var who []string
	for name, given := range map[string]bool{"anyone": r.Anyone, "authenticated": r.Authenticated, "claim": r.Claim != "", "of": r.Of != ""} {
		if given {
			who = append(who, name)
		}
	}
	slices.Sort(who)
	values := len(r.AnyOf) + len(r.AllOf) + len(r.NoneOf)
	switch {
	case len(who) == 0:
		fault("claim", "is missing; give one of claim, of, authenticated: true, anyone: true")
	case len(who) > 1:
		fault(who[1], "stands beside %s; give one of them", who[0])
	case r.Claim == "" && r.Of == "" && values > 0:
		fault(who[0], "stands beside values to compare; give claim or of instead")
	case (r.Claim != "" || r.Of != "") && values == 0:
		fault("any_of", "is missing, and all_of and none_of too; give what %s is compared with", who[0])
	}
	if r.Of != "" && !slices.Contains([]string{ofGroup, ofScope, ofConsumer, ofSubject}, r.Of) {
		fault("of", "is none of group, scope, consumer, subject")
	}
	for name, list := range map[string][]string{"paths": r.Paths, "any_of": r.AnyOf, "all_of": r.AllOf, "none_of": r.NoneOf} {
		if len(list) > maxACLValues {
			fault(name, "has %d entries; at most %d are accepted", len(list), maxACLValues)
		}
		if i := slices.Index(list, ""); i >= 0 && name != "paths" {
			fault(fmt.Sprintf("%s[%d]", name, i), "is empty")
		}
	}
	return faults
}

// refuses returns the refusal of a request, or nil where it may pass.
func (c *ACLConfig) refuses(path routing.Path, method string, id *routing.Identity) *routing.Refusal {
	ref := c.decide(path, method, id)
	if ref == nil && strings.IndexByte(path.Match, ';') >= 0 {
		// Servlet containers drop "/admin;x" to "/admin": both must be allowed.
		plain, err := routing.Normalize(withoutPathParams(path.Match))
		if err != nil {
			return forbidden()
		}
		ref = c.decide(plain, method, id)
	}
	return ref
}

func (c *ACLConfig) decide(path routing.Path, method string, id *routing.Identity) *routing.Refusal {
	n, ok := c.paths.Find(path)
	if !ok {
		return forbidden()
	}
	passes, asks := false, false
	for _, r := range c.rules[n] {
		if len(r.Methods) > 0 && !slices.Contains(r.Methods, method) {
			continue
		}
		holds := r.holds(id)
		if r.Deny && holds {
			passes, asks = false, !r.Anyone
			break
		}
		passes = passes || !r.Deny && holds
		asks = asks || !r.Deny
	}
	switch {
	case passes:
		return nil
	case asks && id == nil: // to show who one is might help
		return &routing.Refusal{Code: routing.CodeUnauthenticated, Detail: "this needs somebody who is known"}
	}
	return forbidden()
}

func forbidden() *routing.Refusal {
	return &routing.Refusal{Code: routing.CodeForbidden, Detail: "this is not allowed to whoever asks"}
}

// holds says whether the rule is about whoever asks.
func (r *ACLRule) holds(id *routing.Identity) bool {
	if r.Anyone {
		return true
	}
	if id == nil {
		return r.Deny && len(r.NoneOf) > 0 && len(r.AnyOf)+len(r.AllOf) == 0
	}
	if r.Authenticated {
		return true
	}
	has := r.values(id)
	if len(r.AnyOf) > 0 && !slices.ContainsFunc(r.AnyOf, has) {
		return false
	}
	for _, v := range r.AllOf {
		if !has(v) {
			return false
		}
	}
	return !slices.ContainsFunc(r.NoneOf, has)
}

// values returns what tells whether the identity has a value.
func (r *ACLRule) values(id *routing.Identity) func(string) bool {
	in := func(list []string) func(string) bool {
		return func(v string) bool { return slices.Contains(list, v) }
	}
	is := func(s string) func(string) bool { return func(v string) bool { return s != "" && v == s } }
	switch r.Of {
	case ofGroup:
		return in(id.Groups)
	case ofConsumer:
		return is(id.Consumer)
	case ofSubject:
		return is(id.Subject)
	case ofScope:
		if len(id.Scopes) > 0 {
			return in(id.Scopes)
		}
		if scopes := claimValues(id.Claims, "scope"); len(scopes) > 0 {
			return in(scopes)
		}
		return in(claimValues(id.Claims, "scp"))
	}
	return in(claimValues(id.Claims, r.Claim))
}

// withoutPathParams removes what stands behind ";" in each segment.
func withoutPathParams(path string) string {
	var b strings.Builder
	for segment := range strings.SplitSeq(path[1:], "/") {
		plain, _, _ := strings.Cut(segment, ";")
		b.WriteByte('/')
		b.WriteString(plain)
	}
	return b.String()
}
