package middleware

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"

	"github.com/sluice-gateway/sluice/routing"
)

// D1 and row 91: an instance that dies in the middle of its answer must not
// leave a client with something that looks whole.
func TestRow91ACutResponseNeverLooksComplete(t *testing.T) {
	g := start(t, setup{})
	g.upstream.answer = func(w http.ResponseWriter, _ *http.Request, x *routing.Exchange) *routing.Refusal {
		_, _ = io.WriteString(w, "half")
		_ = http.NewResponseController(w).Flush()
		x.Aborted = "upstream"
		panic(http.ErrAbortHandler)
	}
	t.Run("HTTP/1.1", func(t *testing.T) {
		w := g.dial()
		w.send("GET / HTTP/1.1\nHost: a\n\n")
		resp, err := http.ReadResponse(w.r, nil)
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(resp.Body); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("body %q ended with %v", body, err)
		}
	})
	t.Run("HTTP/2", func(t *testing.T) {
		resp, err := h2c(t).Get("http://" + g.addr + "/")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		if body, err := io.ReadAll(resp.Body); err == nil {
			t.Errorf("body %q ended well", body)
		}
	})
	eventually(t, "both are logged as aborted", func() bool {
		return strings.Count(g.log.String(), `"aborted":"upstream"`) == 2
	})
	if strings.Contains(g.log.String(), "panic while serving") {
		t.Error("an aborted response was logged as a bug")
	}
}

func TestRow91APanicIsAnsweredLoggedAndCounted(t *testing.T) {
	g := start(t, setup{})
	g.upstream.answer = func(w http.ResponseWriter, r *http.Request, _ *routing.Exchange) *routing.Refusal {
		w.Header().Set("Content-Encoding", "gzip")
		if r.URL.Path == "/late" {
			_, _ = io.WriteString(w, "half")
		}
		panic("a bug")
	}
	got, w := g.exchange("GET / HTTP/1.1\nHost: a\n\n")
	wantRefusal(t, got, 500, CodeInternal)
	if got.Header.Get("Content-Encoding") != "" || !w.closed() {
		t.Errorf("headers %v", got.Header)
	}
	late := g.dial()
	late.send("GET /late HTTP/1.1\nHost: a\n\n")
	if resp, err := http.ReadResponse(late.r, nil); err == nil {
		if _, err := io.ReadAll(resp.Body); err == nil {
			t.Error("half an answer looks whole")
		}
	}
	eventually(t, "the panics are logged", func() bool {
		return strings.Count(g.log.String(), "panic while serving") == 2
	})
	if !strings.Contains(g.log.String(), "recover_test.go") {
		t.Error("the log has no stack")
	}
	if n := g.metric("sluice_panics_total", ""); n != 2 {
		t.Errorf("%v panics are counted", n)
	}
	g.upstream.answer = nil
	if got, _ := g.exchange("GET / HTTP/1.1\nHost: a\n\n"); got.StatusCode != 200 {
		t.Errorf("the next request got %d", got.StatusCode)
	}
}

func TestNobodyAnswersAClientThatLeft(t *testing.T) {
	g := start(t, setup{})
	g.upstream.answer = func(http.ResponseWriter, *http.Request, *routing.Exchange) *routing.Refusal {
		return &routing.Refusal{Code: routing.CodeClientClosed}
	}
	w := g.dial()
	w.send("GET / HTTP/1.1\nHost: a\n\n")
	if !w.closed() {
		t.Error("something was answered")
	}
	eventually(t, "the request is logged as 499", func() bool {
		return strings.Contains(g.log.String(), `"status":499`) && strings.Contains(g.log.String(), `"aborted":"client"`)
	})
}

// An answer without a body is the instance's to give: Gin appends its own
// text to a 404 that it believes unwritten.
func TestAnInstancesEmptyAnswerStaysEmpty(t *testing.T) {
	g := start(t, setup{})
	for _, status := range []int{404, 405, 204, 304, 500} {
		g.upstream.answer = func(w http.ResponseWriter, _ *http.Request, _ *routing.Exchange) *routing.Refusal {
			w.WriteHeader(status)
			return nil
		}
		got, _ := g.exchange("GET / HTTP/1.1\nHost: a\n\n")
		if got.StatusCode != status || got.Text != "" {
			t.Errorf("%d became %d %q", status, got.StatusCode, got.Text)
		}
	}
}

func TestInformationalResponsesPass(t *testing.T) {
	g := start(t, setup{})
	g.upstream.answer = func(w http.ResponseWriter, _ *http.Request, _ *routing.Exchange) *routing.Refusal {
		w.Header().Set("Link", "</a.css>")
		w.WriteHeader(http.StatusEarlyHints)
		_, _ = io.WriteString(w, "ok")
		return nil
	}
	w := g.dial()
	w.send("GET / HTTP/1.1\nHost: a\n\n")
	if early := w.answer("GET"); early.StatusCode != 103 || early.Header.Get("Link") == "" {
		t.Errorf("first came %d", early.StatusCode)
	}
	if got := w.answer("GET"); got.StatusCode != 200 || got.Text != "ok" || got.Header.Get("X-Request-ID") == "" {
		t.Errorf("then came %d %q", got.StatusCode, got.Text)
	}
}

