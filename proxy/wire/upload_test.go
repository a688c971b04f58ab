package wire

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/proxy/tcp"
)

// uploading is a request whose body is read from r. It tells when its body is
// closed.
func uploading(t testing.TB, ctx context.Context, at string, r io.Reader, length int64) (*http.Request, <-chan struct{}) {
	t.Helper()
	req := newRequest(t, ctx, "POST", at, "")
	closed := make(chan struct{})
	var once sync.Once
	req.Body, req.ContentLength = &noticed{r, func() { once.Do(func() { close(closed) }) }}, length
	if !Fits(req) {
		t.Fatal("it does not fit")
	}
	return req, closed
}

type noticed struct {
	io.Reader
	onClose func()
}

func (n *noticed) Close() error {
	n.onClose()
	return nil
}

func TestBodiesArriveAsTheyWereSent(t *testing.T) {
	server, trusting := identity(t)
	for _, secure := range []bool{false, true} {
		sent := make(chan string, 1)
		conns := 0
		script := func(n int, c net.Conn, br *bufio.Reader) {
			conns = n
			for {
				whole := request(br)
				if whole == "" {
					return
				}
				_, body, _ := strings.Cut(whole, "\r\n\r\n")
				sent <- body
				_, _ = io.WriteString(c, ok)
			}
		}
		at := anyPeer(t, secure, server, script)
		c := newClient(t, func(c *Config) {
			if secure {
				c.TLS = trusting
			}
		})
		for _, size := range []int{1, MaxBody, MaxBody + 1, 32 << 10, 32<<10 - beforePiece - afterPiece, 1 << 20} {
			for _, length := range []int64{int64(size), -1} {
				body := strings.Repeat("0123456789abcdef", size/16+1)[:size]
				req, closed := uploading(t, t.Context(), at, pieceByPiece(body), length)
				resp, err := c.RoundTrip(req, &note{}, false)
				if err != nil {
					t.Fatal(err)
				}
				b, err := io.ReadAll(resp.Body)
				if got := <-sent; got != body || string(b) != "ok" || err != nil {
					t.Errorf("%d bytes, announced %d: %d arrived, answered %q, %v", size, length, len(got), b, err)
				}
				<-closed
			}
		}
		if conns != 1 {
			t.Errorf("TLS %v: %d connections", secure, conns)
		}
	}
}

// anyPeer is peer or securePeer.
func anyPeer(t testing.TB, secure bool, conf *tls.Config, script func(n int, c net.Conn, br *bufio.Reader)) string {
	if !secure {
		return peer(t, func(n int, c *net.TCPConn, br *bufio.Reader) { script(n, c, br) })
	}
	return securePeer(t, conf, func(n int, c *tls.Conn, br *bufio.Reader) { script(n, c, br) })
}

// pieceByPiece reads s in pieces of many sizes, the end beside the last of
// them or after it.
func pieceByPiece(s string) io.Reader { return &inPieces{rest: s} }

type inPieces struct {
	rest string
	n    int
}

func (r *inPieces) Read(p []byte) (int, error) {
	if r.rest == "" {
		return 0, io.EOF
	}
	r.n = r.n*7%50000 + 1
	n := copy(p[:min(r.n, len(p))], r.rest)
	if r.rest = r.rest[n:]; r.rest == "" && n%2 == 0 {
		return n, io.EOF
	}
	return n, nil
}

// The answer may be there before the body is: it is delivered at once, and
// the connection ends with it.
func TestAnAnswerThatComesBeforeTheBodysEnd(t *testing.T) {
	const refused = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno"
	for _, length := range []int64{1 << 20, -1} {
		t.Run(fmt.Sprint(length), func(t *testing.T) {
			gone := make(chan struct{})
			at := peer(t, func(_ int, c *net.TCPConn, br *bufio.Reader) {
				_, _ = br.Discard(100)
				_, _ = io.WriteString(c, refused)
				_, _ = io.Copy(io.Discard, br)
				close(gone)
			})
			client, stalls := io.Pipe()
			go func() { _, _ = stalls.Write(make([]byte, 1000)) }()
			req, closed := uploading(t, t.Context(), at, client, length)
			c := newClient(t, nil)
			resp, err := c.RoundTrip(req, &note{}, false)
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(resp.Body)
			if resp.StatusCode != 413 || string(b) != "no" || err != nil {
				t.Errorf("got %d %q, %v", resp.StatusCode, b, err)
			}
			<-gone
			if open, _ := c.Connections(at); open != 0 {
				t.Errorf("%d connections are kept", open)
			}
			stalls.Close()
			<-closed
		})
	}
}

