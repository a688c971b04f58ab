package middleware_test

import (
	"net/http/httptest"
	"testing"

	"github.com/sluice-gateway/sluice/middleware/plugintest"
)

func TestARoutesOwnAuthenticationTakesThePlaceOfWhatItWouldInherit(t *testing.T) {
	g := plugintest.Start(t, plugintest.Case{
		Plugins: plugintest.Config{"basic_auth": {"users_file": usersFile(t, map[string]string{"alice": "wonderland"})}},
		Documents: map[string]string{
			"plugins/api_key": `{}`,
			"routes/plain":    `{"path":"/plain","service":"instance"}`,
			"routes/open":     `{"path":"/open","service":"instance","plugins":{"api_key":{"disabled":true}}}`,
		},
	})
	ask := func(path, user string) int {
		r := httptest.NewRequest("GET", path, nil)
		if user != "" {
			r.SetBasicAuth(user, "wonderland")
		}
		return g.Do(r).Response.Code
	}
	for _, c := range []struct {
		what, path, user string
		want             int
	}{
		{"the route's own", "/own", "alice", 200},
		{"the route's own, and nobody", "/own", "", 401},
		{"what is inherited does not know alice", "/plain", "alice", 401},
		{"a route that leaves it out", "/open", "", 200},
	} {
		if got := ask(c.path, c.user); got != c.want {
			t.Errorf("%s: %d, want %d", c.what, got, c.want)
		}
	}
}
