package http1

import (
	"net/http"
	"reflect"
	"strings"
	"testing"
)

// requests that are plain, and such that are not.
var requests = []struct {
	name, raw string
	plain     bool
	methods   []string
}{
	{name: "GET", raw: "GET / HTTP/1.1\r\nHost: a\r\n\r\n", plain: true},
	{name: "HEAD", raw: "HEAD /a?b=c HTTP/1.1\r\nHost: a:80\r\nAccept: */*\r\naccept: b\r\n\r\n", plain: true, methods: []string{"HEAD"}},
	{name: "keep-alive", raw: "GET / HTTP/1.1\r\nHost: a\r\nConnection: Keep-Alive\r\n\r\n", plain: true},
	{name: "escapes", raw: "GET /%2e%2E/a%20b;c?x=%zz#f HTTP/1.1\r\nHost: a\r\n\r\n", plain: true},
	{name: "two slashes", raw: "GET //b/c HTTP/1.1\r\nHost: a\r\n\r\n", plain: true},
	{name: "Pragma", raw: "GET / HTTP/1.1\r\nHost: a\r\nPragma: no-cache\r\n\r\n", plain: true},
	{name: "lines ended by LF but the last", raw: "GET / HTTP/1.1\nHost: a\n\r\n", plain: false},
	{name: "an end before the end", raw: "GET / HTTP/1.1\nHost: a\n\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n"},
	{name: "a folded line", raw: "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n", plain: true},
	{name: "close", raw: "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"},
	{name: "a hop's field", raw: "GET / HTTP/1.1\r\nHost: a\r\nConnection: X-A\r\nX-A: 1\r\n\r\n"},
	{name: "two of Connection", raw: "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n"},
	{name: "HTTP/1.0", raw: "GET / HTTP/1.0\r\nHost: a\r\n\r\n"},
	{name: "HTTP/1.0 kept", raw: "GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n"},
	{name: "HTTP/1.2", raw: "GET / HTTP/1.2\r\nHost: a\r\n\r\n"},
	{name: "HTTP/2 by prior knowledge", raw: "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"},
	{name: "POST", raw: "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", methods: []string{"POST"}},
	{name: "POST without a body", raw: "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", methods: []string{"POST"}},
	{name: "GET with a body", raw: "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"},
	{name: "GET with a body like an end", raw: "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n\r\n\r\n"},
	{name: "GET with a body to come", raw: "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n"},
	{name: "GET with an empty body", raw: "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"},
	{name: "GET in chunks", raw: "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
	{name: "length and chunks", raw: "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
	{name: "two lengths", raw: "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\n"},
	{name: "an unknown coding", raw: "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n"},
	{name: "a space before the colon", raw: "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n"},
	{name: "a trailer", raw: "GET / HTTP/1.1\r\nHost: a\r\nTrailer: X\r\n\r\n"},
	{name: "an upgrade", raw: "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"},
	{name: "expects", raw: "GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n"},
	{name: "expects nonsense", raw: "GET / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\n\r\n"},
	{name: "no host", raw: "GET / HTTP/1.1\r\n\r\n"},
	{name: "an empty host", raw: "GET / HTTP/1.1\r\nHost:\r\n\r\n"},
	{name: "two hosts", raw: "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"},
	{name: "a bad host", raw: "GET / HTTP/1.1\r\nHost: a b\r\n\r\n"},
	{name: "a bad name", raw: "GET / HTTP/1.1\r\nHost: a\r\nX(: b\r\n\r\n"},
	{name: "NUL", raw: "GET / HTTP/1.1\r\nHost: a\r\nX: b\x00c\r\n\r\n"},
	{name: "a bare CR", raw: "GET / HTTP/1.1\r\nHost: a\r\nX: b\rc\r\n\r\n"},
	{name: "an absolute target", raw: "GET http://b/c HTTP/1.1\r\nHost: a\r\n\r\n"},
	{name: "an asterisk", raw: "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"},
	{name: "CONNECT", raw: "CONNECT b:80 HTTP/1.1\r\nHost: b:80\r\n\r\n"},
	{name: "a bad escape", raw: "GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n"},
	{name: "a space in the target", raw: "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"},
	{name: "a line before", raw: "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"},
	{name: "two at once", raw: "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n"},
	{name: "two at once, the second odd", raw: "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nBREW\r\n\r\n"},
	{name: "a head without an end", raw: "GET / HTTP/1.1\r\nHost: a\r\n"},
	{name: "a head that is long", raw: "GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", headSize) + "\r\n\r\n"},
	{name: "TLS", raw: "\x16\x03\x01\x00\x10"},
	{name: "nothing"},
}

func TestRequestsMeanWhatTheyMeanToNetHTTP(t *testing.T) {
	theirs, own := std(t, http.HandlerFunc(echo)), ours(t, http.HandlerFunc(echo), nil)
	for _, tc := range requests {
		t.Run(tc.name, func(t *testing.T) {
			before := own.handed.taken()
			compare(t, theirs, own, tc.raw, tc.methods...)
			if plain := own.handed.taken() == before; plain != tc.plain && tc.raw != "" {
				t.Errorf("plain is %t", plain)
			}
		})
	}
}

// FuzzRequestsMeanWhatTheyMeanToNetHTTP has both servers read the same bytes.
func FuzzRequestsMeanWhatTheyMeanToNetHTTP(f *testing.F) {
	for _, tc := range requests {
		f.Add(tc.raw)
	}
	f.Add("HEAD /pieces HTTP/1.1\r\nHost: a\r\n\r\n")
	theirs, own := std(f, http.HandlerFunc(echo)), ours(f, http.HandlerFunc(echo), nil)
	f.Fuzz(func(t *testing.T, raw string) {
		want, cut := theirs.talk(t, raw)
		got, short := own.talk(t, raw)
		if !cut && !short && !reflect.DeepEqual(got, want) {
			t.Errorf("%q\n got %+v\nwant %+v", raw, got, want)
		}
	})
}
