// Package load sends requests at a fixed rate, whatever the answers do, and
// keeps what became of each: an open-loop load, in which a stall of the
// server shows as late and failed requests and not as fewer of them.
package load

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// Sample is one request.
type Sample struct {
	Start  time.Time
	Took   time.Duration // until the body was read
	Status int           // 0 where no answer came
	Err    error
	// Tag is what the Tag function read from the answer.
	Tag string
}

// Failed says whether the request came to anything but a 2xx read to its end.
func (s Sample) Failed() bool { return s.Err != nil || s.Status < 200 || s.Status > 299 }

// Config is a load.
type Config struct {
	// Rate is requests per second.
	Rate int
	// Request makes the n-th request.
	Request func(ctx context.Context, n int) (*http.Request, error)
	// Tag reads from an answer what the caller wants to count.
	Tag func(status int, header http.Header, body []byte) string
	// Timeout bounds one request; default 10 s.
	Timeout time.Duration
	// Connections is how many idle connections are kept; default 64.
	Connections int
}

// Load is a running load.
type Load struct {
	cfg    Config
	client *http.Client
	stop   context.CancelFunc
	done   chan struct{}

	mu      sync.Mutex
	samples []Sample
}

// Start begins to send.
func Start(cfg Config) *Load {
	if cfg.Timeout == 0 {
		cfg.Timeout = 10 * time.Second
	}
	if cfg.Connections == 0 {
		cfg.Connections = 64
	}
	ctx, stop := context.WithCancel(context.Background())
	l := &Load{
		cfg: cfg, stop: stop, done: make(chan struct{}),
		client: &http.Client{
			Timeout: cfg.Timeout,
			Transport: &http.Transport{
				DialContext:         (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
				MaxIdleConnsPerHost: cfg.Connections, IdleConnTimeout: 30 * time.Second,
				DisableCompression: true,
			},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
	go l.run(ctx)
	return l
}

// run keeps to the schedule: a request that is due goes out even if earlier
// ones have not come back.
func (l *Load) run(ctx context.Context) {
	defer close(l.done)
	var inFlight sync.WaitGroup
	defer inFlight.Wait()
	interval := time.Second / time.Duration(l.cfg.Rate)
	begin := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for n := 0; ; n++ {
		timer.Reset(time.Until(begin.Add(time.Duration(n) * interval)))
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		inFlight.Go(func() { l.send(n) })
	}
}

func (l *Load) send(n int) {
	s := Sample{Start: time.Now()}
	defer func() {
		s.Took = time.Since(s.Start)
		l.mu.Lock()
		l.samples = append(l.samples, s)
		l.mu.Unlock()
	}()
	req, err := l.cfg.Request(context.Background(), n)
	if err != nil {
		s.Err = fmt.Errorf("make request: %w", err)
		return
	}
	resp, err := l.client.Do(req)
	if err != nil {
		s.Err = err
		return
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil { // who answered shows in what came of it
		err = fmt.Errorf("%w, after %q", err, body[:min(len(body), 200)])
	}
	s.Status, s.Err = resp.StatusCode, err
	if l.cfg.Tag != nil {
		s.Tag = l.cfg.Tag(resp.StatusCode, resp.Header, body)
	}
}

// Stop ends the load, waits for what is under way, and returns every sample
// by start.
func (l *Load) Stop() []Sample {
	l.stop()
	<-l.done
	l.client.CloseIdleConnections()
	l.mu.Lock()
	defer l.mu.Unlock()
	slices.SortFunc(l.samples, func(a, b Sample) int { return a.Start.Compare(b.Start) })
	return l.samples
}

// Sent is the number of requests that have ended so far.
func (l *Load) Sent() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.samples)
}

// Percentile returns the p-th percentile (0 to 100) of ds, which it sorts.
func Percentile(ds []time.Duration, p float64) time.Duration {
	if len(ds) == 0 {
		return 0
	}
	slices.Sort(ds)
	i := int(p / 100 * float64(len(ds)-1))
	return ds[i]
}
