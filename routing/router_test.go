package routing

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-gateway/sluice/discovery"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// routerBench is a router that runs in a synctest bubble over what a world holds.
type routerBench struct {
	*world
	router  *Router
	changed chan struct{}
	mu      sync.Mutex
	snap    discovery.Snapshot // under mu
	watcher *watcher
	swaps   []time.Duration // since begin
	begin   time.Time
	log     strings.Builder
}

// Changed and Snapshot make the bench a Feed.
func (b *routerBench) Changed() <-chan struct{} { return b.changed }
func (b *routerBench) Snapshot() discovery.Snapshot {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.snap
	b.snap.Seen = time.Time{} // as a hub does
	return s
}

// watcher records what is asked for.
type watcher struct {
	wants   [][]discovery.ServiceRef
	settled map[string]chan struct{} // by the names waited for
}

func (w *watcher) Want(refs []discovery.ServiceRef) { w.wants = append(w.wants, refs) }

func (w *watcher) Settled(refs []discovery.ServiceRef) <-chan struct{} {
	c := make(chan struct{})
	w.settled[names(refs)] = c
	return c
}

// wanted is the newest set.
func (w *watcher) wanted() string { return names(w.wants[len(w.wants)-1]) }

func names(refs []discovery.ServiceRef) string {
	var out []string
	for _, r := range refs {
		out = append(out, r.String())
	}
	return strings.Join(slices.Sorted(slices.Values(out)), " ")
}

// inBubble runs test on a router whose first table has the route orders to a
// service with one instance.
func inBubble(t *testing.T, test func(*testing.T, *routerBench)) {
	synctest.Test(t, func(t *testing.T) {
		b := &routerBench{world: newWorld(t), changed: make(chan struct{}, 1), watcher: &watcher{settled: map[string]chan struct{}{}}, begin: time.Now()}
		b.deps.Now = time.Now
		log := slog.New(slog.NewTextHandler(&b.log, nil))
		b.router = NewRouter(b, b.watcher, b.deps, log, func(_, next *Table) {
			b.swaps = append(b.swaps, time.Since(b.begin))
			b.table = next
		})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- b.router.Run(ctx) }()
		t.Cleanup(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("Run returned %v", err)
			}
		})
		b.put("routes/orders", orders).instances("orders", "o1")
		b.publish()
		b.after(10 * time.Second) // the burst is whole again
		b.begin, b.swaps = time.Now(), nil
		test(t, b)
	})
}

// publish hands over what the world holds now and waits until the router has
// done what it does at once.
func (b *routerBench) publish() {
	b.t.Helper()
	synctest.Wait()
	next := b.snapshot()
	next.Seen = time.Now()
	b.mu.Lock()
	for name, st := range next.States {
		was := b.snap.States[name]
		if st.Seen = was.Seen; st.Revision != was.Revision || st.Documents != was.Documents {
			st.Seen = time.Now()
		}
		next.States[name] = st
	}
	b.snap = next
	b.mu.Unlock()
	select {
	case b.changed <- struct{}{}:
	default:
	}
	synctest.Wait()
}

// after lets d pass. A timer that wakes the router orders nothing before it,
// as the race detector sees it: the lock does, which Snapshot takes.
func (b *routerBench) after(d time.Duration) {
	b.mu.Lock()
	//lint:ignore SA2001 it orders and guards nothing
	b.mu.Unlock()
	time.Sleep(d)
	synctest.Wait()
}

func TestALoneChangeIsSwappedInAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, b *routerBench) {
		b.instances("orders", "o2")
		b.publish()
		equal(t, "swaps", b.swaps, []time.Duration{0})
		equal(t, "serves", b.serves("orders"), []string{"o2"})
	})
}

func TestAStormIsCoalescedAndItsLastChangeIsNotLost(t *testing.T) {
	inBubble(t, func(t *testing.T, b *routerBench) {
		const changes = 5000
		for n := range changes {
			b.put("routes/storm", fmt.Sprintf(`{"path":"/storm/%d","respond":{"status":200}}`, n))
			b.publish()
			b.after(time.Millisecond)
		}
		if most := swapBurst + 5*swapsPerSecond + 1; len(b.swaps) > most || len(b.swaps) < most-3 {
			t.Errorf("%d swaps in five seconds, want at most %d and nearly as many", len(b.swaps), most)
		}
		b.after(time.Second / swapsPerSecond)
		equal(t, "the last change", b.ask(fmt.Sprintf("/storm/%d", changes-1)), "storm ok")
		swaps := len(b.swaps)
		b.after(time.Minute)
		equal(t, "swaps after the storm", len(b.swaps), swaps)
	})
}

func TestDocumentsThatNameKnownInstancesGoLiveAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, b *routerBench) {
		b.put("routes/more", `{"path":"/more","service":"orders"}`)
		b.publish()
		equal(t, "swaps", b.swaps, []time.Duration{0})
		equal(t, "route", b.ask("/more"), "more ok")
		equal(t, "asked for", len(b.watcher.settled), 0)
	})
}

func TestDocumentsWaitForInstancesThatNobodyAskedFor(t *testing.T) {
	inBubble(t, func(t *testing.T, b *routerBench) {
		b.put("routes/orders", `{"path":"/orders/*","service":"next"}`).put("routes/other", `{"path":"/other","respond":{"status":200}}`)
		b.publish()
		equal(t, "asked for beside what serves", b.watcher.wanted(), "next orders")
		b.after(300 * time.Millisecond)
		equal(t, "swaps before the answer", b.swaps, nil)
		equal(t, "the old service serves", b.serves("orders"), []string{"o1"})
		equal(t, "what came with it waits too", b.ask("/other"), "404")

		b.instances("next", "n1")
		b.publish()
		close(b.watcher.settled["next"])
		synctest.Wait()
		equal(t, "the new service serves", b.serves("next"), []string{"n1"})
		equal(t, "and what came with it", b.ask("/other"), "other ok")
		equal(t, "what is not needed is let go", b.watcher.wanted(), "next")
		equal(t, "the last swap", b.swaps[len(b.swaps)-1], 300*time.Millisecond)
	})
}

