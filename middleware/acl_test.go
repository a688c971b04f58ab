package middleware

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/sluice-gateway/sluice/routing"
)

// compileACL reads an access list as JSON.
func compileACL(t testing.TB, rules string) *ACLConfig {
	t.Helper()
	var config map[string]any
	if err := json.Unmarshal([]byte(`{"rules":`+rules+`}`), &config); err != nil {
		t.Fatal(err)
	}
	compiled, faults := NewPlugins(quiet()).Compile(routing.Place{}, "acl", config)
	if faults != nil {
		t.Fatal(faults)
	}
	return compiled.(*ACLConfig)
}

// verdict is the code of what an access list says, "" where it lets pass.
func verdict(t testing.TB, c *ACLConfig, method, path string, id *routing.Identity) routing.Code {
	t.Helper()
	p, err := routing.Normalize(path)
	if err != nil {
		return routing.CodeBadRequest // the edge has refused it
	}
	if ref := c.refuses(p, method, id); ref != nil {
		return ref.Code
	}
	return ""
}

func withClaims(t testing.TB, claims string) *routing.Identity {
	t.Helper()
	id := &routing.Identity{Plugin: "jwt", Subject: "somebody"}
	if err := json.Unmarshal([]byte(claims), &id.Claims); err != nil {
		t.Fatal(err)
	}
	return id
}

func TestTheTutorialsTable(t *testing.T) {
	c := compileACL(t, `[
		{"paths":["/api/public/*"],"claim":"role","any_of":["guest","user","admin"]},
		{"paths":["/api/profile"],"claim":"role","any_of":["user","admin"]},
		{"paths":["/api/admin/*"],"claim":"role","any_of":["admin"]}]`)
	const no, who = routing.CodeForbidden, routing.CodeUnauthenticated
	for _, row := range []struct {
		path                       string
		nobody, guest, user, admin routing.Code
	}{
		{"/api/public", who, "", "", ""},
		{"/api/public/news", who, "", "", ""},
		{"/api/profile", who, no, "", ""},
		{"/api/admin/dashboard", who, no, no, ""},
		{"/api/other", no, no, no, no},
		{"/api/profile/", no, no, no, no},
		{"/api/Admin/dashboard", no, no, no, no},
		{"//api//admin/dashboard", who, no, no, ""},
		{"/api/public/../admin/dashboard", who, no, no, ""},
		{"/api/public/%2e%2e/admin/dashboard", who, no, no, ""},
		{"/api/public/..%2fadmin/dashboard", routing.CodeBadRequest, routing.CodeBadRequest, routing.CodeBadRequest, routing.CodeBadRequest},
	} {
		for role, want := range map[string]routing.Code{"": row.nobody, "guest": row.guest, "user": row.user, "admin": row.admin} {
			var id *routing.Identity
			if role != "" {
				id = withClaims(t, `{"role":"`+role+`"}`)
			}
			if got := verdict(t, c, "GET", row.path, id); got != want {
				t.Errorf("%s as %q: got %q, want %q", row.path, role, got, want)
			}
		}
	}
}

