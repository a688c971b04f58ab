package middleware

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/routing"
)

func TestARefusalIsAProblemDocument(t *testing.T) {
	g := start(t, setup{routes: map[string]string{
		"a":      `{"path":"/a","service":"a"}`,
		"broken": `{"path":"/broken","service":"a","nonsense":true}`,
	}})
	g.upstream.answer = func(w http.ResponseWriter, _ *http.Request, _ *routing.Exchange) *routing.Refusal {
		w.Header().Set("Content-Length", "99999") // of an attempt that failed
		return &routing.Refusal{Code: routing.CodeNoHealthyInstance, Detail: "no instance of a passes its checks",
			RetryAfter: 1500 * time.Millisecond}
	}
	got, w := g.exchange("GET /a HTTP/1.1\nHost: a\n\n")
	var body map[string]any
	if err := json.Unmarshal([]byte(got.Text), &body); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"type": "urn:sluice:no_healthy_instance", "title": "Service Unavailable", "status": 503.0,
		"code": "no_healthy_instance", "detail": "no instance of a passes its checks", "request_id": got.Header.Get("X-Request-ID")}
	if fmt.Sprint(body) != fmt.Sprint(want) || got.Header.Get("Retry-After") != "2" || got.Close {
		t.Errorf("answer is %v with %v, want %v", body, got.Header, want)
	}
	w.send("HEAD /a HTTP/1.1\nHost: a\n\n")
	if got := w.answer("HEAD"); got.StatusCode != 503 || got.Text != "" || got.ContentLength == 0 {
		t.Errorf("HEAD got %d %q", got.StatusCode, got.Text)
	}
	w.send("GET /missing HTTP/1.1\nHost: a\n\n")
	wantRefusal(t, w.answer("GET"), 404, routing.CodeRouteNotFound)
	w.send("GET /broken HTTP/1.1\nHost: a\n\n")
	wantRefusal(t, w.answer("GET"), 503, routing.CodeRouteInvalid)
	g.tables.Store(nil)
	w.send("GET /a HTTP/1.1\nHost: a\n\n")
	wantRefusal(t, w.answer("GET"), 503, routing.CodeOverloaded)
}

func TestGRPCCallersGetAGRPCStatus(t *testing.T) {
	g := start(t, setup{routes: map[string]string{"a": `{"path":"/svc/*","service":"a"}`}})
	client := h2c(t)
	for code, want := range map[routing.Code]string{
		routing.CodeRouteNotFound: "12", routing.CodeMethodNotAllowed: "12", routing.CodeBadRequest: "13",
		routing.CodeRouteInvalid: "14", routing.CodeNoHealthyInstance: "14", routing.CodeCircuitOpen: "14",
		routing.CodeOverloaded: "14", routing.CodeUpstreamUnreachable: "14", routing.CodeUpstreamError: "14",
		routing.CodeUpstreamTimeout: "4", routing.CodeUnauthenticated: "16", routing.CodeForbidden: "7",
		routing.CodeRateLimited: "14", routing.CodeBodyTooLarge: "8", routing.CodeInvalidRequest: "3", CodeInternal: "13",
	} {
		g.upstream.answer = func(http.ResponseWriter, *http.Request, *routing.Exchange) *routing.Refusal {
			return &routing.Refusal{Code: code, Detail: "100% über"}
		}
		req, _ := http.NewRequest("POST", "http://"+g.addr+"/svc/M", strings.NewReader("\x00\x00\x00\x00\x00"))
		req.Header.Set("Content-Type", "application/grpc+proto")
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		got := []string{resp.Status, resp.Header.Get("Content-Type"), resp.Header.Get("Grpc-Status"), resp.Header.Get("Grpc-Message")}
		if w := []string{"200 OK", "application/grpc", want, string(code) + ": 100%25 %C3%BCber"}; fmt.Sprint(got) != fmt.Sprint(w) {
			t.Errorf("%s: %q, want %q", code, got, w)
		}
	}
}

func TestRoutesAnswerByThemselves(t *testing.T) {
	g := start(t, setup{routes: map[string]string{
		"text":  `{"path":"/text","respond":{"body":"hello"}}`,
		"full":  `{"path":"/full","respond":{"status":418,"body":"{}","headers":{"content-type":"application/json","X-A":"b"}}}`,
		"empty": `{"path":"/empty","respond":{"status":204}}`,
		"moved": `{"path":"/moved","redirect":{"to":"https://new.test/"}}`,
	}})
	for _, c := range []struct{ method, path, want string }{
		{"GET", "/text", "200 text/plain; charset=utf-8  hello"},
		{"HEAD", "/text", "200 text/plain; charset=utf-8  "},
		{"POST", "/full", "418 application/json  {}"},
		{"GET", "/empty", "204   "},
		{"GET", "/moved", "302  https://new.test/ "},
	} {
		got, _ := g.exchange(c.method + " " + c.path + " HTTP/1.1\nHost: a\n\n")
		if s := fmt.Sprintf("%d %s %s %s", got.StatusCode, got.Header.Get("Content-Type"), got.Header.Get("Location"), got.Text); s != c.want {
			t.Errorf("%s %s: %q, want %q", c.method, c.path, s, c.want)
		}
		if len(got.Header["X-Request-Id"]) != 1 {
			t.Errorf("%s: X-Request-ID is %q", c.path, got.Header["X-Request-Id"])
		}
	}
}
