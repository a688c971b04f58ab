package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/sluice-gateway/sluice/test/testenv"
)

// memory is what the gateway's process holds now and has held at most, in
// bytes (proc(5)).
func (s *site) memory() (now, most int64) {
	s.t.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", s.gateway.Pid()))
	if err != nil {
		s.t.Skipf("what a process holds is read from /proc: %v", err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) != 3 || fields[0] != "VmRSS:" && fields[0] != "VmHWM:" {
			continue
		}
		n, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil {
			s.t.Fatal(err)
		}
		if fields[0] == "VmRSS:" {
			now = n << 10
		} else {
			most = n << 10
		}
	}
	return now, most
}

// grownAtMost wants that the process never held more than bytes above before.
func (s *site) grownAtMost(before, bytes int64) {
	s.t.Helper()
	_, most := s.memory()
	s.t.Logf("memory grew from %d MiB to %d MiB at most", before>>20, most>>20)
	if most-before > bytes {
		s.t.Errorf("memory grew from %d MiB to %d MiB, want %d MiB more at most", before>>20, most>>20, bytes>>20)
	}
}

// gate is an instance that reads each request to its end and answers once it
// is opened.
type gate struct {
	addr     string
	waiting  atomic.Int64
	most     atomic.Int64 // requests at one time
	bodies   atomic.Int64 // requests whose body has begun
	opened   chan struct{}
	openOnce sync.Once
}

