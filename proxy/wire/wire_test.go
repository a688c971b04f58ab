package wire

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-gateway/sluice/proxy/tcp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// note is a Trace that keeps what it was told.
type note struct {
	steps  []string
	infos  []int
	inform error
	// quick is what Watch returns; nil for an exchange that is none.
	quick   context.Context
	fresh   bool
	watched int
	onWatch func()
	room    *Room
}

func (n *note) Asked() { n.steps = append(n.steps, "asked") }
func (n *note) Connected(reused bool) {
	n.steps = append(n.steps, map[bool]string{false: "fresh", true: "reused"}[reused])
}
func (n *note) Fresh() bool { return n.fresh }
func (n *note) Quick() bool { return n.quick != nil }
func (n *note) Watch() context.Context {
	n.watched++
	if n.onWatch != nil {
		n.onWatch()
	}
	return n.quick
}
func (n *note) Room() *Room { return n.room }
func (n *note) Wrote()      { n.steps = append(n.steps, "wrote") }
func (n *note) Answered()   { n.steps = append(n.steps, "answered") }
func (n *note) Informed(code int, _ http.Header) error {
	n.infos = append(n.infos, code)
	return n.inform
}
func (n *note) String() string { return strings.Join(n.steps, " ") }

// newClient makes a client whose connections tell when they are closed.
func newClient(t testing.TB, change func(*Config)) *Client {
	t.Helper()
	conf := Config{
		Dial:        dial,
		IdleTimeout: time.Minute, IdlePerAddress: 4, MaxHead: 64 << 10,
	}
	if change != nil {
		change(&conf)
	}
	c, err := New(conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdle)
	return c
}

// peer runs script on every connection, n counting from 1, and closes it
// afterwards.
func peer(t testing.TB, script func(n int, c *net.TCPConn, br *bufio.Reader)) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	all.Go(func() {
		for n := 1; ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, c)
			mu.Unlock()
			all.Go(func() {
				defer c.Close()
				script(n, c.(*net.TCPConn), bufio.NewReader(c))
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range open {
			c.Close()
		}
		mu.Unlock()
		all.Wait()
	})
	return l.Addr().String()
}

// request reads a request whole and returns it, with a chunked body decoded,
// or "".
func request(br *bufio.Reader) string {
	var b strings.Builder
	length, chunked := 0, false
	for {
		line, err := br.ReadString('\n')
		if err != nil {
			return ""
		}
		b.WriteString(line)
		if v, ok := strings.CutPrefix(line, "Content-Length: "); ok {
			for _, ch := range strings.TrimSpace(v) {
				length = length*10 + int(ch-'0')
			}
		}
		chunked = chunked || line == "Transfer-Encoding: chunked\r\n"
		if line == "\r\n" {
			break
		}
	}
	if chunked {
		if _, err := io.Copy(&b, httputil.NewChunkedReader(br)); err != nil {
			return ""
		}
		if end, err := br.ReadString('\n'); err != nil || end != "\r\n" {
			return ""
		}
		return b.String()
	}
	if _, err := io.CopyN(&b, br, int64(length)); err != nil {
		return ""
	}
	return b.String()
}

// answers sends the same bytes for every request.
func answers(s string) func(int, *net.TCPConn, *bufio.Reader) {
	return func(_ int, c *net.TCPConn, br *bufio.Reader) {
		for request(br) != "" {
			if _, err := io.WriteString(c, s); err != nil {
				return
			}
		}
	}
}

func newRequest(t testing.TB, ctx context.Context, method, address, body string) *http.Request {
	t.Helper()
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+address+"/path?q=1", r)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

