package middleware_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"math/big"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/middleware/plugintest"
	"github.com/sluice-gateway/sluice/routing"
)

// clientCertificate makes a certificate that signs itself; who verified it is
// the test's to say.
func clientCertificate(t testing.TB, change func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	spiffe, err := url.Parse("spiffe://example.com/orders")
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(0xabcdef), Subject: pkix.Name{CommonName: "orders", Organization: []string{"Shop, Inc"}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour).Truncate(time.Second),
		DNSNames: []string{"orders.example.com", "orders"}, URIs: []*url.URL{spiffe}, EmailAddresses: []string{"ops@example.com"},
	}
	if change != nil {
		change(c)
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	if c, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return c
}

// shown is a request over a connection on which the client showed a
// certificate.
func shown(cert *x509.Certificate, verified bool, headers ...string) *http.Request {
	r := request("GET", "/", headers...)
	r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}
	if verified {
		r.TLS.VerifiedChains = [][]*x509.Certificate{{cert}}
	}
	return r
}

func TestMTLSTellsInstancesWhatTheCertificateSays(t *testing.T) {
	cert := clientCertificate(t, nil)
	sum := sha256.Sum256(cert.Raw)
	headers, want := map[string]any{}, map[string]string{
		"subject": "CN=orders,O=Shop\\, Inc", "subject_cn": "orders", "issuer": "CN=orders,O=Shop\\, Inc", "serial": "abcdef",
		"fingerprint_sha256": hex.EncodeToString(sum[:]), "san_dns": "orders.example.com,orders", "san_email": "ops@example.com",
		"san_uri": "spiffe://example.com/orders", "not_after": cert.NotAfter.UTC().Format(time.RFC3339),
	}
	for field := range want {
		headers["X-Cert-"+strings.ReplaceAll(field, "_", "-")] = field
	}
	g := plugintest.Start(t, plugintest.Case{Plugins: plugintest.Config{"mtls": {"headers": headers}}})
	got := g.Do(shown(cert, true))
	wantCode(t, "the request", got, "")
	for name, field := range headers {
		if v := got.Forwarded.Header.Get(name); v != want[field.(string)] {
			t.Errorf("%s is %q, want %q", name, v, want[field.(string)])
		}
	}
	if id := got.Exchange.Identity; id == nil || id.Plugin != "mtls" || id.Subject != "orders" {
		t.Errorf("the identity is %+v", id)
	}
}

