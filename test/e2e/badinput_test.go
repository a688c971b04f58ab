package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/test/testenv"
)

// problem waits until a key is a problem and returns its message.
func (s *site) problem(key string) string {
	s.t.Helper()
	message := ""
	testenv.Eventually(s.t, wait, key+" is a problem", func() bool {
		var l struct {
			Items []struct{ Key, Message string }
		}
		s.read("/api/v1/problems", &l)
		for _, p := range l.Items {
			if p.Key == key {
				message = p.Message
			}
		}
		return message != ""
	})
	return message
}

func (s *site) noProblem(key string) {
	s.t.Helper()
	testenv.Eventually(s.t, wait, key+" is no problem any more", func() bool {
		for _, p := range s.problems() {
			if strings.HasPrefix(p, key+" ") {
				return false
			}
		}
		return true
	})
}

// says fails the test unless a text holds every part.
func says(t *testing.T, what, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%s does not say %q:\n%s", what, part, text)
		}
	}
}

func TestBadTagsAndActiveValuesSayWhatIsAccepted(t *testing.T) {
	s := newSite(t, testenv.GatewayOptions{})
	o := startOrigin(t)
	s.register("steady", "steady-1", o.addr, "blue", "sluice.path=/steady/*")
	s.eventually("the steady service is routed", "/steady/x", func(a answer) bool { return a.Status == http.StatusOK })

	for i, c := range []struct {
		tag  string
		says []string
	}{
		{"sluice.pth=/x", []string{"sluice.pth", "did you mean sluice.path", "accepted are"}},
		{"sluice.path=", []string{"sluice.path", "has no value", "sluice.path=VALUE"}},
		{"sluice.path=x", []string{"sluice.path", "/"}},
		{"sluice.priority=high", []string{"sluice.priority", `"high"`, "whole number"}},
		{"sluice.methods=FETCH IT", []string{"sluice.methods"}},
		{"sluice.host=a b", []string{"sluice.host"}},
		{`sluice.route={"path":"/x","tiemout":"1s"}`, []string{"sluice.route.tiemout", "did you mean timeout"}},
		{`sluice.route={"path":"/x","redirect":{"to":"/y"}}`, []string{"sluice.route.redirect"}},
		{`sluice.route={`, []string{"sluice.route"}},
	} {
		t.Run("tag "+c.tag, func(t *testing.T) {
			s := s.at(t)
			tags := []string{c.tag}
			if !strings.HasPrefix(c.tag, "sluice.path") && !strings.HasPrefix(c.tag, "sluice.route") {
				tags = append(tags, fmt.Sprintf("sluice.path=/bad-%d/*", i))
			}
			name := fmt.Sprintf("bad-%d", i)
			s.register(name, name, o.addr, tags...)
			says(t, "the problem", s.problem("consul:"+name), c.says...)
			equal(t, "another service", s.ask("GET", "/steady/x").Status, http.StatusOK)
			s.deregister(name)
		})
	}
	t.Run("a wrong tag on a service that worked", func(t *testing.T) {
		s := s.at(t)
		s.register("steady", "steady-1", o.addr, "blue", "sluice.path=/steady/*", "sluice.priorty=1")
		says(t, "the problem", s.problem("consul:steady"), "sluice.priorty", "did you mean sluice.priority")
		equal(t, "its last good route", s.ask("GET", "/steady/x").Status, http.StatusOK)
		s.register("steady", "steady-1", o.addr, "blue", "sluice.path=/steady/*")
		s.noProblem("consul:steady")
	})
	s.etcd.Put("/sluice/active/steady", "blue")
	testenv.Eventually(t, wait, "blue is chosen", func() bool { return s.status().Active["steady"] == "blue" })
	for value, names := range map[string][]string{
		"":                  {"empty"},
		"=":                 {"subset"},
		"blue=x":            {"blue", "x"},
		"blue=-1,green=2":   {"blue"},
		"blue,green":        {"blue", "no weight"},
		"blue=0,green=0":    {"every weight is 0"},
		"blue=50,blue=50":   {"blue", "twice"},
		`{"subset":"blue"}`: {"not a subset's name"},
	} {
		t.Run("active "+value, func(t *testing.T) {
			s := s.at(t)
			s.etcd.Put("/sluice/active/steady", value)
			says(t, "the problem", s.problem("/sluice/active/steady"), append(names, "accepted is a subset such as green, or shares such as blue=90,green=10")...)
			equal(t, "the choice in effect", s.status().Active["steady"], "blue")
			equal(t, "the service", s.ask("GET", "/steady/x").Status, http.StatusOK)
			s.etcd.Put("/sluice/active/steady", "blue")
			s.noProblem("/sluice/active/steady")
		})
	}
}

