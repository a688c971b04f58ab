package etcd

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/discovery"
	"github.com/sluice-gateway/sluice/discovery/discoverytest"
	"github.com/sluice-gateway/sluice/test/testenv"
)

func TestE1ADownEtcdChangesNothingAndIsBackWithinASecond(t *testing.T) {
	t.Parallel()
	e := testenv.StartEtcd(t)
	e.Put("/sluice/routes/a", "1")
	_, sink := follow(t, configFor(e.Endpoint))
	awaitValue(t, sink, "/sluice/routes/a", "1")
	before, reports := lastPointer(sink), len(sink.States())

	from := contacts(sink)
	e.Kill()
	sink.AwaitContact(t, patience, "a failed contact", from, failed)
	e.Start()
	e.WaitReady()
	ready := time.Now()
	e.Put("/sluice/routes/a", "2")
	awaitValue(t, sink, "/sluice/routes/a", "2")
	t.Logf("seen %s after etcd was ready", time.Since(ready))
	for _, s := range sink.States()[:reports] {
		if s.Documents != before {
			t.Error("the outage changed the documents")
		}
	}
}

func TestD4ShortOutagesAreOverWhenEtcdIsBack(t *testing.T) {
	t.Parallel()
	for _, outage := range []time.Duration{time.Second, 2 * time.Second, 3 * time.Second} {
		t.Run(outage.String(), func(t *testing.T) {
			t.Parallel()
			e := testenv.StartEtcd(t)
			line := testenv.StartProxy(t, hostOf(t, e.Endpoint))
			e.Put("/sluice/routes/a", "1")
			_, sink := follow(t, configFor("http://"+line.Addr))
			awaitValue(t, sink, "/sluice/routes/a", "1")
			line.Cut()
			e.Put("/sluice/routes/a", "2")
			over := time.Now().Add(outage)
			testenv.Eventually(t, patience, "the outage to be over", func() bool { return time.Now().After(over) })
			if value := lastPointer(sink).Get("/sluice/routes/a").Value; string(value) != "1" {
				t.Errorf("value during the outage: %q", value)
			}
			line.Mend()
			mended := time.Now()
			awaitValue(t, sink, "/sluice/routes/a", "2")
			t.Logf("seen %s after the line was mended", time.Since(mended))
		})
	}
}

func hostOf(t *testing.T, endpoint string) string {
	t.Helper()
	u, err := url.Parse(endpoint)
	if err != nil {
		t.Fatal(err)
	}
	return u.Host
}

func TestE2AFrozenEtcdIsNoticedAndFollowedAgain(t *testing.T) {
	t.Parallel()
	e := testenv.StartEtcd(t)
	e.Put("/sluice/routes/a", "1")
	_, sink := follow(t, configFor(e.Endpoint))
	awaitValue(t, sink, "/sluice/routes/a", "1")
	before, from := lastPointer(sink), contacts(sink)
	e.Freeze()
	frozen := time.Now()
	from = sink.AwaitContact(t, patience, "a failed contact", from, failed)
	t.Logf("noticed after %s", time.Since(frozen))
	e.Thaw()
	sink.AwaitContact(t, patience, "an answer", from, answered)
	if lastPointer(sink) != before {
		t.Error("the freeze changed the documents")
	}
	e.Put("/sluice/routes/a", "2")
	awaitValue(t, sink, "/sluice/routes/a", "2")
}

func TestE2ABlackHoleIsNoticedAndLeft(t *testing.T) {
	t.Parallel()
	e := testenv.StartEtcd(t)
	e.Put("/sluice/routes/a", "1")
	line := testenv.StartProxy(t, hostOf(t, e.Endpoint))
	_, sink := follow(t, configFor("http://"+line.Addr))
	awaitValue(t, sink, "/sluice/routes/a", "1")
	from := contacts(sink)
	line.Stall()
	sink.AwaitContact(t, patience, "a failed contact", from, failed)
	e.Put("/sluice/routes/a", "2")
	line.Flow()
	awaitValue(t, sink, "/sluice/routes/a", "2")
}

