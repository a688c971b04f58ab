package admin

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-gateway/sluice/discovery"
)

// series lists the series of a metric as k="v",… with their values.
func (r *rig) series(name string) []string {
	r.t.Helper()
	families, err := r.registry.Gather()
	if err != nil {
		r.t.Fatal(err)
	}
	var out []string
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
			}
			value := m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
			out = append(out, strings.TrimSpace(fmt.Sprintf("%s %v", strings.Join(labels, ","), value)))
		}
	}
	slices.Sort(out)
	return out
}

func equal(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\ngot  %q\nwant %q", what, got, want)
	}
}

func TestEveryMetricHasItsNameAndItsLabels(t *testing.T) {
	r := newRig(t, "")
	described := make(chan *prometheus.Desc)
	go func() {
		defer close(described)
		r.metrics.Describe(described)
	}()
	var got []string
	for d := range described {
		// Desc{fqName: "NAME", help: …, constLabels: {}, variableLabels: {a,b}}
		text := d.String()
		_, rest, _ := strings.Cut(text, `fqName: "`)
		name, rest, _ := strings.Cut(rest, `"`)
		_, labels, _ := strings.Cut(rest, "variableLabels: ")
		got = append(got, name+strings.TrimSuffix(labels, "}"))
	}
	slices.Sort(got)
	equal(t, "metrics", got, []string{
		"sluice_active_subset{service,subset}",
		"sluice_circuit_open{service}",
		"sluice_instance_ejections_total{service,reason}",
		"sluice_instances{service,state}",
		"sluice_open_tunnels{service}",
		"sluice_propagation_seconds{source}",
		"sluice_route_problems{code}",
		"sluice_source_age_seconds{source}",
		"sluice_source_up{source}",
		"sluice_table_generation{}",
		"sluice_table_routes{}",
		"sluice_upstream_requests_total{service,result}",
		"sluice_upstream_retries_total{service,reason}",
	})
}

func TestMetricsShowTheTableInForce(t *testing.T) {
	r := newRig(t, "")
	r.shop()
	r.metrics.Ejected("orders", "unreachable")
	r.metrics.Retry("orders", "unreachable")
	r.metrics.UpstreamResult("orders", "success")
	r.metrics.Tunnels("orders", 2)
	for name, want := range map[string][]string{
		"sluice_table_generation":         {"1"},
		"sluice_table_routes":             {"2"},
		"sluice_route_problems":           {`code="invalid_field" 1`},
		"sluice_instances":                {`service="orders",state="healthy" 2`},
		"sluice_circuit_open":             {`service="orders" 0`},
		"sluice_active_subset":            {`service="orders",subset="blue" 100`},
		"sluice_source_up":                {`source="consul" 0`, `source="etcd" 0`},
		"sluice_source_age_seconds":       nil, // neither has answered yet
		"sluice_instance_ejections_total": {`reason="unreachable",service="orders" 1`},
		"sluice_upstream_retries_total":   {`reason="unreachable",service="orders" 1`},
		"sluice_upstream_requests_total":  {`result="success",service="orders" 1`},
		"sluice_open_tunnels":             {`service="orders" 2`},
		"sluice_upstream_connections":     {`service="orders",state="idle" 3`, `service="orders",state="in_use" 2`},
	} {
		equal(t, name, r.series(name), want)
	}
}

// A request that ended after its service had left brought the series back
// for good, and the tunnels' were never dropped.
func TestSeriesOfAServiceThatLeftAreDropped(t *testing.T) {
	r := newRig(t, "")
	r.shop()
	count := func() {
		r.metrics.UpstreamResult("orders", "success")
		r.metrics.Retry("orders", "broken")
		r.metrics.Ejected("orders", "broken")
	}
	names := []string{"sluice_upstream_requests_total", "sluice_upstream_retries_total", "sluice_instance_ejections_total",
		"sluice_instances", "sluice_circuit_open", "sluice_active_subset", "sluice_open_tunnels", "sluice_upstream_connections"}
	count()
	r.metrics.Tunnels("orders", 1)
	for _, name := range names {
		if len(r.series(name)) == 0 {
			t.Errorf("%s has no series while the service is there", name)
		}
	}
	r.build(map[string]string{"routes/other": `{"path":"/","respond":{"status":200}}`})
	equal(t, "a tunnel that is still open", r.series("sluice_open_tunnels"), []string{`service="orders" 1`})
	count() // the last requests under way
	r.metrics.Tunnels("orders", -1)
	for _, name := range names {
		equal(t, name, r.series(name), nil)
	}
}

// Row 89: names that come and go must not add up.
func TestRow89AThousandServicesThatCameAndWentLeaveNoSeries(t *testing.T) {
	r := newRig(t, "")
	r.shop()
	count := func() int {
		families, err := r.registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, f := range families {
			n += len(f.GetMetric())
		}
		return n
	}
	before := count()
	for n := range 1000 {
		name := fmt.Sprint("s", n)
		r.build(map[string]string{"routes/r": `{"path":"/r","service":"` + name + `"}`})
		r.metrics.UpstreamResult(name, "success")
	}
	r.shop()
	if after := count(); after != before {
		t.Errorf("%d series became %d", before, after)
	}
}

func TestPropagationIsObservedOncePerChange(t *testing.T) {
	r := newRig(t, "")
	r.shop()
	equal(t, "a table that time alone brought", r.series("sluice_propagation_seconds"), nil)
	next := *r.table
	next.Seen = next.Built
	r.metrics.Swapped(r.table, &next)
	if got := r.series("sluice_propagation_seconds"); len(got) != 1 || !strings.HasSuffix(got[0], " 1") {
		t.Errorf("got %q", got)
	}
	for _, source := range []string{discovery.SourceEtcd, discovery.SourceConsul, "time"} {
		if strings.HasPrefix(r.series("sluice_propagation_seconds")[0], `source="`+source+`"`) {
			return
		}
	}
	t.Errorf("the source is none: %q", r.series("sluice_propagation_seconds"))
}
