package e2e

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/test/testenv"
	"golang.org/x/crypto/bcrypt"
)

// accessSite is a gateway that follows etcd alone, in front of one instance
// of the service orders.
func accessSite(t *testing.T, o testenv.GatewayOptions) *site {
	t.Helper()
	s := &site{t: t, etcd: testenv.StartEtcd(t)}
	o.Etcd = s.etcd.Endpoint
	s.gateway = testenv.StartGateway(t, o)
	orders := testenv.StartService(t, "orders", "-id", "o1", "-consul", "")
	s.etcd.Put("/sluice/services/orders", `{"targets":[{"address":"`+orders.Addr+`"}]}`)
	return s
}

// applied waits until the gateway serves what stands at a revision of etcd.
func (s *site) applied(revision int64) {
	s.t.Helper()
	testenv.Eventually(s.t, 20*time.Second, fmt.Sprint("revision ", revision, " is applied"), func() bool {
		return s.status().Revision >= revision
	})
}

// seen is what the instance says it got of a header.
func (a answer) seen(name string) string {
	var got struct{ Headers http.Header }
	_ = json.Unmarshal(a.Body, &got) // a refusal has none
	return strings.Join(got.Headers[http.CanonicalHeaderKey(name)], "|")
}

func consumerOf(key, group string) string {
	sum := sha256.Sum256([]byte(key))
	return `{"key_sha256":"` + hex.EncodeToString(sum[:]) + `","groups":["` + group + `"]}`
}

func TestConsumersComeAndGoUnderLoad(t *testing.T) {
	s := accessSite(t, testenv.GatewayOptions{})
	s.applied(s.etcd.Apply(map[string]string{
		"/sluice/consumers/gold":   consumerOf("gold-key", "gold"),
		"/sluice/consumers/silver": consumerOf("silver-key", "silver"),
		"/sluice/routes/orders": `{"path":"/orders/*","service":"orders","plugins":{"api_key":{},
			"acl":{"rules":[{"paths":["/orders/*"],"methods":["GET"],"of":"group","any_of":["gold"]}]}}}`,
	}))
	stop := make(chan struct{})
	var load sync.WaitGroup
	var asked, wrong atomic.Int64
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}, Timeout: 10 * time.Second}
	defer client.CloseIdleConnections()
	for key, want := range map[string]int{"gold-key": 200, "silver-key": 403, "nobody-key": 401, "": 401} {
		load.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				req, _ := http.NewRequest("GET", s.gateway.URL()+"/orders/1", nil)
				if key != "" {
					req.Header.Set("X-API-Key", key)
				}
				resp, err := client.Do(req)
				if err != nil {
					wrong.Add(1)
					t.Errorf("key %q: %v", key, err)
					return
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				if asked.Add(1); resp.StatusCode != want {
					wrong.Add(1)
					t.Errorf("key %q got %d, want %d", key, resp.StatusCode, want)
				}
			}
		})
	}
	// A consumer is there from the revision that writes it to the one that
	// deletes it, and not a request longer.
	for i := range 25 {
		key := fmt.Sprint("key-", i)
		s.applied(s.etcd.Put("/sluice/consumers/guest", consumerOf(key, "gold")))
		for range 20 {
			a := s.ask("GET", "/orders/1", "X-API-Key: "+key)
			if a.Status != 200 || a.seen("X-Consumer") != "guest" || a.seen("X-Api-Key") != "" {
				t.Fatalf("round %d: a consumer who is there got %d, and the instance %q %q", i, a.Status, a.seen("X-Consumer"), a.seen("X-Api-Key"))
			}
			equal(t, "another method", s.ask("POST", "/orders/1", "X-API-Key: "+key).Status, 403)
		}
		s.applied(s.etcd.Delete("/sluice/consumers/guest"))
		for range 20 {
			equal(t, "a consumer who was deleted", s.ask("GET", "/orders/1", "X-API-Key: "+key).Status, 401)
		}
	}
	close(stop)
	load.Wait()
	equal(t, "wrong answers", wrong.Load(), int64(0))
	t.Logf("%d requests under the changes, 0 wrong", asked.Load())
}

