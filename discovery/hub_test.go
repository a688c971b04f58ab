package discovery_test

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-gateway/sluice/discovery"
	"github.com/sluice-gateway/sluice/discovery/discoverytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newHub makes a hub over fake sources.
func newHub(t *testing.T, log *slog.Logger, names ...string) (*discovery.Hub, map[string]*discoverytest.Source) {
	t.Helper()
	fakes := map[string]*discoverytest.Source{}
	var sources []discovery.Source
	for _, name := range names {
		fakes[name] = discoverytest.NewSource(name)
		sources = append(sources, fakes[name])
	}
	hub := discovery.NewHub(log, sources...)
	return hub, fakes
}

// start runs the hub until the bubble's test ends.
func start(t *testing.T, hub *discovery.Hub) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- hub.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run returned %v", err)
		}
	})
	synctest.Wait()
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// told says whether the hub has something new, and takes the signal.
func told(hub *discovery.Hub) bool {
	synctest.Wait()
	select {
	case <-hub.Changed():
		return true
	default:
		return false
	}
}

func instances(ids ...string) []discovery.Instance {
	out := []discovery.Instance{}
	for _, id := range ids {
		out = append(out, discovery.Instance{ID: id})
	}
	return out
}

func ref(name string) discovery.ServiceRef { return discovery.ServiceRef{Name: name} }

// known lists "service: id id" of a source.
func known(s discovery.Snapshot, source string) string {
	st, _ := s.State(source)
	var out []string
	for _, r := range slices.SortedFunc(maps.Keys(st.Instances), func(a, b discovery.ServiceRef) int { return strings.Compare(a.Name, b.Name) }) {
		words := []string{r.Name + ":"}
		for _, i := range st.Instances[r] {
			words = append(words, i.ID)
		}
		out = append(out, strings.Join(words, " "))
	}
	return strings.Join(out, ", ")
}

func TestReportsThatNobodyTookAreOneChangeAndTheNewestWins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub, fakes := newHub(t, quiet(), "etcd", "consul")
		start(t, hub)
		if told(hub) {
			t.Error("a change before any report")
		}
		for n := range 3 {
			fakes["etcd"].Report(discovery.State{Revision: int64(n + 1)})
		}
		fakes["consul"].Report(discovery.State{Revision: 40})
		if !told(hub) || told(hub) {
			t.Error("four reports are not one change")
		}
		s := hub.Snapshot()
		if s.States["etcd"].Revision != 3 || s.States["consul"].Revision != 40 {
			t.Errorf("snapshot %+v", s)
		}
		fakes["etcd"].Report(discovery.State{Revision: 4})
		if !told(hub) {
			t.Error("no change after another report")
		}
		if s.States["etcd"].Revision != 3 || hub.Snapshot().States["etcd"].Revision != 4 {
			t.Error("the snapshot taken before has changed, or the new one has not")
		}
	})
}

func TestAReportIsTakenOrLeftAsAWhole(t *testing.T) {
	const last = 2000
	source := discoverytest.NewSource("etcd")
	hub := discovery.NewHub(quiet(), source)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- hub.Run(ctx) }()
	go func() {
		for n := int64(1); n <= last; n++ {
			source.Report(discovery.State{Revision: n, Documents: discovery.NewDocuments(
				&discovery.Document{Key: "a", Revision: n}, &discovery.Document{Key: "b", Revision: n})})
		}
	}()
	for seen := int64(0); seen < last; {
		<-hub.Changed() // always comes once more after the last report
		st, _ := hub.Snapshot().State("etcd")
		if a, b := st.Documents.Get("a").Revision, st.Documents.Get("b").Revision; a != st.Revision || b != st.Revision {
			t.Fatalf("revision %d holds a of %d and b of %d", st.Revision, a, b)
		}
		if st.Revision < seen {
			t.Fatalf("revision %d after %d", st.Revision, seen)
		}
		seen = st.Revision
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestSeenIsTheEarliestChangeSinceTheLastSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub, fakes := newHub(t, quiet(), "etcd", "consul")
		start(t, hub)
		first := time.Now()
		fakes["etcd"].Report(discovery.State{Seen: first})
		fakes["consul"].Report(discovery.State{Seen: first.Add(-time.Millisecond)})
		fakes["etcd"].Report(discovery.State{Seen: first.Add(time.Second)})
		synctest.Wait()
		if got := hub.Snapshot().Seen; !got.Equal(first.Add(-time.Millisecond)) {
			t.Errorf("got %s", got)
		}
		if got := hub.Snapshot().Seen; !got.IsZero() {
			t.Errorf("nothing changed, and yet it was seen at %s", got)
		}
	})
}

