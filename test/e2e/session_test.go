package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/test/testenv"
)

// club is a site whose members log in: two gateways behind one name, one
// etcd, one Redis, a real issuer.
type club struct {
	t        *testing.T
	etcd     *testenv.Etcd
	redis    *testenv.Redis
	oidc     *testenv.OIDC
	gateways [2]*testenv.Gateway
	plugin   map[string]any
}

const (
	clubName    = "app.test"
	clubOrigin  = "http://" + clubName
	clubSession = "sluice_session"
)

func newClub(t *testing.T) *club {
	t.Helper()
	// What Redis holds outlives a restart, as where it matters it should.
	c := &club{t: t, etcd: testenv.StartEtcd(t), redis: testenv.StartRedis(t, "--appendonly", "yes"), oidc: testenv.StartOIDC(t)}
	orders := testenv.StartService(t, "orders", "-id", "orders-1")
	secret := filepath.Join(t.TempDir(), "secret")
	client := filepath.Join(t.TempDir(), "client")
	for file, text := range map[string]string{secret: strings.Repeat("s3cret-", 6) + "\n", client: "web-secret\n"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c.plugin = map[string]any{"issuer": c.oidc.Issuer, "client_id": "web", "client_secret_file": client, "secret_file": secret,
		"scopes": []string{"openid", "email", "offline_access"}, "insecure_cookie": true,
		"claims_to_headers": map[string]string{"sub": "X-User-ID", "role": "X-User-Role"}}
	c.etcd.Apply(map[string]string{"/sluice/services/orders": fmt.Sprintf(`{"targets":[{"address":%q}]}`, orders.Addr),
		"/sluice/routes/open": `{"path":"/open","service":"orders"}`})
	c.put()
	for i := range c.gateways {
		c.gateways[i] = testenv.StartGateway(t, testenv.GatewayOptions{Name: fmt.Sprint("gateway", i), Etcd: c.etcd.Endpoint,
			Extra: fmt.Sprintf("redis:\n  address: %q\n  timeout: 500ms\n", c.redis.Addr)})
	}
	c.oidc.PutClient("web", testenv.OIDCClient{Secret: "web-secret", RedirectURIs: []string{clubOrigin + "/_sluice/callback"},
		BackChannelLogoutURI: c.gateways[0].URL() + "/_sluice/backchannel-logout"})
	return c
}

func (c *club) put() {
	c.t.Helper()
	value, err := json.Marshal(map[string]any{"path": "/*", "service": "orders", "plugins": map[string]any{"session": c.plugin}})
	if err != nil {
		c.t.Fatal(err)
	}
	c.etcd.Put("/sluice/routes/app", string(value))
}

// member is a browser.
type member struct {
	club    *club
	cookies map[string]string
}

func (c *club) member() *member { return &member{club: c, cookies: map[string]string{}} }

type page struct {
	answer
	Location string
	Headers  http.Header `json:"headers"` // as the instance saw them
}

// send asks gateway g for a page and keeps no cookie; headers are "Name: value".
func (m *member) send(g int, method, path string, headers ...string) (page, []*http.Cookie, error) {
	var a page
	req, err := http.NewRequest(method, m.club.gateways[g].URL()+path, nil)
	if err != nil {
		return a, nil, err
	}
	req.Host = clubName
	req.Header.Set("Accept", "text/html")
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	for name, value := range m.cookies {
		req.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	client := &http.Client{Timeout: 15 * time.Second, Transport: &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		return a, nil, err
	}
	defer resp.Body.Close()
	if a.Body, err = io.ReadAll(resp.Body); err != nil {
		return a, nil, err
	}
	_ = json.Unmarshal(a.Body, &a) // not every answer is JSON
	a.Status, a.Header, a.Location = resp.StatusCode, resp.Header, resp.Header.Get("Location")
	return a, resp.Cookies(), nil
}

// ask is send by a browser that takes the cookies it is given.
func (m *member) ask(g int, method, path string, headers ...string) page {
	m.club.t.Helper()
	a, cookies, err := m.send(g, method, path, headers...)
	if err != nil {
		m.club.t.Fatalf("%s %s: %v", method, path, err)
	}
	for _, k := range cookies {
		if m.cookies[k.Name] = k.Value; k.MaxAge < 0 {
			delete(m.cookies, k.Name)
		}
	}
	return a
}

// begin opens a page at gateway g, logs in at the issuer, and returns the
// path that the issuer sends the browser back to.
func (m *member) begin(g int, path, user string) string {
	m.club.t.Helper()
	a := m.ask(g, "GET", path)
	if a.Status != http.StatusFound || !strings.HasPrefix(a.Location, m.club.oidc.Issuer) {
		m.club.t.Fatalf("a page without a session got %d to %q: %s", a.Status, a.Location, a.Body)
	}
	back, ok := strings.CutPrefix(m.club.oidc.Approve(a.Location, user), clubOrigin)
	if !ok {
		m.club.t.Fatalf("the issuer sends the browser to %q", back)
	}
	return back
}

// logIn logs a user in: the login begins at gateway g and ends at the other.
func (m *member) logIn(g int, user string) {
	m.club.t.Helper()
	a := m.ask(1-g, "GET", m.begin(g, "/page?a=1", user))
	equal(m.club.t, "the login ends", fmt.Sprint(a.Status, " ", a.Location), "302 /page?a=1")
}

// in says whether gateway g lets the member in as user.
func (m *member) in(g int, user string) bool {
	a := m.ask(g, "GET", "/page", "Accept: */*")
	return a.Status == http.StatusOK && a.Headers.Get("X-User-Id") == user
}

func (m *member) both(what, user string, want bool) {
	m.club.t.Helper()
	for g := range m.club.gateways {
		a := m.ask(g, "GET", "/page", "Accept: */*")
		if got := a.Headers.Get("X-User-Id"); want && got != user || !want && a.Status != http.StatusUnauthorized {
			m.club.t.Errorf("%s: gateway %d answers %d to %q, in as %s: %v", what, g, a.Status, got, user, want)
		}
	}
}

func TestAMemberIsKnownToEveryGatewayUntilTheyLogOutAtOne(t *testing.T) {
	c := newClub(t)
	m, other := c.member(), c.member()
	m.logIn(0, "user")
	other.logIn(1, "admin")
	m.both("after the login", "user", true)
	a := m.ask(1, "GET", "/page", "X-User-Role: admin", "X-User-ID: root")
	equal(t, "role", a.Headers["X-User-Role"], []string{"user"})
	equal(t, "cookies at the instance", a.Headers["Cookie"], nil)
	equal(t, "cookies at another route's instance", m.ask(0, "GET", "/open").Headers["Cookie"], nil)
	equal(t, "a stranger's script", c.member().ask(0, "POST", "/page").Code, "unauthenticated")

	kept := maps.Clone(m.cookies)
	equal(t, "a logout from elsewhere", m.ask(1, "POST", "/_sluice/logout", "Origin: https://evil.test").Status, 403)
	m.both("after that", "user", true)
	a = m.ask(1, "POST", "/_sluice/logout", "Origin: "+clubOrigin)
	equal(t, "the logout", fmt.Sprint(a.Status, " ", a.Location), "303 /")
	equal(t, "cookies left", len(m.cookies), 0)
	m.cookies = kept
	m.both("after the logout", "user", false)
	other.both("somebody else", "admin", true)
}

func TestAMemberIsRefreshedOnceByAllGatewaysTogether(t *testing.T) {
	c := newClub(t)
	c.oidc.Lifetimes(2*time.Second, time.Hour)
	m := c.member()
	m.logIn(0, "user")
	stale := time.Now().Add(2 * time.Second)
	c.oidc.Lifetimes(5*time.Minute, time.Hour)
	c.oidc.PutUser("user", testenv.OIDCUser{Password: "user", Claims: map[string]any{"role": "promoted"}})
	testenv.Eventually(t, 10*time.Second, "the access token expires", func() bool { return time.Now().After(stale) })
	var all sync.WaitGroup
	for i := range 60 {
		all.Go(func() {
			a, _, err := m.send(i%2, "GET", "/page")
			if err != nil || a.Status != http.StatusOK || a.Headers.Get("X-User-Role") != "promoted" {
				t.Errorf("request %d got %d %s %v", i, a.Status, a.Headers.Get("X-User-Role"), err)
			}
		})
	}
	all.Wait()
	equal(t, "refreshes", c.oidc.Calls("/oauth/token refresh_token"), 1)
	equal(t, "refresh tokens used again", c.oidc.Calls("refresh token reused"), 0)
}

func TestALoginIsNobodyElsesAndCountsOnce(t *testing.T) {
	c := newClub(t)
	attacker, victim := c.member(), c.member()
	attacker.logIn(0, "guest")
	planted := attacker.cookies[clubSession]

	back := victim.begin(0, "/page", "user")
	began := maps.Clone(victim.cookies)
	equal(t, "another browser's code", attacker.ask(0, "GET", back).Status, 400)
	victim.cookies[clubSession] = planted
	equal(t, "the login over a planted session", victim.ask(1, "GET", back).Status, 302)
	if victim.cookies[clubSession] == planted {
		t.Error("the login kept the session that was there before it")
	}
	victim.both("the victim", "user", true)
	attacker.both("the planted session", "guest", false)

	replay := c.member()
	replay.cookies = began
	for g := range c.gateways {
		equal(t, "the same code and state again", replay.ask(g, "GET", back).Code, "bad_request")
	}
	victim.both("after the replay", "user", true)

	value := victim.cookies[clubSession]
	for i := 0; i < len(value); i += 7 {
		flipped := []byte(value)
		if flipped[i] ^= 1; i == len(value)-1 {
			continue // the last character may hold bits that stand for nothing
		}
		thief := c.member()
		thief.cookies[clubSession] = string(flipped)
		if thief.in(i%2, "user") {
			t.Errorf("a cookie changed at %d is taken", i)
		}
	}
}

func TestALoginEndsWhereItBeganAndNowhereElse(t *testing.T) {
	c := newClub(t)
	for path, want := range map[string]string{
		"/deep/page?next=https://evil.test": "/deep/page?next=https://evil.test",
		"//evil.test/x":                     "/",
		"///evil.test":                      "/",
		"/%2F/evil.test":                    "/%2F/evil.test",
		"/@evil.test":                       "/@evil.test",
	} {
		m := c.member()
		a := m.ask(1, "GET", m.begin(0, path, "user"))
		if a.Status != 302 || a.Location != want {
			t.Errorf("a login begun at %q ended with %d at %q, want %q", path, a.Status, a.Location, want)
		}
		u, err := url.Parse(a.Location)
		if err != nil || u.Host != "" {
			t.Errorf("%q leads to host %q, %v", a.Location, u.Host, err)
		}
	}
}

func TestR2MembersAreKeptOutWhileRedisIsAwayAndKnownAfterwards(t *testing.T) {
	c := newClub(t)
	m := c.member()
	m.logIn(0, "user")
	c.redis.Kill()
	for g := range c.gateways {
		for range 5 {
			a := m.ask(g, "GET", "/page")
			equal(t, "without Redis", fmt.Sprint(a.Status, " ", a.Code, " ", a.Instance), "503 overloaded ")
		}
		equal(t, "another route", m.ask(g, "GET", "/open").Status, 200)
	}
	equal(t, "a logout without Redis", m.ask(0, "POST", "/_sluice/logout").Status, 503)
	c.redis.Restart()
	for g := range c.gateways {
		testenv.Eventually(t, 10*time.Second, "Redis is used again", func() bool { return m.in(g, "user") })
	}
}

func TestTheIssuerEndsSessionsByTheBackChannel(t *testing.T) {
	c := newClub(t)
	m, other := c.member(), c.member()
	m.logIn(0, "user")
	other.logIn(1, "admin")
	c.oidc.LogOut("user") // told to one gateway
	m.both("after the issuer said so", "user", false)
	other.both("somebody else", "admin", true)

	c.oidc.Lifetimes(2*time.Second, time.Hour)
	m.logIn(1, "user")
	stale := time.Now().Add(2 * time.Second)
	c.oidc.Revoke("user") // told to nobody
	m.both("before the next refresh", "user", true)
	testenv.Eventually(t, 10*time.Second, "the access token expires", func() bool { return time.Now().After(stale) })
	m.both("after the refresh was refused", "user", false)
}

func TestSessionsGoOnWhileTheIssuerIsAwayAndItsKeysChange(t *testing.T) {
	c := newClub(t)
	m := c.member()
	m.logIn(0, "user")
	for _, alg := range []string{"RS256", "ES256"} {
		c.oidc.Rotate(alg, true)
		c.member().logIn(0, "admin")
	}
	c.oidc.Kill()
	m.both("without the issuer", "user", true)
	back := c.member().ask(0, "GET", "/_sluice/callback?code=x&state="+strings.Repeat("x", 26))
	equal(t, "a made-up callback", back.Status, 400)
	c.oidc.Restart() // with new keys, and knowing of no login
	m.both("after its restart", "user", true)
	c.member().logIn(1, "guest")
}

func TestAChangeOfTheRouteLogsNobodyOut(t *testing.T) {
	c := newClub(t)
	m := c.member()
	m.logIn(0, "user")
	done := make(chan struct{})
	var all sync.WaitGroup
	for g := range c.gateways {
		all.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-done:
					if n < 10 {
						t.Errorf("gateway %d was asked %d times only", g, n)
					}
					return
				default:
				}
				if a, _, err := m.send(g, "GET", "/page"); err != nil || a.Status != 200 || a.Headers.Get("X-User-Id") != "user" {
					t.Errorf("gateway %d: %d %s %v", g, a.Status, a.Body, err)
					return
				}
				stranger := c.member()
				if a, _, err := stranger.send(g, "GET", "/page", "Accept: */*"); err != nil || a.Status != http.StatusUnauthorized {
					t.Errorf("gateway %d let a stranger in: %d %v", g, a.Status, err)
					return
				}
			}
		})
	}
	for i := range 10 {
		c.plugin["idle_timeout"] = fmt.Sprint(10+i, "m")
		c.plugin["claims_to_headers"] = map[string]string{"sub": "X-User-ID", "role": fmt.Sprint("X-Role-", i)}
		c.put()
		c.etcd.Put("/sluice/routes/app", `{"path":"/*","service":"orders","plugins":{"session":{"issuer":7}}}`) // its last good version serves on
	}
	c.put()
	for g := range c.gateways {
		testenv.Eventually(t, 10*time.Second, "the last change is in force", func() bool {
			a, _, err := m.send(g, "GET", "/page")
			return err == nil && a.Headers.Get("X-Role-9") == "user"
		})
	}
	close(done)
	all.Wait()
}
