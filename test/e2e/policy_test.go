package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/sluice-gateway/sluice/scripts/rig"
	"github.com/sluice-gateway/sluice/test/testenv"
	"golang.org/x/crypto/bcrypt"
)

// policy is one plugin as it comes and goes under load.
type policy struct {
	plugin string
	// added and changed are configurations that let good pass and refuse bad;
	// broken is none.
	added, changed, broken string
	good, bad              func(r *http.Request)
	refused                int // what bad gets
	// counts says that the first bad request still passes.
	counts bool
	// held is a path where requests last until the test ends: two are under
	// way at each gateway once the plugin is there.
	held string
	// secure sends both over the https listener, with the certificates of
	// "good" and "bad".
	secure bool
}

// policySite is two gateways on one etcd and one Redis. Requests go to them in
// turn, from addresses that they believe X-Forwarded-For about.
type policySite struct {
	*limitSite
	https  []string // by gateway
	roots  *x509.CertPool
	ca     *testenv.CA
	client *http.Client
	n      atomic.Int64
}

func newPolicySite(t *testing.T) *policySite {
	t.Helper()
	s := &policySite{limitSite: &limitSite{t: t, etcd: testenv.StartEtcd(t), redis: testenv.StartRedis(t)}, ca: testenv.NewCA(t)}
	cert, key := s.ca.Issue(t, "gateway", "127.0.0.1")
	s.roots = x509.NewCertPool()
	pem, err := os.ReadFile(s.ca.File)
	if err != nil || !s.roots.AppendCertsFromPEM(pem) {
		t.Fatalf("read the CA: %v", err)
	}
	for i := range 2 {
		secure := fmt.Sprint("127.0.0.1:", testenv.FreePort(t))
		s.https = append(s.https, secure)
		s.gateways = append(s.gateways, testenv.StartGateway(t, testenv.GatewayOptions{
			Name: fmt.Sprintf("gateway-%d", i+1), Etcd: s.etcd.Endpoint, ListenExtra: []string{fmt.Sprintf("https: %q", secure)},
			Extra: fmt.Sprintf("log: {access: false}\nredis: {address: %q, timeout: 500ms}\ntrusted_proxies: [127.0.0.1]\n"+
				"tls:\n  certificates: [{cert_file: %q, key_file: %q}]\n  client_ca_file: %q\n", s.redis.Addr, cert, key, s.ca.File),
		}))
	}
	s.client = s.newClient()
	return s
}

// newClient makes a client, over TLS with the named certificate.
func (s *policySite) newClient(names ...string) *http.Client {
	s.t.Helper()
	config := &tls.Config{RootCAs: s.roots}
	for _, name := range names {
		pair, err := tls.LoadX509KeyPair(s.ca.Issue(s.t, name))
		if err != nil {
			s.t.Fatal(err)
		}
		config.Certificates = append(config.Certificates, pair)
	}
	c := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 8, TLSClientConfig: config}}
	s.t.Cleanup(c.CloseIdleConnections)
	return c
}

// send returns what sends one request to the policy's route.
func (s *policySite) send(p policy, name string, dress func(*http.Request)) func() (int, error) {
	client := s.client
	if p.secure {
		client = s.newClient(name)
	}
	return func() (int, error) {
		n := s.n.Add(1)
		base := s.gateways[n%2].URL()
		if p.secure {
			base = "https://" + s.https[n%2]
		}
		req, err := http.NewRequest(http.MethodPost, base+"/"+p.plugin+"/x", nil)
		if err != nil {
			return 0, err
		}
		req.Header.Set("X-Forwarded-For", fmt.Sprintf("10.%d.%d.%d", n>>16&255, n>>8&255, n&255))
		if dress != nil {
			dress(req)
		}
		return status(client, req)
	}
}

func (p policy) route(config string) string {
	plugins := ""
	if config != "" {
		plugins = fmt.Sprintf(`,"plugins":{%q:%s}`, p.plugin, config)
	}
	if p.plugin == "acl" && config != "" { // somebody has to say who asks
		plugins = strings.Replace(plugins, `{"acl"`, `{"api_key":{},"acl"`, 1)
	}
	answer := `"respond":{"status":200}`
	if p.held != "" {
		answer = `"service":"decides","timeout":"0s"`
	}
	return fmt.Sprintf(`{"path":"/%s/*",%s%s}`, p.plugin, answer, plugins)
}

func header(name, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set(name, value) }
}