// An instance that answers and closes without reading must be heard, although
// writing to it fails.
func TestAnAnswerIsReadAlthoughTheBodyCannotBeSent(t *testing.T) {
	at := peer(t, func(_ int, c *net.TCPConn, br *bufio.Reader) {
		request(bufio.NewReader(io.LimitReader(br, 100)))
		_, _ = io.WriteString(c, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno")
		_ = c.CloseWrite()
		_ = c.CloseRead()
		_, _ = br.Peek(1 << 20)
	})
	req, closed := uploading(t, t.Context(), at, endless{}, -1)
	resp, err := newClient(t, nil).RoundTrip(req, &note{}, false)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	if resp.Body.Close(); resp.StatusCode != 413 || string(b) != "no" || err != nil {
		t.Errorf("got %d %q, %v", resp.StatusCode, b, err)
	}
	<-closed
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// A body that breaks off, or is not as long as was said, never looks complete.
func TestABodyThatBreaksOffIsNotEnded(t *testing.T) {
	broke := errors.New("the client's body is malformed")
	much := strings.NewReader(strings.Repeat("x", 100<<10))
	tests := []struct {
		name   string
		body   io.Reader
		length int64
		want   error
	}{
		{"in chunks", io.MultiReader(much, faulty{broke}), -1, broke},
		{"at once", faulty{broke}, -1, broke},
		{"by length", io.MultiReader(much, faulty{broke}), 1 << 20, broke},
		{"with its last bytes", io.MultiReader(strings.NewReader(strings.Repeat("x", MaxBody)), faulty{broke}), MaxBody + 1, broke},
		{"shorter than announced", strings.NewReader(strings.Repeat("x", MaxBody+1)), MaxBody + 2, io.ErrUnexpectedEOF},
		{"longer than announced", strings.NewReader(strings.Repeat("x", MaxBody+3)), MaxBody + 2, errLongBody},
		{"neither bytes nor an end", stuckReader{}, -1, io.ErrNoProgress},
	}
	for _, tt := range tests {
		for _, early := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, answered early %v", tt.name, early), func(t *testing.T) {
				if r, ok := tt.body.(io.Seeker); ok {
					_, _ = r.Seek(0, io.SeekStart)
				}
				_, _ = much.Seek(0, io.SeekStart)
				whole, proceed := make(chan string, 1), make(chan struct{})
				at := peer(t, func(_ int, c *net.TCPConn, br *bufio.Reader) {
					if early {
						_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel")
						close(proceed)
					}
					whole <- request(br)
				})
				body := tt.body
				if early {
					body = io.MultiReader(after{proceed}, body)
				}
				req, closed := uploading(t, t.Context(), at, body, tt.length)
				resp, err := newClient(t, nil).RoundTrip(req, &note{}, true)
				if early && err == nil {
					_, err = io.ReadAll(resp.Body)
					resp.Body.Close()
				}
				if !errors.Is(err, tt.want) {
					t.Errorf("got %v", err)
				}
				if got := <-whole; got != "" {
					t.Errorf("the peer took %d bytes for a whole request", len(got))
				}
				<-closed
			})
		}
	}
}

type faulty struct{ err error }

func (f faulty) Read([]byte) (int, error) { return 0, f.err }

type stuckReader struct{}

func (stuckReader) Read([]byte) (int, error) { return 0, nil }

// after is an empty reader that ends when the channel is closed.
type after struct{ c <-chan struct{} }

func (a after) Read([]byte) (int, error) {
	<-a.c
	return 0, io.EOF
}

