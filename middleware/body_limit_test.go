package middleware

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/routing"
)

// limited is a gateway whose route takes bodies of up to limit bytes.
func limited(t *testing.T, limit int) *gateway {
	t.Helper()
	return start(t, setup{routes: map[string]string{
		"any": fmt.Sprintf(`{"path":"/*","service":"any","plugins":{"body_limit":{"max_bytes":%d}}}`, limit)}})
}

// sized sends a body of n bytes, with its length or without.
func (g *gateway) sized(client *http.Client, n int, known bool, headers ...string) *http.Response {
	g.t.Helper()
	var body io.Reader = strings.NewReader(strings.Repeat("x", n))
	if !known {
		body = io.MultiReader(body) // hides the length
	}
	req, err := http.NewRequestWithContext(context.Background(), "POST", "http://"+g.addr+"/", body)
	if err != nil {
		g.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := client.Do(req)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { _ = resp.Body.Close() })
	return resp
}

// refusals is what was counted of a plugin's.
func (g *gateway) refusals(plugin string) (n float64) {
	for labels, m := range g.series("sluice_plugin_rejections_total") {
		if strings.Contains(labels, plugin) {
			n += m.GetCounter().GetValue()
		}
	}
	return n
}

func TestRow15ABodyLimitDoesNotDependOnFraming(t *testing.T) {
	g := limited(t, 1000)
	h1 := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	refused := 0
	for name, client := range map[string]*http.Client{"HTTP/1.1": h1, "HTTP/2": h2c(t)} {
		for _, known := range []bool{true, false} {
			for size, want := range map[int]int{0: 200, 1: 200, 1000: 200, 1001: 413, 100_000: 413} {
				resp := g.sized(client, size, known)
				if resp.StatusCode != want {
					t.Errorf("%s, %d bytes, length known %t: got %d, want %d", name, size, known, resp.StatusCode, want)
				}
				if want == 200 {
					continue
				}
				refused++
				var p problem
				if err := json.NewDecoder(resp.Body).Decode(&p); err != nil || p.Code != routing.CodeBodyTooLarge ||
					p.Detail != "the body is larger than the 1000 bytes accepted here" {
					t.Errorf("%s, %d bytes, length known %t: the answer is %+v, %v", name, size, known, p, err)
				}
			}
		}
	}
	for _, s := range g.upstream.requests() {
		if len(s.Body) > 1000 {
			t.Errorf("the instance got %d bytes", len(s.Body))
		}
	}
	if counted := g.refusals("body_limit"); counted != float64(refused) {
		t.Errorf("%v refusals were counted, want %d", counted, refused)
	}
}

func TestABodyThatIsTooLargeForGRPC(t *testing.T) {
	g := limited(t, 1000)
	for _, known := range []bool{true, false} {
		resp := g.sized(h2c(t), 5000, known, "Content-Type", "application/grpc")
		if resp.StatusCode != 200 || resp.Header.Get("Grpc-Status") != "8" {
			t.Errorf("length known %t: got %d, grpc-status %q, want RESOURCE_EXHAUSTED", known, resp.StatusCode, resp.Header.Get("Grpc-Status"))
		}
	}
}

func TestRow14ALengthWithoutABodyHoldsNoInstance(t *testing.T) {
	g := limited(t, 1000)
	got, w := g.exchange("POST / HTTP/1.1\nHost: a\nContent-Length: 1001\nExpect: 100-continue\n\n")
	wantRefusal(t, got, 413, routing.CodeBodyTooLarge)
	if !w.closed() {
		t.Error("the connection stays open though its body never came")
	}
	if n := len(g.upstream.requests()); n != 0 {
		t.Errorf("the instance got %d requests", n)
	}
}

func TestTheLowerOfTwoBodyLimitsCounts(t *testing.T) {
	g := start(t, setup{config: func(c *Config) { c.MaxBodyBytes = 500 }, routes: map[string]string{
		"any": `{"path":"/*","service":"any","plugins":{"body_limit":{"max_bytes":1000}}}`}})
	h1 := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for _, known := range []bool{true, false} {
		if resp := g.sized(h1, 501, known); resp.StatusCode != 413 {
			t.Errorf("length known %t: got %d, want 413", known, resp.StatusCode)
		}
	}
	if n := g.refusals("body_limit"); n != 0 {
		t.Errorf("the plugin counted %v refusals of the gateway's own limit", n)
	}
}

func TestABodyLimitOfNothing(t *testing.T) {
	g := limited(t, 0)
	h1 := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for size, want := range map[int]int{0: 200, 1: 413} {
		for _, known := range []bool{true, false} {
			if resp := g.sized(h1, size, known); resp.StatusCode != want {
				t.Errorf("%d bytes, length known %t: got %d, want %d", size, known, resp.StatusCode, want)
			}
		}
	}
}
