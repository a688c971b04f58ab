package proxy

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"reflect"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/routing"
)

func TestResponsesThatCannotBePassedOn(t *testing.T) {
	tests := []struct{ name, answer, result string }{
		{"row 54: a head of 20 MB", "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("a", 20<<20) + "\r\n\r\n", "broken"},
		{"row 54: a head of many lines", "HTTP/1.1 200 OK\r\n" + strings.Repeat("X: a\r\n", 4<<20) + "\r\n", "broken"},
		{"row 54: endless informational responses", strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", 5000), "broken"},
		{"two different content lengths", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc", "broken"},
		{"a transfer encoding that is not chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "broken"},
		{"a transfer encoding that looks like chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", "broken"},
		{"no HTTP at all", "SSH-2.0-OpenSSH\r\n\r\n", "broken"},
		{"row 9: protocols switched unasked", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", "broken"},
		{"a status below 100", "HTTP/1.1 099 Odd\r\nContent-Length: 0\r\n\r\n", "broken"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			up := newHostile(t, reply(tt.answer))
			g := newRig(t, up.addr).serve()
			resp, body := g.mustGet("/")
			if resp.StatusCode != http.StatusBadGateway || body != string(routing.CodeUpstreamError) {
				t.Errorf("got %d %q", resp.StatusCode, body)
			}
			if g.obs.of(tt.result) != 1 {
				t.Errorf("results %v", g.obs.n)
			}
		})
	}
}

// A response with Content-Length and Transfer-Encoding is read as chunked,
// and the length does not reach the client.
func TestChunkedWinsOverContentLength(t *testing.T) {
	up := newHostile(t, reply("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"))
	g := newRig(t, up.addr).serve()
	resp, body := g.mustGet("/")
	if body != "hello" || resp.Header["Content-Length"] != nil {
		t.Errorf("got %q with %v", body, resp.Header)
	}
}

// D1 and P4: an instance that dies in the middle of a body never leaves a
// complete-looking response.
func TestP4D1ABodyThatIsCutShortIsNotEnded(t *testing.T) {
	heads := map[string]string{
		"chunked":       "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
		"by length":     "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
		"event stream":  "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
		"a bad chunk":   "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n",
		"a huge length": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nffffffffffffffffff\r\n",
	}
	for name, head := range heads {
		for _, end := range []string{"RST", "FIN"} {
			for _, proto := range []string{"HTTP/1.1", "HTTP/2"} {
				t.Run(name+" "+end+" "+proto, func(t *testing.T) {
					seen := make(chan struct{})
					up := newHostile(t, func(_ int, c *net.TCPConn, br *bufio.Reader) {
						readHead(br)
						_, _ = io.WriteString(c, head)
						<-seen
						if end == "RST" {
							reset(c)
						}
					})
					g := newRig(t, up.addr)
					g.serve()
					tr := &http.Transport{Protocols: new(http.Protocols)}
					tr.Protocols.SetHTTP1(proto == "HTTP/1.1")
					tr.Protocols.SetUnencryptedHTTP2(proto == "HTTP/2")
					defer tr.CloseIdleConnections()
					resp, err := tr.RoundTrip(g.request("GET", "/", nil))
					close(seen)
					if err != nil {
						t.Fatal(err)
					}
					defer resp.Body.Close()
					if resp.Proto != proto && resp.Proto != proto+".0" {
						t.Fatal(resp.Proto)
					}
					b, err := io.ReadAll(resp.Body)
					if err == nil {
						t.Fatalf("a clean end after %q", b)
					}
					if x := g.exchange(); x.Aborted != "upstream" {
						t.Errorf("aborted by %q", x.Aborted)
					}
					if g.obs.of("broken") != 1 {
						t.Errorf("results %v", g.obs.n)
					}
				})
			}
		}
	}
}

func TestBodilessResponses(t *testing.T) {
	tests := []struct {
		name, method, answer string
		status               int
		length               []string
	}{
		{"HEAD keeps the length", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", 200, []string{"1000"}},
		{"HEAD of a chunked response", "HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 200, nil},
		{"204 loses a length", "GET", "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", 204, nil},
		{"204 loses a body", "GET", "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello", 204, nil},
		{"304 has no body", "GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nEtag: x\r\n\r\n", 304, nil},
		{"an empty 404 stays empty", "GET", "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", 404, []string{"0"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			up := newHostile(t, reply(tt.answer))
			g := newRig(t, up.addr).serve()
			// Twice on one connection, so that leftovers would show. (Bytes
			// after a response are TestUnsolicitedBytesPoisonNothing's.)
			times := 2
			if strings.HasSuffix(tt.answer, "hello") {
				times = 1
			}
			_, br := g.raw(strings.Repeat(tt.method+" / HTTP/1.1\r\nHost: h\r\n\r\n", times))
			for range times {
				resp, err := http.ReadResponse(br, &http.Request{Method: tt.method})
				if err != nil {
					t.Fatal(err)
				}
				b, _ := io.ReadAll(resp.Body)
				if resp.StatusCode != tt.status || len(b) != 0 || !reflect.DeepEqual(resp.Header["Content-Length"], tt.length) {
					t.Errorf("got %d %q %v", resp.StatusCode, b, resp.Header)
				}
			}
		})
	}
}

func TestTrailersArrive(t *testing.T) {
	up := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Sum")
		_, _ = io.WriteString(w, "body")
		w.Header().Set("X-Sum", "1")
		w.Header().Set(http.TrailerPrefix+"X-Late", "2")
	})
	for _, proto := range []string{"HTTP/1.1", "HTTP/2.0"} {
		t.Run(proto, func(t *testing.T) {
			g := newRig(t, addrOf(up)).serve()
			tr := &http.Transport{Protocols: new(http.Protocols)}
			tr.Protocols.SetHTTP1(proto == "HTTP/1.1")
			tr.Protocols.SetUnencryptedHTTP2(proto != "HTTP/1.1")
			defer tr.CloseIdleConnections()
			resp, err := tr.RoundTrip(g.request("GET", "/", nil))
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			b, err := io.ReadAll(resp.Body)
			want := http.Header{"X-Sum": {"1"}, "X-Late": {"2"}}
			if err != nil || string(b) != "body" || resp.Proto != proto || !reflect.DeepEqual(resp.Trailer, want) {
				t.Errorf("got %q %v %v over %s", b, resp.Trailer, err, resp.Proto)
			}
		})
	}
}

func TestEarlyHintsArriveAndOthersAreSwallowed(t *testing.T) {
	up := newHostile(t, reply("HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\r\n"+
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
	g := newRig(t, up.addr)
	g.wrap = func(w http.ResponseWriter) http.ResponseWriter {
		w.Header().Set("X-Request-Id", "req-1")
		return &noting{ResponseWriter: w}
	}
	g.serve()
	type info struct {
		code int
		h    http.Header
	}
	var infos []info
	req := g.request("GET", "/", nil)
	req = req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
		Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			infos = append(infos, info{code, http.Header(h)})
			return nil
		},
	}))
	resp, body, err := g.do(req)
	if err != nil || body != "ok" || resp.Header.Get("X-Request-Id") != "req-1" || resp.Header.Get("Link") != "" {
		t.Fatalf("got %v %q %v", resp, body, err)
	}
	if want := []info{{103, http.Header{"Link": {"</a.css>"}}}}; !reflect.DeepEqual(infos, want) {
		t.Errorf("got %v, want %v", infos, want)
	}
	// An HTTP/1.0 client must not get any.
	_, br := g.raw("GET / HTTP/1.0\r\n\r\n")
	if line, _ := br.ReadString('\n'); !strings.HasPrefix(line, "HTTP/1.0 200") {
		t.Errorf("an HTTP/1.0 client got %q", line)
	}
}

// noting is a writer that, like Gin's, holds a status back until the body.
type noting struct {
	http.ResponseWriter
	status int
}

func (n *noting) Unwrap() http.ResponseWriter { return n.ResponseWriter }
func (n *noting) WriteHeader(code int)        { n.status = code }
func (n *noting) WriteHeaderNow() {
	if n.status != 0 {
		n.ResponseWriter.WriteHeader(n.status)
		n.status = 0
	}
}
func (n *noting) Write(p []byte) (int, error) {
	n.WriteHeaderNow()
	return n.ResponseWriter.Write(p)
}
func (n *noting) Flush() {
	n.WriteHeaderNow()
	n.ResponseWriter.(http.Flusher).Flush()
}

func TestStreamsAreFlushedAtOnce(t *testing.T) {
	for _, kind := range []string{"text/event-stream; charset=utf-8", "application/octet-stream"} {
		t.Run(kind, func(t *testing.T) {
			next := make(chan struct{})
			up := upstream(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", kind)
				_ = http.NewResponseController(w).Flush()
				for i := range 3 {
					<-next
					fmt.Fprintf(w, "data: %d\n\n", i)
					_ = http.NewResponseController(w).Flush()
				}
			})
			g := newRig(t, addrOf(up))
			g.wrap = func(w http.ResponseWriter) http.ResponseWriter { return &noting{ResponseWriter: w} }
			g.serve()
			resp, err := http.DefaultTransport.RoundTrip(g.request("GET", "/", nil))
			if err != nil { // the head came before any of the body
				t.Fatal(err)
			}
			defer resp.Body.Close()
			br := bufio.NewReader(resp.Body)
			for i := range 3 {
				next <- struct{}{}
				line, err := br.ReadString('\n')
				if err != nil || line != fmt.Sprintf("data: %d\n", i) {
					t.Fatalf("got %q %v", line, err)
				}
				_, _ = br.ReadString('\n')
			}
		})
	}
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
}

func TestAnEarlyResponseDoesNotWaitForTheBody(t *testing.T) {
	up := newHostile(t, func(_ int, c *net.TCPConn, br *bufio.Reader) {
		readHead(br)
		_, _ = io.WriteString(c, "HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
		_, _ = io.Copy(io.Discard, br)
	})
	g := newRig(t, up.addr).serve()
	// The client stalls in the middle of its body and wants its answer.
	_, br := g.raw("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\npart")
	resp, err := http.ReadResponse(br, nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 413 || string(b) != "big" || !resp.Close {
		t.Errorf("got %d %q %v, close %v", resp.StatusCode, b, err, resp.Close)
	}
	if _, err := br.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("the connection stayed: %v", err)
	}
	if g.exchange(); g.obs.of("success") != 1 {
		t.Errorf("results %v", g.obs.n)
	}
}

func TestExpectContinue(t *testing.T) {
	head := "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
	t.Run("the instance wants the body", func(t *testing.T) {
		up := newHostile(t, func(_ int, c *net.TCPConn, br *bufio.Reader) {
			if lines := readHead(br); !strings.Contains(strings.Join(lines, "\n"), "Expect: 100-continue") {
				t.Errorf("no Expect in %q", lines)
			}
			_, _ = io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n")
			b := make([]byte, 4)
			_, _ = io.ReadFull(br, b)
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n%s", b)
		})
		g := newRig(t, up.addr).serve()
		c, br := g.raw(head)
		if lines := readHead(br); len(lines) == 0 || lines[0] != "HTTP/1.1 100 Continue" {
			t.Fatalf("got %q", lines)
		}
		_, _ = io.WriteString(c, "data")
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatal(err)
		}
		if b, _ := io.ReadAll(resp.Body); resp.StatusCode != 200 || string(b) != "data" {
			t.Errorf("got %d %q", resp.StatusCode, b)
		}
	})
	t.Run("row 12: the instance refuses, a hundred times, and nothing is poisoned", func(t *testing.T) {
		up := upstream(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Method == "POST" {
				w.WriteHeader(403)
				return
			}
			_, _ = io.WriteString(w, r.URL.Path)
		})
		g := newRig(t, addrOf(up)).serve()
		for range 100 {
			c, br := g.raw(head)
			resp, err := http.ReadResponse(br, nil)
			if err != nil || resp.StatusCode != 403 {
				t.Fatalf("got %v %v", resp, err)
			}
			c.Close()
		}
		for i := range 100 {
			if resp, body := g.mustGet(fmt.Sprintf("/%d", i)); resp.StatusCode != 200 || body != fmt.Sprintf("/%d", i) {
				t.Fatalf("got %d %q", resp.StatusCode, body)
			}
		}
	})
}

// Bytes that nobody asked for must not become the next client's response: the
// connection they came on is closed.
func TestUnsolicitedBytesPoisonNothing(t *testing.T) {
	const good = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood"
	const evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
	for _, when := range []string{"with the response", "while idle"} {
		t.Run(when, func(t *testing.T) {
			read, sent, dropped := make(chan struct{}, 1), make(chan struct{}, 1), make(chan struct{}, 8)
			up := newHostile(t, func(_ int, c *net.TCPConn, br *bufio.Reader) {
				if readHead(br) == nil {
					return
				}
				if when == "while idle" {
					_, _ = io.WriteString(c, good)
					<-read
					_, _ = io.WriteString(c, evil)
				} else {
					_, _ = io.WriteString(c, good+evil)
					<-read
				}
				sent <- struct{}{}
				if readHead(br) == nil {
					dropped <- struct{}{}
				}
			})
			g := newRig(t, up.addr).serve()
			for range 5 {
				if _, body := g.mustGet("/"); body != "good" {
					t.Fatalf("got %q", body)
				}
				read <- struct{}{}
				<-sent
				if when == "while idle" && engineOfRigs == routing.EngineFast {
					continue // nobody reads there until the next request looks
				}
				<-dropped
			}
		})
	}
}