func TestDocumentsWaitASecondAtMost(t *testing.T) {
	inBubble(t, func(t *testing.T, b *routerBench) {
		b.put("routes/a", `{"path":"/a","service":"silent"}`)
		b.publish()
		b.after(900 * time.Millisecond)
		// Another one does not begin the wait anew.
		b.put("routes/b", `{"path":"/b","service":"mute"}`)
		b.publish()
		equal(t, "asked for beside what serves", b.watcher.wanted(), "mute orders silent")
		b.after(100*time.Millisecond - 1)
		equal(t, "a before its time", b.ask("/a"), "404")
		b.after(1)
		equal(t, "a", b.ask("/a"), "a ok")
		equal(t, "b", b.ask("/b"), "b ok")
		equal(t, "swaps", b.swaps, []time.Duration{time.Second})
		if !strings.Contains(b.log.String(), "a service that routes name is not known yet") {
			t.Errorf("the log does not say so:\n%s", b.log.String())
		}
	})
}

// The second's end was kept from one wait to the next.
func TestEachWaitHasItsOwnSecond(t *testing.T) {
	inBubble(t, func(t *testing.T, b *routerBench) {
		b.put("routes/a", `{"path":"/a","service":"first"}`)
		b.publish()
		close(b.watcher.settled["first"])
		b.after(900 * time.Millisecond)
		equal(t, "a", b.ask("/a"), "a ok")
		b.put("routes/b", `{"path":"/b","service":"second"}`)
		b.publish()
		b.after(time.Second - 1)
		equal(t, "b waits", b.ask("/b"), "404")
		b.after(1)
		equal(t, "b", b.ask("/b"), "b ok")
	})
}

func TestInstancesChangeWhileDocumentsWait(t *testing.T) {
	inBubble(t, func(t *testing.T, b *routerBench) {
		b.put("routes/a", `{"path":"/a","service":"silent"}`)
		b.publish()
		b.after(100 * time.Millisecond)
		b.instances("orders", "o2", "o3")
		b.publish()
		equal(t, "swaps", b.swaps, []time.Duration{100 * time.Millisecond})
		equal(t, "new instances serve", b.serves("orders"), []string{"o2", "o3"})
		equal(t, "the document waits on", b.ask("/a"), "404")
		equal(t, "when the change of instances was seen", b.table.Seen.Sub(b.begin), 100*time.Millisecond)
		b.after(900 * time.Millisecond)
		equal(t, "the document", b.ask("/a"), "a ok")
		equal(t, "instances", b.serves("orders"), []string{"o2", "o3"})
	})
}

// The moment at which a held document was seen was lost, and with it the only
// slow observations of sluice_propagation_seconds.
func TestAHeldDocumentWasSeenWhenItCame(t *testing.T) {
	inBubble(t, func(t *testing.T, b *routerBench) {
		b.put("routes/a", `{"path":"/a","service":"silent"}`)
		b.publish()
		b.after(time.Second)
		equal(t, "route", b.ask("/a"), "a ok")
		equal(t, "seen", b.table.Seen.Equal(b.begin), true)
		equal(t, "source", b.table.ChangedSource(nil), discovery.SourceEtcd)
	})
}

// The same documents, put again after they were taken back, went live without
// their instances; and what they had asked for was followed on.
func TestADocumentThatIsTakenBackAndPutAgainWaitsAgain(t *testing.T) {
	inBubble(t, func(t *testing.T, b *routerBench) {
		b.put("routes/a", `{"path":"/a","service":"silent"}`)
		with := b.docs[discovery.SourceEtcd]
		b.publish()
		before := b.router.Table().memory.documents[discovery.SourceEtcd]
		b.docs[discovery.SourceEtcd] = before
		b.publish()
		equal(t, "after it was taken back", b.watcher.wanted(), "orders")
		b.docs[discovery.SourceEtcd] = with
		b.publish()
		equal(t, "asked for again", b.watcher.wanted(), "orders silent")
		equal(t, "it waits", b.ask("/a"), "404")
		b.after(time.Second)
		equal(t, "at most a second", b.ask("/a"), "a ok")
	})
}

func TestAGracePeriodEndsByItself(t *testing.T) {
	inBubble(t, func(t *testing.T, b *routerBench) {
		b.announce("users", "sluice.path=/users/*").instances("users", "u1:sluice.path=/users/*")
		b.publish()
		close(b.watcher.settled["users"])
		synctest.Wait()
		equal(t, "announced", b.ask("/users/1"), "consul:users ok")
		b.announce("users").instances("users")
		b.publish()
		b.after(tagGrace - 1)
		equal(t, "within the grace period", b.ask("/users/1"), "consul:users ok")
		b.after(1)
		equal(t, "after it", b.ask("/users/1"), "404")
		equal(t, "and is followed no more", b.watcher.wanted(), "orders")
	})
}

func TestAProblemIsLoggedOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, b *routerBench) {
		b.put("routes/orders", `{"path":"/orders/*","servise":"orders"}`)
		b.publish()
		for n := range 3 {
			b.instances("orders", fmt.Sprint("o", n))
			b.publish()
		}
		if n := strings.Count(b.log.String(), "document is not serving as written"); n != 1 {
			t.Errorf("logged %d times:\n%s", n, b.log.String())
		}
	})
}
