package e2e

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/test/testenv"
)

// askAdmin sends one request to the admin listener on the wire, so that the
// path goes as it stands.
func (s *site) askAdmin(method, target string, headers ...string) reply {
	s.t.Helper()
	w := dial(s.t, s.gateway.AdminAddr)
	w.send(crlf(method + " " + target + " HTTP/1.1\nConnection: close\n" + strings.Join(headers, "\n") + "\n\n"))
	return w.answer(method)
}

func TestRows83To85TheAdminListener(t *testing.T) {
	files := "etcd: {endpoints: []}\nconsul: {address: \"\"}\nfile: {path: \"" + t.TempDir() + "\"}\n"
	t.Run("row 83 no address beyond loopback without a token", func(t *testing.T) {
		for _, listen := range []string{":0", "0.0.0.0:0", "[::]:0", "192.0.2.1:8081"} {
			file := filepath.Join(t.TempDir(), "sluice.yaml")
			yaml := "listen: {http: \"127.0.0.1:0\"}\nadmin: {listen: \"" + listen + "\"}\n" + files
			if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
				t.Fatal(err)
			}
			_, errs, code := sluice(t, "serve", "-c", file)
			equal(t, "exit code of "+listen, code, 1)
			says(t, "serve", errs, "admin.listen", "admin.token")
		}
	})
	dir := "file: {path: \"" + t.TempDir() + "\"}\n"
	open := &site{t: t, gateway: testenv.StartGateway(t, testenv.GatewayOptions{Extra: dir})}
	pages := []string{"/api/v1/status", "/api/v1/routes", "/api/v1/problems", "/debug/pprof/", "/debug/pprof/cmdline"}
	t.Run("row 84 a page of another site cannot ask", func(t *testing.T) {
		s := open.at(t)
		for _, page := range pages {
			equal(t, page+" for a rebound name", s.askAdmin("GET", page, "Host: evil.test").StatusCode, http.StatusForbidden)
			equal(t, page+" for a name like ours", s.askAdmin("GET", page, "Host: 127.0.0.1.evil.test").StatusCode, http.StatusForbidden)
			equal(t, page+" for the operator", s.askAdmin("GET", page, "Host: "+s.gateway.AdminAddr).StatusCode, http.StatusOK)
			got := s.askAdmin("POST", page, "Host: "+s.gateway.AdminAddr, "Origin: https://evil.test", "Sec-Fetch-Site: cross-site",
				"Content-Type: text/plain", "Content-Length: 0")
			if got.StatusCode < 400 || got.Header.Get("Access-Control-Allow-Origin") != "" {
				t.Errorf("a POST of another site to %s got %d, %v", page, got.StatusCode, got.Header)
			}
		}
	})
	t.Run("row 85 no way of writing a path gets past the token", func(t *testing.T) {
		s := &site{t: t, gateway: testenv.StartGateway(t, testenv.GatewayOptions{AdminExtra: []string{"token: s3cret"}, Extra: dir})}
		for _, page := range pages {
			rest := strings.TrimPrefix(page, "/")
			for _, target := range []string{
				page, "/" + page, "/livez/../" + rest, "/livez/%2e%2e/" + rest, "/metrics/..%2f" + rest, "/./" + rest, page + "/", page + "%2f",
				"/%61pi" + strings.TrimPrefix(page, "/api"), strings.ToUpper(page), "http://" + s.gateway.AdminAddr + page, page + "?token=", page + ";x",
			} {
				got := s.askAdmin("GET", target, "Host: "+s.gateway.AdminAddr)
				if got.StatusCode == http.StatusOK {
					t.Errorf("%s without the token got 200", target)
				}
			}
			equal(t, page+" with a wrong token", s.askAdmin("GET", page, "Host: x", "Authorization: Bearer wrong").StatusCode, http.StatusUnauthorized)
			equal(t, page+" with the token", s.askAdmin("GET", page, "Host: x", "Authorization: Bearer s3cret").StatusCode, http.StatusOK)
		}
	})
}
