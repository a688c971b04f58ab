package main

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/scripts/rig"
	"github.com/sluice-gateway/sluice/test/testenv"
)

func probeClient() *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 2 * time.Second}
}

// consulOutage stops Consul and brings it back without its state; the
// services register again by themselves. Then a new instance must be seen.
func consulOutage(s *site) outcome {
	g := s.gateway(testenv.GatewayOptions{})
	l := s.load(g.URL(), true)
	s.consul.Stop()
	s.hold(s.outage)
	s.consul.Restart()
	testenv.StartService(s.p, "newcomer", "-id", "newcomer-1", "-tags", "sluice.path=/newcomer/*", "-consul", s.consul.URL())
	start := time.Now()
	effect := s.obeyed("a service registered after the outage is routed", g.URL()+"/newcomer/1", start,
		func(status int, _ rig.Answer) bool { return status == http.StatusOK })
	rig.AwaitInstances(s.p, g, "orders", len(s.orders))
	s.hold(2 * time.Second)
	o := count(l.Stop())
	o.effect, o.note = []time.Duration{effect}, "a service's start after the outage to its first answer"
	return o
}

// etcdOutage stops etcd and brings it back; then a put must be obeyed.
func etcdOutage(s *site) outcome {
	s.etcd.Put("/sluice/active/orders", "blue")
	g := s.gateway(testenv.GatewayOptions{})
	l := s.load(g.URL(), true)
	s.etcd.Stop()
	s.hold(s.outage)
	s.etcd.Restart()
	start := time.Now()
	s.etcd.Put("/sluice/active/orders", "green")
	effect := s.obeyed("the flip after the outage", g.URL()+"/orders/1", start,
		func(_ int, a rig.Answer) bool { return a.Colour == "green" })
	s.hold(2 * time.Second)
	o := count(l.Stop())
	o.effect, o.note = []time.Duration{effect}, "etcd ready again to a put obeyed"
	return o
}

// compaction cuts the gateway's link to etcd, changes and compacts the store
// beyond what the watch has seen, and lets it reconnect.
func compaction(s *site) outcome {
	link := testenv.StartProxy(s.p, strings.TrimPrefix(s.etcd.Endpoint, "http://"))
	s.etcd.Put("/sluice/active/orders", "blue")
	g := s.gateway(testenv.GatewayOptions{Etcd: "http://" + link.Addr})
	l := s.load(g.URL(), true)
	var effect []time.Duration
	for i := range 5 {
		link.Cut()
		colour := []string{"green", "blue"}[i%2]
		for n := range 10 {
			s.etcd.Put(fmt.Sprintf("/sluice/routes/other-%d", n), `{"path":"/other","respond":{"status":204}}`)
		}
		s.etcd.Put("/sluice/active/orders", colour)
		s.etcd.Compact()
		link.Mend()
		start := time.Now()
		effect = append(effect, s.obeyed("the flip made while the watch was cut", g.URL()+"/orders/1", start,
			func(_ int, a rig.Answer) bool { return a.Colour == colour }))
		s.hold(500 * time.Millisecond)
	}
	o := count(l.Stop())
	o.effect, o.note = effect, "link mended to the change obeyed"
	return o
}

// badDocuments puts a thousand documents that are wrong in many ways, also
// over good ones, and checks that good ones put among them work at once.
func badDocuments(s *site) outcome {
	g := s.gateway(testenv.GatewayOptions{})
	l := s.load(g.URL(), true)
	good := `{"path":"/good/%d","respond":{"status":200,"body":"good"}}`
	whole := `{"path":"/orders/*","service":"orders","plugins":{"headers":{"request":{"set":{"X-A":"b"}}}}}`
	bad := []string{
		"", "{", "[]", "null", "42", "\x00\x01", "path: [", `{"path":"/orders/*"}`, `{"path":"orders","service":"orders"}`,
		`{"path":"/orders/*","servce":"orders"}`, `{"path":"/orders/*","service":"orders","timeout":"soon"}`,
		`{"path":"/orders/*","service":"orders","plugins":{"nope":{}}}`, `{"path":"/*rest/more","service":"orders"}`,
		`{"path":"/orders/*","service":"orders"}{}`, `{"path":"/x","path":"/y","service":"orders"}`,
	}
	var effect []time.Duration
	broken := ""
	for n := range 1000 {
		value := bad[n%len(bad)]
		if n%2 == 0 { // cut off in the middle, as a writer that died would leave it
			value = whole[:1+n%(len(whole)-1)]
		}
		key := fmt.Sprintf("/sluice/routes/bad-%d", n)
		switch n % 10 {
		case 0:
			key = "/sluice/routes/orders" // over a good one: its last good version serves
		case 5:
			key = "/sluice/services/orders"
		case 7:
			key, value = "/sluice/active/orders", "=="
		}
		s.etcd.Put(key, value)
		if n%50 == 49 {
			s.etcd.Put(fmt.Sprintf("/sluice/routes/good-%d", n), fmt.Sprintf(good, n))
			effect = append(effect, s.obeyed("a good route put among bad ones", fmt.Sprintf("%s/good/%d", g.URL(), n), time.Now(),
				func(status int, _ rig.Answer) bool { return status == http.StatusOK }))
		}
	}
	st, err := rig.Status(g)
	if err != nil || len(st.Problems) == 0 {
		broken = fmt.Sprintf("status shows no problems (%v)", err)
	}
	o := count(l.Stop())
	o.effect, o.note, o.broken = effect, "a good put to its first answer, in the storm", broken
	return o
}
