package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/sluice-gateway/sluice/routing"
)

func TestRequestBody(t *testing.T) {
	data := func(n int) []byte { return bytes.Repeat([]byte("0123456789"), n/10+1)[:n] }
	t.Run("a second view sees what the first one read", func(t *testing.T) {
		for _, n := range []int{1, 100, replayLimit - 1, replayLimit} {
			for _, length := range []int64{int64(n), -1} {
				b := newRequestBody(bytes.NewReader(data(n)), length, true, nil)
				first := b.view()
				_, _ = io.CopyN(io.Discard, first, int64(n/2+1))
				first.Close()
				if _, err := first.Read(make([]byte, 1)); !errors.Is(err, errDetached) {
					t.Errorf("a closed view reads on: %v", err)
				}
				if !b.replayable() {
					t.Fatalf("%d of %d bytes are not replayable", n/2+1, n)
				}
				got, err := io.ReadAll(b.view())
				if err != nil || !bytes.Equal(got, data(n)) || !b.complete() {
					t.Errorf("%d bytes: got %d, %v", n, len(got), err)
				}
			}
		}
	})
	t.Run("what is not kept cannot be replayed", func(t *testing.T) {
		for name, b := range map[string]*requestBody{
			"too long":         newRequestBody(bytes.NewReader(data(replayLimit+1)), -1, true, nil),
			"known too long":   newRequestBody(bytes.NewReader(data(replayLimit+1)), replayLimit+1, true, nil),
			"not to be kept":   newRequestBody(bytes.NewReader(data(10)), -1, false, nil),
			"kept no further":  newRequestBody(bytes.NewReader(data(10)), -1, true, nil),
			"a failing client": newRequestBody(iotest.TimeoutReader(bytes.NewReader(data(replayLimit+1))), -1, false, nil),
		} {
			if !b.replayable() {
				t.Errorf("%s: not replayable before it was read", name)
			}
			if name == "kept no further" {
				b.settle()
			}
			_, _ = io.Copy(io.Discard, b.view())
			if b.replayable() {
				t.Errorf("%s: replayable", name)
			}
		}
	})
	t.Run("no byte is lost to a view that was closed while it waited", func(t *testing.T) {
		pr, pw := io.Pipe()
		b := newRequestBody(pr, -1, true, nil)
		first := b.view()
		var reading sync.WaitGroup
		reading.Go(func() { _, _ = first.Read(make([]byte, 100)) })
		eventually(t, "a read waits", func() bool {
			b.state.Lock()
			defer b.state.Unlock()
			return b.waiting
		})
		if first.closeUnlessWaiting() {
			t.Error("a view that waits for the client was closed")
		}
		first.Close()
		go func() {
			_, _ = pw.Write([]byte("one"))
			reading.Wait()
			_, _ = pw.Write([]byte("two"))
			pw.Close()
		}()
		if got, err := io.ReadAll(b.view()); err != nil || string(got) != "onetwo" {
			t.Errorf("got %q %v", got, err)
		}
	})
	t.Run("the client's error is kept and told again", func(t *testing.T) {
		want := errors.New("malformed chunk")
		b := newRequestBody(io.MultiReader(strings.NewReader("ab"), iotest.ErrReader(want)), -1, true, nil)
		for range 2 {
			if got, err := io.ReadAll(b.view()); string(got) != "ab" || !errors.Is(err, want) || !errors.Is(b.err(), want) {
				t.Errorf("got %q %v", got, err)
			}
		}
	})
}

func FuzzRequestBody(f *testing.F) {
	f.Add([]byte("hello"), 3, uint8(2), true)
	f.Fuzz(func(t *testing.T, data []byte, cut int, chunk uint8, known bool) {
		length := int64(-1)
		if known {
			length = int64(len(data))
		}
		b := newRequestBody(iotest.OneByteReader(bytes.NewReader(data)), length, true, nil)
		v := b.view()
		if cut > 0 {
			_, _ = io.CopyBuffer(struct{ io.Writer }{io.Discard}, io.LimitReader(v, int64(cut)), make([]byte, int(chunk)+1))
		}
		v.Close()
		if b.replayable() {
			if got, err := io.ReadAll(b.view()); err != nil || !bytes.Equal(got, data) {
				t.Errorf("got %q %v", got, err)
			}
		} else if len(data) <= replayLimit {
			t.Error("a small body is not replayable")
		}
	})
}

