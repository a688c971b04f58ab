package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/test/testenv"
)

// Row 87: what a client sends begins a line of the log, or colours it.
func TestRow87NoClientWritesALineOfTheLog(t *testing.T) {
	const forged = `{"level":"ERROR","msg":"forged"}`
	for format, good := range map[string]func(line string) bool{
		"json": func(line string) bool {
			var v struct{ Time, Level, Msg string }
			return json.Unmarshal([]byte(line), &v) == nil && v.Time != "" && v.Msg != "forged"
		},
		"text": func(line string) bool { return strings.HasPrefix(line, "time=") && strings.Contains(line, " level=") },
	} {
		t.Run(format, func(t *testing.T) {
			s := newSite(t, testenv.GatewayOptions{Extra: "log: {level: debug, format: " + format + "}\n"})
			s.etcd.Put("/sluice/routes/a", `{"path":"/a/*","respond":{"body":"a"}}`)
			s.eventually("the route answers", "/a/1", func(a answer) bool { return a.Status == http.StatusOK })
			var ids []string // of what the gateway itself answered
			for _, text := range []string{"\r\n" + forged, "\n" + forged, "\x1b[31mred\x1b[0m", `"` + forged, "\\\"\\n" + forged, "\x00", "\xff\xfe", "\u2028" + forged, "\x9b31m", "\x7f", "a\tb"} {
				escaped := ""
				for i := range len(text) {
					escaped += fmt.Sprintf("%%%02X", text[i])
				}
				for _, head := range []string{
					"GET /a/" + escaped + " HTTP/1.1\r\nHost: a\r\n",
					"GET /a/" + text + " HTTP/1.1\r\nHost: a\r\n",
					"GET /a/1?" + text + " HTTP/1.1\r\nHost: a\r\n",
					"GET /a/1 HTTP/1.1\r\nHost: a" + text + "\r\n",
					"GET /a/1 HTTP/1.1\r\nHost: a\r\nUser-Agent: x" + text + "\r\n",
					"GET /a/1 HTTP/1.1\r\nHost: a\r\nX-Request-ID: x" + text + "\r\n",
					"GET /a/1 HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1" + text + "\r\n",
					"GET /a/1 HTTP/1.1\r\nHost: a\r\nTraceparent: 00" + text + "\r\n",
					"G" + text + " /a/1 HTTP/1.1\r\nHost: a\r\n",
				} {
					if id := exchange(t, s.gateway.Addr, head+"Connection: close\r\n\r\n"); id != "" {
						ids = append(ids, id)
					}
				}
			}
			s.gateway.Stop() // all is written
			log := s.gateway.Log()
			for line := range strings.Lines(log) {
				if line = strings.TrimSuffix(line, "\n"); !good(line) {
					t.Errorf("not a line of the gateway's own: %q", line)
				}
				if i := strings.IndexFunc(line, func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 || r == '\u2028' }); i >= 0 {
					t.Errorf("a control character at %d of %q", i, line)
				}
			}
			for _, id := range ids {
				if strings.Count(log, id) != 1 {
					t.Errorf("request %s is in the log %d times", id, strings.Count(log, id))
				}
			}
			if len(ids) == 0 {
				t.Error("every request was refused before the gateway saw it")
			}
		})
	}
}

// exchange sends bytes and returns the request ID of the answer; one that
// net/http refused has none.
func exchange(t *testing.T, address, request string) (id string) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatalf("send %q: %v", request, err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Errorf("%q is not answered: %v", request, err)
		return ""
	}
	defer resp.Body.Close()
	return resp.Header.Get("X-Request-ID")
}

// Row 89: what a client sends becomes a label.
func TestRow89NoRequestAddsASeries(t *testing.T) {
	s := newSite(t, testenv.GatewayOptions{Extra: "log: {access: false}\n"})
	s.service("orders", "o1")
	s.etcd.Put("/sluice/routes/orders", `{"hosts":["shop.test"],"path":"/orders/:id","methods":["GET","POST"],"service":"orders"}`)
	s.eventually("the route answers", "/orders/1", func(a answer) bool { return a.Status == http.StatusOK }, "Host: shop.test")
	client := &http.Client{Transport: &http.Transport{}, Timeout: 20 * time.Second}
	defer client.CloseIdleConnections()
	send := func(method, host, path string, headers ...string) {
		t.Helper()
		req, err := http.NewRequest(method, s.gateway.URL()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		for i := 0; i < len(headers); i += 2 {
			req.Header.Set(headers[i], headers[i+1])
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatalf("%s %s: %v", method, path, err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	round := func(n int) {
		name := fmt.Sprint("x", n)
		send("M"+name, "shop.test", "/orders/1")
		send("GET", name+".test", "/orders/1")
		send("GET", "shop.test", "/"+name)
		send("GET", "shop.test", "/orders/"+name)
		send("POST", "shop.test", "/pkg."+name+"/Do", "Content-Type", "application/grpc", "Te", "trailers")
		send("GET", "shop.test", "/orders/"+name, "User-Agent", name, "X-Request-ID", name, "X-Forwarded-For", fmt.Sprintf("10.0.%d.%d", n/250, n%250))
	}
	round(0)
	before := s.seriesNames()
	for n := range 2000 {
		round(n + 1)
	}
	equal(t, "series", strings.Join(s.seriesNames(), "\n"), strings.Join(before, "\n"))
}

// seriesNames lists the gateway's own series of /metrics.
func (s *site) seriesNames() []string {
	s.t.Helper()
	var out []string
	for line := range strings.Lines(s.page("/metrics", "")) {
		if strings.HasPrefix(line, "sluice_") {
			name, _, _ := strings.Cut(line[:strings.LastIndexByte(line, ' ')], " # ")
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}