// policies lists the plugins that refuse requests, and services for them.
// session, whose good requests begin with a login, has tests of its own.
func (s *policySite) policies() (all []policy, services map[string]string) {
	t := s.t
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	hash, err := bcrypt.GenerateFromPassword([]byte("right"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	const secret = "a secret of thirty-two bytes, or more"
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"sub": "eve", "exp": time.Now().Add(time.Hour).Unix()}).
		SignedString([]byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	over := make(chan struct{})
	decides := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/max_in_flight/held":
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
			<-over
			return
		case "/max_in_flight/x":
			return
		}
		if r.URL.Path == "/introspect" {
			fmt.Fprintf(w, `{"active":%t}`, r.FormValue("token") == "good")
			return
		}
		if r.Header.Get("X-Pass") != "good" {
			w.WriteHeader(http.StatusForbidden)
		}
	}))
	t.Cleanup(func() { close(over); decides.Close() })
	secretFile, users := file("secret", secret), file("users", "eve:"+string(hash)+"\n")
	basic := func(password string) func(*http.Request) {
		return func(r *http.Request) { r.SetBasicAuth("eve", password) }
	}
	body := func(n int) func(*http.Request) {
		return func(r *http.Request) {
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader(strings.Repeat("x", n))), int64(n)
		}
	}
	jwtConfig := func(more string) string {
		return fmt.Sprintf(`{"algorithms":["HS256"],"secret_file":%q%s}`, secretFile, more)
	}
	asks := func(more string) string {
		return fmt.Sprintf(`{"url":%q,"client_id":"gw","client_secret_file":%q%s}`, decides.URL+"/introspect", secretFile, more)
	}
	services = map[string]string{"/sluice/services/decides": fmt.Sprintf(`{"url":%q}`, decides.URL)}
	return []policy{
		{plugin: "ip_filter", added: `{"deny":["203.0.113.0/24"]}`, changed: `{"deny":["203.0.113.7","198.51.100.0/24"]}`,
			broken: `{"deny":["203.0.113.7/24"]}`, bad: header("X-Forwarded-For", "203.0.113.7"), refused: 403},
		{plugin: "ip_rate_limit", added: `{"limits":[{"requests":1,"per":"day"}],"algorithm":"fixed_window","store":"redis","on_store_error":"deny"}`,
			changed: `{"limits":[{"requests":1,"per":"day"},{"requests":9,"per":"second"}],"algorithm":"fixed_window","store":"redis","on_store_error":"deny"}`,
			broken:  `{"limits":[]}`, bad: header("X-Forwarded-For", "203.0.113.8"), refused: 429, counts: true},
		{plugin: "bot_guard", added: `{"action":"block","user_agents":["^scraper"]}`, changed: `{"action":"block","user_agents":["^scraper","^other"],"window":"2m"}`,
			broken: `{"action":"shout"}`, refused: 403, counts: true,
			bad: func(r *http.Request) {
				r.Header.Set("X-Forwarded-For", "203.0.113.9")
				r.Header.Set("User-Agent", "scraper/1")
			}},
		{plugin: "body_limit", added: `{"max_bytes":10}`, changed: `{"max_bytes":99}`, broken: `{"max_bytes":-1}`, good: body(10), bad: body(100), refused: 413},
		{plugin: "mtls", added: `{"allow":{"subject_cn":["good"]}}`, changed: `{"allow":{"subject_cn":["good","better"]}}`,
			broken: `{"allow":{"shoe_size":["42"]}}`, secure: true, refused: 403},
		{plugin: "jwt", added: jwtConfig(""), changed: jwtConfig(`,"leeway":"5s"`), broken: `{"algorithms":["none"]}`,
			good: header("Authorization", "Bearer "+token), bad: header("Authorization", "Bearer "+token+"x"), refused: 401},
		{plugin: "api_key", added: `{}`, changed: `{"forward_key":true}`, broken: `{"header":"a b"}`, good: header("X-API-Key", "good"), bad: header("X-API-Key", "bad"), refused: 401},
		{plugin: "basic_auth", added: fmt.Sprintf(`{"users_file":%q}`, users), changed: fmt.Sprintf(`{"users_file":%q,"realm":"other"}`, users),
			broken: `{"users_file":"none"}`, good: basic("right"), bad: basic("wrong"), refused: 401},
		{plugin: "introspection", added: asks(""), changed: asks(`,"cache_ttl":"1s"`), broken: asks(`,"cache_ttl":"1d"`),
			good: header("Authorization", "Bearer good"), bad: header("Authorization", "Bearer bad"), refused: 401},
		{plugin: "forward_auth", added: fmt.Sprintf(`{"url":%q,"request_headers":["X-Pass"]}`, decides.URL),
			changed: fmt.Sprintf(`{"url":%q,"request_headers":["X-Pass"],"timeout":"4s"}`, decides.URL), broken: `{"url":"decides"}`,
			good: header("X-Pass", "good"), bad: header("X-Pass", "bad"), refused: 403},
		{plugin: "acl", added: `{"rules":[{"of":"group","any_of":["gold"]}]}`, changed: `{"rules":[{"methods":["POST"],"of":"group","any_of":["gold","silver"]}]}`,
			broken: `{"rules":[{"of":"shoe_size"}]}`, good: header("X-API-Key", "good"), bad: header("X-API-Key", "plain"), refused: 403},
		{plugin: "rate_limit", added: `{"limits":[{"requests":1,"per":"day"}],"key":"header:X-Who"}`,
			changed: `{"limits":[{"requests":1,"per":"day"},{"requests":9,"per":"second"}],"key":"header:X-Who"}`, broken: `{"limits":[{"requests":1}]}`,
			good: func(r *http.Request) { r.Header.Set("X-Who", r.Header.Get("X-Forwarded-For")) }, bad: header("X-Who", "bad"), refused: 429, counts: true},
		{plugin: "max_in_flight", added: `{"requests":2,"key":"header:X-Who"}`, changed: `{"requests":1,"key":"header:X-Who"}`,
			broken: `{"requests":0}`, good: func(r *http.Request) { r.Header.Set("X-Who", r.Header.Get("X-Forwarded-For")) },
			bad: header("X-Who", "bad"), refused: 429, held: "/max_in_flight/held"},
	}, services
}

