package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// outcome is all that a caller sees of an exchange.
type outcome struct {
	headErr error // no response
	status  int
	line    string // Status and Proto
	header  http.Header
	length  int64
	body    string
	bodyErr error
	trailer http.Header
}

const maxHeadCompared = 64 << 10

func look(resp *http.Response, err error) outcome {
	if err != nil {
		return outcome{headErr: err}
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	o := outcome{
		status: resp.StatusCode, line: resp.Proto + " " + strings.TrimSpace(resp.Status), header: resp.Header,
		length: resp.ContentLength, body: string(b), bodyErr: err,
	}
	if err == nil && len(resp.Trailer) > 0 {
		o.trailer = resp.Trailer
	}
	return o
}

// same compares what was accepted by both.
func same(a, b outcome) error {
	switch {
	case a.status != b.status || a.line != b.line:
		return fmt.Errorf("status %q and %q", a.line, b.line)
	case !reflect.DeepEqual(a.header, b.header):
		return fmt.Errorf("header %q and %q", a.header, b.header)
	case a.length != b.length:
		return fmt.Errorf("length %d and %d", a.length, b.length)
	case a.body != b.body:
		return fmt.Errorf("body %q and %q", a.body, b.body)
	case (a.bodyErr == nil) != (b.bodyErr == nil):
		return fmt.Errorf("the body ended with %v and %v", a.bodyErr, b.bodyErr)
	case !reflect.DeepEqual(a.trailer, b.trailer):
		return fmt.Errorf("trailer %q and %q", a.trailer, b.trailer)
	}
	return nil
}

// stricter are the refusals of heads that http.Transport takes. It reads a
// bare LF as a line's end, unfolds fields, merges equal lengths, takes names
// and values that are none, other versions and statuses below 100, and
// ignores Transfer-Encoding in HTTP/1.0.
var stricter = []error{errBareLF, errFolded, errField, errLengths, errLength, errEncoding10, errStatusLine, errSwitched}

// differ compares one exchange over both, and returns what must not be.
func differ(t testing.TB, method string, peer other) error {
	req := func() *http.Request {
		r := newRequest(t, t.Context(), method, "peer.test", "")
		r.Header["User-Agent"] = nil
		return r
	}
	w := peer.overWire(t, req())
	s := peer.overStd(req())
	switch {
	case w.headErr != nil && s.headErr != nil:
		return nil
	case w.headErr != nil:
		if slices.ContainsFunc(stricter, func(e error) bool { return errors.Is(w.headErr, e) }) {
			return nil
		}
		return fmt.Errorf("refused for %v, where net/http takes %+v", w.headErr, s)
	case s.headErr != nil:
		return fmt.Errorf("taken as %+v, where net/http refuses for %w", w, s.headErr)
	case w.bodyErr != nil && s.bodyErr == nil && strings.HasPrefix(s.body, w.body) &&
		(errors.Is(w.bodyErr, errBareLF) || errors.Is(w.bodyErr, errFolded) || errors.Is(w.bodyErr, errField)):
		return nil // in trailers
	case w.bodyErr != nil && s.bodyErr != nil:
		// How much came out before a mistake depends on how reads fell.
		if a, b := w.body, s.body; !strings.HasPrefix(a, b) && !strings.HasPrefix(b, a) {
			return fmt.Errorf("bodies %q and %q", a, b)
		}
		w.body, s.body = "", ""
	}
	if _, both := s.header["Content-Length"]; both && w.header["Content-Length"] == nil && (w.status == 204 || w.status == 304 || method == "HEAD") {
		// A length beside chunked means nothing; net/http leaves it where no
		// body follows.
		delete(s.header, "Content-Length")
		s.length = w.length
	}
	return same(w, s)
}

const chunkedHead = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

// exchanges are responses of every kind; they also seed the fuzz target.
var exchanges = []string{
	ok,
	"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
	"HTTP/1.1 200 \r\n\r\nuntil close",
	"HTTP/1.1 404 Not  Found\r\nContent-Length: 3\r\nX-A: 1\r\nx-a:\t2 \r\nEmpty:\r\n\r\nabc",
	"HTTP/1.0 200 OK\r\n\r\nold",
	"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
	"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello",
	"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nEtag: \"x\"\r\n\r\n",
	"HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n",
	"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
	"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nlonger",
	"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat("x", 100000),
	"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("a", 30<<10) + "\r\nContent-Length: 2\r\n\r\nok",
	"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: A, b\r\n\r\n1\r\nx\r\n0\r\nA: 1\r\nC: 2\r\nC: 3\r\n\r\n",
	"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTrailer: A\r\n\r\nok",
	chunkedHead + "5\r\nhello\r\n6;ext=\"a\"\r\n world\r\n0\r\n\r\n",
	chunkedHead + "5 \r\nhello\r\n00\r\n\r\n",
	chunkedHead + "0005\r\nhello\r\n0\r\n\r\nmore",
	chunkedHead + "5\r\nhello\r\n",
	chunkedHead + "5\r\nhelloworld\r\n0\r\n\r\n",
	chunkedHead + "5\nhello\r\n0\r\n\r\n",
	chunkedHead + "fffffffffffffffff\r\n",
	chunkedHead + "4000\r\n" + strings.Repeat("y", 0x4000) + "\r\n" + strings.Repeat("1\r\nz\r\n", 3000) + "0\r\n\r\n",
	"HTTP/1.1 100 Continue\r\n\r\n" + ok,
	"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + ok,
	"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
	"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
	"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
	"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
	"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok",
	"HTTP/1.1 200 OK\r\nX : a\r\n\r\n",
	"HTTP/1.1 200 OK\r\nX: \x00\r\n\r\n",
	"HTTP/1.1 2000 OK\r\n\r\n",
	"SSH-2.0-OpenSSH\r\n",
	"",
}

func TestResponsesAreReadAsNetHTTPReadsThem(t *testing.T) {
	log.SetOutput(io.Discard) // the transport tells it of bytes it did not ask for
	server, trusting := identity(t)
	trusting.ServerName, trusting.NextProtos = "example.com", nil
	for i, answer := range exchanges {
		for name, peer := range map[string]other{"plain": {}, "TLS": {server: server, client: trusting}} {
			for _, method := range []string{"GET", "HEAD"} {
				t.Run(fmt.Sprintf("%s %s %d", name, method, i), func(t *testing.T) {
					peer.answer = []byte(answer)
					if err := differ(t, method, peer); err != nil {
						t.Errorf("%.80q: %v", answer, err)
					}
				})
			}
		}
	}
}

func TestRequestsAreWrittenAsNetHTTPWritesThem(t *testing.T) {
	tests := map[string]func(*http.Request){
		"a plain GET":         func(*http.Request) {},
		"a HEAD":              func(r *http.Request) { r.Method = "HEAD" },
		"an unnamed method":   func(r *http.Request) { r.Method = "" },
		"a POST without body": func(r *http.Request) { r.Method = "POST" },
		"a DELETE":            func(r *http.Request) { r.Method = "DELETE" },
		"another method":      func(r *http.Request) { r.Method = "PURGE" },
		"a host of its own":   func(r *http.Request) { r.Host = "shop.example:8080" },
		"an opaque target":    func(r *http.Request) { r.URL.Opaque = "/a%2Fb//c" },
		"an opaque target that looks like a host": func(r *http.Request) { r.URL.Opaque = "//a/b" },
		"an asterisk":          func(r *http.Request) { r.Method, r.URL.Path, r.URL.RawQuery = "OPTIONS", "*", "" },
		"an empty query":       func(r *http.Request) { r.URL.RawQuery, r.URL.ForceQuery = "", true },
		"no path":              func(r *http.Request) { r.URL.Path = "" },
		"values to be trimmed": func(r *http.Request) { r.Header["A"] = []string{" 1\t", "", "2"} },
		"own framing fields":   func(r *http.Request) { r.Header["Content-Length"], r.Header["Host"] = []string{"7"}, []string{"x"} },
		"a user agent":         func(r *http.Request) { r.Header["User-Agent"] = []string{"a"} },
		"trailers accepted":    func(r *http.Request) { r.Header["Te"] = []string{"trailers"} },
		"a POST": func(r *http.Request) {
			r.Method, r.Body, r.ContentLength = "POST", io.NopCloser(strings.NewReader("hello")), 5
		},
		"a GET with a body": func(r *http.Request) {
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader("hello")), 5
		},
		"a body as large as goes with the head": func(r *http.Request) {
			r.Method, r.Body, r.ContentLength = "PUT", io.NopCloser(bytes.NewReader(make([]byte, MaxBody))), MaxBody
		},
		"a larger one": func(r *http.Request) {
			r.Method, r.Body, r.ContentLength = "PUT", io.NopCloser(bytes.NewReader(make([]byte, MaxBody+1))), MaxBody+1
		},
		"a body of unknown length": func(r *http.Request) {
			r.Method, r.Body, r.ContentLength = "POST", io.NopCloser(strings.NewReader("hello")), -1
		},
		"an empty body of unknown length": func(r *http.Request) {
			r.Method, r.Body, r.ContentLength = "POST", io.NopCloser(strings.NewReader("")), -1
		},
	}
	lines := func(s string) (first, body string, fields []string) {
		head, body, _ := strings.Cut(s, "\r\n\r\n")
		fields = strings.Split(head, "\r\n")
		slices.Sort(fields[1:])
		return fields[0], body, fields[1:]
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			sent := func(over func(*http.Request) string) string {
				req := newRequest(t, t.Context(), "GET", "peer.test", "")
				req.Header["User-Agent"] = nil
				change(req)
				return over(req)
			}
			w := sent(func(r *http.Request) string {
				if !Fits(r) {
					t.Fatal("it does not fit")
				}
				o := other{answer: []byte(ok)}
				o.overWire(t, r)
				return o.got
			})
			s := sent(func(r *http.Request) string {
				o := other{answer: []byte(ok)}
				o.overStd(r)
				return o.got
			})
			w1, wb, wf := lines(w)
			s1, sb, sf := lines(s)
			if w == "" || w1 != s1 || wb != sb || !slices.Equal(wf, sf) {
				t.Errorf("sent\n%q, net/http\n%q", w, s)
			}
		})
	}
}

