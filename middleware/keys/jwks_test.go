package keys_test

import (
	"crypto/elliptic"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sluice-gateway/sluice/middleware/keys"
	"github.com/sluice-gateway/sluice/middleware/remote"
)

func client(t *testing.T, timeout time.Duration) *http.Client {
	t.Helper()
	c, err := remote.NewClient(timeout, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdleConnections)
	return c
}

func TestDiscoveryLeadsToTheKeysOfExactlyThisIssuer(t *testing.T) {
	set := jwks(jwk(t, jose.JSONWebKey{Key: &ecKey(t, elliptic.P256()).PublicKey, KeyID: "a"}))
	metadata := ""
	mux := http.NewServeMux()
	mux.HandleFunc("GET /realm/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, metadata)
	})
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(set) })
	server := httptest.NewServer(mux)
	defer server.Close()
	issuer := server.URL + "/realm"
	for _, c := range []struct{ name, address, metadata, want string }{
		{"as it should be", issuer, fmt.Sprintf(`{"issuer":%q,"jwks_uri":%q}`, issuer, server.URL+"/keys"), ""},
		{"a slash at the end of the address", issuer + "/", fmt.Sprintf(`{"issuer":%q,"jwks_uri":%q}`, issuer, server.URL+"/keys"), ""},
		{"another issuer", issuer, fmt.Sprintf(`{"issuer":"https://evil.example","jwks_uri":%q}`, server.URL+"/keys"), "it calls itself"},
		{"an issuer with one more slash", issuer, fmt.Sprintf(`{"issuer":%q,"jwks_uri":%q}`, issuer+"/", server.URL+"/keys"), "it calls itself"},
		{"no keys", issuer, fmt.Sprintf(`{"issuer":%q}`, issuer), "jwks_uri is not an http"},
		{"keys in a file", issuer, fmt.Sprintf(`{"issuer":%q,"jwks_uri":"file:///etc/passwd"}`, issuer), "jwks_uri is not an http"},
		{"keys that are not there", issuer, fmt.Sprintf(`{"issuer":%q,"jwks_uri":%q}`, issuer, server.URL+"/nope"), "it answered 404"},
		{"HTML", issuer, "<html>", "not JSON"},
		{"nothing there", server.URL, "", "it answered 404"},
	} {
		metadata = c.metadata
		s, err := keys.FromDiscovery(client(t, time.Second), c.address, issuer)(t.Context())
		if c.want == "" {
			if err != nil || !s.Has("a") {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
}

func TestRow53AnAnswerIsBoundedInSizeAndTime(t *testing.T) {
	stop := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/hang":
			<-stop
		case "/large":
			_, _ = io.WriteString(w, `{"keys":[`+strings.Repeat(" ", 5<<20)+`]}`)
		case "/endless":
			for r.Context().Err() == nil {
				if _, err := io.WriteString(w, strings.Repeat(" ", 4096)); err != nil {
					return
				}
			}
		case "/elsewhere":
			http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusFound)
		}
	}))
	defer server.Close()
	defer close(stop)
	for _, c := range []struct {
		path    string
		timeout time.Duration
		want    string
	}{
		{"/hang", 100 * time.Millisecond, "deadline exceeded"},
		{"/large", time.Minute, "larger than"},
		{"/endless", time.Minute, "larger than"},
		{"/elsewhere", time.Minute, "it answered 302"},
	} {
		_, err := keys.FromAddress(client(t, c.timeout), server.URL+c.path)(t.Context())
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.path, err, c.want)
		}
	}
}
