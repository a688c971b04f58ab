package admin

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/sluice-gateway/sluice/routing"
	"github.com/sluice-gateway/sluice/routing/balance"
)

// CountConnections is how many connections to the instance at address there
// are, and how many of them are idle; ok is false where nobody knows.
type CountConnections func(u routing.Upstream, address string) (open, idle int, ok bool)

// Connections is what /api/v1/instances shows of the connections to one
// instance. Where the client does not tell how many there are, only what
// requests found is known.
type Connections struct {
	Open   *int  `json:"open,omitempty"`
	Idle   *int  `json:"idle,omitempty"`
	InUse  *int  `json:"in_use,omitempty"`
	Made   int64 `json:"made"`
	Reused int64 `json:"reused"`
}

func (count CountConnections) of(u routing.Upstream, e *balance.Endpoint) Connections {
	made, reused := e.Connections()
	c := Connections{Made: made, Reused: reused}
	if open, idle, ok := count(u, e.Address()); ok {
		inUse := open - idle
		c.Open, c.Idle, c.InUse = &open, &idle, &inUse
	}
	return c
}

// connectionMetrics reports the connections to the instances of each service.
type connectionMetrics struct {
	tables interface{ Table() *routing.Table }
	count  CountConnections
	desc   *prometheus.Desc
}

// RegisterConnections registers sluice_upstream_connections.
func RegisterConnections(reg prometheus.Registerer, tables interface{ Table() *routing.Table }, count CountConnections) error {
	return reg.Register(&connectionMetrics{tables, count, prometheus.NewDesc("sluice_upstream_connections",
		"Connections to instances, where the service's client tells: engine fast.", []string{"service", "state"}, nil)})
}

// Describe implements prometheus.Collector.
func (m *connectionMetrics) Describe(ch chan<- *prometheus.Desc) { ch <- m.desc }

// Collect implements prometheus.Collector.
func (m *connectionMetrics) Collect(ch chan<- prometheus.Metric) {
	t := m.tables.Table()
	if t == nil {
		return
	}
	for _, s := range t.Services() {
		var open, idle int
		known := false
		for _, e := range s.All.Endpoints {
			if o, i, ok := m.count(s.Upstream, e.Address()); ok {
				open, idle, known = open+o, idle+i, true
			}
		}
		if known {
			ch <- prometheus.MustNewConstMetric(m.desc, prometheus.GaugeValue, float64(idle), s.Name, "idle")
			ch <- prometheus.MustNewConstMetric(m.desc, prometheus.GaugeValue, float64(open-idle), s.Name, "in_use")
		}
	}
}
