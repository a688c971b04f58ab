package http1

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"
)

// behaviours are handlers by path.
var behaviours = map[string]func(w http.ResponseWriter, r *http.Request){
	"/silent": func(http.ResponseWriter, *http.Request) {},
	"/short":  func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "short") },
	"/empty":  func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(nil) },
	"/html":   func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") },
	"/2048":   func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, strings.Repeat("x", 2048)) },
	"/2049":   func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, strings.Repeat("x", 2049)) },
	"/pieces": pieces(300, 100),
	"/large":  pieces(5000, 20),
	"/huge":   pieces(1<<20, 3),
	"/length": func(w http.ResponseWriter, _ *http.Request) { length(w, "5"); _, _ = io.WriteString(w, "fiver") },
	"/long":   func(w http.ResponseWriter, _ *http.Request) { length(w, "70000"); pieces(7000, 10)(w, nil) },
	"/short0": func(w http.ResponseWriter, _ *http.Request) { length(w, "0") },
	"/less":   func(w http.ResponseWriter, _ *http.Request) { length(w, "9"); _, _ = io.WriteString(w, "less") },
	"/more":   more,
	"/204":    status(204),
	"/204body": func(w http.ResponseWriter, _ *http.Request) {
		length(w, "3")
		w.WriteHeader(204)
		_, _ = io.WriteString(w, "abc")
	},
	"/304":   func(w http.ResponseWriter, _ *http.Request) { length(w, "3"); typed(w, "text/css"); w.WriteHeader(304) },
	"/404":   func(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) },
	"/299":   status(299),
	"/twice": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(201); w.WriteHeader(500) },
	"/late":  func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(200); w.Header().Set("X-Late", "1") },
	"/typed": func(w http.ResponseWriter, _ *http.Request) {
		typed(w, "text/x-own")
		_, _ = io.WriteString(w, "<html>")
	},
	"/untyped": func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Content-Type"] = nil
		_, _ = io.WriteString(w, "a")
	},
	"/zipped": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = io.WriteString(w, "a")
	},
	"/dated":   func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Date", "then") },
	"/undated": func(w http.ResponseWriter, _ *http.Request) { w.Header()["Date"] = nil },
	"/close": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "close")
		_, _ = io.WriteString(w, "bye")
	},
	"/keep": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "keep-alive")
		_, _ = io.WriteString(w, "hi")
	},
	"/token": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "X-Hop, Close")
		_, _ = io.WriteString(w, "hi")
	},
	"/odd": func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["X-Odd"] = []string{"a\r\nX-Split: b", "\x00"}
		w.Header()["Not A Name"] = []string{"a"}
		w.Header()["x-lower"] = []string{"a", "b"}
	},
	"/identity": func(w http.ResponseWriter, _ *http.Request) {
		coding(w, "identity")
		_, _ = io.WriteString(w, "until the end")
	},
	"/chunked": func(w http.ResponseWriter, _ *http.Request) {
		coding(w, "chunked")
		_, _ = io.WriteString(w, "in chunks")
	},
	"/both": func(w http.ResponseWriter, _ *http.Request) {
		coding(w, "chunked")
		length(w, "4")
		_, _ = io.WriteString(w, "both")
	},
	"/flush": func(w http.ResponseWriter, _ *http.Request) {
		w.(http.Flusher).Flush()
		_, _ = io.WriteString(w, "one")
		w.(http.Flusher).Flush()
		w.(http.Flusher).Flush()
		_, _ = io.WriteString(w, "two")
	},
	"/flushed": func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "one")
		_ = http.NewResponseController(w).Flush()
	},
	"/inform": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</a.css>")
		length(w, "2")
		w.WriteHeader(103)
		w.WriteHeader(199)
		w.Header().Del("Link")
		_, _ = io.WriteString(w, "ok")
	},
	"/trailers": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Trailer", "X-Sum, X-None, Content-Length")
		_, _ = io.WriteString(w, "body")
		w.Header().Set("X-Sum", "4")
		w.Header().Set(http.TrailerPrefix+"X-Further", "5")
	},
	"/trailing": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set(http.TrailerPrefix+"X-Sum", "4")
		_, _ = io.WriteString(w, "body")
	},
	"/abort":   func(w http.ResponseWriter, _ *http.Request) { pieces(3000, 3)(w, nil); panic(http.ErrAbortHandler) },
	"/aborted": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	"/halted": func(w http.ResponseWriter, _ *http.Request) {
		length(w, "3")
		w.WriteHeader(200)
		panic(http.ErrAbortHandler)
	},
	"/held": func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "held")
		panic(http.ErrAbortHandler)
	},
	"/cut": func(w http.ResponseWriter, _ *http.Request) {
		length(w, "9000")
		pieces(5000, 1)(w, nil)
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	},
	"/deadline": func(w http.ResponseWriter, _ *http.Request) {
		ctl := http.NewResponseController(w)
		err := errors.Join(ctl.SetReadDeadline(time.Now().Add(time.Hour)), ctl.SetWriteDeadline(time.Time{}), ctl.EnableFullDuplex())
		_, _ = fmt.Fprint(w, err)
	},
}

