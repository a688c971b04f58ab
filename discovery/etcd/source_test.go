package etcd

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/discovery"
	"github.com/sluice-gateway/sluice/discovery/discoverytest"
	"github.com/sluice-gateway/sluice/test/testenv"
)

func TestADocumentCarriesItsKeyAndRevisions(t *testing.T) {
	t.Parallel()
	e := testenv.StartEtcd(t)
	created := e.Put("/sluice/active/orders", "blue")
	flipped := e.Put("/sluice/active/orders", "green")
	route := e.Put("/sluice/routes/orders", `{"path":"/orders/*"}`)
	e.Put("/sluice/status/gw-1", "{}")
	folder := e.Put("/sluice/servces/thing", "{}")
	alone := e.Put("/sluice/Orders", "{}")
	e.Put("/sluiced/routes/orders", "{}")
	last := e.Put("/sluice/routes/team/orders", "deep")

	_, sink := follow(t, configFor(e.Endpoint))
	state := awaitValue(t, sink, "/sluice/routes/team/orders", "deep")
	want := []discovery.Document{
		{Key: "/sluice/Orders", Name: "Orders", Source: "etcd", Revision: alone, Created: alone},
		{Key: "/sluice/active/orders", Kind: "active", Name: "orders", Source: "etcd",
			Value: []byte("green"), Revision: flipped, Created: created, Previous: []byte("blue")},
		{Key: "/sluice/routes/orders", Kind: "routes", Name: "orders", Source: "etcd",
			Value: []byte(`{"path":"/orders/*"}`), Revision: route, Created: route},
		{Key: "/sluice/routes/team/orders", Kind: "routes", Name: "team/orders", Source: "etcd",
			Value: []byte("deep"), Revision: last, Created: last},
		{Key: "/sluice/servces/thing", Kind: "servces", Name: "thing", Source: "etcd", Revision: folder, Created: folder},
	}
	compareDocuments(t, state.Documents, want)
	if state.Revision != last || state.Stored || state.Seen.IsZero() {
		t.Errorf("state: %+v, want revision %d", state, last)
	}

	again := e.Put("/sluice/active/orders", "red")
	state = awaitValue(t, sink, "/sluice/active/orders", "red")
	want[1].Value, want[1].Revision, want[1].Previous = []byte("red"), again, []byte("green")
	compareDocuments(t, state.Documents, want)
}