// What no retry mends ends serve at once, with the key.
func TestBadCertificatesEndTheStartAndNameTheKey(t *testing.T) {
	ca, other := testenv.NewCA(t), testenv.NewCA(t)
	cert, key := ca.Issue(t, "gateway", "127.0.0.1")
	_, otherKey := other.Issue(t, "other", "127.0.0.1")
	junk := filepath.Join(t.TempDir(), "junk.pem")
	if err := os.WriteFile(junk, []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	gone := filepath.Join(t.TempDir(), "gone.pem")
	pair := func(cert, key string) string {
		return fmt.Sprintf("tls: {certificates: [{cert_file: %q, key_file: %q}]}", cert, key)
	}
	for _, c := range []struct {
		name, yaml string
		says       []string
	}{
		{"no certificate for https", "", []string{"listen.https", "tls.certificates"}},
		{"a certificate that is not there", pair(gone, key), []string{"tls.certificates[0].cert_file", gone}},
		{"a key that is not there", pair(cert, gone), []string{"tls.certificates[0].key_file", gone}},
		{"a certificate without a key", pair(cert, ""), []string{"tls.certificates[0]", "key_file"}},
		{"a certificate that is none", pair(junk, key), []string{"tls.certificates[0]", junk, "PEM"}},
		{"the key of another", pair(cert, otherKey), []string{"tls.certificates[0]", "does not match"}},
		{"a client CA that is none", strings.TrimSuffix(pair(cert, key), "}") + fmt.Sprintf(", client_ca_file: %q}", junk), []string{"tls.client_ca_file", junk, "PEM"}},
		{"a CA for etcd that is none", pair(cert, key) + fmt.Sprintf("\netcd: {endpoints: [\"https://127.0.0.1:1\"], tls: {ca_file: %q}}", junk), []string{"etcd.tls.ca_file", junk}},
		{"a client certificate for etcd without its key", pair(cert, key) + fmt.Sprintf("\netcd: {endpoints: [\"https://127.0.0.1:1\"], tls: {cert_file: %q}}", cert), []string{"etcd.tls", "key_file"}},
		{"a CA for Consul that is none", pair(cert, key) + fmt.Sprintf("\nconsul: {address: \"https://127.0.0.1:1\", tls: {ca_file: %q}}", junk), []string{"consul.tls.ca_file", junk}},
		{"a key for Consul that is another's", pair(cert, key) + fmt.Sprintf("\nconsul: {address: \"https://127.0.0.1:1\", tls: {cert_file: %q, key_file: %q}}", cert, otherKey), []string{"consul.tls", "does not match"}},
		{"a token file for Consul that is not there", pair(cert, key) + fmt.Sprintf("\nconsul: {token_file: %q}", gone), []string{"consul.token_file", gone}},
		{"a password file for etcd that is not there", pair(cert, key) + fmt.Sprintf("\netcd: {username: u, password_file: %q}", gone), []string{"etcd.password_file", gone}},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "sluice.yaml")
			yaml := "listen: {http: \"\", https: \"127.0.0.1:0\"}\nadmin: {listen: \"127.0.0.1:0\"}\n" + c.yaml
			if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
				t.Fatal(err)
			}
			_, errs, code := sluice(t, "serve", "-c", file)
			equal(t, "exit code", code, 1)
			says(t, "serve", errs, c.says...)
		})
	}
}

const (
	managementToken = "11111111-1111-1111-1111-111111111111"
	unknownToken    = "22222222-2222-2222-2222-222222222222"
)

