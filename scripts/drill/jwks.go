package main

import (
	"context"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/scripts/load"
	"github.com/sluice-gateway/sluice/scripts/rig"
	"github.com/sluice-gateway/sluice/test/testenv"
)

const (
	// keysEvery is how often the keys of /often are fetched; those of /seldom
	// are at the gateway's default of five minutes.
	keysEvery = 2 * time.Second
	// askEvery is how often, at most, unknown keys cause a fetch.
	askEvery = 30 * time.Second
	// floodRate is how many tokens of unknown keys come per second.
	floodRate = 1000
)

// guarded is a load of good tokens on two routes, and of forged ones on one.
type guarded struct {
	s      *site
	issuer *issuer
	forger *forger
	url    string
	token  atomic.Pointer[string] // the newest good one
	often  *load.Load
	seldom *load.Load
	forged *load.Load

	began  []time.Time // of each phase
	names  []string
	note   string
	faults string
}

// jwksOutage has an issuer's key set go away, come late, trickle, change under
// load, and be asked for by tokens that make up the names of their keys.
// No good token may be refused, no other let through.
func jwksOutage(s *site) outcome {
	d := newGuarded(s)
	d.phase("steady")
	s.hold(5 * time.Second)
	for _, p := range []struct {
		name string
		how  delivery
	}{{"down", cutOff}, {"late", late(8 * time.Second)}, {"trickling", trickle}} {
		d.phase(p.name)
		d.issuer.deliver(p.how)
		before, from := d.issuer.often.Load(), time.Now()
		s.hold(s.outage)
		// A fetch that failed is tried again after one second, then two.
		d.bounded(p.name, d.issuer.often.Load()-before, time.Since(from), keysEvery)
	}
	d.phase("rotating")
	var effect []time.Duration
	d.issuer.deliver(late(time.Second)) // whoever needs the new key waits, and passes
	for _, algorithm := range []string{"ES256", "RS256"} {
		effect = append(effect, d.rotate(algorithm))
		d.issuer.deliver(whole)
		s.hold(askEvery + time.Second) // the next unknown key may ask again
	}
	d.phase("flooded")
	d.flood()
	d.phase("")
	o := d.outcome()
	o.effect = effect
	d.issuer.Rotate("ES256", true)
	gone := d.until("the key that was taken out is refused", "/often/1", http.StatusUnauthorized)
	o.note = fmt.Sprintf("a new key to its first request%s; a key taken out refused after %s", d.note, round(gone))
	return o
}

func newGuarded(s *site) *guarded {
	d := &guarded{s: s, issuer: newIssuer(s.p), forger: newForger(s.p)}
	jwt := fmt.Sprintf(`"algorithms":["RS256","ES256"],"issuer":%q,"audience":["api"],"jwks_url":"%s`, d.issuer.Issuer, d.issuer.url)
	revision := s.etcd.Apply(map[string]string{
		"/sluice/routes/often":  fmt.Sprintf(`{"path":"/often/*","service":"orders","plugins":{"jwt":{%s/often","refresh_interval":%q}}}`, jwt, keysEvery),
		"/sluice/routes/seldom": fmt.Sprintf(`{"path":"/seldom/*","service":"orders","plugins":{"jwt":{%s/seldom"}}}`, jwt),
	})
	g := s.gateway(testenv.GatewayOptions{})
	rig.AwaitApplied(s.p, g, revision)
	d.url = g.URL()
	good := d.issuer.Token("service")
	d.token.Store(&good)
	for _, path := range []string{"/often/1", "/seldom/1"} {
		d.until("the first keys are there", path, http.StatusOK)
	}
	forgeries := d.forger.forgeries(s.p, good)
	d.often = d.load(s.rate/3, "/often/", func(int) string { return *d.token.Load() })
	d.seldom = d.load(s.rate/3, "/seldom/", func(int) string { return *d.token.Load() })
	d.forged = d.load(s.rate/3, "/often/", func(n int) string { return forgeries[n%len(forgeries)] })
	return d
}

func (d *guarded) load(rate int, path string, token func(n int) string) *load.Load {
	return load.Start(load.Config{
		Rate: max(rate, 1),
		Request: func(ctx context.Context, n int) (*http.Request, error) {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("%s%s%d", d.url, path, n), nil)
			if err == nil {
				req.Header.Set("Authorization", "Bearer "+token(n))
			}
			return req, err
		},
		Tag: rig.Colour,
		// Those who waited for a fetch together come back over what they have
		// open, instead of a thousand new connections a second.
		Connections: floodRate,
	})
}

