package remote

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestGetIsBoundedAndFollowsNoRedirect(t *testing.T) {
	stop := make(chan struct{})
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the redirect was followed") }))
	defer other.Close()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/good":
			_, _ = w.Write([]byte(`{"a":1}`))
		case "/large":
			_, _ = w.Write(make([]byte, MaxBody+1))
		case "/redirect":
			http.Redirect(w, r, other.URL, http.StatusFound)
		case "/never":
			<-stop
		default:
			http.NotFound(w, r)
		}
	}))
	defer server.Close()
	defer close(stop)
	client, err := NewClient(200*time.Millisecond, "")
	if err != nil {
		t.Fatal(err)
	}
	defer client.CloseIdleConnections()
	if body, err := Get(t.Context(), client, server.URL+"/good"); err != nil || string(body) != `{"a":1}` {
		t.Errorf("got %q, %v", body, err)
	}
	if _, err := Get(t.Context(), client, server.URL+"/large"); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a large answer gave %v", err)
	}
	for path, want := range map[string]string{"/redirect": "answered 302", "/none": "answered 404", "/never?token=s3cret": "Timeout"} {
		if _, err := Get(t.Context(), client, server.URL+path); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s gave %v, want %q", path, err, want)
		}
	}
}

func TestUntrustedCertificatesAreRefused(t *testing.T) {
	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	server.Config.ErrorLog = nil
	client, err := NewClient(time.Second, "")
	if err != nil {
		t.Fatal(err)
	}
	defer client.CloseIdleConnections()
	if _, err := Get(t.Context(), client, server.URL); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("got %v", err)
	}
}

func TestCheckURL(t *testing.T) {
	for address, good := range map[string]bool{
		"https://issuer.example.com/keys": true, "http://127.0.0.1:8080": true, "": false, "issuer/keys": false,
		"ftp://a/b": false, "https://u:p@a/b": false, "https://a/b#c": false, "https:///b": false, "file:///etc/passwd": false,
	} {
		if err := CheckURL(address); (err == nil) != good {
			t.Errorf("%q: %v", address, err)
		}
	}
}