func TestE3CompactionWhileTheWatchIsCut(t *testing.T) {
	t.Parallel()
	e := testenv.StartEtcd(t)
	e.Put("/sluice/routes/a", "1")
	line := testenv.StartProxy(t, hostOf(t, e.Endpoint))
	_, sink := follow(t, configFor("http://"+line.Addr))
	awaitValue(t, sink, "/sluice/routes/a", "1")
	cutAndCompact := func(key string) {
		t.Helper()
		line.Cut()
		from := sink.AwaitContact(t, patience, "a failed contact", contacts(sink)-1, failed)
		for i := range 10 {
			e.Put(key, fmt.Sprint(i))
		}
		e.Compact()
		line.Mend()
		sink.AwaitContact(t, patience, "an answer", from, answered)
	}
	reports := len(sink.States())
	cutAndCompact("/other")
	if n := len(sink.States()); n != reports {
		t.Errorf("%d reports of unchanged documents", n-reports)
	}
	cutAndCompact("/sluice/routes/b")
	state := awaitValue(t, sink, "/sluice/routes/b", "9")
	if state.Documents.Len() != 2 {
		t.Errorf("%d documents, want 2", state.Documents.Len())
	}
}

func TestE3AWatchBelowTheCompactedRevisionListsAgain(t *testing.T) {
	t.Parallel()
	e := testenv.StartEtcd(t)
	old := e.Put("/sluice/routes/a", "1")
	for i := range 10 {
		e.Put("/sluice/routes/a", fmt.Sprint(i))
	}
	e.Compact()
	source, err := New(configFor(e.Endpoint), testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	client, err := source.cfg.dial(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	f := &follower{Source: source, sink: &discoverytest.Sink{}, pic: picture{known: true, revision: old}}
	err = f.watch(ctx, client, &streamGuard{lost: make(chan struct{})})
	if !errors.Is(err, errListAgain) {
		t.Errorf("the watch ended with %v", err)
	}
}

func TestE4AnIdlePrefixKeepsUpWithABusyStore(t *testing.T) {
	t.Parallel()
	e := testenv.StartEtcd(t)
	e.Put("/sluice/routes/a", "1")
	source, sink := follow(t, configFor(e.Endpoint))
	awaitValue(t, sink, "/sluice/routes/a", "1")
	reports := len(sink.States())
	var last int64
	for batch := range 100 {
		put := map[string]string{}
		for i := range 100 {
			put[fmt.Sprintf("/other/%d/%d", batch, i)] = "x"
		}
		last = e.Apply(put)
	}
	e.Compact()
	awaitProbe(t, source, last)
	e.Put("/sluice/routes/a", "2")
	awaitValue(t, sink, "/sluice/routes/a", "2")
	if n := len(sink.States()); n != reports+1 {
		t.Errorf("%d reports, want one", n-reports)
	}
	for _, err := range sink.Contacts() {
		if err != nil {
			t.Errorf("failed contact: %v", err)
		}
	}
}

func TestE5AStoreThatWentBackIsFollowed(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		restart func(*testenv.Etcd)
	}{
		{"with the same cluster id", (*testenv.Etcd).RestartEmpty},
		{"as another cluster", (*testenv.Etcd).RestartAsAnother},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e := testenv.StartEtcd(t)
			for i := range 20 {
				e.Put("/sluice/routes/a", fmt.Sprint(i))
			}
			e.Put("/sluice/routes/b", "1")
			_, sink := follow(t, configFor(e.Endpoint))
			awaitValue(t, sink, "/sluice/routes/b", "1")

			before := lastPointer(sink)
			tt.restart(e)
			state := sink.Await(t, patience, "a report of the younger store",
				func(s discovery.State) bool { return s.Revision < 10 })
			if state.Documents != before {
				t.Error("an empty store replaced the documents at once")
			}
			// What is put now stands beside what was lost.
			e.Put("/sluice/routes/a", "restored")
			state = awaitValue(t, sink, "/sluice/routes/a", "restored")
			if state.Documents.Get("/sluice/routes/b") != before.Get("/sluice/routes/b") {
				t.Error("the documents known before are gone")
			}
			e.Delete("/sluice/routes/a")
			sink.Await(t, patience, "a deletion", func(s discovery.State) bool {
				return s.Documents.Get("/sluice/routes/a") == nil && s.Documents.Get("/sluice/routes/b") != nil
			})
		})
	}
}

