package e2e

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/test/testenv"
)

// The secrets of a gateway and of its clients; none of them may be seen.
const (
	canaryConsul = "c4a4a000-1111-4222-8333-444455556666" // a token of Consul's is a UUID
	canaryEtcd   = "c4n4ry-etcd"
	canaryAdmin  = "c4n4ry-admin"
	canaryClient = "c4n4ry-client"
)

// spill looks for a secret and shows the lines that hold it.
func spill(t *testing.T, where, text string) {
	t.Helper()
	for line := range strings.Lines(text) {
		for _, secret := range []string{canaryConsul, "c4n4ry"} {
			if strings.Contains(line, secret) {
				t.Errorf("%s holds %s:\n%s", where, secret, line)
			}
		}
	}
}

// Row 88: secrets in logs, errors and what the admin listener shows.
func TestRow88NoSecretIsEverWrittenOut(t *testing.T) {
	t.Setenv("SLUICE_CONSUL_TOKEN", canaryConsul)
	t.Setenv("SLUICE_ETCD_PASSWORD", canaryEtcd)
	t.Setenv("SLUICE_ADMIN_TOKEN", canaryAdmin)
	s := &site{t: t, etcd: testenv.StartEtcd(t), consul: testenv.StartConsul(t, testenv.ConsulConfig(
		`acl { enabled = true, default_policy = "deny", tokens { initial_management = "`+canaryConsul+`" } }`))}
	s.etcd.EnableAuth(canaryEtcd)
	s.gateway = testenv.StartGateway(t, testenv.GatewayOptions{
		Consul: s.consul.URL(), Etcd: s.etcd.Endpoint, EtcdExtra: []string{"username: root"},
		Extra: "log: {level: debug}\nstate_dir: \"" + t.TempDir() + "\"\n",
	})
	s.etcd.Put("/sluice/routes/closed", `{"path":"/closed","service":"none"}`)
	s.etcd.Put("/sluice/routes/refusing", `{"path":"/refusing","service":"refusing"}`)
	s.etcd.Put("/sluice/services/refusing", `{"targets":[{"address":"127.0.0.1:1"}]}`)
	s.eventually("the routes are there", "/closed", func(a answer) bool { return a.Status == http.StatusServiceUnavailable })
	for key, value := range map[string]string{
		"/sluice/routes/r1":    `{"path":"/r1","respond":{"boddy":"c4n4ry-document"}}`,
		"/sluice/routes/r2":    `{"path":"/r2","service":"x","plugins":{"headers":{"request":{"set":{"Authorization":["c4n4ry-document"]}}}}}`,
		"/sluice/routes/r3":    `{"path":"/r3","service":"x","plugins":{"headers":{"request":{"set":{"X-Key":"c4n4ry-document"}},"respons":{}}}}`,
		"/sluice/routes/r4":    `{"path":"/r4","redirect":{"to":"https://u:c4n4ry-document@example.com/"}}`,
		"/sluice/services/s1":  `{"url":"https://u:c4n4ry-document@example.com"}`,
		"/sluice/consumers/c1": `{"key_sha256":"c4n4ry-document"}`,
	} {
		s.etcd.Put(key, value)
	}

	client := func() {
		for _, path := range []string{"/closed", "/refusing", "/nowhere", "/r1", "/a%00", "/..%2f"} {
			s.ask("GET", path+"?access_token="+canaryClient, "Authorization: Bearer "+canaryClient, "Cookie: session="+canaryClient,
				"X-API-Key: "+canaryClient, "Proxy-Authorization: Basic "+canaryClient)
		}
	}
	pages := func() {
		for _, page := range []string{"routes?name=closed", "services?name=refusing", "instances", "problems", "status", "sources", "explain?url=/closed"} {
			spill(t, page, s.page("/api/v1/"+page, canaryAdmin))
			spill(t, page+" with a wrong token", s.page("/api/v1/"+page, canaryClient))
		}
		for _, page := range []string{"/metrics", "/livez", "/readyz", "/debug/pprof/cmdline", "/debug/pprof/goroutine?debug=2"} {
			spill(t, page, s.page(page, canaryAdmin))
		}
	}
	commands := func() {
		for _, line := range []string{"get routes closed", "get problems", "get status", "explain GET /closed", "check", "switch orders green --timeout 300ms"} {
			out, errs, _ := sluice(t, append(strings.Fields(line), "-c", s.gateway.ConfigFile)...)
			spill(t, "sluice "+line, out+errs)
		}
	}
	everything := func() { client(); pages(); commands() }

	testenv.Eventually(t, 20*time.Second, "the wrong documents are problems", func() bool {
		return strings.Count(s.page("/api/v1/problems", canaryAdmin), `"invalid_`) >= 5
	})
	everything()
	s.etcd.SetPassword("root", "an0ther") // refused from now on
	s.etcd.Stop()
	s.consul.Stop()
	testenv.Eventually(t, 20*time.Second, "both are away", func() bool {
		m := s.page("/metrics", "")
		return strings.Contains(m, `sluice_source_up{source="etcd"} 0`) && strings.Contains(m, `sluice_source_up{source="consul"} 0`)
	})
	everything()
	s.etcd.Restart()
	testenv.Eventually(t, 20*time.Second, "the log says that etcd refuses the password", func() bool {
		return strings.Contains(s.gateway.Log(), "authentication failed")
	})
	everything()
	s.gateway.Restart()
	client()
	s.gateway.Stop()
	log := s.gateway.Log()
	for _, line := range []string{`"level":"DEBUG"`, `"msg":"request"`, "source is away", "/sluice/routes/r3", `"msg":"left"`} {
		if !strings.Contains(log, line) {
			t.Errorf("the log has no %s", line)
		}
	}
	spill(t, "the log", log)
}

// page gets a page of the admin listener as text.
func (s *site) page(path, token string) string {
	s.t.Helper()
	req, err := http.NewRequest(http.MethodGet, s.gateway.AdminURL()+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatalf("GET %s: %v", path, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatalf("GET %s: %v", path, err)
	}
	return string(body)
}