func TestAContextThatEndsInterruptsAnUpload(t *testing.T) {
	left := make(chan struct{})
	defer close(left) // a Read of the client's body ends with the client
	for name, tt := range map[string]struct {
		body   io.Reader
		length int64
	}{
		"that waits for the client":   {after{left}, -1},
		"that waits for the instance": {endless{}, -1},
		"that has a length":           {endless{}, 1 << 40},
	} {
		t.Run(name, func(t *testing.T) {
			begun, gone := make(chan struct{}), make(chan struct{})
			at := peer(t, func(_ int, c *net.TCPConn, br *bufio.Reader) {
				_, _ = br.Discard(10)
				close(begun)
				<-gone
			})
			cause := errors.New("the client left")
			ctx, cancel := context.WithCancelCause(t.Context())
			go func() {
				<-begun
				cancel(cause)
			}()
			req, _ := uploading(t, ctx, at, tt.body, tt.length)
			if _, err := newClient(t, nil).RoundTrip(req, &note{}, true); !errors.Is(err, cause) {
				t.Errorf("got %v", err)
			}
			close(gone)
		})
	}
}

// The bound on the wait for the head begins with the body's end.
func TestTheResponseHeadIsBoundedFromTheBodysEnd(t *testing.T) {
	const bound = 30 * time.Millisecond
	c := newClient(t, func(c *Config) { c.ResponseHeader = bound })
	for name, answer := range map[string]string{"answered": ok, "not answered": ""} {
		t.Run(name, func(t *testing.T) {
			at := peer(t, func(_ int, c *net.TCPConn, br *bufio.Reader) {
				for request(br) != "" {
					_, _ = io.WriteString(c, answer)
				}
			})
			slow := make(chan struct{})
			time.AfterFunc(3*bound, func() { close(slow) })
			for range 2 { // the second has a bound left over from the first
				req, _ := uploading(t, t.Context(), at, io.MultiReader(strings.NewReader("a"), after{slow}), -1)
				resp, err := c.RoundTrip(req, &note{}, false)
				if answer == "" {
					if !errors.Is(err, os.ErrDeadlineExceeded) {
						t.Errorf("got %v", err)
					}
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				if b, err := io.ReadAll(resp.Body); string(b) != "ok" || err != nil {
					t.Errorf("got %q, %v", b, err)
				}
			}
		})
	}
}

// holding is a connection that writes at once, and returns from writing what
// ends a chunked body when it is told to.
type holding struct {
	*tcp.Conn
	back chan error
}

func (h *holding) Write(p []byte) (int, error) {
	n, err := h.Conn.Write(p)
	if bytes.HasSuffix(p, []byte("0\r\n\r\n")) {
		if held := <-h.back; held != nil {
			return 0, held
		}
	}
	return n, err
}

// An answer may overtake the return of the write that it answers. The
// connection is kept when that returns.
func TestAnAnswerMayOvertakeTheWriteOfTheBody(t *testing.T) {
	for _, failure := range []error{nil, os.ErrDeadlineExceeded} {
		at := peer(t, answers(ok))
		back := make(chan error)
		c := newClient(t, func(c *Config) {
			c.Dial = func(ctx context.Context, a string) (net.Conn, error) {
				nc, err := dial(ctx, a)
				if err != nil {
					return nil, err
				}
				return &holding{nc.(*tcp.Conn), back}, nil
			}
		})
		req, closed := uploading(t, t.Context(), at, strings.NewReader("abc"), -1)
		resp, err := c.RoundTrip(req, &note{}, false)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(resp.Body); string(b) != "ok" || err != nil {
			t.Fatal(b, err)
		}
		if open, idle := c.Connections(at); open != 1 || idle != 0 {
			t.Errorf("%d open, %d idle before the write has returned", open, idle)
		}
		back <- failure
		<-closed
		want := "reused"
		if failure != nil {
			want = "fresh"
		}
		if _, body, n, err := get(t, c, at); body != "ok" || n.steps[1] != want || err != nil {
			t.Errorf("after %v went %q, %v", failure, n, err)
		}
	}
}

// A body that was not begun survives a connection that cannot be had.
func TestABodyIsClosedWhenThereIsNoConnection(t *testing.T) {
	req, closed := uploading(t, t.Context(), "127.0.0.1:1", strings.NewReader("abc"), -1)
	c := newClient(t, func(c *Config) {
		c.Dial = func(context.Context, string) (net.Conn, error) { return nil, errors.New("refused") }
	})
	if _, err := c.RoundTrip(req, &note{}, false); err == nil {
		t.Error("no error")
	}
	<-closed
}
