package admin

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// guardedPages are those that the token is for, pprof among them.
func guardedPages(r *rig) []string {
	var out []string
	for _, p := range r.server.pages() {
		if !p.open && !strings.HasSuffix(p.path, "/profile") && !strings.HasSuffix(p.path, "/trace") { // both take their time
			out = append(out, p.path)
		}
	}
	return out
}

// Row 83: an admin API that answers anybody.
func TestRow83WithATokenOnlyItsHolderIsAnswered(t *testing.T) {
	r := newRig(t, "s3cret")
	r.shop()
	r.events.Close()
	for _, path := range guardedPages(r) {
		for name, authorization := range map[string]string{
			"none": "", "wrong": "Bearer s3creT", "part": "Bearer s3cre", "more": "Bearer s3cret1", "bare": "s3cret",
			"empty": "Bearer ", "basic": "Basic s3cret", "twice": "Bearer Bearer s3cret",
		} {
			w := r.get(path, header("Authorization", authorization))
			if w.Code != http.StatusUnauthorized || w.Header().Get("WWW-Authenticate") == "" || strings.Contains(w.Body.String(), "s3cret") {
				t.Errorf("%s with %s token: %d %s", path, name, w.Code, w.Body)
			}
		}
		if w := r.get(path, header("Authorization", "bearer s3cret"), host("gateway.internal:8081")); w.Code == http.StatusUnauthorized || w.Code == http.StatusForbidden {
			t.Errorf("%s with the token, over a name: %d", path, w.Code)
		}
	}
	for _, path := range []string{"/livez", "/readyz", "/metrics"} {
		if w := r.get(path, host("10.0.0.7:8081")); w.Code != http.StatusOK {
			t.Errorf("%s without the token: %d", path, w.Code)
		}
	}
}

// Row 84: DNS rebinding makes a page's own name lead here.
func TestRow84WithoutATokenOnlyLoopbackHostsAreAnswered(t *testing.T) {
	r := newRig(t, "")
	r.shop()
	r.events.Close()
	for name, allowed := range map[string]bool{
		"127.0.0.1:8081": true, "127.0.0.1": true, "127.1.2.3:80": true, "localhost:8081": true, "LOCALHOST": true, "[::1]:8081": true, "[::1]": true,
		"[::ffff:127.0.0.1]:8081": true,
		"evil.example":            false, "evil.example:8081": false, "localhost.evil.example:8081": false, "127.0.0.1.evil.example": false, "10.0.0.7:8081": false,
		"0.0.0.0:8081": false, "[::]:8081": false, "": false,
	} {
		for _, path := range append(guardedPages(r), "/metrics") {
			if w := r.get(path, host(name)); (w.Code == http.StatusForbidden) == allowed {
				t.Errorf("%s at Host %q answers %d", path, name, w.Code)
			}
		}
	}
}

// Row 84: a page from elsewhere posts to the admin listener, by its address.
func TestRow84WhatAPageFromElsewhereSendsIsRefused(t *testing.T) {
	r := newRig(t, "")
	r.shop()
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		for _, path := range []string{"/api/v1/routes", "/services", "/debug/pprof/symbol"} {
			for what, sent := range map[string][2]string{
				"its origin":      {"Origin", "https://evil.example"},
				"no origin":       {"Origin", "null"},
				"another port":    {"Origin", "http://127.0.0.1:3000"},
				"the fetch's own": {"Sec-Fetch-Site", "cross-site"},
				"a sister site":   {"Sec-Fetch-Site", "same-site"},
			} {
				w := r.send(method, path, header("Content-Type", "text/plain"), header(sent[0], sent[1]))
				if w.Code != http.StatusForbidden {
					t.Errorf("%s %s with %s: %d", method, path, what, w.Code)
				}
			}
			if w := r.send(method, path); w.Code < 400 { // nothing here takes writes
				t.Errorf("%s %s: %d", method, path, w.Code)
			}
		}
	}
	for name := range r.get("/api/v1/routes", header("Origin", "https://evil.example")).Header() {
		if strings.HasPrefix(name, "Access-Control-") {
			t.Errorf("a page from elsewhere may read: %s", name)
		}
	}
}

// Row 85: a path that is guarded in one spelling and served in another.
func TestRow85NoSpellingOfAPathGetsRoundTheToken(t *testing.T) {
	r := newRig(t, "s3cret")
	r.shop()
	for _, path := range []string{
		"/api/v1//routes", "/api/v1/./routes", "/livez/../api/v1/routes", "/metrics/../api/v1/status", "//api/v1/routes", "/api/v1/routes/", "/API/v1/routes",
		"/%61pi/v1/routes", "/api/v1/routes%2f", "/livez%2f..%2fapi/v1/routes", "/debug//pprof/", "/debug/pprof/%2e%2e/pprof/heap",
	} {
		w := r.get(path)
		if w.Code == http.StatusOK || strings.Contains(w.Body.String(), "items") {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
}

func TestAnswersAreNeitherCachedNorGuessedAt(t *testing.T) {
	r := newRig(t, "")
	r.shop()
	var w *httptest.ResponseRecorder
	for _, path := range []string{"/api/v1/routes", "/nope", "/metrics"} {
		if w = r.get(path); w.Header().Get("Cache-Control") != "no-store" || w.Header().Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %v", path, w.Header())
		}
	}
}
