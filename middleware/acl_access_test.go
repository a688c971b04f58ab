package middleware_test

import (
	"testing"

	"github.com/sluice-gateway/sluice/middleware/plugintest"
	"github.com/sluice-gateway/sluice/routing"
)

func TestACLJudgesByTheGroupsOfAConsumer(t *testing.T) {
	allow := func(groups ...any) plugintest.Config {
		return plugintest.Config{"api_key": {}, "acl": {"rules": []any{
			map[string]any{"paths": []any{"/a/*"}, "of": "group", "any_of": groups}}}}
	}
	g := plugintest.Start(t, plugintest.Case{Plugins: allow("gold"),
		Documents: map[string]string{"consumers/alice": consumer("alice's key", "gold", "beta"), "consumers/bob": consumer("bob's key", "silver")}})
	alice, bob := "X-API-Key: alice's key", "X-API-Key: bob's key"
	wantCode(t, "gold", g.Do(request("GET", "/a/x", alice)), "")
	wantCode(t, "silver", g.Do(request("GET", "/a/x", bob)), routing.CodeForbidden)
	wantCode(t, "another path", g.Do(request("GET", "/b", alice)), routing.CodeForbidden)
	wantCode(t, "nobody", g.Do(request("GET", "/a/x")), routing.CodeUnauthenticated)
	wantCode(t, "row 16", g.Do(request("GET", "/a/../b", alice)), routing.CodeForbidden)
	wantCode(t, "row 22: a path in the query", g.Do(request("GET", "/b?x=/a/x", alice)), routing.CodeForbidden)
	wantCode(t, "row 35: a path in a header", g.Do(request("GET", "/b", alice, "X-Original-Url: /a/x", "X-Rewrite-Url: /a/x")), routing.CodeForbidden)
	wantCode(t, "row 33: a group in a header", g.Do(request("GET", "/a/x", bob, "X-Consumer-Groups: gold")), routing.CodeForbidden)
	if n := g.Rejections("acl"); n != 6 {
		t.Errorf("%v refusals were counted, want 6", n)
	}
	if problems := g.Configure(allow("silver")); problems != nil {
		t.Fatal(problems)
	}
	wantCode(t, "gold, after a change", g.Do(request("GET", "/a/x", alice)), routing.CodeForbidden)
	wantCode(t, "silver, after a change", g.Do(request("GET", "/a/x", bob)), "")
	if problems := g.Configure(allow("")); len(problems) != 1 {
		t.Errorf("the problems are %v", problems)
	}
	wantCode(t, "silver, after a bad change", g.Do(request("GET", "/a/x", bob)), "")
	g.Put("consumers/bob", consumer("bob's key", "gold"))
	wantCode(t, "bob, who is gold now", g.Do(request("GET", "/a/x", bob)), routing.CodeForbidden)
}

func TestACLWithoutAuthenticationLetsNobodyPassButAnyone(t *testing.T) {
	g := plugintest.Start(t, plugintest.Case{Plugins: plugintest.Config{"acl": {"rules": []any{
		map[string]any{"paths": []any{"/public/*"}, "anyone": true},
		map[string]any{"paths": []any{"/private/*"}, "authenticated": true},
	}}}})
	wantCode(t, "public", g.Do(request("GET", "/public/x")), "")
	wantCode(t, "private", g.Do(request("GET", "/private/x", "X-Consumer: alice")), routing.CodeUnauthenticated)
}

func TestTheACLExampleIsTheTutorialsTable(t *testing.T) {
	g := plugintest.Start(t, plugintest.Case{Plugins: example(t, "acl")})
	const no = routing.CodeForbidden
	for _, row := range []struct {
		path              string
		guest, bob, alice routing.Code
	}{
		{"/api/public/news", "", "", ""},
		{"/api/profile", no, "", ""},
		{"/api/admin/dashboard", no, no, ""},
	} {
		wantCode(t, row.path+" as a guest", g.Do(request("GET", row.path, basic("guest", "guest-secret"))), row.guest)
		wantCode(t, row.path+" as a user", g.Do(request("GET", row.path, basic("bob", "bob-secret"))), row.bob)
		wantCode(t, row.path+" as an admin", g.Do(request("GET", row.path, basic("alice", "alice-secret"))), row.alice)
		wantCode(t, row.path+" as nobody", g.Do(request("GET", row.path)), routing.CodeUnauthenticated)
	}
}
