package proxy

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

func TestARequestReachesTheInstanceAsSent(t *testing.T) {
	got := make(chan *http.Request, 1)
	up := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		r.Header.Set("Body", string(b))
		got <- r
		w.Header().Set("X-Up", "1")
		w.WriteHeader(http.StatusTeapot)
		_, _ = io.WriteString(w, "short and stout")
	})
	g := newRig(t, addrOf(up)).serve()
	resp, body, err := g.do(g.request("POST", "/a%2Fb;v=1/c!?q=1;2&&x=%zz", strings.NewReader("hello")))
	if err != nil || resp.StatusCode != http.StatusTeapot || body != "short and stout" || resp.Header.Get("X-Up") != "1" {
		t.Fatalf("got %v %q %v", resp, body, err)
	}
	r := <-got
	want := map[string]string{
		"Body": "hello", "X-Request-Id": "req-1", "X-Trace-Id": strings.Repeat("a", 32),
		"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "http", "X-Forwarded-Host": g.addr(),
		"X-Forwarded-Port": g.addr()[strings.LastIndexByte(g.addr(), ':')+1:],
	}
	for k, v := range want {
		if r.Header.Get(k) != v {
			t.Errorf("%s is %q, want %q", k, r.Header.Get(k), v)
		}
	}
	if r.RequestURI != "/a%2Fb;v=1/c!?q=1;2&&x=%zz" || r.Host != g.addr() || r.ContentLength != 5 {
		t.Errorf("got %q for host %q with length %d", r.RequestURI, r.Host, r.ContentLength)
	}
	if n := g.obs.of("success"); n != 1 {
		t.Errorf("%d successes", n)
	}
}