func TestMTLSBelievesTheConnectionOnly(t *testing.T) {
	cert := clientCertificate(t, nil)
	old := clientCertificate(t, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	g := plugintest.Start(t, plugintest.Case{Plugins: plugintest.Config{"mtls": {"headers": map[string]any{"X-Client-CN": "subject_cn"}}}})
	secure := request("GET", "/")
	secure.TLS = &tls.ConnectionState{}
	for name, r := range map[string]*http.Request{
		"no TLS":                       request("GET", "/"),
		"TLS without a certificate":    secure,
		"a certificate nobody vouches": shown(cert, false),
		"one whose time is over":       shown(old, true),
		"row 33: a header of ours":     request("GET", "/", "X-Client-CN: orders", "X_Client_CN: orders"),
		"a header of others": request("GET", "/", "X-Forwarded-Client-Cert: Subject=\"CN=orders\"", "X-SSL-Client-Verify: SUCCESS",
			"X-SSL-Client-S-DN: CN=orders"),
	} {
		wantCode(t, name, g.Do(r), routing.CodeUnauthenticated)
	}
	if n := g.Rejections("mtls"); n != 6 {
		t.Errorf("%v refusals were counted, want 6", n)
	}
	g.Configure(plugintest.Config{"mtls": {"headers": map[string]any{"X-Client-CN": "subject_cn"}, "required": false}})
	got := g.Do(request("GET", "/", "X-Client-CN: orders"))
	wantCode(t, "where none is required", got, "")
	if got.Forwarded.Header["X-Client-Cn"] != nil || got.Exchange.Identity != nil {
		t.Errorf("nobody is told to be %v, %+v", got.Forwarded.Header, got.Exchange.Identity)
	}
}

func TestMTLSAllowsByExactValues(t *testing.T) {
	cert := clientCertificate(t, nil)
	sum := sha256.Sum256(cert.Raw)
	print := strings.ToUpper(hex.EncodeToString(sum[:]))
	for _, c := range []struct {
		name  string
		allow map[string]any
		want  routing.Code
	}{
		{"a common name", map[string]any{"subject_cn": []any{"users", "orders"}}, ""},
		{"a DNS name", map[string]any{"san_dns": []any{"orders.example.com"}}, ""},
		{"a URI", map[string]any{"san_uri": []any{"spiffe://example.com/orders"}}, ""},
		{"a fingerprint with colons", map[string]any{"fingerprint_sha256": []any{print[:2] + ":" + print[2:]}}, ""},
		{"a serial number", map[string]any{"serial": []any{"ABCDEF"}}, ""},
		{"one field of two", map[string]any{"subject_cn": []any{"x"}, "san_email": []any{"ops@example.com"}}, ""},
		{"another name", map[string]any{"subject_cn": []any{"order", "orders.", "Orders"}}, "forbidden"},
		{"row 71: the end of a name", map[string]any{"san_dns": []any{"example.com", ".example.com", "*.example.com"}}, "forbidden"},
		{"a name in another field", map[string]any{"san_email": []any{"orders"}}, "forbidden"},
	} {
		g := plugintest.Start(t, plugintest.Case{Plugins: plugintest.Config{"mtls": {"allow": c.allow}}})
		wantCode(t, c.name, g.Do(shown(cert, true)), c.want)
	}
}

func TestWhatACertificateSaysCannotBreakAHeader(t *testing.T) {
	cert := clientCertificate(t, func(c *x509.Certificate) {
		c.Subject = pkix.Name{CommonName: "a\r\nX-Admin: 1 100% é"}
		c.DNSNames = []string{"a,admin"}
	})
	g := plugintest.Start(t, plugintest.Case{Plugins: plugintest.Config{"mtls": {"headers": map[string]any{"X-CN": "subject_cn", "X-Names": "san_dns"}}}})
	got := g.Do(shown(cert, true))
	wantCode(t, "the request", got, "")
	if h := got.Forwarded.Header; h.Get("X-CN") != "a%0D%0AX-Admin: 1 100%25 %C3%A9" || h.Get("X-Names") != "a%2Cadmin" {
		t.Errorf("the instance got %q", h)
	}
	long := clientCertificate(t, func(c *x509.Certificate) { c.DNSNames = []string{strings.Repeat("a", 5000)} })
	wantCode(t, "a name that is too long", g.Do(shown(long, true)), routing.CodeForbidden)
}

func TestMTLSStandsBesideAnotherWayToAuthenticate(t *testing.T) {
	g := plugintest.Start(t, plugintest.Case{Plugins: plugintest.Config{"mtls": {}, "api_key": {}},
		Documents: map[string]string{"consumers/alice": consumer("alice's key", "gold")}})
	cert := clientCertificate(t, nil)
	wantCode(t, "the certificate alone", g.Do(shown(cert, true)), routing.CodeUnauthenticated)
	wantCode(t, "the key alone", g.Do(request("GET", "/", "X-API-Key: alice's key")), routing.CodeUnauthenticated)
	got := g.Do(shown(cert, true, "X-API-Key: alice's key"))
	wantCode(t, "both", got, "")
	if id := got.Exchange.Identity; id == nil || id.Subject != "alice" {
		t.Errorf("the identity is %+v", id)
	}
}

func TestMTLSRefusesBadConfiguration(t *testing.T) {
	at := "plugins.mtls."
	for _, c := range []struct {
		config map[string]any
		want   string
	}{
		{map[string]any{"headers": map[string]any{"X-A": "cn"}},
			at + "headers.X-A: is no field of a certificate; accepted: fingerprint_sha256, issuer, not_after, san_dns, san_email, san_uri, serial, subject, subject_cn"},
		{map[string]any{"headers": map[string]any{"Host": "subject"}}, at + "headers.Host: is set by the route's host field"},
		{map[string]any{"headers": map[string]any{"X-A": "subject", "x-a": "issuer"}},
			at + "headers.x-a: names the same header as another entry, in another case"},
		{map[string]any{"allow": map[string]any{}}, at + "allow: is empty, so that nobody could pass; leave it out to accept every verified certificate"},
		{map[string]any{"allow": map[string]any{"subject_cn": []any{}}}, at + "allow.subject_cn: is empty or holds an empty value"},
		{map[string]any{"allow": map[string]any{"subject": []any{"x"}}},
			at + "allow.subject: is no field to allow by; accepted: fingerprint_sha256, san_dns, san_email, san_uri, serial, subject_cn"},
		{map[string]any{"required": "no"}, at + "required: must be true or false"},
	} {
		if got := plugintest.Faults("mtls", c.config); !slices.Equal(got, []string{c.want}) {
			t.Errorf("%v: the faults are %q, want %q", c.config, got, c.want)
		}
	}
}

func TestTheMTLSExampleWorks(t *testing.T) {
	g := plugintest.Start(t, plugintest.Case{Plugins: example(t, "mtls")})
	got := g.Do(shown(clientCertificate(t, nil), true))
	wantCode(t, "orders", got, "")
	if got.Forwarded != nil && got.Forwarded.Header.Get("X-Client-CN") != "orders" {
		t.Errorf("the instance got %v", got.Forwarded.Header)
	}
}