// FuzzWireResponse feeds the same bytes to this client and to http.Transport.
// What this one takes the other takes too, and both see the same; it may
// refuse more, for the reasons in stricter.
func FuzzWireResponse(f *testing.F) {
	log.SetOutput(io.Discard)
	for _, answer := range exchanges {
		if len(answer) < 10<<10 {
			f.Add([]byte(answer), false)
			f.Add([]byte(answer), true)
		}
	}
	f.Fuzz(func(t *testing.T, answer []byte, head bool) {
		method := "GET"
		if head {
			method = "HEAD"
		}
		if err := differ(t, method, other{answer: answer}); err != nil {
			t.Errorf("%q: %v", answer, err)
		}
	})
}

// FuzzWireRequest sends the same request bodies with this client and with
// http.Transport. What arrives as a whole request from one arrives so from the
// other, with the same body; one that failed or is shorter than announced
// never does.
func FuzzWireRequest(f *testing.F) {
	log.SetOutput(io.Discard)
	for _, n := range []int{0, 1, 100, MaxBody - 1, MaxBody, MaxBody + 1, 32 << 10, 70000} {
		for _, announced := range []int{-1, n, n + 1, n - 1} {
			for _, fails := range []bool{false, true} {
				f.Add(n, announced, 3*n/2, fails)
				f.Add(n, announced, 7, fails)
			}
		}
	}
	f.Fuzz(func(t *testing.T, n, announced, piece int, fails bool) {
		n, piece = n&(1<<18-1), max(1, piece&(1<<17-1))
		announced = max(-1, min(announced, 1<<19))
		if announced == 0 {
			return // no body
		}
		body := strings.Repeat("0123456789abcdef", n/16+1)[:n]
		send := func(over func(*other, *http.Request) outcome) (whole bool, got string, err error) {
			req := newRequest(t, t.Context(), "POST", "peer.test", "")
			var r io.Reader = &inPieces{rest: body, n: piece}
			if fails {
				r = io.MultiReader(r, faulty{errors.New("broken")})
			}
			req.Body, req.ContentLength = io.NopCloser(r), int64(announced)
			o := &other{answer: []byte(ok)}
			seen := over(o, req)
			if o.done != nil {
				<-o.done
			}
			_, got, whole = strings.Cut(o.got, "\r\n\r\n")
			return whole, got, seen.headErr
		}
		w, wgot, werr := send(func(o *other, r *http.Request) outcome { return o.overWire(t, r) })
		s, sgot, serr := send((*other).overStd)
		bad := fails || announced >= 0 && n < announced
		switch {
		case announced >= 0 && n > announced, announced == n && fails:
			// All that was announced is there; whether what is beyond is looked
			// at first depends on how reads fell. It is not sent.
			if w && wgot != body[:announced] {
				t.Errorf("sent %d bytes, announced %d", len(wgot), announced)
			}
		case w == bad || s == bad || wgot != sgot || (werr == nil) != (serr == nil) || w != (werr == nil):
			t.Errorf("%d bytes, announced %d, failing %v: whole %v and %v, %d and %d bytes, %v and %v",
				n, announced, fails, w, s, len(wgot), len(sgot), werr, serr)
		}
	})
}