// hold sends two requests of a bad one's to each gateway, which last.
func (s *policySite) hold(p policy) {
	s.t.Helper()
	client := &http.Client{Transport: s.client.Transport} // without a timeout
	for _, g := range slices.Repeat(s.gateways, 2) {
		testenv.Eventually(s.t, wait, "a request is under way at "+g.Name, func() bool {
			req, err := http.NewRequest(http.MethodPost, g.URL()+p.held, nil)
			if err != nil {
				s.t.Fatal(err)
			}
			p.bad(req)
			resp, err := client.Do(req)
			if err != nil {
				return false
			}
			s.t.Cleanup(func() { _ = resp.Body.Close() })
			return resp.StatusCode == http.StatusOK // else another bad one was
		})
	}
}

func TestEveryPolicyComesChangesBreaksAndGoesUnderLoad(t *testing.T) {
	s := newPolicySite(t)
	docs := map[string]string{
		"/sluice/consumers/good": consumerOf("good", "gold"), "/sluice/consumers/plain": consumerOf("plain", "iron"),
	}
	all, services := s.policies()
	maps.Copy(docs, services)
	kinds := map[string]func() (int, error){}
	every := func(config func(policy) string) {
		t.Helper()
		for _, p := range all {
			docs["/sluice/routes/"+p.plugin] = p.route(config(p))
		}
		s.put(docs)
	}
	for _, p := range all {
		kinds[p.plugin+" good"], kinds[p.plugin+" bad"] = s.send(p, "good", p.good), s.send(p, "bad", p.bad)
	}
	every(func(policy) string { return "" })
	l := startVolley(t, 1, kinds)
	for _, p := range all {
		l.expect(p.plugin+" good", 200)
		l.expect(p.plugin+" bad", 200)
	}
	l.run(10)
	for _, p := range all {
		l.expect(p.plugin+" bad", 0) // either, until every gateway has it
	}
	every(func(p policy) string { return p.added })
	for _, p := range all {
		if p.held != "" {
			s.hold(p)
		}
		if p.counts {
			for i := range s.gateways {
				testenv.Eventually(t, wait, fmt.Sprintf("%s counts at gateway %d", p.plugin, i+1), func() bool {
					got, err := kinds[p.plugin+" bad"]()
					return err == nil && got == p.refused
				})
			}
		}
		l.expect(p.plugin+" bad", p.refused)
	}
	l.run(20)
	every(func(p policy) string { return p.changed })
	l.run(20)
	every(func(p policy) string { return p.broken })
	for _, g := range s.gateways {
		st, err := rig.Status(g)
		if err != nil || len(st.Problems) != len(all) {
			t.Errorf("%s has %d problems (%v), want %d: %v", g.Name, len(st.Problems), err, len(all), st.Problems)
		}
	}
	l.run(20)
	every(func(p policy) string { return p.added })
	l.run(20)
	for _, p := range all {
		l.expect(p.plugin+" bad", 0)
	}
	every(func(policy) string { return "" })
	for _, p := range all {
		l.expect(p.plugin+" bad", 200)
	}
	l.run(20)
	l.end()
}
