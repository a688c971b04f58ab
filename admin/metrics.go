package admin

import (
	"maps"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/sluice-gateway/sluice/discovery"
	"github.com/sluice-gateway/sluice/routing"
)

// Metrics reports what the table, the sources and the endpoints look like,
// and counts what upstream attempts came to. It fills the observer interfaces
// of the proxy and of the pool. Safe for concurrent use.
//
// Every label value is a name out of the configuration or a word of a fixed
// set; series of services that left the table are dropped.
type Metrics struct {
	tables interface{ Table() *routing.Table }
	hub    *discovery.Hub

	propagation *prometheus.HistogramVec
	upstream    *prometheus.CounterVec
	retries     *prometheus.CounterVec
	ejections   *prometheus.CounterVec

	mu   sync.Mutex
	open map[string]int // tunnels by service; none is zero

	tunnels, instances, circuit, generation, routes, problems, sourceUp, sourceAge, active *prometheus.Desc
}

// NewMetrics makes the metrics and registers them.
func NewMetrics(reg prometheus.Registerer, tables interface{ Table() *routing.Table }, hub *discovery.Hub) (*Metrics, error) {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("sluice_"+name, help, labels, nil)
	}
	m := &Metrics{
		tables: tables, hub: hub,
		propagation: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "sluice_propagation_seconds", Help: "Time from seeing a change to the table being swapped.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1},
		}, []string{"source"}),
		upstream: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_upstream_requests_total", Help: "Attempts at instances, by what came of them.",
		}, []string{"service", "result"}),
		retries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_upstream_retries_total", Help: "Attempts that followed a failed one, by its failure.",
		}, []string{"service", "reason"}),
		ejections: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_instance_ejections_total", Help: "Instances left out by passive ejection.",
		}, []string{"service", "reason"}),
		open:       map[string]int{},
		tunnels:    desc("open_tunnels", "Upgraded connections that are open.", "service"),
		instances:  desc("instances", "Instances by state.", "service", "state"),
		circuit:    desc("circuit_open", "1 while the service's circuit breaker is open.", "service"),
		generation: desc("table_generation", "Tables built by this process."),
		routes:     desc("table_routes", "Routes in the table in force."),
		problems:   desc("route_problems", "Documents that do not serve as written.", "code"),
		sourceUp:   desc("source_up", "1 while the source's registry answers.", "source"),
		sourceAge:  desc("source_age_seconds", "Time since the source's registry last answered.", "source"),
		active:     desc("active_subset", "Share of the service's traffic that the subset has in effect.", "service", "subset"),
	}
	return m, reg.Register(m)
}

// Swapped observes a new table.
func (m *Metrics) Swapped(old, t *routing.Table) {
	if !t.Seen.IsZero() {
		m.propagation.WithLabelValues(t.ChangedSource(old)).Observe(time.Since(t.Seen).Seconds())
	}
}

// UpstreamResult counts one attempt.
func (m *Metrics) UpstreamResult(service, result string) {
	m.upstream.WithLabelValues(service, result).Inc()
}

// Retry counts one attempt that followed a failed one.
func (m *Metrics) Retry(service, reason string) { m.retries.WithLabelValues(service, reason).Inc() }

// Ejected counts one ejection.
func (m *Metrics) Ejected(service, reason string) { m.ejections.WithLabelValues(service, reason).Inc() }

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	m.propagation.Describe(ch)
	for _, c := range m.counters() {
		c.Describe(ch)
	}
	for _, d := range []*prometheus.Desc{m.tunnels, m.instances, m.circuit, m.generation, m.routes, m.problems, m.sourceUp, m.sourceAge, m.active} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	m.propagation.Collect(ch)
	m.prune()
	for _, c := range m.counters() {
		c.Collect(ch)
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for _, s := range m.hub.Status() {
		gauge(m.sourceUp, truth(s.Up), s.Name)
		if !s.LastAnswer.IsZero() {
			gauge(m.sourceAge, time.Since(s.LastAnswer).Seconds(), s.Name)
		}
	}
	m.mu.Lock()
	open := maps.Clone(m.open)
	m.mu.Unlock()
	t := m.tables.Table()
	if t == nil {
		gauge(m.generation, 0)
		gauge(m.routes, 0)
		return
	}
	gauge(m.generation, float64(t.Generation))
	gauge(m.routes, float64(len(t.Routes())))
	codes := map[string]int{}
	for _, p := range t.Problems() {
		codes[p.Code]++
	}
	for code, n := range codes {
		gauge(m.problems, float64(n), code)
	}
	for _, s := range t.Services() {
		states := map[string]int{}
		for _, e := range s.All.Endpoints {
			state, _, _ := e.Status()
			states[state]++
		}
		for state, n := range states {
			gauge(m.instances, float64(n), s.Name, state)
		}
		gauge(m.tunnels, float64(open[s.Name]), s.Name)
		delete(open, s.Name)
		gauge(m.circuit, truth(s.Group.CircuitOpen()), s.Name)
		for _, share := range s.Shares() {
			gauge(m.active, float64(share.Weight), s.Name, share.Subset)
		}
	}
	for service, n := range open { // of services that left, until they end
		gauge(m.tunnels, float64(n), service)
	}
}

// counters are the metrics whose series come with what happens.
func (m *Metrics) counters() []*prometheus.CounterVec {
	return []*prometheus.CounterVec{m.upstream, m.retries, m.ejections}
}

// prune drops the series of services that left the table. Doing so when they
// are read, and not at the swap, takes those along that a last request under
// way brought back.
func (m *Metrics) prune() {
	t := m.tables.Table()
	if t == nil {
		return
	}
	for _, c := range m.counters() {
		for service := range services(c) {
			if t.Service(service) == nil {
				c.DeletePartialMatch(prometheus.Labels{"service": service})
			}
		}
	}
}

// services finds the services that c has series of.
func services(c *prometheus.CounterVec) map[string]bool {
	all := make(chan prometheus.Metric)
	go func() {
		defer close(all)
		c.Collect(all)
	}()
	out := map[string]bool{}
	for metric := range all {
		var d dto.Metric
		if metric.Write(&d) != nil {
			continue
		}
		for _, l := range d.GetLabel() {
			if l.GetName() == "service" {
				out[l.GetValue()] = true
			}
		}
	}
	return out
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// Circuit is told when a breaker opens or closes; Collect reads the state
// itself.
func (m *Metrics) Circuit(string, bool) {}

// Tunnels counts open upgraded connections.
func (m *Metrics) Tunnels(service string, delta int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.open[service] += delta; m.open[service] == 0 {
		delete(m.open, service)
	}
}