// get makes one exchange and reads it to its end.
func get(t testing.TB, c *Client, address string) (*http.Response, string, *note, error) {
	t.Helper()
	n := &note{}
	resp, err := c.RoundTrip(newRequest(t, t.Context(), "GET", address, ""), n, true)
	if err != nil {
		return nil, "", n, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp, string(b), n, err
}

const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

func TestConnectionsAreReusedOnlyWhenThatIsSafe(t *testing.T) {
	tests := []struct {
		name, answer, method string
		reused               bool
	}{
		{"after a body by length", ok, "GET", true},
		{"after an empty body", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "GET", true},
		{"after chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "GET", true},
		{"after trailers", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX: 1\r\n\r\n", "GET", true},
		{"after 204", "HTTP/1.1 204 No Content\r\n\r\n", "GET", true},
		{"after 304 with a length", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", "GET", true},
		{"after HEAD with a length", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "HEAD", true},
		{"after HEAD of chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "HEAD", true},
		{"HTTP/1.0 with keep-alive", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok", "GET", true},
		{"not HTTP/1.0 without", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", "GET", false},
		{"not after Connection: close", "HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 2\r\n\r\nok", "GET", false},
		{"not after a length beside chunked", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "GET", false},
		{"not with bytes behind the body", ok + "x", "GET", false},
		{"not with bytes behind the last chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nHTTP/1.1", "GET", false},
		{"not after 204 with a body", "HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nok", "GET", false},
		{"not after HEAD with a body", ok, "HEAD", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			at := peer(t, answers(tt.answer))
			c := newClient(t, nil)
			for i, want := range []bool{false, tt.reused} {
				n := &note{}
				resp, err := c.RoundTrip(newRequest(t, t.Context(), tt.method, at, ""), n, true)
				if err != nil {
					t.Fatal(err)
				}
				_, err = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if got := n.String() == "asked reused wrote answered"; err != nil || got != want {
					t.Errorf("exchange %d went %q, %v", i, n, err)
				}
			}
		})
	}
}

func TestResponsesThatAreRefused(t *testing.T) {
	tests := []struct {
		name, answer string
		want         error
	}{
		{"a bare LF after the status line", "HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n", errBareLF},
		{"a bare LF as the empty line", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\n", errBareLF},
		{"a folded field", "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n", errFolded},
		{"a blank before the first field", "HTTP/1.1 200 OK\r\n X: a\r\n\r\n", errFolded},
		{"a blank before the colon", "HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n", errField},
		{"a field without a name", "HTTP/1.1 200 OK\r\n: a\r\n\r\n", errField},
		{"a field without a colon", "HTTP/1.1 200 OK\r\nabc\r\n\r\n", errField},
		{"a NUL in a value", "HTTP/1.1 200 OK\r\nX: a\x00b\r\n\r\n", errField},
		{"a CR in a value", "HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n", errField},
		{"a CR at the end of a value", "HTTP/1.1 200 OK\r\nX: a\r\r\n\r\n", errField},
		{"a NUL in a name", "HTTP/1.1 200 OK\r\nX\x00: a\r\n\r\n", errField},
		{"two different lengths", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc", errLengths},
		{"the same length twice", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nab", errLengths},
		{"two lengths in a line", "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nab", errLength},
		{"a length with a sign", "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nab", errLength},
		{"a hexadecimal length", "HTTP/1.1 200 OK\r\nContent-Length: 0x2\r\n\r\nab", errLength},
		{"an empty length", "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nab", errLength},
		{"a length beyond all bounds", "HTTP/1.1 200 OK\r\nContent-Length: 9999999999999999999\r\n\r\nab", errLength},
		{"a bad length with 304", "HTTP/1.1 304 OK\r\nContent-Length: x\r\n\r\n", errLength},
		{"gzip, chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", errEncoding},
		{"xchunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", errEncoding},
		{"identity", "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", errEncoding},
		{"an empty encoding", "HTTP/1.1 200 OK\r\nTransfer-Encoding:\r\n\r\n0\r\n\r\n", errEncoding},
		{"chunked twice", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", errEncoding},
		{"chunked in HTTP/1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", errEncoding10},
		{"a trailer that is framing", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Content-Length\r\n\r\n0\r\n\r\n", errTrailerName},
		{"another protocol", "SSH-2.0-OpenSSH\r\n\r\n", errStatusLine},
		{"HTTP/2", "HTTP/2.0 200 OK\r\n\r\n", errStatusLine},
		{"HTTP/1.2", "HTTP/1.2 200 OK\r\n\r\n", errStatusLine},
		{"a lower case protocol", "http/1.1 200 OK\r\n\r\n", errStatusLine},
		{"two digits", "HTTP/1.1 20 OK\r\n\r\n", errStatusLine},
		{"four digits", "HTTP/1.1 2000 OK\r\n\r\n", errStatusLine},
		{"a status below 100", "HTTP/1.1 099 Odd\r\n\r\n", errStatusLine},
		{"a sign in the status", "HTTP/1.1 +20 OK\r\n\r\n", errStatusLine},
		{"two spaces before the status", "HTTP/1.1  200 OK\r\n\r\n", errStatusLine},
		{"a NUL in the reason", "HTTP/1.1 200 O\x00K\r\n\r\n", errStatusLine},
		{"an empty line first", "\r\nHTTP/1.1 200 OK\r\n\r\n", errStatusLine},
		{"a head that is too long", "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("a", 70<<10) + "\r\n\r\n", errTooLong},
		{"a head that is a little too long", "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("a", 64<<10-20) + "\r\n\r\n", errTooLong},
		{"a head without end", "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("a", 65<<10), errTooLong},
		{"informational responses without end", strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 40), errInforms},
		{"a switch of protocols", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", errSwitched},
		{"a head cut short", "HTTP/1.1 200 OK\r\nContent-Le", io.ErrUnexpectedEOF},
		{"nothing at all", "", errSilent},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			closed := make(chan struct{}, 1)
			at := peer(t, func(_ int, c *net.TCPConn, br *bufio.Reader) {
				request(br)
				_, _ = io.WriteString(c, tt.answer)
				if errors.Is(tt.want, io.ErrUnexpectedEOF) || tt.want == errSilent {
					_ = c.CloseWrite()
				}
				_, _ = io.Copy(io.Discard, br) // until the client closes
				closed <- struct{}{}
			})
			if _, _, n, err := get(t, newClient(t, nil), at); !errors.Is(err, tt.want) {
				t.Errorf("got %v after %q, want %v", err, n, tt.want)
			}
			<-closed
		})
	}
}

func TestABodyThatIsCutShortEndsInAnError(t *testing.T) {
	const chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
	tests := []struct{ name, answer, body string }{
		{"by length", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", "hello"},
		{"in a chunk", chunked + "a\r\nhello", "hello"},
		{"after a chunk's data", chunked + "5\r\nhello", "hello"},
		{"after a chunk", chunked + "5\r\nhello\r\n", "hello"},
		{"in the last chunk's line", chunked + "5\r\nhello\r\n0", "hello"},
		{"before the trailers' end", chunked + "5\r\nhello\r\n0\r\n", "hello"},
		{"in a trailer", chunked + "5\r\nhello\r\n0\r\nX: 1\r\n", "hello"},
		{"before any chunk", chunked, ""},
		{"a chunk longer than its size", chunked + "5\r\nhellox\r\n0\r\n\r\n", "hello"},
		{"a size that is no number", chunked + "5\r\nhello\r\nzz\r\n", "hello"},
		{"a size beyond all bounds", chunked + "5\r\nhello\r\nffffffffffffffff\r\n", "hello"},
		{"a size with a sign", chunked + "+5\r\nhello\r\n0\r\n\r\n", ""},
		{"a size of nothing", chunked + "\r\nhello\r\n0\r\n\r\n", ""},
		{"a bare LF after a size", chunked + "5\nhello\r\n0\r\n\r\n", ""},
		{"a bare LF after a chunk", chunked + "5\r\nhello\n0\r\n\r\n", "hello"},
		{"a CR in an extension", chunked + "5;a\rb\r\nhello\r\n0\r\n\r\n", ""},
		{"an extension without end", chunked + "5;" + strings.Repeat("a", 5000) + "\r\nhello\r\n0\r\n\r\n", ""},
		{"a trailer with a blank before the colon", chunked + "5\r\nhello\r\n0\r\nX : 1\r\n\r\n", "hello"},
		{"a folded trailer", chunked + "5\r\nhello\r\n0\r\nX: 1\r\n 2\r\n\r\n", "hello"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			at := peer(t, func(_ int, c *net.TCPConn, br *bufio.Reader) {
				request(br)
				_, _ = io.WriteString(c, tt.answer)
			})
			c := newClient(t, nil)
			_, body, _, err := get(t, c, at)
			if err == nil || body != tt.body {
				t.Errorf("got %q, %v", body, err)
			}
			if _, _, n, _ := get(t, c, at); n.steps[1] != "fresh" {
				t.Errorf("the next exchange went %q", n)
			}
		})
	}
	t.Run("row 2: chunks of one byte with long extensions", func(t *testing.T) {
		at := peer(t, func(_ int, c *net.TCPConn, br *bufio.Reader) {
			request(br)
			_, _ = io.WriteString(c, chunked+strings.Repeat("1;"+strings.Repeat("a", 200)+"\r\nx\r\n", 300)+"0\r\n\r\n")
		})
		if _, _, _, err := get(t, newClient(t, nil), at); !errors.Is(err, errChunkWaste) {
			t.Errorf("got %v", err)
		}
	})
}

// dial connects as the gateway does.
func dial(ctx context.Context, address string) (net.Conn, error) {
	var dialer net.Dialer
	c, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return tcp.New(c.(*net.TCPConn)), nil
}
