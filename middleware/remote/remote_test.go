package remote

import (
	"bytes"
	"compress/gzip"
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

// The client inflates what is compressed, and what it reads of that is bounded
// after it was inflated: 10 GiB of spaces are 10 MiB on the wire.
func TestRow52AnAnswerThatIsInflatedIsBounded(t *testing.T) {
	const member = 16 << 20
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	if _, err := z.Write(bytes.Repeat([]byte(" "), member)); err != nil || z.Close() != nil {
		t.Fatal(err)
	}
	sent := make(chan int, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Accept-Encoding") != "gzip" {
			t.Errorf("the client takes %q", r.Header.Get("Accept-Encoding"))
		}
		w.Header().Set("Content-Encoding", "gzip")
		n := 0
		for ; n < 10<<30/member; n++ {
			if _, err := w.Write(bomb.Bytes()); err != nil {
				break
			}
		}
		sent <- n
	}))
	defer server.Close()
	client, err := NewClient(time.Minute, "")
	if err != nil {
		t.Fatal(err)
	}
	defer client.CloseIdleConnections()
	if _, err := Get(t.Context(), client, server.URL); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a bomb gave %v", err)
	}
	if n := <-sent; n == 10<<30/member {
		t.Error("all of it was taken")
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