func TestTheMostSpecificPathDecides(t *testing.T) {
	c := compileACL(t, `[
		{"authenticated":true,"methods":["GET","HEAD"]},
		{"paths":["/open/*"],"anyone":true},
		{"paths":["/open/secret/*"],"deny":true,"anyone":true},
		{"paths":["/api/*"],"of":"group","any_of":["user"]},
		{"paths":["/api/admin/*"],"methods":["GET"],"of":"group","any_of":["admin"]},
		{"paths":["/api/admin/*"],"methods":["GET","POST"],"of":"consumer","any_of":["robot"]},
		{"paths":["/api/admin/*"],"deny":true,"of":"subject","any_of":["mallory"]},
		{"paths":["/members/:id"],"deny":true,"of":"group","none_of":["member"]},
		{"paths":["/members/:name"],"authenticated":true}]`)
	user := &routing.Identity{Subject: "u", Groups: []string{"user"}}
	admin := &routing.Identity{Subject: "a", Groups: []string{"admin"}}
	mallory := &routing.Identity{Subject: "mallory", Groups: []string{"admin", "user"}}
	robot := &routing.Identity{Subject: "robot", Consumer: "robot"}
	member := &routing.Identity{Subject: "m", Groups: []string{"member"}}
	for _, row := range []struct {
		what, method, path string
		id                 *routing.Identity
		want               routing.Code
	}{
		{"a rule without paths is for all of them", "GET", "/x", user, ""},
		{"but for its methods only", "POST", "/x", user, "forbidden"},
		{"GET does not stand for another method", "OPTIONS", "/x", user, "forbidden"},
		{"nobody, where somebody is needed", "GET", "/x", nil, "unauthenticated"},
		{"nobody, where nobody could", "POST", "/x", nil, "forbidden"},
		{"anyone", "DELETE", "/open/door", nil, ""},
		{"a subtree that is closed to all", "GET", "/open/secret/x", admin, "forbidden"},
		{"closed to nobody too", "GET", "/open/secret", nil, "forbidden"},
		{"a group", "POST", "/api/x", user, ""},
		{"the broader rule does not open the narrower path", "GET", "/api/admin/x", user, "forbidden"},
		{"not even for a method that no narrower rule has", "DELETE", "/api/admin/x", user, "forbidden"},
		{"nor for admins", "DELETE", "/api/admin/x", admin, "forbidden"},
		{"one rule of several for a path", "GET", "/api/admin/x", admin, ""},
		{"the other", "POST", "/api/admin/x", robot, ""},
		{"deny wins", "GET", "/api/admin/x", mallory, "forbidden"},
		{"deny is for its path only", "GET", "/api/x", mallory, ""},
		{"deny unless", "GET", "/members/7", user, "forbidden"},
		{"unless", "GET", "/members/7", member, ""},
		{"nobody is no member", "GET", "/members/7", nil, "unauthenticated"},
		{"a path parameter does not lead past a rule", "GET", "/api/admin;x=1/y", user, "forbidden"},
		{"nor an escaped one", "GET", "/api/admin%3bx/y", user, "forbidden"},
		{"nor an empty segment with one", "GET", "/api/;/admin/y", user, "forbidden"},
		{"a path parameter elsewhere", "GET", "/api/x;y=1", user, ""},
	} {
		if got := verdict(t, c, row.method, row.path, row.id); got != row.want {
			t.Errorf("%s: %s %s got %q, want %q", row.what, row.method, row.path, got, row.want)
		}
	}
}

