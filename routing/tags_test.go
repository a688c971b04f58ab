package routing

import (
	"reflect"
	"strings"
	"testing"
)

func TestParseActiveReadsWhatPeopleWrite(t *testing.T) {
	for text, c := range map[string]struct {
		want      Active
		canonical string
	}{
		"green":                   {Active{{"green", 100}}, "green"},
		" green\n":                {Active{{"green", 100}}, "green"},
		"green=5":                 {Active{{"green", 100}}, "green"},
		"blue=90,green=10":        {Active{{"blue", 90}, {"green", 10}}, "blue=90,green=10"},
		" blue = 90 , green=10\n": {Active{{"blue", 90}, {"green", 10}}, "blue=90,green=10"},
		"green=10,blue=90":        {Active{{"green", 10}, {"blue", 90}}, "green=10,blue=90"},
		"blue=0,green=007":        {Active{{"blue", 0}, {"green", 7}}, "blue=0,green=7"},
		"v1.2_rc-3":               {Active{{"v1.2_rc-3", 100}}, "v1.2_rc-3"},
		"a=1000000,b=1000000":     {Active{{"a", 1000000}, {"b", 1000000}}, "a=1000000,b=1000000"},
	} {
		t.Run(text, func(t *testing.T) {
			got, err := ParseActive(text)
			if err != nil || !reflect.DeepEqual(got, c.want) || got.String() != c.canonical {
				t.Errorf("got %v (%s), %v; want %v (%s)", got, got, err, c.want, c.canonical)
			}
		})
	}
}

func TestRouteFromTagsReadsWhatServicesAnnounce(t *testing.T) {
	for name, c := range map[string]struct {
		tags []string
		want *RouteSpec
	}{
		"no tags":         {nil, nil},
		"colours alone":   {[]string{"blue", "production", "sluicegate=1"}, nil},
		"a path":          {[]string{"blue", "sluice.path=/orders/*"}, &RouteSpec{Path: "/orders/*", Service: "orders"}},
		"the same twice":  {[]string{"sluice.path=/a", "sluice.path=/a", "sluice.priority=1", "sluice.priority=1"}, &RouteSpec{Path: "/a", Priority: 1, Service: "orders"}},
		"hosts add up":    {[]string{"sluice.path=/a", "sluice.host=a.test, B.test", "sluice.host=c.test,a.test"}, &RouteSpec{Path: "/a", Hosts: []string{"a.test", "b.test", "c.test"}, Service: "orders"}},
		"methods add up":  {[]string{"sluice.methods=GET,POST", "sluice.path=/a", "sluice.methods=PUT"}, &RouteSpec{Path: "/a", Methods: []string{"GET", "POST", "PUT"}, Service: "orders"}},
		"strip a prefix":  {[]string{"sluice.path=/a/*", "sluice.strip_prefix=/a", "sluice.priority=-3"}, &RouteSpec{Path: "/a/*", StripPrefix: "/a", Priority: -3, Service: "orders"}},
		"rewrite":         {[]string{"sluice.path=/a/:id", "sluice.rewrite=/b/:id"}, &RouteSpec{Path: "/a/:id", Rewrite: "/b/:id", Service: "orders"}},
		"a value with =":  {[]string{"sluice.path=/a=b"}, &RouteSpec{Path: "/a=b", Service: "orders"}},
		"a document":      {[]string{`sluice.route={"path":"/a","subset":"green"}`}, &RouteSpec{Path: "/a", Subset: "green", Service: "orders"}},
		"its own service": {[]string{`sluice.route={"path":"/a","service":"orders"}`}, &RouteSpec{Path: "/a", Service: "orders"}},
	} {
		t.Run(name, func(t *testing.T) {
			got, faults := RouteFromTags("orders", "sluice.", c.tags)
			if faults != nil || !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %+v, %v; want %+v", got, faults, c.want)
			}
		})
	}
}

func TestRouteFromTagsRefusesTagsThatAreNoText(t *testing.T) {
	for _, tag := range []string{"sluice.path=/\xff", "sluice.path=/a\nb", "sluice.\xff=a", "sluice.a\nb=c", "sluice." + strings.Repeat("a", 10_000)} {
		spec, faults := RouteFromTags("orders", "sluice.", []string{tag})
		if spec != nil || len(faults) != 1 || faults[0].Code != ProblemTag || len(faults.Error()) > 500 {
			t.Errorf("%q: got %v, %v", tag, spec, faults)
		}
		checkFaults(t, faults)
	}
}

func TestAServiceWhoseNameIsNoneOfARouteIsRefused(t *testing.T) {
	spec, faults := RouteFromTags("a b", "sluice.", []string{"sluice.path=/a"})
	if spec != nil || len(faults) != 1 || faults[0].Field != "sluice.path" {
		t.Errorf("got %v, %v", spec, faults)
	}
}