// phase begins a part of the drill; "" ends the last.
func (d *guarded) phase(name string) {
	d.began, d.names = append(d.began, time.Now()), append(d.names, name)
}

func (d *guarded) fault(format string, args ...any) { d.faults += fmt.Sprintf(format, args...) + "; " }

// bounded checks the fetches in a stretch of time: the pause between two is
// shortened by up to a tenth at random, and the first two tries after a
// failure come sooner.
func (d *guarded) bounded(what string, fetches int64, in, pause time.Duration) {
	most := int64(in/(pause*9/10)) + 3
	d.note += fmt.Sprintf("; %s: %d fetches in %s", what, fetches, in.Round(time.Second))
	if fetches > most {
		d.fault("%s: %d fetches, at most %d should be", what, fetches, most)
	}
}

// rotate makes a new key, has every good token be of it at once, and returns
// how long the first took to pass.
func (d *guarded) rotate(algorithm string) time.Duration {
	d.issuer.Rotate(algorithm, false)
	good := d.issuer.Token("service")
	d.token.Store(&good)
	start := time.Now()
	if got := d.ask("/often/1", good); got != http.StatusOK {
		d.fault("the first token of a new key got %d", got)
	}
	return time.Since(start)
}

// flood sends tokens of made-up keys beside the others, to the route whose
// keys are fetched only for them. Meanwhile a new key is published, and used
// once the other route has to have it.
func (d *guarded) flood() {
	before, from := d.issuer.seldom.Load(), time.Now()
	good := *d.token.Load()
	flood := d.load(floodRate, "/seldom/", func(int) string { return unknown(good) })
	d.s.hold(askEvery / 2)
	d.issuer.Rotate("ES256", false)
	next := d.issuer.Token("service")
	d.s.hold(keysEvery + time.Second)
	if got := d.ask("/often/1", next); got != http.StatusOK {
		d.fault("a token of a key that was published %s before got %d", keysEvery, got)
	}
	d.s.hold(askEvery)
	samples := flood.Stop()
	fetches, in := d.issuer.seldom.Load()-before, time.Since(from)
	d.note += fmt.Sprintf("; flooded: %d tokens of unknown keys, %d fetches in %s", len(samples), fetches, in.Round(time.Second))
	if most := int64(in/askEvery) + 1; fetches > most {
		d.fault("flooded: %d fetches, at most %d should be", fetches, most)
	}
	d.turnedAway("of unknown keys", samples)
}

// turnedAway checks that tokens got 401 each.
func (d *guarded) turnedAway(what string, samples []load.Sample) (through int) {
	others := map[string]int{}
	for _, s := range samples {
		switch {
		case s.Status >= 200 && s.Status < 300:
			through++
		case s.Err != nil:
			others["no answer"]++
		case s.Status != http.StatusUnauthorized:
			others[fmt.Sprintf("%d %s", s.Status, s.Tag)]++
		}
	}
	if through > 0 || len(others) > 0 || len(samples) == 0 {
		d.fault("tokens %s: %d of %d let through, not refused but failed: %v", what, through, len(samples), others)
	}
	return through
}

// outcome ends the load and judges it.
func (d *guarded) outcome() outcome {
	often, seldom := d.often.Stop(), d.seldom.Stop()
	o := count(append(often, seldom...))
	forged := d.forged.Stop()
	o.wrong = d.turnedAway("that were forged", forged)
	d.note += fmt.Sprintf("; %d forged refused; p50, p99:", len(forged)-o.wrong)
	for i, name := range d.names[:len(d.names)-1] {
		var took []time.Duration
		for _, s := range often {
			if !s.Start.Before(d.began[i]) && s.Start.Before(d.began[i+1]) {
				took = append(took, s.Took)
			}
		}
		d.note += fmt.Sprintf(" %s %s, %s", name, round(load.Percentile(took, 50)), round(load.Percentile(took, 99)))
	}
	o.broken = d.faults
	return o
}

// ask sends one request with a token.
func (d *guarded) ask(path, token string) int {
	req, err := http.NewRequest(http.MethodGet, d.url+path, nil)
	if err != nil {
		return 0
	}
	req.Header.Set("Authorization", "Bearer "+token)
	client := probeClient()
	client.Timeout = 10 * time.Second
	resp, err := client.Do(req)
	if err != nil {
		return 0
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

// until asks with the newest good token until status comes, and returns how
// long that took.
func (d *guarded) until(what, path string, status int) time.Duration {
	start := time.Now()
	testenv.Eventually(d.s.p, time.Minute, what, func() bool { return d.ask(path, *d.token.Load()) == status })
	return time.Since(start)
}
