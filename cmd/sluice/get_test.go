package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestANameThatTheGatewayDoesNotKnowIsAnError(t *testing.T) {
	clean(t)
	const none = `{"items":[]}`
	admin := gatewayAnswers(t, "t", map[string]string{
		"/api/v1/routes?name=nosuch": none, "/api/v1/services?name=nosuch": none, "/api/v1/instances?name=nosuch": none,
		"/api/v1/problems?name=nosuch": none, "/api/v1/instances?name=idle": none,
		"/api/v1/services?name=idle": `{"items":[{"name":"idle"}]}`, "/api/v1/routes": none,
	})
	t.Setenv("SLUICE_ADMIN_TOKEN", "t")
	for line, want := range map[string]string{
		"get instances nosuch":         `sluice: no service "nosuch"`,
		"get services nosuch":          `sluice: no service "nosuch"`,
		"get routes nosuch":            `sluice: no route "nosuch"`,
		"get instances nosuch -o json": `sluice: no service "nosuch"`,
		"get instances idle":           "", // it has no instance
		"get problems nosuch":          "", // which is good
		"get routes":                   "",
	} {
		r := run(t, append(words(line), "--admin", admin)...)
		if want == "" && (r.code != exitGood || r.out == "") || want != "" && (r.code != exitFailed || r.out != "") || strings.TrimSpace(r.err) != want {
			t.Errorf("%s: %+v", line, r)
		}
	}
}

func TestAListenerThatIsNotTheAdminsIsAskedAbout(t *testing.T) {
	clean(t)
	for name, answer := range map[string]http.HandlerFunc{
		"no route": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusNotFound)
			_, _ = w.Write([]byte(`{"detail":"no route matches this request"}`))
		},
		"a web page":       func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) },
		"another service":  func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"service":"shop"}`)) },
		"a refusal of its": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadRequest) },
	} {
		server := httptest.NewServer(answer)
		for _, line := range []string{"get routes", "get status -o json", "explain GET /", "healthcheck"} {
			r := run(t, append(words(line), "--admin", server.URL)...)
			if r.code != exitFailed || r.out != "" || !strings.Contains(r.err, server.URL) || !strings.Contains(r.err, "admin listener") || !strings.Contains(r.err, "?") {
				t.Errorf("%s of %s: %+v", line, name, r)
			}
		}
		server.Close()
	}
}

func TestEveryTableHasItsColumns(t *testing.T) {
	clean(t)
	const odd = `b\u001b[31mad`
	admin := gatewayAnswers(t, "t", map[string]string{
		"/api/v1/services":  `{"items":[{"name":"orders","instances":2,"active":[{"subset":"blue","weight":90}],"held":{"wanted":"red","reason":"none passes"},"in_flight":3,"circuit":"open","protocol":"http"}]}`,
		"/api/v1/instances": `{"items":[{"service":"orders","id":"n/o1","address":"10.0.0.1:80","weight":1,"tags":["blue"],"state":"ejected","reason":"broken","in_flight":1}]}`,
		"/api/v1/problems":  `{"items":[{"key":"/sluice/routes/` + odd + `","revision":7,"code":"invalid_field","serving":"nothing","message":"x"}]}`,
		"/api/v1/status":    `{"gateway":"g","address":":8080","revision":7,"generation":3,"routes":1,"problems":[],"active":{"lonely":"","orders":"blue"},"held":[{"service":"orders","wanted":"red","reason":"none passes"}],"undecided":["shop"]}`,
	})
	t.Setenv("SLUICE_ADMIN_TOKEN", "t")
	for kind, want := range map[string][]string{
		"services":  {"NAME", "HELD", "blue=90", "red: none passes", "open"},
		"instances": {"SERVICE", "n/o1", "10.0.0.1:80", "ejected", "broken"},
		"problems":  {"KEY", "b?[31mad", "invalid_field"},
		"status":    {"gateway", "active lonely   all\n", "active orders", "held orders", "wants red, serves all: none", "undecided shop"},
	} {
		r := run(t, "get", kind, "--admin", admin)
		if r.code != exitGood {
			t.Errorf("%s: %+v", kind, r)
		}
		for _, w := range want {
			if !strings.Contains(r.out, w) {
				t.Errorf("%s: no %q in\n%s", kind, w, r.out)
			}
		}
		var v any
		if r := run(t, "get", kind, "--admin", admin, "-o", "json"); json.Unmarshal([]byte(r.out), &v) != nil {
			t.Errorf("%s -o json: %s", kind, r.out)
		}
	}
}