func TestTheHubHasDeliveredOnceEverySourceHas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub, fakes := newHub(t, quiet(), "etcd", "consul")
		start(t, hub)
		fakes["etcd"].Report(discovery.State{Revision: 7})
		fakes["consul"].Contact(nil) // an answer is not a state yet
		synctest.Wait()
		if hub.Delivered() {
			t.Error("delivered although consul has not")
		}
		fakes["consul"].Report(discovery.State{})
		synctest.Wait()
		if !hub.Delivered() {
			t.Error("not delivered although both have")
		}
		want := []discovery.SourceStatus{
			{Name: "consul", Up: true, LastAnswer: time.Now(), Delivered: true},
			{Name: "etcd", Revision: 7, Delivered: true},
		}
		if got := hub.Status(); !slices.Equal(got, want) {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
	})
}

func TestTheStoredStateServesAfterASecondOfSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub, fakes := newHub(t, quiet(), "etcd", "consul")
		hub.Fallback("etcd", discovery.State{Revision: 5})
		hub.Fallback("consul", discovery.State{Revision: 50})
		start(t, hub)
		fakes["consul"].Report(discovery.State{Revision: 60})
		time.Sleep(time.Second - 1)
		synctest.Wait()
		if _, ok := hub.Snapshot().State("etcd"); ok || hub.Delivered() {
			t.Error("the stored state serves before its time")
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		s := hub.Snapshot()
		if st := s.States["etcd"]; st.Revision != 5 || !st.Stored || !hub.Delivered() {
			t.Errorf("etcd serves %+v", st)
		}
		if st := s.States["consul"]; st.Revision != 60 || st.Stored {
			t.Errorf("a source that had delivered serves %+v", st)
		}
		fakes["etcd"].Report(discovery.State{Revision: 2})
		synctest.Wait()
		if st := hub.Snapshot().States["etcd"]; st.Revision != 2 || st.Stored || hub.Status()[1].Stored {
			t.Errorf("after the registry's own state: %+v", st)
		}
	})
}

func TestTheStoredStateServesAtTheFirstFailedContact(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub, fakes := newHub(t, quiet(), "etcd")
		hub.Fallback("etcd", discovery.State{Revision: 5})
		start(t, hub)
		begin := time.Now()
		fakes["etcd"].Contact(errors.New("connection refused"))
		if !told(hub) || hub.Snapshot().States["etcd"].Revision != 5 || time.Since(begin) != 0 {
			t.Error("the stored state does not serve at once")
		}
		fakes["etcd"].Report(discovery.State{Revision: 9})
		fakes["etcd"].Contact(errors.New("connection refused"))
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := hub.Snapshot().States["etcd"].Revision; got != 9 {
			t.Errorf("an outage after the registry's answer brought revision %d", got)
		}
	})
}

func TestTheFirstAnswersOfARegistryDoNotEmptyWhatWasStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub, fakes := newHub(t, quiet(), "consul")
		hub.Fallback("consul", discovery.State{Instances: map[discovery.ServiceRef][]discovery.Instance{
			ref("a"): instances("a1"), ref("b"): instances("b1"), ref("c"): instances("c1"),
		}})
		start(t, hub)
		fakes["consul"].Contact(errors.New("away"))
		for _, step := range []struct {
			report map[discovery.ServiceRef][]discovery.Instance
			want   string
		}{
			{nil, "a: a1, b: b1, c: c1"},
			{map[discovery.ServiceRef][]discovery.Instance{ref("a"): instances("a2")}, "a: a2, b: b1, c: c1"},
			{map[discovery.ServiceRef][]discovery.Instance{ref("a"): instances("a2"), ref("b"): instances()}, "a: a2, b:, c: c1"},
			{map[discovery.ServiceRef][]discovery.Instance{ref("a"): instances("a3"), ref("b"): instances("b2"), ref("c"): instances("c2")}, "a: a3, b: b2, c: c2"},
		} {
			if step.report != nil {
				fakes["consul"].Report(discovery.State{Instances: step.report})
			}
			synctest.Wait()
			if got := known(hub.Snapshot(), "consul"); got != step.want {
				t.Errorf("got %s, want %s", got, step.want)
			}
		}
	})
}

