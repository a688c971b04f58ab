package middleware_test

import (
	"encoding/base64"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/sluice-gateway/sluice/middleware/plugintest"
	"github.com/sluice-gateway/sluice/routing"
	"github.com/sluice-gateway/sluice/test/testenv"
)

// usersFile writes an htpasswd file of names with their passwords.
func usersFile(t testing.TB, users map[string]string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "users")
	writeUsers(t, path, users)
	return path
}

func writeUsers(t testing.TB, path string, users map[string]string) {
	t.Helper()
	var b strings.Builder
	for name, password := range users {
		h, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		b.WriteString(name + ":" + string(h) + "\n")
	}
	if err := os.WriteFile(path+".new", []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func basic(user, password string) string {
	return "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

func TestBasicAuthLetsUsersPass(t *testing.T) {
	groups := filepath.Join(t.TempDir(), "groups")
	if err := os.WriteFile(groups, []byte("admin: alice\nstaff: alice bob\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	g := plugintest.Start(t, plugintest.Case{Plugins: plugintest.Config{"basic_auth": {
		"users_file": usersFile(t, map[string]string{"alice": "wonder:land", "bob": "builder", "eve": "x"}), "groups_file": groups}}})
	got := g.Do(request("GET", "/", basic("alice", "wonder:land")))
	wantCode(t, "alice", got, "")
	if h := got.Forwarded.Header; h.Get("X-User-ID") != "alice" || h.Get("X-Consumer-Groups") != "admin,staff" || h.Get("Authorization") != "" {
		t.Errorf("the instance got %v", h)
	}
	if id := got.Exchange.Identity; id == nil || id.Subject != "alice" || id.Plugin != "basic_auth" || !slices.Equal(id.Groups, []string{"admin", "staff"}) {
		t.Errorf("the identity is %+v", id)
	}
	got = g.Do(request("GET", "/", strings.Replace(basic("eve", "x"), "Basic", "bAsIc", 1), "X-Consumer-Groups: admin"))
	wantCode(t, "eve, with the scheme in another case", got, "")
	if h := got.Forwarded.Header; h.Get("X-User-ID") != "eve" || h["X-Consumer-Groups"] != nil {
		t.Errorf("the instance is told of groups that eve is not in: %v", h)
	}
}

func TestBasicAuthForwardsWhatTheRouteSays(t *testing.T) {
	got := plugintest.Run(t, plugintest.Case{Plugins: plugintest.Config{"basic_auth": {
		"users_file": usersFile(t, map[string]string{"alice": "x"}), "forward_credentials": true, "user_header": "X-Who"}}},
		request("GET", "/", basic("alice", "x")))
	if got.Forwarded == nil || got.Forwarded.Header.Get("X-Who") != "alice" || got.Forwarded.Header.Get("Authorization") == "" {
		t.Errorf("the instance got %+v", got.Forwarded)
	}
}

func TestBasicAuthAttacks(t *testing.T) {
	g := plugintest.Start(t, plugintest.Case{Plugins: plugintest.Config{"basic_auth": {
		"users_file": usersFile(t, map[string]string{"alice": "wonderland"}), "realm": "the shop"}}})
	for _, c := range []struct {
		name string
		r    *http.Request
	}{
		{"no credentials", request("GET", "/")},
		{"a wrong password", request("GET", "/", basic("alice", "x"))},
		{"an empty password", request("GET", "/", basic("alice", ""))},
		{"a user nobody knows", request("GET", "/", basic("eve", "wonderland"))},
		{"another scheme", request("GET", "/", strings.Replace(basic("alice", "wonderland"), "Basic", "Bearer", 1))},
		{"no base64", request("GET", "/", "Authorization: Basic alice:wonderland")},
		{"no colon", request("GET", "/", "Authorization: Basic YWxpY2U=")},
		{"the scheme alone", request("GET", "/", "Authorization: Basic")},
		{"two lines, the first right", request("GET", "/", basic("alice", "wonderland"), basic("eve", "x"))},
		{"a control character", request("GET", "/", basic("alice", "wonderland\x00wonderland"))},
		{"a huge password", request("GET", "/", basic("alice", strings.Repeat("x", 20000)))},
		{"row 33: the name of a user", request("GET", "/", "X-User-ID: alice", "X_User_Id: alice")},
	} {
		got := g.Do(c.r)
		wantCode(t, c.name, got, routing.CodeUnauthenticated)
		if want := `Basic realm="the shop", charset="UTF-8"`; got.Response.Header().Get("WWW-Authenticate") != want {
			t.Errorf("%s: the challenge is %q", c.name, got.Response.Header().Get("WWW-Authenticate"))
		}
	}
	if n := g.Rejections("basic_auth"); n != 12 {
		t.Errorf("%v refusals were counted, want 12", n)
	}
}

func TestRow70NamesAreNotTold(t *testing.T) {
	g := plugintest.Start(t, plugintest.Case{Plugins: plugintest.Config{"basic_auth": {
		"users_file": usersFile(t, map[string]string{"alice": "wonderland"})}}})
	body := func(user string) string {
		got := g.Do(request("GET", "/", basic(user, "x"), "X-Request-Id: one"))
		text, _, _ := strings.Cut(got.Response.Body.String(), `"request_id"`)
		return text
	}
	if known, unknown := body("alice"), body("eve"); known != unknown || known == "" {
		t.Errorf("a known name is answered %s and an unknown one %s", known, unknown)
	}
}

func TestAUserWhoWasRemovedIsOutOnceTheFileWasReadAgain(t *testing.T) {
	path := usersFile(t, map[string]string{"alice": "a", "bob": "b"})
	g := plugintest.Start(t, plugintest.Case{Plugins: plugintest.Config{"basic_auth": {"users_file": path}}})
	ask := func(user, password string) plugintest.Result { return g.Do(request("GET", "/", basic(user, password))) }
	wantCode(t, "alice, who is remembered from now on", ask("alice", "a"), "")
	writeUsers(t, path, map[string]string{"bob": "new"})
	testenv.Eventually(t, 10*time.Second, "the file was read again", func() bool { return ask("bob", "new").Forwarded != nil })
	wantCode(t, "alice", ask("alice", "a"), routing.CodeUnauthenticated)
	wantCode(t, "bob's old password", ask("bob", "b"), routing.CodeUnauthenticated)
}

func TestBasicAuthRefusesBadConfiguration(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "bad")
	if err := os.WriteFile(bad, []byte("alice:canary\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	good := usersFile(t, map[string]string{"alice": "x"})
	for _, c := range []struct {
		config map[string]any
		want   []string
	}{
		{map[string]any{}, []string{"plugins.basic_auth.users_file: is missing; write one with htpasswd -B"}},
		{map[string]any{"users_file": "/nowhere"}, []string{"plugins.basic_auth.users_file: open /nowhere: no such file or directory"}},
		{map[string]any{"users_file": bad}, []string{"plugins.basic_auth.users_file: " + bad +
			": line 1: the hash is neither bcrypt nor argon2id; write it with htpasswd -B"}},
		{map[string]any{"users_file": good, "groups_file": bad + "x"}, []string{
			"plugins.basic_auth.groups_file: open " + bad + "x: no such file or directory"}},
		{map[string]any{"users_file": good, "realm": `a"b`}, []string{
			"plugins.basic_auth.realm: holds a quote, a backslash or a control character"}},
		{map[string]any{"users_file": good, "user_header": "Connection"}, []string{
			"plugins.basic_auth.user_header: belongs to the connection or to the framing of the message and cannot be edited"}},
		{map[string]any{"users_file": good, "groups_header": "x-user-id"}, []string{
			"plugins.basic_auth.groups_header: is the user_header too"}},
	} {
		if got := plugintest.Faults("basic_auth", c.config); !slices.Equal(got, c.want) {
			t.Errorf("%v: the faults are %q, want %q", c.config, got, c.want)
		}
	}
}

func TestARouteUsesOneWayToAuthenticate(t *testing.T) {
	g := plugintest.Start(t, plugintest.Case{})
	problems := g.Configure(plugintest.Config{"api_key": {}, "basic_auth": {"users_file": usersFile(t, map[string]string{"a": "b"})}})
	want := "/sluice/routes/test: plugins.basic_auth: stands beside plugins.api_key; a route uses one plugin for authentication"
	if !slices.Equal(problems, []string{want}) {
		t.Errorf("the problems are %q", problems)
	}
}

func TestTheBasicAuthExampleWorks(t *testing.T) {
	g := plugintest.Start(t, plugintest.Case{Plugins: example(t, "basic-auth")})
	got := g.Do(request("GET", "/", basic("bob", "bob-secret")))
	wantCode(t, "bob", got, "")
	if got.Forwarded != nil && got.Forwarded.Header.Get("X-Consumer-Groups") != "user,guest" {
		t.Errorf("bob's groups are %q", got.Forwarded.Header.Get("X-Consumer-Groups"))
	}
	wantCode(t, "a wrong password", g.Do(request("GET", "/", basic("bob", "x"))), routing.CodeUnauthenticated)
}
