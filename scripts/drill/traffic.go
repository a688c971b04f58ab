package main

import (
	"fmt"
	"syscall"
	"time"

	"github.com/sluice-gateway/sluice/scripts/load"
	"github.com/sluice-gateway/sluice/scripts/rig"
	"github.com/sluice-gateway/sluice/test/testenv"
)

// flips moves all traffic between the colours a hundred times. A request that
// starts after the gateway has said in its status that it serves the new
// choice must not get the old colour.
func flips(s *site) outcome {
	s.etcd.Put("/sluice/active/orders", "blue")
	g := s.gateway(testenv.GatewayOptions{})
	l := s.load(g.URL(), true)
	type flip struct {
		begun, applied time.Time
		colour         string
	}
	var all []flip
	var effect []time.Duration
	for i := range 100 {
		colour := "green"
		if i%2 == 1 {
			colour = "blue"
		}
		begun := time.Now() // from here on either colour is right
		revision := s.etcd.Put("/sluice/active/orders", colour)
		put := time.Now()
		effect = append(effect, s.obeyed("the flip to "+colour, g.URL()+"/orders/probe", put,
			func(_ int, a rig.Answer) bool { return a.Colour == colour }))
		all = append(all, flip{begun, rig.AwaitApplied(s.p, g, revision), colour})
		s.hold(100 * time.Millisecond)
	}
	samples := l.Stop()
	o := count(samples)
	o.effect, o.note = effect, "put returning to first request that obeys"
	next := 0
	for _, sample := range samples {
		for next < len(all) && sample.Start.After(all[next].applied) {
			next++
		}
		// The flip before next is applied; while next is on its way both
		// colours are right.
		if next > 0 && !sample.Failed() && sample.Tag != all[next-1].colour &&
			(next == len(all) || sample.Start.Add(sample.Took).Before(all[next].begun)) {
			o.wrong++
		}
	}
	return o
}

// rollingRestart restarts every instance the graceful way: it leaves Consul,
// serves on for a second, finishes and ends; then its successor comes up.
func rollingRestart(s *site) outcome {
	g := s.gateway(testenv.GatewayOptions{})
	l := s.load(g.URL(), true)
	for _, instance := range s.orders {
		instance.Restart()
		rig.AwaitInstances(s.p, g, "orders", len(s.orders))
	}
	return count(l.Stop())
}

// instanceKilled kills one instance with -9 and lets it come back later.
func instanceKilled(s *site) outcome {
	g := s.gateway(testenv.GatewayOptions{})
	l := s.load(g.URL(), false)
	for _, instance := range s.orders[:2] {
		instance.Kill()
		s.hold(3 * time.Second)
		instance.Restart()
		rig.AwaitInstances(s.p, g, "orders", len(s.orders))
	}
	return count(l.Stop())
}

// takeover ends one of two gateways. The load goes where a load balancer
// would send it: to the second as soon as the first says it is not ready.
func takeover(s *site) outcome {
	drain := "shutdown:\n  delay: 1s\n  timeout: 10s\n"
	first := s.gateway(testenv.GatewayOptions{Name: "first", Extra: drain})
	second := s.gateway(testenv.GatewayOptions{Name: "second", Extra: drain})
	l := s.load(first.URL(), true)
	s.hold(2 * time.Second)
	if err := syscall.Kill(first.Pid(), syscall.SIGTERM); err != nil {
		s.p.Fatalf("send SIGTERM to the first gateway: %v", err)
	}
	start := time.Now()
	testenv.Eventually(s.p, 5*time.Second, "the first gateway says it is not ready", func() bool {
		status, _, err := rig.Get(probeClient(), first.AdminURL()+"/readyz")
		return err != nil || status != 200
	})
	notReady := time.Since(start)
	s.aim(second.URL())
	testenv.Eventually(s.p, 20*time.Second, "the first gateway ends", func() bool { return !first.Running() })
	s.hold(2 * time.Second)
	o := count(l.Stop())
	o.effect, o.note = []time.Duration{notReady}, "SIGTERM to not ready"
	return o
}

// coldStart takes both registries away and starts the gateway from what it
// had stored. The load runs against the old process until it ends and
// against the new one once it is ready.
func coldStart(s *site) outcome {
	s.etcd.Put("/sluice/active/orders", "green")
	state := fmt.Sprintf("state_dir: %q\n", s.p.TempDir())
	g := s.gateway(testenv.GatewayOptions{Extra: state})
	s.obeyed("green serves", g.URL()+"/orders/1", time.Now(), func(_ int, a rig.Answer) bool { return a.Colour == "green" })
	s.hold(1500 * time.Millisecond) // the state is stored at most once a second
	before := s.load(g.URL(), true)
	s.consul.Stop()
	s.etcd.Stop()
	s.hold(3 * time.Second)
	o := count(before.Stop())
	g.Kill()
	start := time.Now()
	g.Restart()
	ready := time.Since(start)
	after := s.load(g.URL(), true)
	s.hold(3 * time.Second)
	samples := after.Stop()
	o2 := count(samples)
	o2.wrong = wrongColour(samples, "green")
	o2.sent, o2.failed = o.sent+o2.sent, o.failed+o2.failed
	o2.effect, o2.note = []time.Duration{ready}, "start to ready"
	return o2
}

func wrongColour(samples []load.Sample, want string) int {
	n := 0
	for _, s := range samples {
		if !s.Failed() && s.Tag != want {
			n++
		}
	}
	return n
}