// What may be mended while the gateway runs keeps it waiting and is said
// where people look: not ready, and why.
func TestBadTokensAndPasswordsNameTheKeyUntilTheyAreMended(t *testing.T) {
	ca, other := testenv.NewCA(t), testenv.NewCA(t)
	agent := testenv.StartConsul(t, testenv.ConsulConfig(fmt.Sprintf(
		`acl { enabled = true default_policy = "deny" tokens { initial_management = %q } }`, managementToken)))
	agent.AwaitToken(managementToken)
	etcd, secure := testenv.StartEtcd(t), testenv.StartEtcd(t, testenv.EtcdTLS(ca))
	etcd.EnableAuth("root-pw")
	etcd.AddUser("sluice", "right", "/sluice")
	etcd.AddUser("narrow", "right", "/elsewhere")
	cert, key := ca.Issue(t, "gateway")
	dir := t.TempDir()
	tls := func(ca string) string {
		return fmt.Sprintf("tls: {ca_file: %q, cert_file: %q, key_file: %q}", ca, cert, key)
	}
	in := func(setting string) string { return fmt.Sprintf("%s: %q", setting, filepath.Join(dir, setting)) }
	for _, c := range []struct {
		name string
		o    testenv.GatewayOptions
		// file is the setting of a file that holds wrong, and right to mend it.
		file, wrong, right string
		says               []string
	}{
		{"a token that Consul does not know", testenv.GatewayOptions{Consul: agent.URL(), ConsulExtra: []string{in("token_file")}},
			"token_file", unknownToken, managementToken, []string{"source consul", "403", "consul.token", "service:read"}},
		{"https to a Consul without TLS", testenv.GatewayOptions{Consul: strings.Replace(agent.URL(), "http:", "https:", 1)},
			"", "", "", []string{"source consul", "consul.address", "consul.tls.ca_file"}},
		{"a wrong password for etcd", testenv.GatewayOptions{Etcd: etcd.Endpoint, EtcdExtra: []string{"username: sluice", in("password_file")}},
			"password_file", "wrong", "right", []string{"source etcd", "authentication failed", "etcd.username", "etcd.password"}},
		{"no user for an etcd with users", testenv.GatewayOptions{Etcd: etcd.Endpoint}, "", "", "", []string{"source etcd", "etcd.username"}},
		{"a user who may not read", testenv.GatewayOptions{Etcd: etcd.Endpoint, EtcdExtra: []string{"username: narrow", "password: right"}},
			"", "", "", []string{"source etcd", "permission denied", "below /sluice"}},
		{"an etcd with a certificate of another CA", testenv.GatewayOptions{Etcd: secure.Endpoint, EtcdExtra: []string{tls(other.File)}},
			"", "", "", []string{"source etcd", "unknown authority", "etcd.tls.ca_file"}},
		{"no client certificate for etcd", testenv.GatewayOptions{Etcd: secure.Endpoint, EtcdExtra: []string{fmt.Sprintf("tls: {ca_file: %q}", ca.File)}},
			"", "", "", []string{"source etcd", "etcd.tls.cert_file"}},
		{"http to an etcd with TLS", testenv.GatewayOptions{Etcd: strings.Replace(secure.Endpoint, "https:", "http:", 1)},
			"", "", "", []string{"source etcd", "https://", "etcd.endpoints"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel() // a failing handshake takes its five seconds
			write := func(secret string) {
				if err := os.WriteFile(filepath.Join(dir, c.file), []byte(secret), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if c.file != "" {
				write(c.wrong)
			}
			c.o.StartOnly = true
			s := &site{t: t, gateway: testenv.StartGateway(t, c.o)}
			text := ""
			testenv.Eventually(t, wait, "the reason is said", func() bool {
				_, text = s.ready()
				return !strings.Contains(text, "no answer yet") && !strings.Contains(text, "being built")
			})
			says(t, "/readyz", text, c.says...)
			for _, hidden := range []string{unknownToken, managementToken, "root-pw"} {
				if strings.Contains(text, hidden) {
					t.Errorf("/readyz shows a secret: %s", text)
				}
			}
			if c.file == "" {
				return
			}
			write(c.right)
			testenv.Eventually(t, wait, "it is mended", func() bool { ok, _ := s.ready(); return ok })
		})
	}
}

// ready asks /readyz.
func (s *site) ready() (bool, string) {
	s.t.Helper()
	resp, err := http.Get(s.gateway.AdminURL() + "/readyz")
	if err != nil {
		s.t.Fatalf("GET /readyz: %v", err)
	}
	text, err := drain(resp)
	if err != nil {
		s.t.Fatalf("GET /readyz: %v", err)
	}
	return resp.StatusCode == http.StatusOK, text
}

// A token that expires takes nothing away.
func TestC7ATokenThatIsDeletedChangesNothing(t *testing.T) {
	agent := testenv.StartConsul(t, testenv.ConsulConfig(fmt.Sprintf(
		`acl { enabled = true default_policy = "deny" tokens { initial_management = %q } }`, managementToken)))
	agent.AwaitToken(managementToken)
	t.Setenv("CONSUL_HTTP_TOKEN", managementToken)
	var ignored any
	acl(t, agent, http.MethodPut, "policy", map[string]any{"Name": "read",
		"Rules": `service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }`}, &ignored)
	var token struct{ AccessorID, SecretID string }
	acl(t, agent, http.MethodPut, "token", map[string]any{"Policies": []map[string]string{{"Name": "read"}}}, &token)
	secret := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(secret, []byte(token.SecretID), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, consul: agent, gateway: testenv.StartGateway(t, testenv.GatewayOptions{
		Consul: agent.URL(), ConsulExtra: []string{fmt.Sprintf("token_file: %q", secret), "register: false"}, Extra: "log: {access: false}\n",
	})}
	s.service("orders", "orders-1", "-tags", "sluice.path=/orders/*")
	s.eventually("the service is routed", "/orders/x", func(a answer) bool { return a.Status == http.StatusOK })
	l := s.load("/orders/", true)
	acl(t, agent, http.MethodDelete, "token/"+token.AccessorID, nil, &ignored)
	s.service("orders", "orders-2") // wakes the queries that were let in before
	s.sourceUp("consul", false)
	l.more(rate)
	if err := os.WriteFile(secret, []byte(managementToken), 0o600); err != nil {
		t.Fatal(err)
	}
	s.sourceUp("consul", true)
	s.awaitHealthy("orders", 2)
	l.noneFailed()
}

// acl calls the ACL API of an agent as its management.
func acl(t *testing.T, agent *testenv.Consul, method, path string, body, into any) {
	t.Helper()
	data, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, agent.URL()+"/v1/acl/"+path, bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Consul-Token", managementToken)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	text, err := drain(resp)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s %s: %d %s (%v)", method, path, resp.StatusCode, text, err)
	}
	if err := json.Unmarshal([]byte(text), into); err != nil {
		t.Fatal(err)
	}
}
