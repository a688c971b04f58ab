package middleware

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	dto "github.com/prometheus/client_model/go"
)

// replace puts what the files of one certificate hold into those of another.
func replace(t *testing.T, to, from CertificateFiles) {
	t.Helper()
	for dst, src := range map[string]string{to.CertFile: from.CertFile, to.KeyFile: from.KeyFile} {
		data, err := os.ReadFile(src)
		if err != nil {
			t.Fatal(err)
		}
		write(t, dst, data)
	}
}

// shownTo is the name in the certificate that a client is shown.
func (g *gateway) shownTo(name string) string {
	g.t.Helper()
	c, err := tls.Dial("tcp", g.addr, &tls.Config{ServerName: name, InsecureSkipVerify: true})
	if err != nil {
		g.t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	return c.ConnectionState().PeerCertificates[0].Subject.CommonName
}

func TestANewCertificateIsShownWithoutDroppingConnections(t *testing.T) {
	one, _ := certificate(t, "one.test")
	two, _ := certificate(t, "two.test")
	g := start(t, setup{secure: true, server: func(c *ServerConfig) { c.TLS.Certificates = []CertificateFiles{one, two} }})
	tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
	defer tr.CloseIdleConnections()
	kept, err := tls.Dial("tcp", g.addr, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = kept.Close() }()
	reader := bufio.NewReader(kept)
	ask := func() {
		t.Helper()
		_, _ = io.WriteString(kept, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		resp, err := http.ReadResponse(reader, nil)
		if err != nil || resp.StatusCode != 200 {
			t.Fatal(resp, err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		h2, err := tr.RoundTrip(mustRequest(t, "https://"+g.addr+"/"))
		if err != nil || h2.StatusCode != 200 || h2.TLS.PeerCertificates[0].Subject.CommonName != "one.test" {
			t.Fatal(h2, err)
		}
		_, _ = io.Copy(io.Discard, h2.Body)
		_ = h2.Body.Close()
	}
	ask()
	next, _ := certificate(t, "next.test")
	replace(t, one, next)
	g.server.keys.reload()
	if got := g.shownTo("next.test"); got != "next.test" {
		t.Errorf("a new connection is shown %s", got)
	}
	if got := g.shownTo("two.test"); got != "two.test" {
		t.Errorf("the certificate that did not change is %s", got)
	}
	ask() // the connections of before, by what they were shown then
}

func mustRequest(t *testing.T, url string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestABadTLSFileChangesNothingAndIsSaidOnce(t *testing.T) {
	one, _ := certificate(t, "one.test")
	two, _ := certificate(t, "two.test")
	other, _ := certificate(t, "other.test")
	for _, c := range []struct {
		name, said string
		spoil      func()
	}{
		{"junk", "key=tls.certificates[0] ", func() { write(t, one.CertFile, []byte("secret-looking junk")) }},
		{"a file that is gone", "tls.certificates[0].key_file: open", func() { _ = os.Remove(one.KeyFile) }},
		{"another's key", "no PEM pair", func() { replace(t, CertificateFiles{one.CertFile, filepath.Join(t.TempDir(), "k")}, other) }},
		{"authorities that are none", "key=tls.client_ca_file ", func() { write(t, two.CertFile+".ca", nil) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			good, _ := certificate(t, "one.test")
			replace(t, one, good)
			second, _ := certificate(t, "two.test")
			replace(t, two, second)
			ca, err := os.ReadFile(other.CertFile)
			if err != nil {
				t.Fatal(err)
			}
			write(t, two.CertFile+".ca", ca)
			g := start(t, setup{secure: true, server: func(cfg *ServerConfig) {
				cfg.TLS = TLSConfig{Certificates: []CertificateFiles{one, two}, ClientCAFile: two.CertFile + ".ca", ClientAuth: ClientAuthOptional}
			}})
			before := g.server.keys.current.Load()
			c.spoil()
			g.server.keys.reload()
			g.server.keys.reload()
			if g.server.keys.current.Load() != before || g.shownTo("one.test") != "one.test" {
				t.Error("something changed")
			}
			log := g.log.String()
			if strings.Count(log, "cannot be used") != 1 || !strings.Contains(log, c.said) || strings.Contains(log, "secret-looking") {
				t.Errorf("the log is %s", log)
			}
			third, _ := certificate(t, "third.test")
			replace(t, two, third)
			g.server.keys.reload()
			if got := g.shownTo("third.test"); got != "third.test" {
				t.Errorf("a good certificate beside the bad file is held back: %s is shown", got)
			}
		})
	}
}

func TestTLSFilesAreLookedAtWhileTheServerRuns(t *testing.T) {
	files, _ := certificate(t, "one.test")
	next, _ := certificate(t, "next.test")
	synctest.Test(t, func(t *testing.T) {
		s, err := NewServer(ServerConfig{TLS: TLSConfig{Certificates: []CertificateFiles{files}}}, http.NotFoundHandler(), nil, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		replace(t, files, next)
		time.Sleep(fileEvery)
		synctest.Wait()
		if got := s.keys.current.Load().Certificates[0].Leaf.Subject.CommonName; got != "next.test" {
			t.Errorf("after a second %s is in force", got)
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// get asks over a connection of its own; the cache lets sessions be resumed.
func (g *gateway) get(cache tls.ClientSessionCache, certs ...tls.Certificate) (*tls.ConnectionState, error) {
	tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, Certificates: certs, ClientSessionCache: cache}}
	defer tr.CloseIdleConnections()
	resp, err := (&http.Client{Transport: tr}).Get("https://" + g.addr + "/")
	if err != nil {
		return nil, err
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	return resp.TLS, nil
}

func TestNewAuthoritiesHoldForTheNextHandshakeAndForResumedSessions(t *testing.T) {
	server, _ := certificate(t, "one.test")
	first, firstPair := certificate(t, "first")
	second, secondPair := certificate(t, "second")
	g := start(t, setup{secure: true, server: func(c *ServerConfig) {
		c.TLS = TLSConfig{Certificates: []CertificateFiles{server}, ClientCAFile: first.CertFile}
	}})
	cache := tls.NewLRUClientSessionCache(4)
	if _, err := g.get(cache, firstPair); err != nil {
		t.Fatal(err)
	}
	if state, err := g.get(cache, firstPair); err != nil || !state.DidResume {
		t.Fatalf("the session was not resumed: %v", err)
	}
	replace(t, first, second)
	g.server.keys.reload()
	if _, err := g.get(cache, firstPair); err == nil {
		t.Error("a session of an authority that has gone was resumed")
	}
	if _, err := g.get(nil, firstPair); err == nil {
		t.Error("a certificate of an authority that has gone passed")
	}
	if _, err := g.get(nil, secondPair); err != nil {
		t.Errorf("a certificate of the new authority: %v", err)
	}
}

func TestAClientCertificateMayBeOptionalButNeverUnknown(t *testing.T) {
	server, _ := certificate(t, "one.test")
	known, pair := certificate(t, "client")
	_, stranger := certificate(t, "client")
	g := start(t, setup{secure: true, server: func(c *ServerConfig) {
		c.TLS = TLSConfig{Certificates: []CertificateFiles{server}, ClientCAFile: known.CertFile, ClientAuth: ClientAuthOptional}
	}})
	if _, err := g.get(nil); err != nil {
		t.Errorf("without a certificate: %v", err)
	}
	if _, err := g.get(nil, pair); err != nil {
		t.Errorf("with a certificate that was signed: %v", err)
	}
	if _, err := g.get(nil, stranger); err == nil {
		t.Error("a certificate that nobody signed passed")
	}
}

func TestOnlySuitesWithForwardSecrecyAreSpoken(t *testing.T) {
	server, _ := certificate(t, "one.test")
	g := start(t, setup{secure: true, server: func(c *ServerConfig) { c.TLS.Certificates = []CertificateFiles{server} }})
	for suite, ok := range map[uint16]bool{
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256:       true,
		tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256: true,
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA:          false,
		tls.TLS_RSA_WITH_AES_128_GCM_SHA256:               false,
	} {
		c, err := tls.Dial("tcp", g.addr, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{suite}})
		if err == nil {
			_ = c.Close()
		}
		if (err == nil) != ok {
			t.Errorf("%s: %v", tls.CipherSuiteName(suite), err)
		}
	}
}

func TestTheEndOfACertificateIsMeasured(t *testing.T) {
	one, _ := certificate(t, "one.test")
	two, _ := certificate(t, "two.test")
	g := start(t, setup{secure: true, server: func(c *ServerConfig) { c.TLS.Certificates = []CertificateFiles{one, two} }})
	families, err := g.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]*dto.Metric{}
	for _, f := range families {
		if f.GetName() == "sluice_certificate_expiry_seconds" {
			for _, m := range f.GetMetric() {
				got[m.GetLabel()[0].GetValue()] = m
			}
		}
	}
	for i, leaf := range g.server.keys.current.Load().Certificates {
		m := got[certificateKey(i)]
		if left := time.Until(leaf.Leaf.NotAfter).Seconds(); m == nil || m.GetGauge().GetValue() < left {
			t.Errorf("%s says %v, and %v are left", certificateKey(i), m, left)
		}
	}
	if len(got) != 2 {
		t.Errorf("there are %d series: %v", len(got), got)
	}
}
