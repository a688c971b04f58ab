package consul

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-gateway/sluice/discovery"
	"github.com/sluice-gateway/sluice/test/testenv"
)

// fill registers services svc-0000 and on, each with instances on as many
// nodes, and returns what to want.
func fill(t testing.TB, a *admin, services, instances int) []discovery.ServiceRef {
	t.Helper()
	var group errgroup.Group
	group.SetLimit(8)
	refs := make([]discovery.ServiceRef, services)
	for i := range refs {
		name := fmt.Sprintf("svc-%04d", i)
		refs[i] = ref(name)
		group.Go(func() error {
			for j := range instances {
				a.register(fmt.Sprintf("node-%d", j), fmt.Sprintf("%s-%d", name, j), name, "passing")
			}
			return nil
		})
	}
	_ = group.Wait()
	return refs
}

// withoutRotation leaves only the watches to find a change.
func withoutRotation(s *Source) { s.timing.rotateLow, s.timing.rotateHigh = time.Hour, 2*time.Hour }

// firstShared is a service without a query of its own, and the first of its
// instances.
func firstShared(s *Source) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.sortedRefs() {
		if !s.services[r].direct {
			return r.Name
		}
	}
	return ""
}

func TestC5ManyServicesShareFewConnections(t *testing.T) {
	agent := testenv.StartConsul(t) // with its default limit of 200
	a := newAdmin(t, agent, "")
	sh := newShim(t, agent)
	refs := fill(t, a, 300, 1)
	src, rec := start(t, config(sh.URL), withoutRotation, func(s *Source) { s.Want(refs) })
	for _, r := range refs {
		rec.await(t, r.Name, "node-0/"+r.Name+"-0")
	}
	// Nothing moves any more once the first sweeps are over.
	settle := func() Stats {
		t.Helper()
		var last Stats
		from := time.Now()
		testenv.Eventually(t, patience, "the reading to settle", func() bool {
			if now := src.Stats(); now.Rereads != last.Rereads {
				last, from = now, time.Now()
			}
			return time.Since(from) > explainIn+time.Second
		})
		return last
	}
	before := settle()
	if before.Direct < 40 || before.Shared < 200 {
		t.Errorf("%d services have a query of their own and %d share", before.Direct, before.Shared)
	}
	x := firstShared(src)
	one := "node-0/" + x + "-0"

	t.Run("a check that flips is seen, and only its service read again", func(t *testing.T) {
		for range 10 {
			a.register("node-0", x+"-0", x, "critical")
			rec.await(t, x)
			a.register("node-0", x+"-0", x, "passing")
			rec.await(t, x, one)
		}
		after := settle()
		if n := after.Rereads - before.Rereads; n > 30 {
			t.Errorf("20 flips of one service read %d services", n)
		}
		if after.Sweeps != before.Sweeps {
			t.Errorf("20 flips made %d sweeps", after.Sweeps-before.Sweeps)
		}
	})
	t.Run("an instance that comes and goes is seen", func(t *testing.T) {
		before := src.Stats()
		a.register("node-1", x+"-1", x, "passing")
		rec.await(t, x, one, "node-1/"+x+"-1")
		a.deregister("node-1", x+"-1")
		rec.await(t, x, one)
		if after := settle(); after.Sweeps != before.Sweeps {
			t.Errorf("both stand in the list of checks, and still %d sweeps", after.Sweeps-before.Sweeps)
		}
	})
	t.Run("an instance without a check is seen", func(t *testing.T) {
		a.register("node-1", x+"-bare", x, "")
		rec.await(t, x, one, "node-1/"+x+"-bare")
		a.deregister("node-1", x+"-bare")
		rec.await(t, x, one)
	})
	t.Run("tags that move from one instance to another are seen", func(t *testing.T) {
		tags := func(blue, green string) func() bool {
			return func() bool {
				found := rec.last().Instances[ref(x)]
				return len(found) == 2 && slices.Equal(found[0].Tags, []string{blue}) && slices.Equal(found[1].Tags, []string{green})
			}
		}
		a.register("node-0", x+"-0", x, "passing", "blue")
		a.register("node-1", x+"-1", x, "passing", "green")
		testenv.Eventually(t, patience, "the colours", tags("blue", "green"))
		a.register("node-1", x+"-1", x, "passing", "blue")
		testenv.Eventually(t, patience, "two blue", tags("blue", "blue"))
		a.register("node-0", x+"-0", x, "passing", "green")
		testenv.Eventually(t, patience, "the colours to have changed places", tags("green", "blue"))
		a.deregister("node-1", x+"-1")
		rec.await(t, x, one)
	})
	t.Run("a node's own check counts for all its services", func(t *testing.T) {
		a.register("node-2", x+"-2", x, "passing")
		a.register("node-2", x+"-3", x, "") // no check of its own
		rec.await(t, x, one, "node-2/"+x+"-2", "node-2/"+x+"-3")
		a.nodeCheck("node-2", "critical")
		rec.await(t, x, one)
		a.nodeCheck("node-2", "passing")
		rec.await(t, x, one, "node-2/"+x+"-2", "node-2/"+x+"-3")
	})
	t.Run("a change while the agent is out of reach is seen afterwards", func(t *testing.T) {
		agent.Freeze()
		agent.Thaw()
		a.deregister("node-2", x+"-2")
		a.deregister("node-2", x+"-3")
		rec.await(t, x, one)
	})
	t.Run("a service that is dropped makes room and one that comes is read", func(t *testing.T) {
		a.register("node-0", "late-0", "late", "passing")
		src.Want(append(slices.Clone(refs[1:]), ref("late")))
		awaitSettled(t, src, ref("late"))
		rec.await(t, "late", "node-0/late-0")
		rec.await(t, refs[0].Name, "?")
		src.Want([]discovery.ServiceRef{ref(x)})
		testenv.Eventually(t, patience, "the last one to have its own query", func() bool {
			st := src.Stats()
			return st.Direct == 1 && st.Shared == 0
		})
		a.register("node-0", x+"-0", x, "critical")
		rec.await(t, x)
	})
	if most := sh.most.Load(); most > 64-registrarConnections {
		t.Errorf("%d connections at once", most)
	}
	if n := sh.status(429); n != 0 {
		t.Errorf("%d answers were 429", n)
	}
	rec.never(t, "lost services that nothing touched", func(st discovery.State) bool {
		return empties(refs[200].Name)(st)
	})
}

