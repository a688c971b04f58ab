package etcd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/test/testenv"
)

func newWriter(t *testing.T, cfg Config) *Writer {
	t.Helper()
	w, err := NewWriter(cfg, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

func TestTheWriterPutsReadsAndRemembers(t *testing.T) {
	t.Parallel()
	e := testenv.StartEtcd(t)
	w, ctx := newWriter(t, configFor(e.Endpoint)), t.Context()
	key := Default().Key("routes", "orders")
	if _, ok, err := w.Get(ctx, key); ok || err != nil {
		t.Errorf("a key that is not there: %v, %v", ok, err)
	}
	var revisions []int64
	for i := range 4 {
		revision, err := w.Put(ctx, key, fmt.Append(nil, i))
		if err != nil {
			t.Fatal(err)
		}
		revisions = append(revisions, revision)
	}
	got, ok, err := w.Get(ctx, key)
	if want := (Entry{key, []byte("3"), revisions[3], revisions[0]}); !ok || err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, %v, %v; want %v", got, ok, err, want)
	}
	wantHistory := func(limit int, want ...string) {
		t.Helper()
		history, err := w.History(ctx, key, limit)
		var values []string
		for _, h := range history {
			values = append(values, string(h.Value))
		}
		if err != nil || fmt.Sprint(values) != fmt.Sprint(want) {
			t.Errorf("history: %v, %v; want %v", values, err, want)
		}
	}
	wantHistory(0, "3", "2", "1", "0")
	wantHistory(2, "3", "2")
	e.Compact()
	if _, err := w.Put(ctx, key, []byte("4")); err != nil {
		t.Fatal(err)
	}
	wantHistory(0, "4", "3")

	e.Put("/sluice/routes/other", "x")
	entries, revision, err := w.List(ctx, "/sluice/")
	if err != nil || len(entries) != 2 || entries[0].Key != key || revision != e.Revision() {
		t.Errorf("list: %v at %d, %v", entries, revision, err)
	}
}

func TestATransactionIsAllOrNothing(t *testing.T) {
	t.Parallel()
	e := testenv.StartEtcd(t)
	w, ctx := newWriter(t, configFor(e.Endpoint)), t.Context()
	old := e.Put("/sluice/routes/a", "1")
	absent, stale := int64(0), old-1
	revision, err := w.Txn(ctx, []Change{
		{Key: "/sluice/routes/a", Delete: true, Expect: &old},
		{Key: "/sluice/routes/b", Value: []byte("2"), Expect: &absent},
	})
	if err != nil || revision != old+1 {
		t.Errorf("revision %d, %v", revision, err)
	}
	if _, ok := e.Get("/sluice/routes/a"); ok {
		t.Error("the deleted key is there")
	}
	many := make([]Change, 200)
	for i := range many {
		many[i] = Change{Key: fmt.Sprintf("/sluice/routes/m%d", i), Value: []byte("x")}
	}
	big := []Change{{Key: "/sluice/routes/m0", Value: []byte(strings.Repeat("x", 1<<20))},
		{Key: "/sluice/routes/m1", Value: []byte(strings.Repeat("x", 3<<19))}}
	for _, tt := range []struct {
		name    string
		changes []Change
		want    error
	}{
		{"a key at another revision", []Change{{Key: "/sluice/routes/m0", Value: []byte("x")},
			{Key: "/sluice/routes/b", Value: []byte("x"), Expect: &stale}}, ErrConflict},
		{"too many keys", many, ErrTooLarge},
		{"too many bytes", big, ErrTooLarge},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := w.Txn(ctx, tt.changes); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if _, ok := e.Get("/sluice/routes/m0"); ok {
				t.Error("a part was written")
			}
		})
	}
	if _, err := w.Txn(ctx, nil); err == nil {
		t.Error("a transaction of nothing is no error")
	}
}

func TestE7AFullStoreIsNamedAndTheSourceGoesOn(t *testing.T) {
	t.Parallel()
	e := testenv.StartEtcd(t, testenv.EtcdArgs("--quota-backend-bytes=4194304"))
	e.Put("/sluice/routes/a", "1")
	_, sink := follow(t, configFor(e.Endpoint))
	awaitValue(t, sink, "/sluice/routes/a", "1")
	w := newWriter(t, configFor(e.Endpoint))
	var err error
	for i := 0; err == nil && i < 20; i++ {
		_, err = w.Put(t.Context(), fmt.Sprintf("/other/%d", i), []byte(strings.Repeat("x", 1<<20)))
	}
	if !errors.Is(err, ErrNoSpace) {
		t.Errorf("the last write ended with %v", err)
	}
	from := contacts(sink)
	sink.AwaitContact(t, patience, "an answer of the full store", from, answered)
	if got, ok, err := w.Get(t.Context(), "/sluice/routes/a"); string(got.Value) != "1" || !ok || err != nil {
		t.Errorf("read of the full store: %v, %v, %v", got, ok, err)
	}
}

func TestTheWriterSaysWhyItFailed(t *testing.T) {
	t.Parallel()
	e := testenv.StartEtcd(t)
	e.EnableAuth("root-password")
	e.AddUser("gateway", "right", "/sluice/")
	cfg := configFor(e.Endpoint)
	cfg.Username, cfg.Password = "gateway", "right"
	if _, err := newWriter(t, cfg).Put(t.Context(), "/other", nil); !errors.Is(err, ErrDenied) {
		t.Errorf("a key outside the role: %v", err)
	}
	cfg.Password = "canary-wrong"
	if _, err := newWriter(t, cfg).Put(t.Context(), "/sluice/a", nil); !errors.Is(err, ErrDenied) ||
		strings.Contains(err.Error(), "canary") {
		t.Errorf("a wrong password: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	gone := newWriter(t, configFor("http://127.0.0.1:1"))
	if _, err := gone.Put(ctx, "/sluice/a", nil); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("nothing listens: %v", err)
	}
	gone.Close()
	if _, _, err := gone.Get(t.Context(), "/sluice/a"); err == nil {
		t.Error("a closed writer reads")
	}
}
