package middleware

import (
	"io"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/routing"
)

func TestHeadersEditsBothDirections(t *testing.T) {
	g := start(t, setup{routes: map[string]string{
		"a": `{"path":"/a","service":"a","plugins":{"headers":{
			"request":{"set":{"x-set":"ours"},"add":{"X-Add":"two"},"remove":["x-gone"]},
			"response":{"set":{"Server":"sluice"},"add":{"Vary":"Origin"},"remove":["X-Powered-By"]}}}}`,
		"off":      `{"path":"/off","service":"a"}`,
		"fixed":    `{"path":"/fixed","respond":{"body":"x"},"plugins":{"headers":{"response":{"set":{"X-A":"b"}}}}}`,
		"redirect": `{"path":"/redirect","redirect":{"to":"/x"},"plugins":{"headers":{"response":{"set":{"X-A":"b"}}}}}`,
	}})
	g.upstream.answer = nil
	got, _ := g.exchange("GET /a HTTP/1.1\nHost: a\nX-Set: theirs\nX-Add: one\nX-Gone: 1\n\n")
	s := g.upstream.requests()[0]
	if want := (http.Header{"X-Set": {"ours"}, "X-Add": {"one", "two"}}); !reflect.DeepEqual(s.Header, want) {
		t.Errorf("the instance was told %v, want %v", s.Header, want)
	}
	if got.Header.Get("Server") != "sluice" || !slices.Equal(got.Header["Vary"], []string{"Origin"}) {
		t.Errorf("the client was told %v", got.Header)
	}
	g.upstream.answer = func(w http.ResponseWriter, _ *http.Request, _ *routing.Exchange) *routing.Refusal {
		w.Header().Set("X-Powered-By", "x")
		w.Header().Set("Vary", "Accept")
		w.Header().Set("Server", "theirs")
		_, _ = io.WriteString(w, "ok")
		return nil
	}
	got, _ = g.exchange("GET /a HTTP/1.1\nHost: a\n\n")
	if got.Header.Get("Server") != "sluice" || !slices.Equal(got.Header["Vary"], []string{"Accept", "Origin"}) || got.Header.Get("X-Powered-By") != "" {
		t.Errorf("the client was told %v", got.Header)
	}
	got, _ = g.exchange("GET /off HTTP/1.1\nHost: a\n\n")
	if got.Header.Get("Server") != "theirs" || got.Header.Get("X-Powered-By") != "x" {
		t.Errorf("without the plugin the client was told %v", got.Header)
	}
	for _, path := range []string{"/fixed", "/redirect"} {
		if got, _ := g.exchange("GET " + path + " HTTP/1.1\nHost: a\n\n"); got.Header.Get("X-A") != "b" {
			t.Errorf("%s told %v", path, got.Header)
		}
	}
}

func TestHeadersEditRefusalsButNotWhatTheySay(t *testing.T) {
	g := start(t, setup{routes: map[string]string{"a": `{"path":"/a","service":"a","plugins":{"headers":{
		"response":{"set":{"Strict-Transport-Security":"max-age=1","Content-Type":"text/html"}}}}}`}})
	g.upstream.answer = func(http.ResponseWriter, *http.Request, *routing.Exchange) *routing.Refusal {
		return &routing.Refusal{Code: routing.CodeUpstreamTimeout, Detail: "late"}
	}
	got, _ := g.exchange("GET /a HTTP/1.1\nHost: a\n\n")
	wantRefusal(t, got, 504, routing.CodeUpstreamTimeout)
	if got.Header.Get("Strict-Transport-Security") == "" {
		t.Errorf("headers are %v", got.Header)
	}
}

func TestHeadersRefusesWhatIsNotItsOwn(t *testing.T) {
	p := NewPlugins(quiet())
	for _, c := range []struct{ direction, name, value, message string }{
		{"set", "Host", "a", "host field"},
		{"set", "connection", "close", "belongs to the connection"},
		{"add", "Transfer-Encoding", "chunked", "belongs to the connection"},
		{"add", "Content-Length", "1", "belongs to the connection"},
		{"set", "X-Request-ID", "1", "the gateway's own"},
		{"set", "x-forwarded-anything", "1", "the gateway's own"},
		{"set", "traceparent", "1", "the gateway's own"},
		{"set", "X A", "1", "not a header name"},
		{"set", "", "1", "not a header name"},
		{"set", "X-A", "a\r\nX-B: c", "control character"},
		{"set", "X-A", "a\x00", "control character"},
		{"set", "X-A", strings.Repeat("x", 5000), "longer than"},
	} {
		config := map[string]any{"request": map[string]any{c.direction: map[string]any{c.name: c.value}}}
		_, faults := p.Compile(routing.Place{Field: "plugins.headers"}, "headers", config)
		field := "plugins.headers.request." + c.direction + "." + c.name
		if len(faults) != 1 || faults[0].Field != field || !strings.Contains(faults[0].Message, c.message) {
			t.Errorf("%s %q: faults are %v", c.direction, c.name, faults)
		}
		if strings.Contains(faults.Error(), "X-B") {
			t.Error("the fault quotes the value")
		}
	}
	_, faults := p.Compile(routing.Place{}, "headers", map[string]any{
		"response": map[string]any{"remove": []any{"X-A", "Content-Length"}, "set": map[string]any{"X-A": "1", "x-a": "2"}}})
	if len(faults) != 2 || faults[0].Field != "response.set.x-a" || faults[1].Field != "response.remove[1]" {
		t.Errorf("faults are %v", faults)
	}
}