func TestRotationFindsWhatTheWatchesMiss(t *testing.T) {
	agent := testenv.StartConsul(t)
	a := newAdmin(t, agent, "")
	cfg := config(agent.URL())
	cfg.MaxConnections = minConnections
	refs := fill(t, a, 12, 1)
	src, rec := start(t, cfg, func(s *Source) {
		s.timing.rotateLow, s.timing.rotateHigh = 200*time.Millisecond, 400*time.Millisecond
		s.Want(refs)
	})
	for _, r := range refs {
		rec.await(t, r.Name, "node-0/"+r.Name+"-0")
	}
	before := src.Stats().Rereads
	testenv.Eventually(t, patience, "every shared service to be read again", func() bool {
		return src.Stats().Rereads > before+uint64(2*len(refs))
	})
}

func TestSharedServicesSurviveARestart(t *testing.T) {
	agent := testenv.StartConsul(t)
	a := newAdmin(t, agent, "")
	cfg := config(agent.URL())
	cfg.MaxConnections = minConnections
	for i := range 60 { // so that the index of the next life is lower
		a.register("n1", fmt.Sprintf("filler-%d", i%7), "filler", []string{"passing", "critical"}[i%2])
	}
	refs := fill(t, a, 40, 1)
	_, rec := start(t, cfg, withoutRotation, func(s *Source) { s.Want(refs) })
	for _, r := range refs {
		rec.await(t, r.Name, "node-0/"+r.Name+"-0")
	}
	agent.Kill()
	testenv.Eventually(t, patience, "the source to be down", func() bool { up, _ := rec.up(); return !up })
	agent.Restart()
	fill(t, a, 40, 2)
	for _, r := range refs {
		rec.await(t, r.Name, "node-0/"+r.Name+"-0", "node-1/"+r.Name+"-1")
	}
	rec.never(t, "emptied a service", func(st discovery.State) bool {
		return slices.ContainsFunc(refs, func(r discovery.ServiceRef) bool { return empties(r.Name)(st) })
	})
}

// BenchmarkThousandServices measures, with 1,000 services of 3 instances and
// 64 connections, the time from a change in Consul to the report: of a check
// that flips, and of an instance that has no check.
func BenchmarkThousandServices(b *testing.B) {
	agent := testenv.StartConsul(b)
	a := newAdmin(b, agent, "")
	sh := newShim(b, agent)
	refs := fill(b, a, 1000, 3)
	from := time.Now()
	src, rec := start(b, config(sh.URL), func(s *Source) { s.Want(refs) })
	testenv.Eventually(b, time.Minute, "all services", func() bool { return len(rec.last().Instances) == len(refs) })
	b.Logf("first report of %d services after %s", len(refs), time.Since(from).Round(time.Millisecond))
	change := func(b *testing.B, do, undo func(name string), count int) {
		var took []time.Duration
		before, began := src.Stats(), time.Now()
		for range b.N {
			name := refs[rand.N(len(refs))].Name
			for _, step := range []struct {
				make func(string)
				want int
			}{{do, count}, {undo, 3}} {
				step.make(name)
				from := time.Now()
				testenv.Eventually(b, patience, "the change of "+name, func() bool {
					return len(rec.last().Instances[ref(name)]) == step.want
				})
				took = append(took, time.Since(from))
			}
		}
		after := src.Stats()
		slices.Sort(took)
		b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
		b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
		b.ReportMetric(float64(after.Rereads-before.Rereads)/float64(len(took)), "reads/change")
		b.ReportMetric(float64(sh.most.Load()), "connections")
		b.ReportMetric(float64(sh.status(429)), "refused")
		b.ReportMetric(float64(len(took))/time.Since(began).Seconds(), "changes/s")
	}
	b.Run("check", func(b *testing.B) {
		change(b, func(name string) { a.register("node-0", name+"-0", name, "critical") },
			func(name string) { a.register("node-0", name+"-0", name, "passing") }, 2)
	})
	b.Run("no-check", func(b *testing.B) {
		change(b, func(name string) { a.register("node-0", name+"-bare", name, "") },
			func(name string) { a.deregister("node-0", name+"-bare") }, 4)
	})
}
