package routing

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/discovery"
	"github.com/sluice-gateway/sluice/routing/balance"
)

// benchRoutes is how many routes the benchmarks load, over benchServices
// services of three instances.
const (
	benchRoutes   = 10_000
	benchServices = 1_000
)

func benchDocument(n int, revision int64) *discovery.Document {
	value := fmt.Sprintf(`{"hosts":["h%d.example.com"],"path":"/api/v%d/things/:id","methods":["GET","POST"],"service":"s%d","timeout":"5s","plugins":{"tag":{"value":"x"}}}`,
		n%100, n/100, n%benchServices)
	return &discovery.Document{
		Key: fmt.Sprintf("/sluice/routes/r%d", n), Kind: discovery.KindRoute, Name: fmt.Sprintf("r%d", n),
		Source: discovery.SourceEtcd, Value: []byte(value), Revision: revision, Created: int64(n + 1),
	}
}

func benchInstances(service, generation int) []discovery.Instance {
	out := make([]discovery.Instance, 3)
	for i := range out {
		out[i] = discovery.Instance{
			ID: fmt.Sprintf("n/s%d-%d", service, i), Address: fmt.Sprintf("10.%d.%d.%d:%d", service>>8, service&255, i, 80+generation),
			Weight: 1, Tags: []string{"blue"}, Registered: uint64(i),
		}
	}
	return out
}

func benchSnapshot() discovery.Snapshot {
	docs := make([]*discovery.Document, benchRoutes)
	for n := range docs {
		docs[n] = benchDocument(n, int64(n+1))
	}
	instances := make(map[discovery.ServiceRef][]discovery.Instance, benchServices)
	for s := range benchServices {
		instances[discovery.ServiceRef{Name: fmt.Sprintf("s%d", s)}] = benchInstances(s, 0)
	}
	return discovery.Snapshot{States: map[string]discovery.State{
		discovery.SourceEtcd:   {Documents: discovery.NewDocuments(docs...), Revision: benchRoutes},
		discovery.SourceConsul: {Instances: instances},
	}}
}

func benchDeps() Deps {
	return Deps{Plugins: testPlugins{}, Pool: balance.NewPool(), TagPrefix: "sluice.", Now: time.Now}
}

// withInstances returns snap with the instances of one service replaced.
func withInstances(snap discovery.Snapshot, service int, instances []discovery.Instance) discovery.Snapshot {
	old := snap.States[discovery.SourceConsul]
	next := make(map[discovery.ServiceRef][]discovery.Instance, len(old.Instances))
	for k, v := range old.Instances {
		next[k] = v
	}
	next[discovery.ServiceRef{Name: fmt.Sprintf("s%d", service)}] = instances
	return discovery.Snapshot{States: map[string]discovery.State{
		discovery.SourceEtcd: snap.States[discovery.SourceEtcd], discovery.SourceConsul: {Instances: next},
	}}
}

func BenchmarkBuildFull10k(b *testing.B) {
	snap := benchSnapshot()
	for b.Loop() {
		if t := Build(nil, snap, benchDeps()); len(t.Routes()) != benchRoutes || len(t.Problems()) != 0 {
			b.Fatalf("%d routes, problems %v", len(t.Routes()), t.Problems())
		}
	}
}

func BenchmarkBuildInstanceChange10k(b *testing.B) {
	snap, deps := benchSnapshot(), benchDeps()
	table := Build(nil, snap, deps)
	n := 0
	b.ReportAllocs()
	for b.Loop() {
		n++
		b.StopTimer()
		snap = withInstances(snap, n%benchServices, benchInstances(n%benchServices, n%50+1))
		b.StartTimer()
		table = Build(table, snap, deps)
		deps.Pool.Retain(inUse(table), serviceNames(table))
	}
}

func BenchmarkBuildRouteChange10k(b *testing.B) {
	snap, deps := benchSnapshot(), benchDeps()
	table := Build(nil, snap, deps)
	n := 0
	b.ReportAllocs()
	for b.Loop() {
		n++
		b.StopTimer()
		st := snap.States[discovery.SourceEtcd]
		st.Documents = st.Documents.With([]*discovery.Document{benchDocument(n%benchRoutes, int64(benchRoutes+n))}, nil)
		snap = discovery.Snapshot{States: map[string]discovery.State{
			discovery.SourceEtcd: st, discovery.SourceConsul: snap.States[discovery.SourceConsul],
		}}
		b.StartTimer()
		table = Build(table, snap, deps)
		deps.Pool.Retain(inUse(table), serviceNames(table))
	}
}

// BenchmarkTableMemory10k reports the heap that 10,000 routes over 3,000
// instances hold, documents included.
func BenchmarkTableMemory10k(b *testing.B) {
	heap := func() float64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc)
	}
	for b.Loop() {
		before := heap()
		table := Build(nil, benchSnapshot(), benchDeps())
		b.ReportMetric((heap()-before)/(1<<20), "MB")
		runtime.KeepAlive(table)
	}
}