func compareDocuments(t *testing.T, docs *discovery.Documents, want []discovery.Document) {
	t.Helper()
	got := make([]string, 0, docs.Len())
	for _, d := range docs.Sorted() {
		got = append(got, fmt.Sprintf("%+v", *d))
	}
	expect := make([]string, len(want))
	for i, d := range want {
		expect[i] = fmt.Sprintf("%+v", d)
	}
	if strings.Join(got, "\n") != strings.Join(expect, "\n") {
		t.Errorf("documents:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(expect, "\n"))
	}
}

func TestThePreviousValueStaysUnknownOnceCompacted(t *testing.T) {
	t.Parallel()
	e := testenv.StartEtcd(t)
	e.Put("/sluice/active/orders", "blue")
	e.Put("/sluice/active/orders", "green")
	e.Compact()
	_, sink := follow(t, configFor(e.Endpoint))
	state := awaitValue(t, sink, "/sluice/active/orders", "green")
	if d := state.Documents.Get("/sluice/active/orders"); d.Previous != nil {
		t.Errorf("previous: %q", d.Previous)
	}
}

func TestOneTransactionIsOneReport(t *testing.T) {
	t.Parallel()
	e := testenv.StartEtcd(t)
	_, sink := follow(t, configFor(e.Endpoint))
	sink.Await(t, patience, "the first report", func(discovery.State) bool { return true })
	const keys, rounds = 60, 20
	for round := range rounds {
		put := map[string]string{}
		for i := range keys {
			put[fmt.Sprintf("/sluice/routes/r%d", i)] = fmt.Sprint(round)
		}
		e.Apply(put)
	}
	awaitValue(t, sink, "/sluice/routes/r0", fmt.Sprint(rounds-1))
	e.Apply(map[string]string{"/sluice/routes/end": "x"}, "/sluice/routes/r0")
	state := awaitValue(t, sink, "/sluice/routes/end", "x")
	if state.Documents.Len() != keys {
		t.Errorf("%d documents at the end, want %d", state.Documents.Len(), keys)
	}
	revision := int64(0)
	for _, s := range sink.States() {
		if s.Revision < revision {
			t.Errorf("revision %d after %d", s.Revision, revision)
		}
		revision = s.Revision
		values := map[string]bool{}
		for d := range s.Documents.All {
			if d.Name != "end" {
				values[string(d.Value)] = true
			}
		}
		if n := s.Documents.Len(); len(values) > 1 || n != 0 && n != keys {
			t.Errorf("revision %d: %d documents of %d transactions", s.Revision, n, len(values))
		}
	}
}

func TestUnchangedDocumentsKeepTheirIdentity(t *testing.T) {
	t.Parallel()
	e := testenv.StartEtcd(t)
	e.Put("/sluice/routes/a", "1")
	e.Put("/sluice/routes/b", "1")
	_, sink := follow(t, configFor(e.Endpoint))
	before := awaitValue(t, sink, "/sluice/routes/b", "1")
	e.Put("/sluice/routes/b", "2")
	after := awaitValue(t, sink, "/sluice/routes/b", "2")
	e.Restart()
	e.Put("/sluice/routes/b", "3")
	back := awaitValue(t, sink, "/sluice/routes/b", "3")
	a := before.Documents.Get("/sluice/routes/a")
	if after.Documents.Get("/sluice/routes/a") != a || back.Documents.Get("/sluice/routes/a") != a {
		t.Error("an unchanged document is another pointer")
	}
}

func TestTwoPrefixesDoNotShareFate(t *testing.T) {
	t.Parallel()
	e := testenv.StartEtcd(t)
	other := configFor(e.Endpoint)
	other.Prefix = "/sluice-b/"
	e.Put("/sluice/routes/a", "1")
	e.Put("/sluice-b/routes/a", "1")
	_, first := follow(t, configFor(e.Endpoint))
	_, second := follow(t, other)
	awaitValue(t, first, "/sluice/routes/a", "1")
	awaitValue(t, second, "/sluice-b/routes/a", "1")

	reports := len(first.States())
	e.Put("/sluice-b/routes/a", strings.Repeat("\x00{", 1000))
	second.Await(t, patience, "the broken document", func(s discovery.State) bool {
		return len(s.Documents.Get("/sluice-b/routes/a").Value) == 2000
	})
	e.Put("/sluice/routes/b", "1")
	state := awaitValue(t, first, "/sluice/routes/b", "1")
	if n := len(first.States()); n != reports+1 || state.Documents.Len() != 2 {
		t.Errorf("%d reports with %d documents, want %d with 2", n, state.Documents.Len(), reports+1)
	}
}

func TestItSpeaksTLSWithAClientCertificate(t *testing.T) {
	t.Parallel()
	ca := testenv.NewCA(t)
	e := testenv.StartEtcd(t, testenv.EtcdTLS(ca))
	e.Put("/sluice/routes/a", "1")
	cfg := configFor(e.Endpoint)
	cfg.TLS.CAFile = ca.File
	cfg.TLS.CertFile, cfg.TLS.KeyFile = ca.Issue(t, "gateway")
	_, sink := follow(t, cfg)
	awaitValue(t, sink, "/sluice/routes/a", "1")

	stranger := cfg
	stranger.TLS.CAFile = testenv.NewCA(t).File
	_, refused := follow(t, stranger)
	refused.AwaitContact(t, patience, "an error that names the certificate", 0,
		func(err error) bool { return err != nil && strings.Contains(err.Error(), "certificate") })
	if states := refused.States(); len(states) != 0 {
		t.Errorf("reported %d states from a server it must not trust", len(states))
	}
}

// lastPointer is the set of documents that serves now.
func lastPointer(sink *discoverytest.Sink) *discovery.Documents {
	state, _ := sink.Last()
	return state.Documents
}

func TestAMistypedFolderIsFollowedLikeTheOthers(t *testing.T) {
	t.Parallel()
	e := testenv.StartEtcd(t)
	_, sink := follow(t, configFor(e.Endpoint))
	sink.Await(t, patience, "the first report", func(discovery.State) bool { return true })
	const key = "/sluice/Route/x"
	e.Put(key, `{"path":"/x"}`)
	sink.Await(t, patience, "the key", func(s discovery.State) bool { return s.Documents.Get(key) != nil })
	e.Delete(key)
	sink.Await(t, patience, "its end", func(s discovery.State) bool { return s.Documents.Get(key) == nil })
}
