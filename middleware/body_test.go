package middleware

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"
)

// slowBody gives one byte after each of its pauses.
type slowBody struct {
	pauses []time.Duration
	cut    chan struct{} // closed when a deadline ends the pending read
}

func (b *slowBody) Read(p []byte) (int, error) {
	if len(b.pauses) == 0 {
		return 0, io.EOF
	}
	select {
	case <-time.After(b.pauses[0]):
	case <-b.cut:
		return 0, errors.New("i/o timeout")
	}
	b.pauses = b.pauses[1:]
	p[0] = 'x'
	return 1, nil
}

func (b *slowBody) Close() error { return nil }

// deadlines is a ResponseWriter whose read deadline cuts a slowBody.
type deadlines struct {
	http.ResponseWriter
	cut chan struct{}
}

func (d *deadlines) SetReadDeadline(t time.Time) error {
	if !t.IsZero() && t.Before(time.Now()) {
		close(d.cut)
	}
	return nil
}

func TestABodyMayBeSlowButNotSilent(t *testing.T) {
	for _, c := range []struct {
		name   string
		pauses []time.Duration
		// between is how long the gateway's side waits between reads.
		between time.Duration
		want    error
		bytes   int
		within  time.Duration
	}{
		{"slow and steady", []time.Duration{50, 50, 50, 50, 50}, 0, nil, 5, 250},
		{"the instance is the slow one", []time.Duration{1, 1, 1}, 500, nil, 3, 2100},
		{"silent at first", []time.Duration{1000}, 0, errBodyStalled, 0, 60},
		{"silent later on", []time.Duration{40, 40, 1000}, 0, errBodyStalled, 2, 140},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cut := make(chan struct{})
				src := &slowBody{cut: cut}
				for _, p := range c.pauses {
					src.pauses = append(src.pauses, p*time.Second)
				}
				b := &guardedBody{rc: src, limit: -1, timeout: 60 * time.Second,
					ctl: http.NewResponseController(&deadlines{httptest.NewRecorder(), cut})}
				begin, n := time.Now(), 0
				var err error
				for err == nil {
					var k int
					k, err = b.Read(make([]byte, 8))
					n += k
					if err == nil {
						time.Sleep(c.between * time.Second)
					}
				}
				took := time.Since(begin)
				if err == io.EOF {
					err = nil
				}
				if err != c.want || n != c.bytes || took > c.within*time.Second {
					t.Errorf("%d bytes, then %v, after %v; want %d, %v, within %v", n, err, took, c.bytes, c.want, c.within*time.Second)
				}
				if b.complete() != (c.want == nil) {
					t.Errorf("complete is %v", b.complete())
				}
				b.end()
				if _, err := b.Read(make([]byte, 1)); err != http.ErrBodyReadAfterClose {
					t.Errorf("a read after the end gives %v", err)
				}
			})
		})
	}
}