func TestE5AStoreThatCameBackWithOtherDataServesThat(t *testing.T) {
	t.Parallel()
	e := testenv.StartEtcd(t)
	for i := range 20 {
		e.Put("/sluice/routes/a", fmt.Sprint(i))
	}
	line := testenv.StartProxy(t, hostOf(t, e.Endpoint))
	_, sink := follow(t, configFor("http://"+line.Addr))
	awaitValue(t, sink, "/sluice/routes/a", "19")
	line.Cut()
	e.RestartEmpty()
	e.Put("/sluice/routes/b", "new")
	line.Mend()
	state := awaitValue(t, sink, "/sluice/routes/b", "new")
	if state.Documents.Len() != 1 {
		t.Errorf("%d documents, want only the restored one", state.Documents.Len())
	}
	e.Put("/sluice/routes/b", "newer")
	awaitValue(t, sink, "/sluice/routes/b", "newer")
}

func TestE6WithoutALeaderTheDocumentsStay(t *testing.T) {
	t.Parallel()
	c := testenv.StartEtcdCluster(t, 3)
	c.Members[0].Put("/sluice/routes/a", "1")
	_, sink := follow(t, configFor(c.Endpoints()...))
	awaitValue(t, sink, "/sluice/routes/a", "1")
	before, from := lastPointer(sink), contacts(sink)
	c.Members[1].Kill()
	c.Members[2].Kill()
	sink.AwaitContact(t, patience, "a failed contact", from, failed)
	if lastPointer(sink) != before {
		t.Error("losing the leader changed the documents")
	}
	c.Members[1].Start()
	c.Members[1].WaitReady()
	c.Members[0].Put("/sluice/routes/a", "2")
	awaitValue(t, sink, "/sluice/routes/a", "2")
}

func TestE6OneMemberOfThreeIsNotMissed(t *testing.T) {
	t.Parallel()
	c := testenv.StartEtcdCluster(t, 3)
	c.Members[0].Put("/sluice/routes/a", "1")
	_, sink := follow(t, configFor(c.Endpoints()...))
	awaitValue(t, sink, "/sluice/routes/a", "1")
	for i, m := range c.Members {
		m.Freeze()
		writer := c.Members[(i+1)%3]
		value := fmt.Sprintf("without %d", i)
		writer.Put("/sluice/routes/a", value)
		awaitValue(t, sink, "/sluice/routes/a", value)
		m.Thaw()
		m.Put("/sluice/routes/b", value)
	}
}

func TestE10AMegabyteValuePassesThrough(t *testing.T) {
	t.Parallel()
	e := testenv.StartEtcd(t)
	_, sink := follow(t, configFor(e.Endpoint))
	for i := range 5 {
		e.Put(fmt.Sprintf("/sluice/routes/big%d", i), strings.Repeat(fmt.Sprint(i), 1<<20))
	}
	state := awaitValue(t, sink, "/sluice/routes/big4", strings.Repeat("4", 1<<20))
	_, fresh := follow(t, configFor(e.Endpoint))
	listed := awaitValue(t, fresh, "/sluice/routes/big4", strings.Repeat("4", 1<<20))
	if state.Documents.Len() != 5 || listed.Documents.Len() != 5 {
		t.Errorf("%d watched, %d listed, want 5", state.Documents.Len(), listed.Documents.Len())
	}
}

func TestE11ABurstOfPutsIsTakenInSteps(t *testing.T) {
	t.Parallel()
	e := testenv.StartEtcd(t)
	_, sink := follow(t, configFor(e.Endpoint))
	sink.Await(t, patience, "the first report", func(discovery.State) bool { return true })
	const batches, size = 100, 100
	for b := range batches {
		put := map[string]string{}
		for i := range size {
			put[fmt.Sprintf("/sluice/routes/%d-%d", b, i)] = "x"
		}
		e.Apply(put)
	}
	state := sink.Await(t, patience, "all documents",
		func(s discovery.State) bool { return s.Documents.Len() == batches*size })
	for _, s := range sink.States() {
		if s.Documents.Len()%size != 0 {
			t.Errorf("revision %d holds part of a transaction: %d documents", s.Revision, s.Documents.Len())
		}
	}
	// The same by listing, over many pages.
	_, fresh := follow(t, configFor(e.Endpoint))
	listed := fresh.Await(t, patience, "the first report", func(discovery.State) bool { return true })
	if listed.Documents.Len() != batches*size || listed.Revision != state.Revision {
		t.Errorf("listed %d documents at revision %d", listed.Documents.Len(), listed.Revision)
	}
}
