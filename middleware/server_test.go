package middleware

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// certificate writes a self-signed certificate for name.
func certificate(t testing.TB, name string) (CertificateFiles, tls.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	files := CertificateFiles{CertFile: filepath.Join(dir, "cert.pem"), KeyFile: filepath.Join(dir, "key.pem")}
	write(t, files.CertFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	write(t, files.KeyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
	return files, tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func write(t testing.TB, file string, data []byte) {
	t.Helper()
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestTLSChoosesTheCertificateByName(t *testing.T) {
	one, _ := certificate(t, "one.test")
	two, _ := certificate(t, "two.test")
	g := start(t, setup{secure: true, server: func(c *ServerConfig) { c.TLS.Certificates = []CertificateFiles{one, two} }})
	for name, want := range map[string]string{"one.test": "one.test", "two.test": "two.test", "three.test": "one.test", "": "one.test"} {
		c, err := tls.Dial("tcp", g.addr, &tls.Config{ServerName: name, InsecureSkipVerify: true, NextProtos: []string{"h2"}})
		if err != nil {
			t.Fatal(err)
		}
		state := c.ConnectionState()
		_ = c.Close()
		if got := state.PeerCertificates[0].Subject.CommonName; got != want || state.NegotiatedProtocol != "h2" {
			t.Errorf("%q got the certificate of %s by %q, want %s", name, got, state.NegotiatedProtocol, want)
		}
	}
	if _, err := tls.Dial("tcp", g.addr, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS11}); err == nil {
		t.Error("TLS 1.1 is spoken")
	}
	for _, h2 := range []bool{false, true} {
		tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: h2}
		resp, err := (&http.Client{Transport: tr}).Get("https://" + g.addr + "/")
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if want := map[bool]int{false: 1, true: 2}[h2]; resp.ProtoMajor != want || resp.StatusCode != 200 {
			t.Errorf("%s %d, want HTTP/%d", resp.Proto, resp.StatusCode, want)
		}
		tr.CloseIdleConnections()
	}
}

func TestTLSDemandsAClientCertificate(t *testing.T) {
	server, _ := certificate(t, "one.test")
	known, pair := certificate(t, "client")
	_, stranger := certificate(t, "client")
	g := start(t, setup{secure: true, server: func(c *ServerConfig) {
		c.TLS = TLSConfig{Certificates: []CertificateFiles{server}, ClientCAFile: known.CertFile}
	}})
	get := func(certs ...tls.Certificate) error {
		tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, Certificates: certs}}
		defer tr.CloseIdleConnections()
		resp, err := (&http.Client{Transport: tr}).Get("https://" + g.addr + "/")
		if err == nil {
			_ = resp.Body.Close()
		}
		return err
	}
	if err := get(pair); err != nil {
		t.Errorf("with its certificate: %v", err)
	}
	if get() == nil || get(stranger) == nil {
		t.Error("a client without the right certificate was served")
	}
}

