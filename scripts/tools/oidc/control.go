package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"log"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/pkg/oidc"
)

var page = template.Must(template.New("login").Parse(`<!doctype html><title>Log in</title>
<form method="post" action="/login"><input type="hidden" name="id" value="{{.}}">
<input name="user"><input name="password" type="password"><button>Log in</button></form>
`))

// login shows a form and takes it back.
func (s *storage) login(callback func(context.Context, string) string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		id := r.FormValue("id")
		if r.Method != http.MethodPost {
			_ = page.Execute(w, id)
			return
		}
		s.mu.Lock()
		g, name := s.grants[id], r.FormValue("user")
		u, ok := s.config.Users[name]
		ok = ok && g != nil && u.Password == r.FormValue("password")
		if ok {
			g.user, g.done, g.authTime = name, true, time.Now()
		}
		s.mu.Unlock()
		if !ok {
			http.Error(w, "no such user and password", http.StatusForbidden)
			return
		}
		http.Redirect(w, r, callback(r.Context(), id), http.StatusFound)
	}
}

// counting counts requests by path, and token requests by kind too.
func (s *storage) counting(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := r.URL.Path
		if r.Method == http.MethodPost && strings.HasSuffix(name, "/token") {
			name += " " + r.FormValue("grant_type")
		}
		s.mu.Lock()
		s.calls[name]++
		s.mu.Unlock()
		next.ServeHTTP(w, r)
	})
}

func (s *storage) control(mux *http.ServeMux) {
	mux.HandleFunc("PUT /control/config", func(w http.ResponseWriter, r *http.Request) {
		var c config
		if err := json.NewDecoder(r.Body).Decode(&c); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		s.mu.Lock()
		s.config = c
		s.mu.Unlock()
	})
	mux.HandleFunc("POST /control/rotate", func(w http.ResponseWriter, r *http.Request) {
		alg := jose.RS256
		if a := r.FormValue("alg"); a != "" {
			alg = jose.SignatureAlgorithm(a)
		}
		if err := s.rotate(alg, r.FormValue("retire") == "true"); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
		}
	})
	mux.HandleFunc("POST /control/sign", func(w http.ResponseWriter, r *http.Request) {
		claims, err := io.ReadAll(r.Body)
		token := ""
		if err == nil {
			token, err = s.sign(claims, jose.ContentType(r.URL.Query().Get("typ")))
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		fmt.Fprint(w, token)
	})
	mux.HandleFunc("POST /control/logout", func(_ http.ResponseWriter, r *http.Request) {
		s.tell(r.Context(), s.end(r.FormValue("user")))
	})
	mux.HandleFunc("POST /control/revoke", func(_ http.ResponseWriter, r *http.Request) {
		s.end(r.FormValue("user"))
	})
	mux.HandleFunc("GET /control/calls", func(w http.ResponseWriter, _ *http.Request) {
		s.mu.Lock()
		calls := maps.Clone(s.calls)
		s.mu.Unlock()
		_ = json.NewEncoder(w).Encode(calls)
	})
}

// tell sends a logout token for each ended grant to its client (OpenID
// Connect Back-Channel Logout 1.0).
func (s *storage) tell(ctx context.Context, ended []*grant) {
	for _, g := range ended {
		s.mu.Lock()
		uri := s.config.Clients[g.client].BackChannelLogoutURI
		s.mu.Unlock()
		if uri == "" {
			continue
		}
		if err := s.post(ctx, uri, g); err != nil {
			log.Printf("tell %s: %v", g.client, err)
		}
	}
}

func (s *storage) post(ctx context.Context, uri string, g *grant) error {
	claims, err := json.Marshal(oidc.NewLogoutTokenClaims(s.issuer, g.user, oidc.Audience{g.client},
		time.Now().Add(2*time.Minute), rand.Text(), g.id, 0))
	if err != nil {
		return err
	}
	token, err := s.sign(claims, "logout+jwt")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	form := url.Values{"logout_token": {token}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, uri, strings.NewReader(form.Encode()))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("it answered %d", resp.StatusCode)
	}
	return nil
}
