package routing

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/discovery"
)

// tagGrace is how long the route of a service that has left Consul's catalog
// stays and answers no_healthy_instance: a service of one instance that
// restarts must not fall to a broader route.
const tagGrace = 30 * time.Second

// tagRoute is the route that a service's own Consul tags make. It is
// immutable once its table is published.
type tagRoute struct {
	service   string
	instances []discovery.Instance
	announced []string

	// spec is the newest definition that could be read; salvaged, where there
	// is none, the match of one that could not.
	spec     *RouteSpec
	salvaged *RouteSpec
	revision int64 // registration that carried the definition in force
	created  int64 // registration that made the route
	faults   Faults
	since    time.Time
	gone     time.Time // when the service left the catalog; zero while it is there

	route *Route
}

// key is the document key a person looks for.
func (t *tagRoute) key() string { return discovery.SourceConsul + ":" + t.service }

// readTags follows the tags of every announced service. It says whether all
// routes are those of prev, and when the first grace period ends.
func readTags(prev map[string]*tagRoute, snap discovery.Snapshot, deps Deps, now time.Time) (tags map[string]*tagRoute, same bool, expires time.Time) {
	st, _ := snap.State(discovery.SourceConsul)
	if deps.TagPrefix == "" {
		return nil, true, time.Time{}
	}
	tags, same = make(map[string]*tagRoute, len(st.Announced)), true
	for service, announced := range st.Announced {
		old := prev[service]
		instances, known := st.Instances[discovery.ServiceRef{Name: service}]
		if !known && old == nil {
			continue // its instances say which definition counts; they are on their way
		}
		t := old
		if old == nil || !old.gone.IsZero() || !sameSlice(old.instances, instances) || !sameSlice(old.announced, announced) {
			t = readTagRoute(old, service, instances, announced, deps.TagPrefix, now)
		}
		if t != nil {
			tags[service] = t
		}
		same = same && sameTagRoute(old, t)
	}
	for service, old := range prev {
		if _, ok := st.Announced[service]; ok {
			continue
		}
		t := *old
		if t.gone.IsZero() {
			t.gone = now
		}
		ends := t.gone.Add(tagGrace)
		if !now.Before(ends) {
			same = false
			continue
		}
		tags[service] = &t
		if expires.IsZero() || ends.Before(expires) {
			expires = ends
		}
	}
	return tags, same, expires
}

func sameTagRoute(a, b *tagRoute) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.route == b.route && a.spec == b.spec && reflect.DeepEqual(a.faults, b.faults)
}

// readTagRoute reads the definition that counts: the one that the most
// recently registered passing instance carries. While none passes the last
// one stays; a gateway that never saw one reads the tags of all instances
// together, as long as they make one definition.
func readTagRoute(old *tagRoute, service string, instances []discovery.Instance, announced []string, prefix string, now time.Time) *tagRoute {
	t := &tagRoute{service: service, instances: instances, announced: announced}
	if old != nil {
		*t = *old
		t.instances, t.announced, t.gone = instances, announced, time.Time{}
	}
	definition := announced
	revision := int64(0)
	if newest, ok := newestTagged(instances, prefix); ok {
		definition, revision = newest.Tags, int64(newest.Registered)
	} else if old != nil {
		return t
	}
	spec, faults := RouteFromTags(service, prefix, definition)
	if faults != nil {
		if t.faults == nil || t.faults.Error() != faults.Error() {
			t.since = now
		}
		t.faults, t.revision = faults, revision
		if t.spec == nil {
			t.salvaged = salvageTags(service, prefix, definition)
		}
		return t
	}
	t.faults, t.salvaged = nil, nil
	if spec == nil { // colour tags only, or the definition was taken back
		if old == nil {
			return nil
		}
		t.spec, t.route = nil, nil
		return t
	}
	if t.spec == nil || !reflect.DeepEqual(t.spec, spec) {
		t.spec, t.revision = spec, revision
	}
	if t.created == 0 {
		t.created = oldestRegistration(instances, revision)
	}
	return t
}

// salvageTags reads the tags that say which requests a broken definition was
// meant for; nil where they cannot be read either.
func salvageTags(service, prefix string, tags []string) *RouteSpec {
	var match []string
	for _, t := range tags {
		if strings.HasPrefix(t, prefix+"path=") || strings.HasPrefix(t, prefix+"host=") {
			match = append(match, t)
		}
	}
	spec, faults := RouteFromTags(service, prefix, match)
	if faults != nil {
		return nil
	}
	return spec
}

// newestTagged returns the most recently registered instance that carries
// gateway tags; of equals the one whose ID sorts last, so that a fleet agrees.
func newestTagged(instances []discovery.Instance, prefix string) (discovery.Instance, bool) {
	best := -1
	for i, in := range instances {
		tagged := slices.ContainsFunc(in.Tags, func(t string) bool { return strings.HasPrefix(t, prefix) })
		if tagged && (best < 0 || in.Registered >= instances[best].Registered) {
			best = i
		}
	}
	if best < 0 {
		return discovery.Instance{}, false
	}
	return instances[best], true
}

func oldestRegistration(instances []discovery.Instance, fallback int64) int64 {
	oldest := fallback
	for _, in := range instances {
		oldest = min(oldest, int64(in.Registered))
	}
	return oldest
}

// compiled says whether the route is that of the definition as it stands.
func (t *tagRoute) compiled() bool {
	want := t.spec
	if want == nil {
		want = t.salvaged
	}
	if want == nil {
		return t.route == nil
	}
	return t.route != nil && t.route.Spec == want && (t.route.State == RouteOK) == (t.faults == nil)
}

// compile makes the route; a definition that does not compile leaves the
// route before it in place.
func (t *tagRoute) compile(c *routeCompiler, now time.Time) *tagRoute {
	ct := *t
	doc := &discovery.Document{
		Key: t.key(), Kind: discovery.KindRoute, Name: t.key(),
		Source: discovery.SourceConsul, Revision: t.revision, Created: t.created,
	}
	spec, broken := t.spec, RouteLastGood
	if spec == nil {
		spec, broken = t.salvaged, RouteInvalid
	}
	if spec == nil {
		ct.route = nil
		return &ct
	}
	r, faults := c.compile(doc, spec)
	if faults != nil {
		if ct.faults == nil {
			ct.faults, ct.since = faults, now
		}
		if ct.route != nil {
			ct.route = ct.route.withState(RouteLastGood)
		}
		return &ct
	}
	if ct.faults != nil {
		r = r.withState(broken)
	}
	ct.route = r
	return &ct
}

func (t *tagRoute) problem() Problem {
	code := t.faults[0].Code
	if code == "" {
		code = ProblemTag
	}
	p := Problem{Key: t.key(), Revision: t.revision, Code: code, Since: t.since, Serving: ServingNothing,
		Message: fmt.Sprintf("service %s: %s", t.service, t.faults.Error())}
	if t.route != nil && t.route.State == RouteLastGood {
		p.Serving = ServingLastGood
	}
	return p
}

// sameSlice says whether a and b are the very same slice.
func sameSlice[T any](a, b []T) bool {
	return len(a) == len(b) && (a == nil) == (b == nil) && (len(a) == 0 || &a[0] == &b[0])
}

// list joins names for a message.
func list(names []string) string { return strings.Join(names, ", ") }

// sortedKeys returns the keys of m in order.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