func TestServerConfigurationErrorsNameTheKey(t *testing.T) {
	good, _ := certificate(t, "a")
	other, _ := certificate(t, "b")
	junk := filepath.Join(t.TempDir(), "junk.pem")
	write(t, junk, []byte("secret-looking junk"))
	for _, c := range []struct {
		cfg  ServerConfig
		want []string
	}{
		{ServerConfig{ReadHeaderTimeout: -1, MaxConnections: -1}, []string{"limits.read_header_timeout", "limits.max_connections"}},
		{ServerConfig{TLS: TLSConfig{Certificates: []CertificateFiles{good, {CertFile: "x"}}}}, []string{"tls.certificates[1]"}},
		{ServerConfig{TLS: TLSConfig{Certificates: []CertificateFiles{{"/missing.pem", "/missing.key"}}}}, []string{"tls.certificates[0].cert_file", "/missing.pem"}},
		{ServerConfig{TLS: TLSConfig{Certificates: []CertificateFiles{{good.CertFile, other.KeyFile}}}}, []string{"tls.certificates[0]", "no PEM pair"}},
		{ServerConfig{TLS: TLSConfig{Certificates: []CertificateFiles{good}, ClientCAFile: junk}}, []string{"tls.client_ca_file", "no PEM certificate"}},
		{ServerConfig{TLS: TLSConfig{ClientCAFile: good.CertFile}}, []string{"tls.client_ca_file", "tls.certificates"}},
		{ServerConfig{TLS: TLSConfig{Certificates: []CertificateFiles{good}, ClientCAFile: good.CertFile, ClientAuth: "want"}}, []string{"tls.client_auth", "require, optional"}},
		{ServerConfig{TLS: TLSConfig{Certificates: []CertificateFiles{good}, ClientAuth: ClientAuthOptional}}, []string{"tls.client_auth", "tls.client_ca_file"}},
	} {
		_, err := NewServer(c.cfg, http.NotFoundHandler(), nil, slog.New(slog.DiscardHandler))
		for _, w := range c.want {
			if err == nil || !strings.Contains(err.Error(), w) || strings.Contains(err.Error(), "secret-looking") {
				t.Errorf("error is %v, want it to name %s", err, w)
			}
		}
	}
	s, err := NewServer(DefaultServerConfig(), http.NotFoundHandler(), nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Listen(t.Context(), "127.0.0.1:0", true); err == nil || !strings.Contains(err.Error(), "tls.certificates") {
		t.Errorf("error is %v", err)
	}
	if _, err := s.Listen(t.Context(), "127.0.0.1:99999", false); err == nil || !strings.Contains(err.Error(), "99999") {
		t.Errorf("error is %v", err)
	}
}

func TestEngineConfigurationErrorsNameTheKey(t *testing.T) {
	_, err := New(Config{HealthPath: "health", TrustedProxies: []netip.Prefix{{}}, IdentityHeaders: []string{"X A"},
		MaxHeaders: -1, MaxBodyBytes: -1, BodyReadTimeout: -1}, Deps{})
	for _, key := range []string{"health_path", "trusted_proxies[0]", "identity_headers[0]", "limits.max_headers",
		"limits.max_body_bytes", "limits.body_read_timeout"} {
		if err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("error is %v, want it to name %s", err, key)
		}
	}
}

func TestOptionsAboutTheServerItself(t *testing.T) {
	g := start(t, setup{})
	got, _ := g.exchange("OPTIONS * HTTP/1.1\nHost: a\n\n")
	if got.StatusCode != 204 || got.Header.Get("X-Request-ID") == "" || len(g.upstream.requests()) != 0 {
		t.Errorf("status is %d", got.StatusCode)
	}
}

// The end of accepting was at times taken for a fault of it.
func TestServingEndsWithoutAFaultHoweverOften(t *testing.T) {
	for range 100 {
		s, err := NewServer(DefaultServerConfig(), http.NotFoundHandler(), nil, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		ln, err := s.Listen(t.Context(), "127.0.0.1:0", false)
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan error)
		go func() { served <- s.Serve(ln) }()
		resp, err := http.Get("http://" + ln.Addr().String() + "/")
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if err := s.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Fatal(err)
		}
	}
}

// A handler that minds nothing must not hold up the end of the process.
func TestAShutdownEndsAtItsDeadlineWhateverHandlersDo(t *testing.T) {
	begun, proceed := make(chan struct{}), make(chan struct{})
	s, err := NewServer(DefaultServerConfig(), http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		close(begun)
		<-proceed
	}), nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ln, err := s.Listen(t.Context(), "127.0.0.1:0", false)
	if err != nil {
		t.Fatal(err)
	}
	served, asked := make(chan error), make(chan error)
	go func() { served <- s.Serve(ln) }()
	go func() {
		_, err := http.Get("http://" + ln.Addr().String() + "/")
		asked <- err
	}()
	<-begun
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("it ended with %v", err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
	if err := <-asked; err == nil {
		t.Error("the client has an answer")
	}
	close(proceed)
}
