package testenv

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

// claims reads a JWT without looking at its signature.
func claims(t *testing.T, token string) map[string]any {
	t.Helper()
	out := map[string]any{}
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("%q is no JWT", token)
	}
	data, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err == nil {
		err = json.Unmarshal(data, &out)
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestTheProviderIssuesTokensWithRoles(t *testing.T) {
	o := StartOIDC(t)
	if c := claims(t, o.Token("service")); c["role"] != "admin" || c["sub"] != "service" || c["iss"] != o.Issuer {
		t.Errorf("a client's own token says %v", c)
	}
	tokens := o.LogIn("web", "user")
	for kind, token := range map[string]string{"access": tokens.AccessToken, "id": tokens.IDToken} {
		if c := claims(t, token); c["role"] != "user" || c["sub"] != "user" || c["sid"] == "" {
			t.Errorf("the %s token says %v", kind, c)
		}
	}
	next := o.Refresh("web", tokens.RefreshToken)
	if next.RefreshToken == tokens.RefreshToken || claims(t, next.AccessToken)["sub"] != "user" {
		t.Errorf("refreshing gave %v", claims(t, next.AccessToken))
	}
	if n := o.Calls("/oauth/token refresh_token"); n != 1 {
		t.Errorf("it counted %d refreshes, want 1", n)
	}
	o.Lifetimes(90*time.Second, time.Hour)
	c := claims(t, o.Token("service"))
	if life := c["exp"].(float64) - c["iat"].(float64); life != 90 {
		t.Errorf("the token lives %v seconds, want 90", life)
	}
}

func TestTheProviderIntrospectsUntilTheLoginIsRevoked(t *testing.T) {
	o := StartOIDC(t)
	endpoint := o.Config()["introspection_endpoint"].(string)
	active := func(token string) bool {
		t.Helper()
		req, err := http.NewRequest(http.MethodPost, endpoint, strings.NewReader(url.Values{"token": {token}}.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.SetBasicAuth("service", "service-secret")
		body, err := o.do(req)
		var answer struct {
			Active bool
			Role   string
		}
		if err == nil {
			err = json.Unmarshal([]byte(body), &answer)
		}
		if err != nil {
			t.Fatal(err)
		}
		if answer.Active && answer.Role != "user" {
			t.Errorf("it says %s", body)
		}
		return answer.Active
	}
	opaque, jwt := o.LogIn("opaque", "user").AccessToken, o.LogIn("web", "user").AccessToken
	if strings.Count(opaque, ".") == 2 {
		t.Errorf("%q is a JWT", opaque)
	}
	if !active(opaque) || !active(jwt) || active("nonsense") {
		t.Error("live tokens are not active, or nonsense is")
	}
	o.Revoke("user")
	if active(opaque) || active(jwt) {
		t.Error("revoked tokens are active")
	}
}

func TestTheProviderRotatesItsKeys(t *testing.T) {
	o := StartOIDC(t)
	keys := func() (n int) {
		var set struct{ Keys []any }
		if err := json.Unmarshal([]byte(o.must(http.MethodGet, "/keys", nil)), &set); err != nil {
			t.Fatal(err)
		}
		return len(set.Keys)
	}
	o.Rotate("ES256", false)
	if n := keys(); n != 2 {
		t.Errorf("after a rotation it has %d keys, want 2", n)
	}
	o.Rotate("RS256", true)
	if n := keys(); n != 1 {
		t.Errorf("after the old ones were retired it has %d keys, want 1", n)
	}
	if c := claims(t, o.Sign("JWT", map[string]any{"any": "thing"})); c["any"] != "thing" {
		t.Errorf("it signed %v", c)
	}
}

func TestTheProviderTellsClientsOfALogout(t *testing.T) {
	o := StartOIDC(t)
	told := make(chan string, 1)
	client := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		told <- r.FormValue("logout_token")
	}))
	t.Cleanup(client.Close)
	o.PutClient("web", OIDCClient{Secret: "web-secret", RedirectURIs: []string{oidcCallback}, BackChannelLogoutURI: client.URL})
	sid := claims(t, o.LogIn("web", "user").IDToken)["sid"]
	o.LogOut("user")
	if c := claims(t, <-told); c["sid"] != sid || c["sub"] != "user" || c["events"] == nil {
		t.Errorf("the logout token says %v, the login was %v", c, sid)
	}
}