func newGate(t *testing.T) *gate {
	t.Helper()
	g := &gate{opened: make(chan struct{})}
	instance := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := g.waiting.Add(1)
		defer g.waiting.Add(-1)
		for most := g.most.Load(); n > most && !g.most.CompareAndSwap(most, n); most = g.most.Load() {
		}
		if _, err := io.ReadFull(r.Body, make([]byte, 1)); err == nil {
			g.bodies.Add(1)
			if _, err := io.Copy(io.Discard, r.Body); err != nil {
				return
			}
		}
		select {
		case <-g.opened:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(instance.Close)
	t.Cleanup(g.open)
	g.addr = instance.Listener.Addr().String()
	return g
}

func (g *gate) open() { g.openOnce.Do(func() { close(g.opened) }) }

// slowPost begins a request with a body that does not end until finish.
func slowPost(t *testing.T, s *site, path string) *wire {
	w := dial(t, s.gateway.Addr)
	w.send(crlf("POST " + path + " HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\n\n1\nx\n"))
	return w
}

func (w *wire) finish() reply {
	w.t.Helper()
	w.send(crlf("0\n\n"))
	return w.answer(http.MethodPost)
}

// P12: a gateway that may open few files keeps half of them for instances: it
// turns further clients away, and every one that it took is served.
func TestP12ClientsPastTheFileLimitAreShed(t *testing.T) {
	const places = 80
	s := newFixed(t, testenv.GatewayOptions{OpenFiles: 2 * (500 + places)})
	bothEngines(t, s, func(s *site, name, engine string) {
		g := newGate(s.t)
		s.fixed(name, engine, g.addr)
		testenv.Eventually(s.t, wait, "the gateway has room", func() bool { return s.ask("GET", "/health").Status == http.StatusOK })
		var taken []*wire
		shed := 0
		for range 2 * places {
			w := dial(s.t, s.gateway.Addr)
			w.send(crlf("POST /" + name + "/x HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\nExpect: 100-continue\n\n"))
			a, err := w.tryAnswer(http.MethodPost)
			if err == nil && a.StatusCode == http.StatusContinue {
				taken = append(taken, w)
				continue
			}
			shed++
			if err == nil { // or what was sent came too late for the answer to be read
				equal(s.t, "one too many", fmt.Sprint(a.StatusCode, strings.Contains(a.Text, `"overloaded"`)), "503 true")
			}
		}
		if shed == 0 || len(taken) > places || len(taken) < places/2 {
			s.t.Fatalf("%d clients were taken and %d shed", len(taken), shed)
		}
		for _, w := range taken {
			w.send(crlf("1\nx\n"))
		}
		testenv.Eventually(s.t, wait, "all are at the instance", func() bool { return g.bodies.Load() == int64(len(taken)) })
		g.open()
		for _, w := range taken {
			equal(s.t, "a client that was taken", w.finish().StatusCode, http.StatusOK)
			_ = w.Close()
		}
		s.eventually("there is room again", "/"+name+"/x", func(a answer) bool { return a.Status == http.StatusOK })
	})
}

// P12: where no limit of connections keeps the gateway from its last file, it
// goes on once there are files again, and has not blamed the instance.
func TestP12TheGatewayOutlivesItsLastFile(t *testing.T) {
	const files = 200
	s := newFixed(t, testenv.GatewayOptions{OpenFiles: files,
		Extra: "limits: {max_connections: 5000}\nlog: {level: debug}\n"})
	// The instance closes each connection: every request needs a new file.
	once := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Connection", "close") }))
	t.Cleanup(once.Close)
	bothEngines(t, s, func(s *site, name, engine string) {
		s.fixed(name, engine+`,"circuit_breaker":{"error_percent":1,"min_requests":1,"open_for":"10m"}`, once.Listener.Addr().String())
		kept := dial(s.t, s.gateway.Addr)
		ask := func() reply {
			kept.send(crlf("GET /" + name + "/x HTTP/1.1\nHost: a\n\n"))
			return kept.answer(http.MethodGet)
		}
		equal(s.t, "before", ask().StatusCode, http.StatusOK)
		var flood []net.Conn
		for range 2 * files {
			flood = append(flood, dial(s.t, s.gateway.Addr))
		}
		testenv.Eventually(s.t, wait, "a request meets the last file", func() bool {
			a := ask()
			if a.StatusCode == http.StatusOK {
				return false // somebody had left
			}
			equal(s.t, "without a file", fmt.Sprint(a.StatusCode, strings.Contains(a.Text, `"overloaded"`)), "503 true")
			return true
		})
		for _, c := range flood {
			_ = c.Close()
		}
		s.eventually("new clients are served again", "/"+name+"/x", func(a answer) bool { return a.Status == http.StatusOK })
		equal(s.t, "on the connection of before", ask().StatusCode, http.StatusOK)
		for _, in := range s.instances(name) {
			equal(s.t, "state of the instance", in.State+in.Reason, "healthy")
		}
	})
	equal(t, "out of files, as the log has it", strings.Contains(s.gateway.Log(), "too many open files"), true)
}

// P13: clients that never finish a head cost little, keep nobody out, and are
// gone when their time is over.
func TestP13ManyClientsThatNeverFinishAHead(t *testing.T) {
	const clients = 5000
	s := newFixed(t, testenv.GatewayOptions{Extra: "limits: {max_connections_per_ip: 0, read_header_timeout: 5s}\n"})
	s.apply(map[string]string{"/sluice/routes/a": `{"path":"/a","respond":{"body":"ok"}}`})
	before, _ := s.memory()
	var slow []*wire
	for range clients {
		w := dial(t, s.gateway.Addr)
		w.send(crlf("GET /a HTTP/1.1\nHost: a\nX-Slow: "))
		slow = append(slow, w)
	}
	equal(t, "somebody else", s.ask("GET", "/a").Status, http.StatusOK)
	for i, w := range slow {
		if !w.closed() {
			t.Fatalf("client %d is still there", i)
		}
	}
	equal(t, "after them", s.ask("GET", "/a").Status, http.StatusOK)
	s.grownAtMost(before, 32<<20+clients*16<<10)
}

// P14: slow bodies hold the places of their own service and no others.
func TestP14SlowBodiesAreBoundedByTheirService(t *testing.T) {
	const places, clients = 50, 400
	s := newFixed(t, testenv.GatewayOptions{})
	other := startOrigin(t)
	s.fixed("other", "", other.addr)
	bothEngines(t, s, func(s *site, name, engine string) {
		g := newGate(s.t)
		g.open()
		s.fixed(name, engine+fmt.Sprintf(`,"max_in_flight":%d`, places), g.addr)
		var slow []*wire
		for range clients {
			slow = append(slow, slowPost(s.t, s, "/"+name+"/x"))
			if len(slow) == places {
				testenv.Eventually(s.t, wait, "every place is taken", func() bool { return g.bodies.Load() == places })
			}
		}
		for _, w := range slow[places:] {
			a := w.answer(http.MethodPost)
			equal(s.t, "one too many", fmt.Sprint(a.StatusCode, strings.Contains(a.Text, `"overloaded"`)), "503 true")
		}
		s.hundredAnswers("/other/")
		for _, w := range slow[:places] {
			equal(s.t, "a slow client", w.finish().StatusCode, http.StatusOK)
		}
		equal(s.t, "requests at the instance at one time", g.most.Load(), places)
		s.eventually("places are free again", "/"+name+"/x", func(a answer) bool { return a.Status == http.StatusOK })
	})
}

// P15: bodies of a gigabyte pass through, both ways, and are not collected.
func TestP15AGigabyteEachWayIsNotHeld(t *testing.T) {
	const large, small, parallel = 1 << 30, 8 << 20, 50
	instance := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			n, _ := io.Copy(io.Discard, r.Body)
			_, _ = fmt.Fprint(w, n)
			return
		}
		n, _ := strconv.ParseInt(r.URL.RawQuery, 10, 64)
		if r.URL.Path[len(r.URL.Path)-1] == 'l' {
			w.Header().Set("Content-Length", r.URL.RawQuery)
		}
		_, _ = io.CopyN(w, zeros{}, n)
	}))
	t.Cleanup(instance.Close)
	s := newFixed(t, testenv.GatewayOptions{})
	bothEngines(t, s, func(s *site, name, engine string) {
		s.fixed(name, engine, instance.Listener.Addr().String())
		client := &http.Client{Transport: &http.Transport{}}
		s.t.Cleanup(client.CloseIdleConnections)
		// Each way with a length and without.
		pass := func(n int64) {
			for _, path := range []string{"/l", "/c"} {
				resp, err := client.Get(fmt.Sprint(s.gateway.URL(), "/", name, path, "?", n))
				if err != nil {
					s.t.Error(err)
					return
				}
				got, err := io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				if err != nil || got != n {
					s.t.Errorf("down: %d of %d bytes, %v", got, n, err)
				}
				req, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, s.gateway.URL()+"/"+name+path, io.LimitReader(zeros{}, n))
				if err != nil {
					s.t.Error(err)
					return
				}
				if path == "/l" {
					req.ContentLength = n
				}
				if resp, err = client.Do(req); err != nil {
					s.t.Error(err)
					return
				}
				text, err := drain(resp)
				if err != nil || text != fmt.Sprint(n) {
					s.t.Errorf("up: %s of %d bytes, %v", text, n, err)
				}
			}
		}
		before, _ := s.memory()
		pass(large)
		var all sync.WaitGroup
		for range parallel {
			all.Go(func() { pass(small) })
		}
		all.Wait()
		s.grownAtMost(before, 100<<20)
	})
}