func TestAnAccessListThatBreaksServesOnAndNeverOpens(t *testing.T) {
	s := accessSite(t, testenv.GatewayOptions{})
	route := func(rules string) string {
		return `{"path":"/orders/*","service":"orders","plugins":{"api_key":{},"acl":{"rules":` + rules + `}}}`
	}
	s.etcd.Put("/sluice/consumers/gold", consumerOf("gold-key", "gold"))
	s.applied(s.etcd.Put("/sluice/routes/orders", route(`[{"of":"group","any_of":["gold"]}]`)))
	ask := func() int { return s.ask("GET", "/orders/1", "X-API-Key: gold-key").Status }
	equal(t, "gold", ask(), 200)
	s.applied(s.etcd.Put("/sluice/routes/orders", route(`[{"of":"grp","any_of":["silver"]}]`)))
	equal(t, "problems", s.problems(), []string{"/sluice/routes/orders invalid_plugin last_good"})
	equal(t, "gold, by the last good rules", ask(), 200)
	equal(t, "nobody", s.ask("GET", "/orders/1").Status, 401)
	s.applied(s.etcd.Put("/sluice/routes/orders", route(`[{"of":"group","any_of":["silver"]}]`)))
	equal(t, "gold, once only silver may", ask(), 403)
	s.applied(s.etcd.Put("/sluice/routes/new", `{"path":"/new","service":"orders","plugins":{"api_key":{"header":"a b"}}}`))
	a := s.ask("GET", "/new", "X-API-Key: gold-key")
	equal(t, "a route that was never good", fmt.Sprint(a.Status, a.Code), "503route_invalid")
}

func TestTheTutorialsTableOfRoles(t *testing.T) {
	dir := t.TempDir()
	users, groups := filepath.Join(dir, "users"), filepath.Join(dir, "groups")
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	line := func(name string) string {
		h, err := bcrypt.GenerateFromPassword([]byte(name+"'s"), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		return name + ":" + string(h) + "\n"
	}
	write(users, line("gina")+line("uwe")+line("ada"))
	write(groups, "guest: gina uwe ada\nuser: uwe ada\nadmin: ada\n")
	s := accessSite(t, testenv.GatewayOptions{})
	s.applied(s.etcd.Put("/sluice/routes/api", `{"path":"/api/*","service":"orders","plugins":{
		"basic_auth":{"users_file":"`+users+`","groups_file":"`+groups+`"},
		"acl":{"rules":[
			{"paths":["/api/public/*"],"of":"group","any_of":["guest"]},
			{"paths":["/api/profile"],"of":"group","any_of":["user"]},
			{"paths":["/api/admin/*"],"of":"group","any_of":["admin"]}]}}}`))
	ask := func(user, path string) answer {
		return s.ask("GET", path, "Authorization: Basic "+base64.StdEncoding.EncodeToString([]byte(user+":"+user+"'s")))
	}
	for _, row := range []struct {
		path            string
		gina, uwe, ada  int
		nobody, unknown int
	}{
		{"/api/public", 200, 200, 200, 401, 401},
		{"/api/profile", 403, 200, 200, 401, 401},
		{"/api/admin/dashboard", 403, 403, 200, 401, 401},
		{"/api/public/../admin/dashboard", 403, 403, 200, 401, 401},
		{"/api/elsewhere", 403, 403, 403, 401, 401},
	} {
		got := []int{ask("gina", row.path).Status, ask("uwe", row.path).Status, ask("ada", row.path).Status,
			s.ask("GET", row.path).Status, ask("eve", row.path).Status}
		equal(t, row.path, got, []int{row.gina, row.uwe, row.ada, row.nobody, row.unknown})
	}
	a := ask("ada", "/api/admin/dashboard")
	equal(t, "what the instance is told", a.seen("X-User-ID")+" "+a.seen("X-Consumer-Groups")+" "+a.seen("Authorization"), "ada guest,user,admin ")

	write(users, line("gina")+line("uwe"))
	testenv.Eventually(t, 20*time.Second, "the admin is out", func() bool { return ask("ada", "/api/public").Status == 401 })
	equal(t, "the others stay", ask("uwe", "/api/profile").Status, 200)
}

func TestForwardAuthThroughAnOutageOfTheService(t *testing.T) {
	var asked atomic.Int64
	decide := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if r.Header.Get("Authorization") != "Bearer good" || r.Header.Get("X-Forwarded-Uri") != "/orders/1?x=y" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		w.Header().Set("X-User-ID", "alice")
	})
	listen := func(addr string) *httptest.Server {
		t.Helper()
		ln, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		srv := &httptest.Server{Listener: ln, Config: &http.Server{Handler: decide}}
		srv.Start()
		return srv
	}
	judge := listen("127.0.0.1:0")
	addr := judge.Listener.Addr().String()
	s := accessSite(t, testenv.GatewayOptions{})
	s.applied(s.etcd.Put("/sluice/routes/orders", `{"path":"/orders/*","service":"orders","plugins":{"forward_auth":{
		"url":"http://`+addr+`/decide","response_headers":["X-User-ID"],"timeout":"1s"}}}`))
	good := func() answer {
		return s.ask("GET", "/orders/1?x=y", "Authorization: Bearer good", "X-User-ID: root", "X-Forwarded-Uri: /open")
	}
	bad := func() answer { return s.ask("GET", "/orders/1?x=y", "Authorization: Bearer bad") }
	for range 3 {
		a := good()
		equal(t, "a good token", fmt.Sprint(a.Status, " ", a.seen("X-User-ID")), "200 alice")
		equal(t, "a bad token", bad().Status, 403)
		judge.CloseClientConnections()
		judge.Close()
		for range 20 {
			a, b := good(), bad()
			equal(t, "while the service is away", fmt.Sprint(a.Status, a.Code, b.Status, b.Code), "503overloaded503overloaded")
		}
		judge = listen(addr)
	}
	equal(t, "once it is back", good().Status, 200)
	judge.Close()
	if asked.Load() == 0 {
		t.Error("the service was never asked")
	}
}

