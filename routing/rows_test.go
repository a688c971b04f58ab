package routing

import (
	"fmt"
	"strings"
	"testing"
)

// Rows 16 to 26 of the path, query and host history: /admin/* is protected,
// /public/* is not, and an instance decodes and normalises what it gets.
// Where the path comes to be /admin/…, r0 must have matched.

func adminTable(t *testing.T) *Table {
	return tableOf(t, RouteSpec{Path: "/admin/*"}, RouteSpec{Path: "/public/*"})
}

func TestRow16MatchAfterNormalising(t *testing.T) {
	checkAnswers(t, adminTable(t), []ask{
		{"GET h/public/../admin/x", "r0 *=x"},
		{"GET h/public/./../admin", "r0 *="},
		{"GET h/public/%2e%2e/admin/x", "r0 *=x"},
		{"GET h/public/%2E./admin/x", "r0 *=x"},
		{"GET h/public/x/../../admin/x", "r0 *=x"},
		{"GET h/public/..;/admin/x", "400"},
		{"GET h/../public/x", "r1 *=x"},
		{"GET h/admin/../public/x", "r1 *=x"},
	})
	p, err := Normalize("/public/../admin/x")
	if err != nil || p.Forward != "/admin/x" {
		t.Errorf("forwarded is %q, %v: not what was matched", p.Forward, err)
	}
}

func TestRow17EncodedSlashAndBackslash(t *testing.T) {
	checkAnswers(t, adminTable(t), []ask{
		{"GET h/public/..%2fadmin", "400"},
		{"GET h/public/..%2Fadmin/x", "400"},
		{"GET h/public/..%5cadmin", "400"},
		{"GET h/public/x%5Cy", "400"},
		{`GET h/public\..\admin`, "400"},
		{"GET h/public/%00", "400"},
		{"GET h/public/%252e%252e%252fadmin", "400"},
		{"GET h/public/%252e%252e/admin", "400"},
		{"GET h/public/a%2fb", "r1 *=a%2Fb"}, // data, not a separator
		{"GET h/admin%2fx", "404"},
	})
}

func TestRow18DoubleSlashes(t *testing.T) {
	checkAnswers(t, adminTable(t), []ask{
		{"GET h//admin/x", "r0 *=x"},
		{"GET h/admin//x", "r0 *=x"},
		{"GET h///admin", "r0 *="},
		{"GET h/public/..//admin/x", "r0 *=x"},
		{"GET h//public/../admin/x", "r0 *=x"},
	})
}

func TestRow19Fragments(t *testing.T) {
	checkAnswers(t, adminTable(t), []ask{
		{"GET h/public/x#/../admin", "400"},
		{"GET h/admin#x", "400"},
		{"GET h/public/%23/x", "r1 *=%23/x"},
	})
}

func TestRow21CaseOfHostAndPath(t *testing.T) {
	table := tableOf(t, RouteSpec{Hosts: []string{"a.test"}, Path: "/admin/*"}, RouteSpec{Path: "/*"})
	checkAnswers(t, table, []ask{
		{"GET a.test/admin/x", "r0 *=x"},
		{"GET A.TEST/admin/x", "r0 *=x"},
		{"GET a.test./admin/x", "r0 *=x"},
		{"GET a.test:443/admin/x", "r0 *=x"},
		{"GET A.test.:443/admin/x", "r0 *=x"},
		{"GET a.test/%61dmin/x", "r0 *=x"},
		{"GET a.test/%61%64%6d%69%6e", "r0 *="},
		{"GET a.test/Admin/x", "r1 *=Admin/x"}, // paths are case-sensitive (RFC 3986 section 6.2.2.1)
	})
}

func TestRow22QueryIsNoPartOfThePath(t *testing.T) {
	checkAnswers(t, adminTable(t), []ask{
		{"GET h/admin?x=/public/", "r0 *="},
		{"GET h/admin?/public/x", "r0 *="},
		{"GET h/public/x?/../admin", "r1 *=x"},
		{"GET h/public%3F/../admin", "r0 *="},
	})
}