func status(code int) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

func length(w http.ResponseWriter, n string)  { w.Header().Set("Content-Length", n) }
func typed(w http.ResponseWriter, as string)  { w.Header().Set("Content-Type", as) }
func coding(w http.ResponseWriter, as string) { w.Header().Set("Transfer-Encoding", as) }

func pieces(size, n int) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := range n {
			_, _ = w.Write(bytes.Repeat([]byte{'a' + byte(i%26)}, size))
		}
	}
}

func more(w http.ResponseWriter, _ *http.Request) {
	length(w, "4")
	n, err := io.WriteString(w, "more!")
	if n != 0 || !errors.Is(err, http.ErrContentLength) {
		panic(fmt.Sprint(n, err))
	}
}

// behave is the handler of all of them; other paths are told what they asked.
func behave(w http.ResponseWriter, r *http.Request) {
	if b, ok := behaviours[r.URL.Path]; ok {
		b(w, r)
		return
	}
	echo(w, r)
}

func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	typed(w, "text/plain")
	_, _ = fmt.Fprintf(w, "%s %s %q %s host=%q header=%q coding=%q length=%d close=%t body=%q, %v trailer=%q tls=%v", r.Method, r.RequestURI, r.URL,
		r.Proto, r.Host, r.Header, r.TransferEncoding, r.ContentLength, r.Close, body, err, r.Trailer, r.TLS)
}

func compare(t *testing.T, a, b *side, raw string, methods ...string) {
	t.Helper()
	want, _ := a.talk(t, raw, methods...)
	got, _ := b.talk(t, raw, methods...)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%.200q\n got %.2000s\nwant %.2000s", raw, fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", want))
	}
}

func TestAnswersAreThoseOfNetHTTP(t *testing.T) {
	theirs, own := std(t, http.HandlerFunc(behave)), ours(t, http.HandlerFunc(behave), nil)
	for path := range behaviours {
		for _, method := range []string{"GET", "HEAD"} {
			t.Run(method+path, func(t *testing.T) {
				ask := func(path string) string { return method + " " + path + " HTTP/1.1\r\nHost: a\r\n\r\n" }
				before := own.handed.taken()
				compare(t, theirs, own, ask(path), method)
				if own.handed.taken() != before {
					t.Error("it was handed over")
				}
			})
		}
	}
}

// Whether another request may follow an answer is part of it.
func TestAConnectionServesOnWhereThatOfNetHTTPDoes(t *testing.T) {
	theirs, own := std(t, http.HandlerFunc(behave)), ours(t, http.HandlerFunc(behave), nil)
	for path := range behaviours {
		for _, method := range []string{"GET", "HEAD"} {
			t.Run(method+path, func(t *testing.T) {
				var kept [2]bool
				for i, s := range []*side{theirs, own} {
					c, err := net.Dial("tcp", s.addr)
					if err != nil {
						t.Fatal(err)
					}
					defer c.Close()
					_ = c.SetDeadline(time.Now().Add(20 * time.Second))
					in := bufio.NewReader(c)
					_, _ = fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: a\r\n\r\n", method, path)
					for final := false; !final; {
						resp, err := http.ReadResponse(in, &http.Request{Method: method})
						if err != nil {
							break
						}
						_, _ = io.Copy(io.Discard, resp.Body)
						final = resp.StatusCode >= 200
					}
					_, _ = io.WriteString(c, "GET /short HTTP/1.1\r\nHost: a\r\n\r\n")
					resp, err := http.ReadResponse(in, nil)
					kept[i] = err == nil && resp.StatusCode == 200
				}
				if kept[0] != kept[1] {
					t.Errorf("net/http kept it: %t, here: %t", kept[0], kept[1])
				}
			})
		}
	}
}
