package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/scripts/load"
	"github.com/sluice-gateway/sluice/scripts/rig"
	"github.com/sluice-gateway/sluice/test/testenv"
)

// rate is the requests per second that run while something is broken.
const rate = 100

// traffic is a load on one path of the site.
type traffic struct {
	*load.Load
	s    *site
	base atomic.Pointer[string]
}

// load sends requests below path until Stop: GETs, or every fourth a POST.
// Samples are tagged with the instance that answered.
func (s *site) load(path string, posts bool) *traffic {
	s.t.Helper()
	return s.start(posts, func(n int) string { return path + strconv.Itoa(n) },
		func(_ int, h http.Header, _ []byte) string { return h.Get("X-Instance") })
}

// mixedLoad asks for the hundred routes below /p10 in turn. Samples are tagged
// with the instance that answered and the version in the path it saw.
func (s *site) mixedLoad() *traffic {
	s.t.Helper()
	return s.start(false, func(n int) string { return "/p10/" + strconv.Itoa(n%100) },
		func(_ int, h http.Header, body []byte) string {
			var seen struct{ Path string }
			_ = json.Unmarshal(body, &seen) // then the tag says so
			return h.Get("X-Instance") + " " + path.Dir(seen.Path)
		})
}

func (s *site) start(posts bool, path func(n int) string, tag func(int, http.Header, []byte) string) *traffic {
	s.t.Helper()
	l := &traffic{s: s}
	l.aim(s.gateway)
	l.Load = load.Start(load.Config{
		Rate: rate,
		Request: func(ctx context.Context, n int) (*http.Request, error) {
			url := *l.base.Load() + path(n)
			if posts && n%4 == 3 {
				return http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(`{"quantity":1}`))
			}
			return http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		},
		Tag: tag,
	})
	s.t.Cleanup(func() { l.Stop() })
	l.more(rate / 4)
	return l
}

// aim points the load at a gateway.
func (l *traffic) aim(g *testenv.Gateway) {
	url := g.URL()
	l.base.Store(&url)
}

// more waits until n further requests have come back.
func (l *traffic) more(n int) {
	l.s.t.Helper()
	begun := l.Sent()
	testenv.Eventually(l.s.t, wait, fmt.Sprintf("%d more requests", n), func() bool { return l.Sent() >= begun+n })
}

// failures ends the load and returns what failed of it.
func (l *traffic) failures() []load.Sample {
	var out []load.Sample
	for _, sample := range l.Stop() {
		if sample.Failed() {
			out = append(out, sample)
		}
	}
	return out
}

// noneFailed ends the load and wants every request answered.
func (l *traffic) noneFailed() {
	l.s.t.Helper()
	if failed := l.failures(); len(failed) > 0 {
		f := failed[0]
		l.s.t.Errorf("%d of %d requests failed; the first after %s with status %d, %v",
			len(failed), l.Sent(), f.Took.Round(time.Millisecond), f.Status, f.Err)
	}
}

// metric is the sum of the samples whose name and labels hold every part.
func (s *site) metric(parts ...string) float64 {
	s.t.Helper()
	resp, err := http.Get(s.gateway.AdminURL() + "/metrics")
	if err != nil {
		s.t.Fatalf("GET /metrics: %v", err)
	}
	defer resp.Body.Close()
	sum := 0.0
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		series, value, ok := strings.Cut(lines.Text(), " ")
		for _, part := range parts {
			ok = ok && strings.Contains(series, part)
		}
		if v, err := strconv.ParseFloat(value, 64); ok && err == nil {
			sum += v
		}
	}
	return sum
}

// sourceUp waits until the gateway says whether it follows a source.
func (s *site) sourceUp(source string, up bool) {
	s.t.Helper()
	want := map[bool]float64{true: 1, false: 0}[up]
	testenv.Eventually(s.t, wait, fmt.Sprintf("sluice_source_up of %s is %v", source, want), func() bool {
		return s.metric("sluice_source_up{", `source="`+source+`"`) == want
	})
}

// obeys puts a fresh route into etcd and waits until it answers.
func (s *site) obeys(name string) {
	s.t.Helper()
	s.etcd.Put("/sluice/routes/"+name, fmt.Sprintf(`{"path":"/%s","respond":{"body":%q}}`, name, name))
	s.eventually("the route "+name+" answers", "/"+name, func(a answer) bool { return string(a.Body) == name })
}

// follows registers a fresh service that announces itself and waits until it
// is routed.
func (s *site) follows(name string) {
	s.t.Helper()
	sv := s.service(name, name+"-1", "-linger", "0s", "-tags", "sluice.path=/"+name+"/*")
	s.eventually("the service "+name+" is routed", "/"+name+"/x", func(a answer) bool { return a.Instance == name+"-1" })
	sv.Stop()
}

// awaitHealthy waits until a service has n instances, all healthy.
func (s *site) awaitHealthy(service string, n int) {
	s.t.Helper()
	rig.AwaitInstances(s.t, s.gateway, service, n)
}
