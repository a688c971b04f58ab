package middleware_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/sluice-gateway/sluice/middleware/plugintest"
)

// followed is a gateway whose keys a publisher has.
func followed(t *testing.T, p *publisher, more map[string]any) *plugintest.Gateway {
	t.Helper()
	config := jwtConfig(map[string]any{"algorithms": []any{"EdDSA"}, "jwks_url": p.URL, "refresh_interval": "1s"})
	for k, v := range more {
		config["jwt"][k] = v
	}
	return plugintest.Start(t, plugintest.Case{Plugins: config})
}

// load sends requests with a token until it is stopped, and counts those that
// did not come out as wanted.
type load struct {
	stop  chan struct{}
	done  sync.WaitGroup
	sent  atomic.Int64
	wrong atomic.Int64
}

func begin(g *plugintest.Gateway, token func() string, want int) *load {
	l := &load{stop: make(chan struct{})}
	for range 4 {
		l.done.Go(func() {
			for {
				select {
				case <-l.stop:
					return
				default:
				}
				if g.Do(bearer("/", token())).Response.Code != want {
					l.wrong.Add(1)
				}
				l.sent.Add(1)
			}
		})
	}
	return l
}

// end stops the load and checks it. It must have run for a while.
func (l *load) end(t *testing.T, what string) {
	t.Helper()
	close(l.stop)
	l.done.Wait()
	if l.wrong.Load() > 0 || l.sent.Load() == 0 {
		t.Errorf("%s: %d of %d requests did not come out as they should", what, l.wrong.Load(), l.sent.Load())
	}
}

func TestRow62RotationUnderLoadRefusesNobody(t *testing.T) {
	old, next := newEd(t, "old"), newEd(t, "next")
	p := publish(t, old)
	g := followed(t, p, nil)
	oldToken := old.sign(t, alice())
	before := begin(g, func() string { return oldToken }, 200)

	p.keys(old, next) // published first, used then
	nextToken := next.sign(t, alice())
	after := begin(g, func() string { return nextToken }, 200)
	eventually(t, "the new key is in use", func() bool { return after.sent.Load() > 100 })
	before.end(t, "with the old key")

	p.keys(next)
	eventually(t, "a token of the key that was taken out is refused, although it had passed", func() bool {
		return g.Do(bearer("/", oldToken)).Response.Code == 401
	})
	after.end(t, "with the new key")
	for range 100 {
		if got := g.Do(bearer("/", oldToken)); got.Response.Code != 401 {
			t.Fatalf("the old key is back: %d", got.Response.Code)
		}
	}
}

func TestRow63ABrokenIssuerChangesNothingForTokensOfKnownKeys(t *testing.T) {
	k, stranger := newEd(t, "a"), newEd(t, "b")
	good, bad := k.sign(t, alice()), stranger.sign(t, alice())
	for name, broken := range map[string]http.HandlerFunc{
		"500":   func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) },
		"HTML":  func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") },
		"empty": func(w http.ResponseWriter, _ *http.Request) {},
		"no keys": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"keys":[]}`)
		},
		"5 MB": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = fmt.Fprintf(w, `{"keys":[%s]}`, k.jwk(t)+strings.Repeat(" ", 5<<20))
		},
		"hang": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"cut off": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"keys":[`)
			panic(http.ErrAbortHandler)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := publish(t, k)
			g := followed(t, p, map[string]any{"timeout": "200ms"})
			// On a busy machine even the first fetch may take too long.
			eventually(t, "the keys are there", func() bool { return g.Do(bearer("/", good)).Forwarded != nil })
			var asked atomic.Int64
			p.does(func(w http.ResponseWriter, r *http.Request) {
				asked.Add(1)
				broken(w, r)
			})
			known := begin(g, func() string { return good }, 200)
			unknown := begin(g, func() string { return bad }, 401)
			eventually(t, "the keys are fetched twice", func() bool { return asked.Load() > 1 })
			known.end(t, "known key")
			unknown.end(t, "unknown key")
		})
	}
}