func TestARegistryThatWasNeverAwayIsTakenAtItsWord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub, fakes := newHub(t, quiet(), "consul")
		hub.Fallback("consul", discovery.State{Instances: map[discovery.ServiceRef][]discovery.Instance{ref("old"): instances("o1")}})
		start(t, hub)
		fakes["consul"].Report(discovery.State{Instances: map[discovery.ServiceRef][]discovery.Instance{ref("a"): instances("a1"), ref("b"): instances("b1")}})
		fakes["consul"].Report(discovery.State{Instances: map[discovery.ServiceRef][]discovery.Instance{ref("b"): instances("b1")}})
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := known(hub.Snapshot(), "consul"); got != "b: b1" {
			t.Errorf("got %s", got)
		}
	})
}

func TestAnOutageIsLoggedOnceAndSoIsItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		hub, fakes := newHub(t, slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{
			ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
				if a.Key == slog.TimeKey {
					return slog.Attr{}
				}
				return a
			},
		})), "etcd")
		start(t, hub)
		say := fakes["etcd"].Contact
		away := errors.New("connection refused")
		for range 3 {
			say(away)
		}
		synctest.Wait()
		down := hub.Status()[0]
		say(nil)
		say(nil)
		for range 3 {
			say(errors.New("no leader"))
		}
		say(nil)
		synctest.Wait()
		want := `level=WARN msg="source is away; what is known serves on" source=etcd error="connection refused"
level=INFO msg="source is up" source=etcd
level=WARN msg="source is away; what is known serves on" source=etcd error="no leader"
level=INFO msg="source is up" source=etcd
`
		if log.String() != want {
			t.Errorf("got\n%s\nwant\n%s", log.String(), want)
		}
		if down.Up || down.Error != "connection refused" || !down.LastAnswer.IsZero() {
			t.Errorf("while away: %+v", down)
		}
		if up := hub.Status()[0]; !up.Up || up.Error != "" || up.LastAnswer.IsZero() {
			t.Errorf("after its return: %+v", up)
		}
	})
}

func TestRunEndsWithTheSourceThatFailsForGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub, fakes := newHub(t, quiet(), "etcd", "consul", "file")
		broken := errors.New("the directory is gone")
		begin := time.Now()
		fakes["file"].Fail(broken)
		err := hub.Run(t.Context())
		if !errors.Is(err, broken) || err.Error() != "source file: the directory is gone" {
			t.Errorf("Run returned %v", err)
		}
		if took := time.Since(begin); took != 0 {
			t.Errorf("Run ended %s after the failure", took)
		}
	})
}

// held is a source whose sink the test speaks to itself.
type held struct{ sink chan discovery.Sink }

func (held) Name() string { return "etcd" }

func (h held) Run(ctx context.Context, sink discovery.Sink) error {
	h.sink <- sink
	<-ctx.Done()
	return nil
}

// atWarning calls then at the first warning, from the goroutine that logs.
type atWarning struct {
	slog.Handler
	once *sync.Once
	then func()
}

func (h atWarning) Enabled(context.Context, slog.Level) bool { return true }

func (h atWarning) Handle(_ context.Context, r slog.Record) error {
	if r.Level == slog.LevelWarn {
		h.once.Do(h.then)
	}
	return nil
}

// The stored state was taken in two steps, between which the registry's own
// could come, to be replaced by the older one.
func TestAStateThatComesWhileFallingBackIsNotReplacedByTheStoredOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := held{make(chan discovery.Sink, 1)}
		log := slog.New(atWarning{slog.DiscardHandler, new(sync.Once), func() {
			sink := <-source.sink
			sink.Report(discovery.State{Revision: 9})
		}})
		hub := discovery.NewHub(log, source)
		hub.Fallback("etcd", discovery.State{Revision: 5})
		start(t, hub)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if st := hub.Snapshot().States["etcd"]; st.Revision != 9 || st.Stored {
			t.Errorf("the hub serves %+v", st)
		}
	})
}
