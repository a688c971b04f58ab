package e2e

import (
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/test/testenv"
)

// volley sends requests of several kinds and compares each answer with what is
// expected of its kind.
type volley struct {
	t       *testing.T
	stop    chan struct{}
	workers sync.WaitGroup
	kinds   map[string]*kind
}

// kind is one kind of request. Whoever changes what is expected waits for the
// requests that began before.
type kind struct {
	mu    sync.RWMutex
	want  int // 0 is anything
	sent  atomic.Int64
	wrong atomic.Int64
	first atomic.Pointer[string]
}

// startVolley has workers of each kind call send, which returns the status,
// again and again.
func startVolley(t *testing.T, workers int, kinds map[string]func() (int, error)) *volley {
	l := &volley{t: t, stop: make(chan struct{}), kinds: map[string]*kind{}}
	for name, send := range kinds {
		k := &kind{}
		l.kinds[name] = k
		for range workers {
			l.workers.Go(func() { l.work(k, send) })
		}
	}
	return l
}

func (l *volley) work(k *kind, send func() (int, error)) {
	for {
		select {
		case <-l.stop:
			return
		default:
		}
		k.mu.RLock()
		got, err := send()
		if k.want != 0 && got != k.want {
			text := fmt.Sprintf("got %d, want %d (%v)", got, k.want, err)
			k.first.CompareAndSwap(nil, &text)
			k.wrong.Add(1)
		}
		k.mu.RUnlock()
		k.sent.Add(1)
	}
}

// expect says what requests of a kind get from now on; 0 is anything.
func (l *volley) expect(name string, status int) {
	k := l.kinds[name]
	k.mu.Lock()
	k.want = status
	k.mu.Unlock()
}

// run waits until every kind has sent n more requests.
func (l *volley) run(n int64) {
	l.t.Helper()
	for name, k := range l.kinds {
		until := k.sent.Load() + n
		testenv.Eventually(l.t, 60*time.Second, fmt.Sprintf("%d more requests: %s", n, name),
			func() bool { return k.sent.Load() >= until })
	}
}

// end stops the load and checks it.
func (l *volley) end() {
	l.t.Helper()
	close(l.stop)
	l.workers.Wait()
	for name, k := range l.kinds {
		l.t.Logf("%s: %d requests, %d wrong", name, k.sent.Load(), k.wrong.Load())
		if k.wrong.Load() > 0 {
			l.t.Errorf("%s: %d of %d requests came out wrong; the first: %s", name, k.wrong.Load(), k.sent.Load(), *k.first.Load())
		}
	}
}

// status sends a request and reads the answer to its end.
func status(client *http.Client, req *http.Request) (int, error) {
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}