func TestRow63WithoutAnyKeysNobodyPassesAndNobodyIsToBlame(t *testing.T) {
	k := newEd(t, "a")
	p := publish(t, k)
	p.answers(500, "")
	g := followed(t, p, map[string]any{"optional": true})
	for name, token := range map[string]string{"good": k.sign(t, alice()), "bad": newEd(t, "a").sign(t, alice())} {
		got := g.Do(bearer("/", token))
		if got.Forwarded != nil || got.Response.Code != 503 || got.Code() != "overloaded" {
			t.Errorf("%s: %d %s", name, got.Response.Code, got.Code())
		}
		h := got.Response.Header()
		if h.Get("Retry-After") == "" || h.Get("WWW-Authenticate") != "" || strings.Contains(got.Response.Body.String(), "127.0.0.1") {
			t.Errorf("%s: %v %s", name, h, got.Response.Body)
		}
	}
	if got := g.Do(bearer("/", "")); got.Forwarded == nil {
		t.Errorf("a request that brings no token was refused: %s", got.Code())
	}
	p.keys(k)
	eventually(t, "the issuer's recovery is noticed", func() bool {
		return g.Do(bearer("/", k.sign(t, alice()))).Forwarded != nil
	})
}

// TestAnIntervalChangedWhileTheIssuerIsAwayKeepsTheKeys: an operator who
// turns the interval down in an outage must not make it one of the gateway's.
func TestAnIntervalChangedWhileTheIssuerIsAwayKeepsTheKeys(t *testing.T) {
	k := newEd(t, "a")
	p := publish(t, k)
	g := followed(t, p, nil)
	if got := g.Do(bearer("/", k.sign(t, alice()))); got.Forwarded == nil {
		t.Fatalf("refused: %s", got.Code())
	}
	p.answers(500, "")
	if problems := g.Configure(jwtConfig(map[string]any{"algorithms": []any{"EdDSA"}, "jwks_url": p.URL, "refresh_interval": "10s"})); problems != nil {
		t.Fatal(problems)
	}
	hits := p.hits.Load()
	eventually(t, "the new follower has tried", func() bool { return p.hits.Load() > hits })
	if got := g.Do(bearer("/", k.sign(t, alice().with(claims{"sub": "bob"})))); got.Forwarded == nil {
		t.Errorf("the keys are gone: %s", got.Code())
	}
}

func TestRow67AnIssuerWithACertificateOfItsOwnMakingIsNotBelieved(t *testing.T) {
	k := newEd(t, "a")
	p := publish(t, k)
	secure := newTLSPublisher(t, p)
	for ca, want := range map[string]int{"": 503, file(t, secure.pem): 200} {
		config := map[string]any{"algorithms": []any{"EdDSA"}, "jwks_url": secure.URL}
		if ca != "" {
			config["ca_file"] = ca
		}
		got := plugintest.Run(t, plugintest.Case{Plugins: jwtConfig(config)}, bearer("/", k.sign(t, alice())))
		if got.Response.Code != want {
			t.Errorf("ca_file %q: %d, want %d", ca, got.Response.Code, want)
		}
	}
}

// TestRow61RandomKeysCostOneFetch: whatever the kid says.
func TestRow61RandomKeysCostOneFetch(t *testing.T) {
	k := newEd(t, "a")
	p := publish(t, k)
	g := followed(t, p, map[string]any{"refresh_interval": "1h"})
	good := k.sign(t, alice())
	var n atomic.Int64
	stranger := newEd(t, "")
	flood := begin(g, func() string {
		return stranger.forge(t, fmt.Sprintf(`{"alg":"EdDSA","kid":"made-up-%d"}`, n.Add(1)), jsonOf(t, alice()))
	}, 401)
	calm := begin(g, func() string { return good }, 200)
	eventually(t, "a thousand made up keys", func() bool { return flood.sent.Load() > 1000 })
	flood.end(t, "made up keys")
	calm.end(t, "the good token")
	if hits := p.hits.Load(); hits != 2 {
		t.Errorf("%d fetches, want the first and one", hits)
	}
}