func TestRow23QueryIsSeenWhole(t *testing.T) {
	table := tableOf(t, RouteSpec{Path: "/a"}, RouteSpec{Path: "/a", Query: map[string]string{"hidden": "1"}})
	checkAnswers(t, table, []ask{
		{"GET h/a?x=%zz&hidden=1", "r1"},
		{"GET h/a?a=1;b=2&hidden=1", "r1"},
		{"GET h/a?a=1;hidden=1", "r0"}, // ";" separates nothing
		{"GET h/a?" + strings.Repeat("x=1&", 10_001) + "hidden=1", "r1"},
		{"GET h/a?hidden=2&hidden=1", "r1"},
		{"GET h/a?hidden", "r0"},
		{"GET h/a?%68idden=%31", "r1"},
		{"GET h/a?hidden=1%", "r0"},
	})
}

func TestRow24PathWithoutSlash(t *testing.T) {
	for _, raw := range []string{"pkg.Svc/M", "*", "http://a.test/admin", "a.test:80", "%2Fadmin", ".."} {
		if p, err := Normalize(raw); err == nil {
			t.Errorf("Normalize(%q) = %q", raw, p)
		}
	}
}

// There is no rule language to break out of: a document is compiled field by
// field, and what cannot stand in a path is a fault of that document alone.
func TestRow25ValuesAreData(t *testing.T) {
	good := RouteSpec{Path: "/good"}
	routes := []*Route{routeOf(t, "good", 1, &good)}
	for i, path := range []string{"/`", "/||", "/{a}", "/a\nb", "/a`) || Path(`/", "/$(x)", `/"`, "/{{.}}", "/a b"} {
		spec := RouteSpec{Path: path}
		m, faults := compileMatcher(&spec)
		if faults != nil {
			continue
		}
		routes = append(routes, &Route{Name: fmt.Sprint("odd", i), Spec: &spec, slot: -1, matcher: m})
	}
	table := &Table{index: buildIndex(routes)}
	checkAnswers(t, table, []ask{
		{"GET h/good", "good"},
		{"GET h/a", "404"},
		{"GET h/", "404"},
		{"GET h/||", "odd1"}, // itself and nothing else
		{"GET h/%7b%7b.%7d%7d", "odd7"},
	})
	for _, host := range []string{"a.test`) || Host(`b", "a.test\n", "{b}.test", "a|b", "a/@b"} {
		if _, faults := compileMatcher(&RouteSpec{Path: "/", Hosts: []string{host}}); len(faults) != 1 || faults[0].Field != "hosts[0]" {
			t.Errorf("host %q: %v", host, faults)
		}
	}
	if _, faults := compileMatcher(&RouteSpec{Path: "/a\nb"}); len(faults) != 1 || faults[0].Field != "path" {
		t.Errorf("a path with a line break: %v", faults)
	}
}

func TestRow26HostAbuse(t *testing.T) {
	table := tableOf(t,
		RouteSpec{Hosts: []string{"a.test"}, Path: "/*"},
		RouteSpec{Hosts: []string{"*.b.test"}, Path: "/*"},
		RouteSpec{Path: "/*"})
	for _, host := range []string{
		"", ".", "..", ":", ":80", "[", "]", "[]", "[::1", "a/@b", "b/a.test", "a.test@b", "x@a.test", " a.test", "a.test ", "a.test,b",
		"a.test\x00", "*.b.test\x00", ".b.test", "b.test", "a.test..", "*", strings.Repeat("a", 1<<16), strings.Repeat(".", 1<<16), "\xff",
	} {
		req := Request{Method: "GET", Host: host, Path: Path{"/x", "/x"}}
		var m Match
		if table.Match(&req, &m) != Matched || m.Route.Name != "r2" {
			t.Errorf("host %.40q reaches %s", host, m.Route.Name)
		}
	}
}