func TestClientCertificatesOverARealListener(t *testing.T) {
	ca, stranger := testenv.NewCA(t), testenv.NewCA(t)
	cert, key := ca.Issue(t, "gateway", "127.0.0.1")
	secure := fmt.Sprint("127.0.0.1:", testenv.FreePort(t))
	t.Setenv("SLUICE_LISTEN_HTTPS", secure)
	s := accessSite(t, testenv.GatewayOptions{Extra: fmt.Sprintf(
		"tls:\n  certificates: [{cert_file: %q, key_file: %q}]\n  client_ca_file: %q\n", cert, key, ca.File)})
	s.applied(s.etcd.Put("/sluice/routes/orders", `{"path":"/orders/*","service":"orders","plugins":{"mtls":{
		"headers":{"X-Client-CN":"subject_cn","X-Client-Names":"san_dns"},"allow":{"subject_cn":["billing"]}}}}`))
	roots := x509.NewCertPool()
	pem, err := os.ReadFile(ca.File)
	if err != nil || !roots.AppendCertsFromPEM(pem) {
		t.Fatalf("read the CA: %v", err)
	}
	ask := func(by *testenv.CA, name string) (answer, error) {
		t.Helper()
		var a answer
		pair, err := tls.LoadX509KeyPair(by.Issue(t, name, name+".example.com"))
		if err != nil {
			t.Fatal(err)
		}
		client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, ForceAttemptHTTP2: true,
			TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}}}}
		req, _ := http.NewRequest("GET", "https://"+secure+"/orders/1", nil)
		req.Header.Set("X-Client-CN", "root")
		resp, err := client.Do(req)
		if err != nil {
			return a, err
		}
		defer resp.Body.Close()
		a.Status = resp.StatusCode
		a.Body, err = io.ReadAll(resp.Body)
		return a, err
	}
	a, err := ask(ca, "billing")
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "a certificate that is allowed", fmt.Sprint(a.Status, " ", a.seen("X-Client-CN"), " ", a.seen("X-Client-Names")), "200 billing billing.example.com")
	if a, err = ask(ca, "shipping"); err != nil || a.Status != 403 {
		t.Errorf("a certificate that is not: %d, %v", a.Status, err)
	}
	if a, err = ask(stranger, "billing"); err == nil {
		t.Errorf("a certificate of a stranger's authority got %d", a.Status)
	}
	plain := s.ask("GET", "/orders/1", "X-Client-CN: billing", "X-Forwarded-Proto: https")
	equal(t, "without TLS", fmt.Sprint(plain.Status, plain.Code), "401unauthenticated")
}