func TestRulesCompareClaims(t *testing.T) {
	for _, c := range []struct {
		name, rule, claims string
		want               routing.Code
	}{
		{"a string", `"claim":"role","any_of":["admin"]`, `{"role":"admin"}`, ""},
		{"a string is one value", `"claim":"role","any_of":["admin"]`, `{"role":"not admin"}`, "forbidden"},
		{"a list", `"claim":"role","any_of":["admin"]`, `{"role":["user","admin"]}`, ""},
		{"another value", `"claim":"role","any_of":["admin"]`, `{"role":["user"]}`, "forbidden"},
		{"another case", `"claim":"role","any_of":["admin"]`, `{"role":"Admin"}`, "forbidden"},
		{"no claim", `"claim":"role","any_of":["admin"]`, `{}`, "forbidden"},
		{"null", `"claim":"role","any_of":["admin"]`, `{"role":null}`, "forbidden"},
		{"a nested claim", `"claim":"realm_access.roles","any_of":["admin"]`, `{"realm_access":{"roles":["admin"]}}`, ""},
		{"a nested claim that is not there", `"claim":"realm_access.roles","any_of":["admin"]`, `{"realm_access":"roles"}`, "forbidden"},
		{"a claim whose name holds dots", `"claim":"https://a.example/roles","any_of":["admin"]`, `{"https://a.example/roles":["admin"]}`, ""},
		{"a name with dots within an object", `"claim":"a.b.c.d","any_of":["x"]`, `{"a":{"b.c":{"d":"x"}}}`, ""},
		{"an object is no value", `"claim":"role","any_of":["admin"]`, `{"role":{"admin":true}}`, "forbidden"},
		{"a truth value", `"claim":"email_verified","any_of":["true"]`, `{"email_verified":true}`, ""},
		{"a number", `"claim":"level","any_of":["3"]`, `{"level":3}`, ""},
		{"a scope with spaces", `"claim":"scope","all_of":["read","write"]`, `{"scope":"read write"}`, ""},
		{"a scope that is missing", `"claim":"scope","all_of":["read","write"]`, `{"scope":"read"}`, "forbidden"},
		{"of scope", `"of":"scope","all_of":["read"]`, `{"scope":"write read"}`, ""},
		{"of scp", `"of":"scope","any_of":["read"]`, `{"scp":["read"]}`, ""},
		{"none of", `"claim":"role","none_of":["banned"]`, `{"role":["user"]}`, ""},
		{"one of those", `"claim":"role","none_of":["banned"]`, `{"role":["user","banned"]}`, "forbidden"},
		{"any, all and none", `"claim":"r","any_of":["a","b"],"all_of":["c"],"none_of":["d"]`, `{"r":["b","c"]}`, ""},
		{"any, all and one of none", `"claim":"r","any_of":["a","b"],"all_of":["c"],"none_of":["d"]`, `{"r":["b","c","d"]}`, "forbidden"},
	} {
		if got := verdict(t, compileACL(t, `[{`+c.rule+`}]`), "GET", "/", withClaims(t, c.claims)); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
	id := &routing.Identity{Scopes: []string{"read"}}
	if got := verdict(t, compileACL(t, `[{"of":"scope","any_of":["read"]}]`), "GET", "/", id); got != "" {
		t.Errorf("the scopes of an identity: got %q", got)
	}
}

func TestACLRefusesBadConfiguration(t *testing.T) {
	rule := func(r map[string]any) map[string]any { return map[string]any{"rules": []any{r}} }
	any1 := []any{"x"}
	for _, c := range []struct {
		config map[string]any
		want   []string
	}{
		{map[string]any{}, []string{"rules: is missing or empty; without a rule nobody could pass"}},
		{rule(map[string]any{}), []string{"rules[0].claim: is missing; give one of claim, of, authenticated: true, anyone: true"}},
		{rule(map[string]any{"anyone": true, "claim": "role", "any_of": any1}), []string{"rules[0].claim: stands beside anyone; give one of them"}},
		{rule(map[string]any{"anyone": true, "any_of": any1}), []string{"rules[0].anyone: stands beside values to compare; give claim or of instead"}},
		{rule(map[string]any{"claim": "role"}), []string{"rules[0].any_of: is missing, and all_of and none_of too; give what claim is compared with"}},
		{rule(map[string]any{"of": "role", "any_of": any1}), []string{"rules[0].of: is none of group, scope, consumer, subject"}},
		{rule(map[string]any{"anyone": true, "methods": []any{"get"}}), []string{"rules[0].methods[0]: is not a method in upper case, such as GET"}},
		{rule(map[string]any{"anyone": true, "paths": []any{"/ok", "api/*"}}), []string{`rules[0].paths[1]: must begin with "/"`}},
		{rule(map[string]any{"claim": "role", "any_of": []any{""}}), []string{"rules[0].any_of[0]: is empty"}},
		{rule(map[string]any{"anyone": true, "path": "/x"}), []string{
			"rules[0].path: unknown field; accepted: all_of, any_of, anyone, authenticated, claim, deny, methods, none_of, of, paths"}},
	} {
		_, faults := NewPlugins(quiet()).Compile(routing.Place{}, "acl", c.config)
		var got []string
		for _, f := range faults {
			got = append(got, f.Error())
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%v: the faults are %q, want %q", c.config, got, c.want)
		}
	}
}
