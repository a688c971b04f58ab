package main

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/test/testenv"
)

// delivery is how an issuer's key set is sent.
type delivery func(w http.ResponseWriter, r *http.Request, set []byte)

func whole(w http.ResponseWriter, _ *http.Request, set []byte) { _, _ = w.Write(set) }

func cutOff(http.ResponseWriter, *http.Request, []byte) { panic(http.ErrAbortHandler) }

// late sends the set after a while.
func late(by time.Duration) delivery {
	return func(w http.ResponseWriter, r *http.Request, set []byte) {
		select {
		case <-time.After(by):
			_, _ = w.Write(set)
		case <-r.Context().Done():
		}
	}
}

// trickle sends a byte at a time, for minutes.
func trickle(w http.ResponseWriter, r *http.Request, set []byte) {
	flow := http.NewResponseController(w)
	for i := range set {
		if _, err := w.Write(set[i : i+1]); err != nil || flow.Flush() != nil {
			return
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-r.Context().Done():
			return
		}
	}
}

// issuer is an OpenID Connect provider whose key set is reached through a
// front that delivers it as the drill says. The set is published below two
// paths, so that fetches for two routes are told apart.
type issuer struct {
	*testenv.OIDC
	url           string
	how           atomic.Pointer[delivery]
	often, seldom atomic.Int64 // how many fetches of each
}

func newIssuer(p testenv.TB) *issuer {
	o := &issuer{OIDC: testenv.StartOIDC(p)}
	o.Lifetimes(time.Hour, time.Hour)
	o.deliver(whole)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		p.Fatalf("listen: %v", err)
	}
	o.url = "http://" + listener.Addr().String()
	mux := http.NewServeMux()
	mux.Handle("/often", o.count(&o.often))
	mux.Handle("/seldom", o.count(&o.seldom))
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.Serve(listener) // ends with ErrServerClosed
	}()
	p.Cleanup(func() {
		_ = server.Close()
		<-ended
	})
	return o
}

// deliver sends the key set in this way from now on.
func (o *issuer) deliver(how delivery) { o.how.Store(&how) }

func (o *issuer) count(fetches *atomic.Int64) http.Handler {
	client := &http.Client{Timeout: 10 * time.Second}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fetches.Add(1)
		set, err := fetch(r.Context(), client, o.Issuer+"/keys")
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		(*o.how.Load())(w, r, set)
	})
}

func fetch(ctx context.Context, client *http.Client, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(resp.Body)
}

// forger makes tokens that nobody may pass with.
type forger struct{ key *rsa.PrivateKey }

func newForger(p testenv.TB) *forger {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		p.Fatalf("make a key: %v", err)
	}
	return &forger{key}
}

// forgeries are made from a good token: its claims under the name of its key
// but signed with another, with its signature under other claims, and with no
// signature.
func (f *forger) forgeries(p testenv.TB, good string) []string {
	part := strings.Split(good, ".")
	claims, err := base64.RawURLEncoding.DecodeString(part[1])
	if err != nil {
		p.Fatalf("read a token: %v", err)
	}
	other := strings.Replace(string(claims), `"role":"admin"`, `"role":"owner"`, 1)
	if other == string(claims) {
		p.Fatalf("the token has no claim to change: %s", claims)
	}
	header, err := base64.RawURLEncoding.DecodeString(part[0])
	if err != nil {
		p.Fatalf("read a token: %v", err)
	}
	var h struct {
		Kid string `json:"kid"`
	}
	if err := json.Unmarshal(header, &h); err != nil {
		p.Fatalf("read a token: %v", err)
	}
	return []string{
		f.sign(p, h.Kid, part[1]),
		part[0] + "." + segment(other) + "." + part[2],
		segment(`{"alg":"none","typ":"JWT"}`) + "." + part[1] + ".",
	}
}

// sign signs claims, which are encoded already, naming kid as the key.
func (f *forger) sign(p testenv.TB, kid, claims string) string {
	signed := segment(`{"alg":"RS256","typ":"JWT","kid":"`+kid+`"}`) + "." + claims
	digest := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(rand.Reader, f.key, crypto.SHA256, digest[:])
	if err != nil {
		p.Fatalf("sign a token: %v", err)
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// unknown makes a token of a key that nobody has heard of. What stands for
// its signature has the length of one.
func unknown(good string) string {
	part := strings.Split(good, ".")
	signature := make([]byte, 256)
	_, _ = rand.Read(signature) // never fails
	return segment(`{"alg":"RS256","typ":"JWT","kid":"`+rand.Text()+`"}`) + "." + part[1] + "." +
		base64.RawURLEncoding.EncodeToString(signature)
}

func segment(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }
