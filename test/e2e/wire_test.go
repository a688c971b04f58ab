package e2e

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/admin"
)

// at is the site as a subtest uses it.
func (s *site) at(t *testing.T) *site {
	c := *s
	c.t = t
	return &c
}

// register puts an instance into Consul that nothing keeps there: without a
// check, so it passes for as long as the agent knows it.
func (s *site) register(name, id, addr string, tags ...string) {
	s.t.Helper()
	host, port, _ := net.SplitHostPort(addr)
	number, err := strconv.Atoi(port)
	if err != nil {
		s.t.Fatalf("register %s: %v", addr, err)
	}
	s.agent("/v1/agent/service/register", map[string]any{
		"ID": id, "Name": name, "Address": host, "Port": number, "Tags": tags,
	})
}

func (s *site) deregister(id string) {
	s.t.Helper()
	s.agent("/v1/agent/service/deregister/"+id, nil)
}

// agent puts to the Consul agent.
func (s *site) agent(path string, body any) {
	s.t.Helper()
	data, err := json.Marshal(body)
	if err != nil {
		s.t.Fatalf("PUT %s: %v", path, err)
	}
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodPut, s.consul.URL()+path, bytes.NewReader(data))
	if err != nil {
		s.t.Fatalf("PUT %s: %v", path, err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatalf("PUT %s: %v", path, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(resp.Body)
		s.t.Fatalf("PUT %s: %d %s", path, resp.StatusCode, text)
	}
}

// wire is a client's connection on which anything can be sent.
type wire struct {
	t *testing.T
	net.Conn
	r *bufio.Reader
}

func dial(t *testing.T, addr string) *wire {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	return &wire{t: t, Conn: c, r: bufio.NewReader(c)}
}

// crlf writes requests legibly: \n stands for CRLF, \x01 for a bare LF.
func crlf(s string) string { return strings.NewReplacer("\n", "\r\n", "\x01", "\n").Replace(s) }

// send writes; that the gateway hung up before the end is no failure.
func (w *wire) send(s string) { _, _ = io.WriteString(w.Conn, s) }

// reply is an answer read to its end.
type reply struct {
	*http.Response
	Text string
}

func (w *wire) answer(method string) reply {
	w.t.Helper()
	a, err := w.tryAnswer(method)
	if err != nil {
		w.t.Fatalf("no answer: %v", err)
	}
	return a
}

func (w *wire) tryAnswer(method string) (reply, error) {
	resp, err := http.ReadResponse(w.r, &http.Request{Method: method})
	if err != nil {
		return reply{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return reply{resp, string(text)}, err
}

// closed waits until the gateway has closed the connection.
func (w *wire) closed() bool {
	_, err := io.Copy(io.Discard, w.r)
	var timeout net.Error
	return !errors.As(err, &timeout) || !timeout.Timeout()
}

// sight is one request as an origin read it from the wire.
type sight struct {
	Target string
	Head   string // as it came, before any parsing
	Header http.Header
	Body   string
	Err    error // why the body did not come to its end
	*http.Request
}

// origin is an instance that speaks HTTP/1.1 by hand and keeps what it sees.
// It answers each request with its method and target, so that an answer that
// belongs to another request is noticed.
type origin struct {
	addr string
	// hangUp makes it end the connection of a request that it has read
	// instead of answering.
	hangUp atomic.Bool

	mu   sync.Mutex
	seen []sight
}

func startOrigin(t *testing.T) *origin {
	t.Helper()
	o := &origin{}
	o.addr = startScript(t, o.serve)
	return o
}

// startScript accepts connections and runs serve on each, then closes it. It
// returns the address.
func startScript(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open[c] = true
			mu.Unlock()
			running.Go(func() {
				serve(c)
				_ = c.Close()
				mu.Lock()
				delete(open, c)
				mu.Unlock()
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for c := range open {
			_ = c.Close()
		}
		mu.Unlock()
		running.Wait()
	})
	return l.Addr().String()
}

// cutAnswers break off in the middle.
var cutAnswers = map[string]string{
	"cut-length":  "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
	"cut-chunked": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
}

func (o *origin) serve(c net.Conn) {
	var raw bytes.Buffer
	r := bufio.NewReader(io.TeeReader(c, &raw))
	for {
		raw.Reset()
		ahead, _ := r.Peek(r.Buffered()) // what came with the request before
		raw.Write(ahead)
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		head, _, _ := strings.Cut(raw.String(), "\r\n\r\n")
		got := sight{Target: req.RequestURI, Head: head, Header: req.Header, Request: req}
		if strings.HasSuffix(req.URL.Path, "/refuse-unread") {
			o.keep(got)
			_, _ = io.WriteString(c, "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
			return // as an origin does that will not read what it refused
		}
		body, err := io.ReadAll(req.Body)
		got.Body, got.Err = string(body), err
		o.keep(got)
		if err != nil || o.hangUp.Load() {
			return
		}
		if cut, ok := cutAnswers[path.Base(req.URL.Path)]; ok {
			_, _ = io.WriteString(c, cut)
			_ = c.(*net.TCPConn).SetLinger(0) // so that it is a reset
			return
		}
		answer := req.Method + " " + req.RequestURI
		_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nX-Answers: %s\r\nContent-Length: %d\r\n\r\n%s", answer, len(answer), answer)
	}
}

func (o *origin) keep(s sight) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.seen = append(o.seen, s)
}

// take returns what was seen since the last call.
func (o *origin) take() []sight {
	o.mu.Lock()
	defer o.mu.Unlock()
	seen := slices.Clone(o.seen)
	o.seen = nil
	return seen
}

// whole returns the requests that came complete.
func whole(seen []sight) []sight {
	return slices.DeleteFunc(slices.Clone(seen), func(s sight) bool { return s.Err != nil })
}

// hundredAnswers sends a hundred ordinary requests over one connection. Each
// must get its own answer: the connections behind the gateway are clean.
func (s *site) hundredAnswers(path string) {
	s.t.Helper()
	w := dial(s.t, s.gateway.Addr)
	for i := range 100 {
		target := fmt.Sprintf("%s%d", path, i)
		w.send(crlf("GET " + target + " HTTP/1.1\nHost: a\n\n"))
		if got := w.answer(http.MethodGet); got.StatusCode != http.StatusOK || got.Text != "GET "+target {
			s.t.Fatalf("request %d of the hundred after it got %d %q", i, got.StatusCode, got.Text)
		}
	}
}

// h2c is a client that speaks HTTP/2 without TLS.
func h2c(t *testing.T) *http.Client {
	t.Helper()
	tr := &http.Transport{Protocols: new(http.Protocols)}
	tr.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 20 * time.Second}
}

// drain reads an answer to its end.
func drain(resp *http.Response) (string, error) {
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return string(text), err
}

// startSocketOrigin is an instance that accepts every WebSocket handshake and
// then says nothing.
func startSocketOrigin(t *testing.T) string {
	t.Helper()
	instance := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "" {
			return
		}
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Errorf("take the connection: %v", err)
			return
		}
		defer c.Close()
		_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		_ = rw.Flush()
		_, _ = io.Copy(io.Discard, rw)
	}))
	t.Cleanup(instance.Close)
	return instance.Listener.Addr().String()
}

// openSocket opens a WebSocket to /socket.
func openSocket(t *testing.T, s *site) *wire {
	t.Helper()
	s.eventually("the socket's route answers", "/socket", func(a answer) bool { return a.Status == http.StatusOK })
	w := dial(t, s.gateway.Addr)
	w.send(crlf("GET /socket HTTP/1.1\nHost: a\nConnection: Upgrade\nUpgrade: websocket\n" +
		"Sec-WebSocket-Version: 13\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\n\n"))
	equal(t, "status of the handshake", w.answer(http.MethodGet).StatusCode, http.StatusSwitchingProtocols)
	return w
}

// closeStatus is the status of the close frame that ends a WebSocket
// (RFC 6455 section 5.5.1), 0 where it ends without one.
func closeStatus(w *wire) int {
	data, _ := io.ReadAll(w.r)
	if len(data) < 4 || data[0] != 0x88 {
		return 0
	}
	return int(binary.BigEndian.Uint16(data[2:]))
}

// instances is what the admin API says of a service's instances.
func (s *site) instances(service string) []admin.Instance {
	s.t.Helper()
	var l struct{ Items []admin.Instance }
	s.read("/api/v1/instances?name="+service, &l)
	return l.Items
}