// zeros are as many as are asked for.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// P16: what is more than a service can take is refused while the service is
// still busy; it costs neither the instance nor memory, and the instance has
// all the work that it can take all the time.
func TestP16OverloadIsShedAndTheRestServed(t *testing.T) {
	const places, excess, clients = 20, 3000, 100
	s := newFixed(t, testenv.GatewayOptions{})
	bothEngines(t, s, func(s *site, name, engine string) {
		g := newGate(s.t)
		s.fixed(name, engine+fmt.Sprintf(`,"max_in_flight":%d`, places), g.addr)
		client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: clients}}
		s.t.Cleanup(client.CloseIdleConnections)
		ask := func() int {
			req, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, s.gateway.URL()+"/"+name+"/x", nil)
			if err != nil {
				s.t.Error(err)
				return 0
			}
			code, err := status(client, req)
			if err != nil {
				s.t.Error(err)
			}
			return code
		}
		var served sync.WaitGroup
		var good, refused, odd atomic.Int64
		for range places {
			served.Go(func() {
				if ask() == http.StatusOK {
					good.Add(1)
				}
			})
		}
		testenv.Eventually(s.t, wait, "the instance is busy", func() bool { return g.waiting.Load() == places })
		before, _ := s.memory()
		var flood sync.WaitGroup
		for range clients {
			flood.Go(func() {
				for range excess / clients {
					if ask() == http.StatusServiceUnavailable {
						refused.Add(1)
					} else {
						odd.Add(1)
					}
				}
			})
		}
		flood.Wait()
		equal(s.t, "refused while it is busy", fmt.Sprint(refused.Load(), " ", odd.Load(), " ", good.Load()), fmt.Sprint(excess, " 0 0"))
		s.grownAtMost(before, 64<<20)
		g.open()
		served.Wait()
		equal(s.t, "served", good.Load(), places)
		equal(s.t, "at the instance at one time", g.most.Load(), places)
		equal(s.t, "afterwards", ask(), http.StatusOK)
	})
}