// A plugin that wraps the writer is written through, and the state is found
// behind it.
func TestAPluginMayWrapTheWriter(t *testing.T) {
	steps := withPlugins(Define[testConfig]("wrap", func(c *gin.Context, _ *routing.Exchange, _ *testConfig) {
		c.Writer = &shouting{c.Writer}
	}), Define[testConfig]("reject", func(c *gin.Context, _ *routing.Exchange, config *testConfig) {
		if c.Request.Header.Get("X-Reject") != "" {
			Reject(c, "reject", &routing.Refusal{Code: routing.CodeForbidden, Detail: config.Why})
		}
	}))
	g := start(t, setup{steps: steps, routes: map[string]string{
		"a": `{"path":"/*","service":"a","plugins":{"wrap":{"why":"x"},"reject":{"why":"told so"}}}`}})
	if got, _ := g.exchange("GET / HTTP/1.1\nHost: a\n\n"); got.Text != "OK" {
		t.Errorf("answer is %q", got.Text)
	}
	got, _ := g.exchange("GET / HTTP/1.1\nHost: a\nX-Reject: 1\n\n")
	wantRefusal(t, got, 403, routing.CodeForbidden)
	if !strings.Contains(got.Text, "told so") {
		t.Errorf("answer is %q", got.Text)
	}
	if n := g.metric("sluice_plugin_rejections_total", `code="forbidden",plugin="reject",route="a"`); n != 1 {
		t.Errorf("%v rejections are counted", n)
	}
}

func TestPluginsRunInOrderAndAroundTheRest(t *testing.T) {
	var trace []string
	note := func(name string, around bool) *Plugin {
		return Define[testConfig](name, func(c *gin.Context, _ *routing.Exchange, config *testConfig) {
			trace = append(trace, name)
			if config.On {
				c.Abort()
				c.Status(http.StatusAccepted)
			} else if around {
				c.Next()
				trace = append(trace, "/"+name)
			}
		})
	}
	steps := withPlugins(note("a", true), note("b", false), note("c", true), note("d", false))
	for _, c := range []struct {
		name, plugins string
		status        int
		want          string
	}{
		{"all", `{"a":{"why":"x"},"b":{"why":"x"},"c":{"why":"x"},"d":{"why":"x"}}`, 200, "[a b c d forward /c /a]"},
		{"only the last", `{"d":{"why":"x"}}`, 200, "[d forward]"},
		{"only one around", `{"c":{"why":"x"}}`, 200, "[c forward /c]"},
		{"one that answers inside another", `{"a":{"why":"x"},"b":{"why":"x","on":true},"c":{"why":"x"}}`, 202, "[a b /a]"},
		{"none", `{}`, 200, "[forward]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			trace = nil
			g := newGateway(t, setup{steps: steps, routes: map[string]string{"a": `{"path":"/*","service":"a","plugins":` + c.plugins + `}`}})
			g.upstream.answer = func(w http.ResponseWriter, _ *http.Request, _ *routing.Exchange) *routing.Refusal {
				trace = append(trace, "forward")
				w.WriteHeader(200)
				return nil
			}
			r, w := newRequest("GET", "/")
			g.engine.ServeHTTP(w, r)
			if got := fmt.Sprint(trace); got != c.want || w.Code != c.status {
				t.Errorf("the walk was %s and ended with %d, want %s and %d", got, w.Code, c.want, c.status)
			}
		})
	}
}

type shouting struct{ gin.ResponseWriter }

func (s *shouting) Write(p []byte) (int, error) {
	return s.ResponseWriter.WriteString(strings.ToUpper(string(p)))
}
func (s *shouting) WriteString(p string) (int, error) { return s.Write([]byte(p)) }
func (s *shouting) Unwrap() http.ResponseWriter       { return s.ResponseWriter }

// testConfig is the configuration of plugins that exist in tests only.
type testConfig struct {
	Why   string   `json:"why"`
	Count int      `json:"count"`
	Limit *int64   `json:"limit"`
	Ratio float64  `json:"ratio"`
	On    bool     `json:"on"`
	List  []string `json:"list"`
	Inner []struct {
		Wait routing.Duration `json:"wait"`
	} `json:"inner"`
	Free map[string]any `json:"free"`
}

func (c *testConfig) Prepare(at *Place) routing.Faults {
	if c.Why == "" {
		return routing.Faults{{Field: at.At("why"), Message: "must be given"}}
	}
	return nil
}

// withPlugins is the order with further plugins ahead of the forwarder.
func withPlugins(plugins ...*Plugin) []step {
	steps := order()
	last := steps[len(steps)-1]
	steps = steps[:len(steps)-1]
	for _, p := range plugins {
		steps = append(steps, step{name: p.name, plugin: p})
	}
	return append(steps, last)
}