// Row 13: what a client sends as trailers reaches no instance.
func TestRow13RequestTrailersAreDropped(t *testing.T) {
	got := make(chan *http.Request, 1)
	up := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.ReadAll(r.Body)
		got <- r
	})
	g := newRig(t, addrOf(up)).serve()
	_, br := g.raw("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTrailer: X-User\r\n\r\n2\r\nab\r\n0\r\nX-User: evil\r\n\r\n")
	if resp, err := http.ReadResponse(br, nil); err != nil || resp.StatusCode != 200 {
		t.Fatalf("got %v %v", resp, err)
	}
	if r := <-got; len(r.Trailer) != 0 || r.Header.Get("X-User") != "" || r.Header.Get("Trailer") != "" {
		t.Errorf("got %v %v", r.Header, r.Trailer)
	}
}

func TestBodiesStreamBothWaysAtOnce(t *testing.T) {
	g := newRig(t, addrOf(upstream(t, duplexEcho))).serve()
	pr, pw := io.Pipe()
	resp, err := http.DefaultTransport.RoundTrip(g.request("POST", "/", pr))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		want := fmt.Sprint("message ", i)
		if _, err := io.WriteString(pw, want); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, len(want))
		if _, err := io.ReadFull(resp.Body, b); err != nil || string(b) != want {
			t.Fatalf("got %q %v", b, err)
		}
	}
	pw.Close()
	if rest, err := io.ReadAll(resp.Body); len(rest) != 0 || err != nil {
		t.Errorf("got %q %v", rest, err)
	}
	resp.Body.Close()
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
}

// duplexEcho answers before it has read, and sends back each piece of the
// body as it comes.
func duplexEcho(w http.ResponseWriter, r *http.Request) {
	rc := http.NewResponseController(w)
	_ = rc.EnableFullDuplex()
	_ = rc.Flush()
	buf := make([]byte, 1024)
	for {
		n, err := r.Body.Read(buf)
		_, _ = w.Write(buf[:n])
		_ = rc.Flush()
		if err != nil {
			return
		}
	}
}

// P15, small: bodies pass through and are not collected.
func TestP15BodiesAreNotBuffered(t *testing.T) {
	const size, parallel = 32 << 20, 8
	up := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "POST" {
			n, _ := io.Copy(io.Discard, r.Body)
			fmt.Fprint(w, n)
			return
		}
		_, _ = io.CopyN(w, zeros{}, size)
	})
	g := newRig(t, addrOf(up)).serve()
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	var all sync.WaitGroup
	for i := range parallel {
		all.Go(func() {
			method, want := "GET", int64(size)
			var body io.Reader
			if i%2 == 0 {
				method, body, want = "POST", io.LimitReader(zeros{}, size), int64(len(fmt.Sprint(size)))
			}
			resp, err := client.Do(g.request(method, "/", body))
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			if n, err := io.Copy(io.Discard, resp.Body); n != want || err != nil {
				t.Errorf("%s: %d bytes, %v", method, n, err)
			}
		})
	}
	all.Wait()
	runtime.ReadMemStats(&after)
	// All that was allocated, garbage included, in client, gateway and
	// instance together, is less than one of the bodies.
	if n := after.TotalAlloc - before.TotalAlloc; n > size/2 {
		t.Errorf("%d MB were allocated for %d MB of bodies", n>>20, size*parallel>>20)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// BenchmarkForwardSmall is one keep-alive GET with 1 KiB through the
// forwarder, over real connections; the figures include client and instance.
func BenchmarkForwardSmall(b *testing.B) {
	for _, engine := range []string{routing.EngineStd, routing.EngineFast} {
		b.Run(engine, func(b *testing.B) { forwardSmall(b, engine) })
	}
}

func forwardSmall(b *testing.B, engine string) {
	body := bytes.Repeat([]byte("x"), 1024)
	up := upstream(b, func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(body) })
	g := newRig(b, addrOf(up))
	g.service.Upstream.Engine = engine
	g.serve()
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		for {
			select {
			case <-g.done:
			case <-stop:
				return
			}
		}
	}()
	c, err := net.Dial("tcp", g.addr())
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	req := []byte("GET /some/path HTTP/1.1\r\nHost: shop.test\r\nAccept: */*\r\nUser-Agent: bench\r\n\r\n")
	buf := make([]byte, 8192)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Write(req); err != nil {
			b.Fatal(err)
		}
		for left := 1; left > 0; {
			m, err := c.Read(buf)
			if err != nil {
				b.Fatal(err)
			}
			if i := bytes.Index(buf[:m], []byte("\r\n\r\n")); i >= 0 {
				left = 1024 - (m - i - 4)
			} else {
				left -= m
			}
		}
	}
}
