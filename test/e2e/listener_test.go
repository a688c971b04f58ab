package e2e

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/test/testenv"
)

// throughBalancer opens a connection as a balancer that passes TLS through
// does for the client.
func throughBalancer(t *testing.T, addr, client string, config *tls.Config) (*tls.Conn, error) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_, _ = fmt.Fprintf(c, "PROXY TCP4 %s 127.0.0.1 4711 443\r\n", client)
	secure := tls.Client(c, config)
	return secure, secure.HandshakeContext(t.Context())
}

// A gateway behind a balancer that passes connections through, whose
// certificate is renewed, badly at first, and whose clients may show theirs.
func TestTheListenerBehindABalancerFollowsItsCertificates(t *testing.T) {
	ca := testenv.NewCA(t)
	certFile, keyFile := ca.Issue(t, "gateway", "gateway.test")
	clientPair, err := tls.LoadX509KeyPair(ca.Issue(t, "client"))
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := tls.LoadX509KeyPair(testenv.NewCA(t).Issue(t, "client"))
	if err != nil {
		t.Fatal(err)
	}
	secure := fmt.Sprintf("127.0.0.1:%d", testenv.FreePort(t))
	s := newSite(t, testenv.GatewayOptions{
		ListenExtra: []string{fmt.Sprintf("https: %q", secure), "proxy_protocol: true"},
		Extra: fmt.Sprintf("trusted_proxies: [127.0.0.1]\ntls:\n  certificates: [{cert_file: %q, key_file: %q}]\n  client_ca_file: %q\n  client_auth: optional\n",
			certFile, keyFile, ca.File),
	})
	s.service("shop", "shop-1")
	s.etcd.Apply(map[string]string{
		"/sluice/routes/shop": `{"path":"/*","service":"shop","plugins":{"mtls":{"required":false,"headers":{"X-Client-CN":"subject_cn"}}}}`,
	})
	config := func(certs ...tls.Certificate) *tls.Config {
		return &tls.Config{InsecureSkipVerify: true, Certificates: certs}
	}
	ask := func(c *tls.Conn, r *bufio.Reader) (status int, headers http.Header) {
		t.Helper()
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: gateway.test\r\nX-Forwarded-For: 203.0.113.9\r\nX-Client-CN: admin\r\n\r\n")
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var a struct{ Headers http.Header }
		_ = json.NewDecoder(resp.Body).Decode(&a)
		_, _ = io.Copy(io.Discard, resp.Body)
		return resp.StatusCode, a.Headers
	}
	kept, err := throughBalancer(t, secure, "192.0.2.7", config(clientPair))
	if err != nil {
		t.Fatal(err)
	}
	reader := bufio.NewReader(kept)
	var headers http.Header
	testenv.Eventually(t, wait, "the route answers", func() bool {
		var status int
		status, headers = ask(kept, reader)
		return status == http.StatusOK
	})
	equal(t, "X-Forwarded-For", headers.Get("X-Forwarded-For"), "192.0.2.7")
	equal(t, "X-Client-CN", headers.Get("X-Client-CN"), "client")

	anonymous, err := throughBalancer(t, secure, "192.0.2.8", config())
	if err != nil {
		t.Fatal(err)
	}
	_, headers = ask(anonymous, bufio.NewReader(anonymous))
	equal(t, "X-Client-CN without a certificate", headers.Get("X-Client-CN"), "")
	c, err := throughBalancer(t, secure, "192.0.2.9", &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12, Certificates: []tls.Certificate{stranger}})
	if err == nil {
		t.Errorf("a certificate of nobody's was accepted by %s", c.RemoteAddr())
	}

	shown := func() string {
		c, err := throughBalancer(t, secure, "192.0.2.7", config())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	before := shown()
	if err := os.WriteFile(certFile, []byte("half of a"), 0o600); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, wait, "the bad file is logged with its key", func() bool {
		return strings.Contains(s.gateway.Log(), `"key":"tls.certificates[0]"`)
	})
	equal(t, "the certificate beside a bad file", shown(), before)
	ca.Issue(t, "gateway", "gateway.test") // in place
	testenv.Eventually(t, wait, "the new certificate is shown", func() bool { return shown() != before })
	status, _ := ask(kept, reader)
	equal(t, "the connection of before", status, http.StatusOK)
	if left := s.metric("sluice_certificate_expiry_seconds", `name="tls.certificates[0]"`); left < 23*3600 || left > 24*3600 {
		t.Errorf("%v seconds are left of a certificate for a day", left)
	}
}
