package middleware

import (
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-gateway/sluice/routing"
)

// metrics counts requests by route, service and status: nothing that a client
// chooses is ever a label.
//
// The series of a route are kept with it: it stands still while instances come
// and go. Routes that left the table are dropped when the metrics are next
// read; there are never many more series than routes of the live table.
type metrics struct {
	tables   Tables
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	inFlight *prometheus.GaugeVec
	rejected *prometheus.CounterVec
	suspects *prometheus.CounterVec
	panics   prometheus.Counter

	unmatched *meter

	mu     sync.Mutex
	meters map[meterKey]*meter
}

type meterKey struct{ route, service string }

// meter is the resolved series of one route.
type meter struct {
	key      meterKey
	parent   *metrics
	duration prometheus.Observer
	inFlight prometheus.Gauge
	// dropped says that nobody reads the series any more.
	dropped atomic.Bool
	// codes grows by copying: a route has a handful.
	codes atomic.Pointer[[]codeCounter]
	mu    sync.Mutex
}

type codeCounter struct {
	status int
	prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, tables Tables) (*metrics, error) {
	m := &metrics{
		tables: tables,
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "sluice_requests_total",
			Help: "Requests answered, by route, service and HTTP status."}, []string{"route", "service", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "sluice_request_duration_seconds",
			Help:    "Time from the request's head to the end of the response.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}}, []string{"route", "service"}),
		inFlight: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "sluice_in_flight_requests",
			Help: "Matched requests under way, by service."}, []string{"service"}),
		rejected: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "sluice_plugin_rejections_total",
			Help: "Requests that a plugin answered in place of the instance."}, []string{"route", "plugin", "code"}),
		suspects: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "sluice_bot_decisions_total",
			Help: "Requests of clients that bot_guard takes for scripts, by what was done about them."}, []string{"route", "action"}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{Name: "sluice_panics_total",
			Help: "Panics while serving a request; each is a bug."}),
		meters: map[meterKey]*meter{},
	}
	m.unmatched = m.newMeter(meterKey{})
	if reg == nil {
		return m, nil
	}
	return m, reg.Register(m)
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range m.collectors() {
		c.Describe(ch)
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	m.prune()
	for _, c := range m.collectors() {
		c.Collect(ch)
	}
}

func (m *metrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.requests, m.duration, m.inFlight, m.rejected, m.suspects, m.panics}
}

// enter counts a matched request in.
func (m *metrics) enter(st *state) {
	st.meter = m.of(st.x.Match.Route)
	if st.meter.inFlight != nil {
		st.meter.inFlight.Inc()
	}
}

// leave counts a request that was answered, matched or not.
func (m *metrics) leave(st *state, status int) {
	mt := st.meter
	if mt == nil {
		mt = m.unmatched
	} else if mt.inFlight != nil {
		mt.inFlight.Dec()
	}
	mt.code(status).Inc()
	mt.duration.Observe(time.Since(st.x.Start).Seconds())
}

// reject counts an answer of a plugin's.
func (m *metrics) reject(st *state, plugin string, ref *routing.Refusal) {
	m.rejected.WithLabelValues(st.routeName(), plugin, string(ref.Code)).Inc()
}

// suspect counts a request of a client that bot_guard takes for a script.
func (m *metrics) suspect(st *state, action string) {
	m.suspects.WithLabelValues(st.routeName(), action).Inc()
}

// of returns the series of r.
func (m *metrics) of(r *routing.Route) *meter {
	if r.Counts != nil {
		if mt, ok := r.Counts.Load().(*meter); ok && mt.parent == m && !mt.dropped.Load() {
			return mt
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	key := meterKey{r.Name, r.ServiceName}
	mt := m.meters[key]
	if mt == nil {
		mt = m.newMeter(key)
		m.meters[key] = mt
	}
	if r.Counts != nil {
		r.Counts.Store(mt)
	}
	return mt
}

func (m *metrics) newMeter(key meterKey) *meter {
	mt := &meter{key: key, parent: m, duration: m.duration.WithLabelValues(key.route, key.service)}
	if key.service != "" {
		mt.inFlight = m.inFlight.WithLabelValues(key.service)
	}
	mt.codes.Store(new([]codeCounter))
	return mt
}

// code returns the counter of a status.
func (mt *meter) code(status int) prometheus.Counter {
	for _, c := range *mt.codes.Load() {
		if c.status == status {
			return c.Counter
		}
	}
	mt.mu.Lock()
	defer mt.mu.Unlock()
	old := *mt.codes.Load()
	for _, c := range old {
		if c.status == status {
			return c.Counter
		}
	}
	label := "other" // an instance may answer 299 or 999
	if status >= 100 && status <= 599 {
		label = strconv.Itoa(status)
	}
	c := mt.parent.requests.WithLabelValues(mt.key.route, mt.key.service, label)
	next := append(old[:len(old):len(old)], codeCounter{status, c})
	mt.codes.Store(&next)
	return c
}

// prune drops the series of routes that left the table. A request that is
// still under way on such a route counts into series that nobody reads.
func (m *metrics) prune() {
	table := m.tables.Table()
	if table == nil {
		return
	}
	keys := make(map[meterKey]bool, len(table.Routes()))
	routes, services := map[string]bool{}, map[string]bool{}
	for _, r := range table.Routes() {
		keys[meterKey{r.Name, r.ServiceName}] = true
		routes[r.Name], services[r.ServiceName] = true, true
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for key, mt := range m.meters {
		if keys[key] {
			continue
		}
		mt.dropped.Store(true)
		delete(m.meters, key)
		m.requests.DeletePartialMatch(prometheus.Labels{"route": key.route, "service": key.service})
		m.duration.DeleteLabelValues(key.route, key.service)
		if !routes[key.route] {
			m.rejected.DeletePartialMatch(prometheus.Labels{"route": key.route})
			m.suspects.DeletePartialMatch(prometheus.Labels{"route": key.route})
		}
		if !services[key.service] {
			m.inFlight.DeleteLabelValues(key.service)
		}
	}
}
