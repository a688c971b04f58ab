package state

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-gateway/sluice/discovery"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(dir, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// full is a state with something in every field that is kept.
func full() discovery.State {
	return discovery.State{
		Revision: 42,
		Documents: discovery.NewDocuments(
			&discovery.Document{Key: "/sluice/active/orders", Kind: "active", Name: "orders", Source: "etcd",
				Value: []byte("green"), Revision: 41, Created: 7, Previous: []byte("blue")},
			&discovery.Document{Key: "/sluice/routes/bad", Kind: "routes", Name: "bad", Source: "etcd",
				Value: []byte{0, 0xff, '\n'}, Revision: 42, Created: 42},
		),
		Instances: map[discovery.ServiceRef][]discovery.Instance{
			{Name: "orders"}: {{ID: "n/o-1", Address: "[::1]:80", Weight: 3, Tags: []string{"blue"},
				Meta: map[string]string{"v": "1"}, Registered: 9}},
			{Name: "orders", Datacenter: "dc2"}: {},
		},
		Announced: map[string][]string{"users": {"sluice.path=/users/*"}},
	}
}

func TestAStateComesBackAsItWasSaved(t *testing.T) {
	for _, tt := range []struct {
		name  string
		state discovery.State
	}{
		{"everything set", full()},
		{"nothing set", discovery.State{}},
		{"known to be empty", discovery.State{Documents: discovery.NewDocuments(),
			Instances: map[discovery.ServiceRef][]discovery.Instance{}, Announced: map[string][]string{}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := open(t, filepath.Join(t.TempDir(), "made", "here"))
			before := time.Now()
			if err := s.Save("etcd", tt.state); err != nil {
				t.Fatal(err)
			}
			got, saved, err := s.Load("etcd")
			if err != nil {
				t.Fatal(err)
			}
			want := tt.state
			want.Stored = true
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
			if saved.Before(before) || saved.After(time.Now()) {
				t.Errorf("saved at %s", saved)
			}
			info, err := os.Stat(filepath.Join(s.dir, "etcd.state"))
			if err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("mode %v, %v", info.Mode(), err)
			}
		})
	}
}

func TestASaveReplacesTheOneBeforeAndLeavesNothingBehind(t *testing.T) {
	s := open(t, t.TempDir())
	for revision := range int64(3) {
		if err := s.Save("consul", discovery.State{Revision: revision}); err != nil {
			t.Fatal(err)
		}
	}
	if st, _, err := s.Load("consul"); err != nil || st.Revision != 2 {
		t.Errorf("revision %d, %v", st.Revision, err)
	}
	if _, _, err := s.Load("etcd"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a state never saved: %v", err)
	}
	if _, err := s.LoadExtra("active"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an extra never saved: %v", err)
	}
	if err := s.SaveExtra("active", []byte("orders=green\n")); err != nil {
		t.Fatal(err)
	}
	if data, err := s.LoadExtra("active"); err != nil || string(data) != "orders=green\n" {
		t.Errorf("extra %q, %v", data, err)
	}
	if got := files(t, s.dir); got != "active.extra consul.state" {
		t.Errorf("files: %s", got)
	}
}

func files(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}

func TestADamagedFileIsSetAsideAndIgnored(t *testing.T) {
	dir := t.TempDir()
	if err := open(t, dir).Save("etcd", full()); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(filepath.Join(dir, "etcd.state"))
	if err != nil {
		t.Fatal(err)
	}
	flip := func(i int) []byte {
		bad := bytes.Clone(good)
		bad[i] ^= 1
		return bad
	}
	body := bytes.IndexByte(good, '\n') + 1
	for _, tt := range []struct {
		name string
		data []byte
		want string
	}{
		{"empty", nil, "it has no header"},
		{"cut short", good[:len(good)-5], "checksum"},
		{"cut in the header", good[:20], "it has no header"},
		{"one bit of the body", flip(body + 10), "checksum"},
		{"one bit of the time", flip(len(format) + len(" etcd.state ") + 3), "checksum"},
		{"something behind it", append(bytes.Clone(good), 'x'), "checksum"},
		{"another format", bytes.Replace(good, []byte("state/1"), []byte("state/2"), 1), "its format"},
		{"the file of another", bytes.Replace(good, []byte("etcd.state"), []byte("file.state"), 1), "the file of"},
		{"no JSON", seal("etcd.state", time.Now(), []byte("{")), "unexpected end"},
		{"a null document", seal("etcd.state", time.Now(), []byte(`{"documents":[null]}`)), "null"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := open(t, t.TempDir())
			if err := os.WriteFile(filepath.Join(s.dir, "etcd.state"), tt.data, 0o600); err != nil {
				t.Fatal(err)
			}
			_, _, err := s.Load("etcd")
			if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
			if got := files(t, s.dir); !strings.HasPrefix(got, "etcd.state.damaged-") || strings.Contains(got, " ") {
				t.Errorf("files: %s", got)
			}
			if _, _, err := s.Load("etcd"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the second load: %v", err)
			}
			if err := s.Save("etcd", full()); err != nil {
				t.Errorf("a save after the damage: %v", err)
			}
		})
	}
}

func TestANameStaysInsideTheDirectory(t *testing.T) {
	s := open(t, t.TempDir())
	for _, name := range []string{"", "../etcd", "a/b", ".hidden", "Etcd", "a b"} {
		if err := s.Save(name, full()); err == nil {
			t.Errorf("saved %q", name)
		}
		if _, _, err := s.Load(name); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("load of %q: %v", name, err)
		}
	}
	if got := files(t, s.dir); got != "" {
		t.Errorf("files: %s", got)
	}
}

func TestOpenSaysWhatIsWrongWithTheDirectory(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	old, young := filepath.Join(dir, ".etcd.state.1.tmp"), filepath.Join(dir, ".etcd.state.2.tmp")
	for _, name := range []string{file, old, young} {
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Open(file, slog.Default()); err == nil || !strings.HasPrefix(err.Error(), "state_dir: ") {
		t.Errorf("a file as directory: %v", err)
	}
	long := time.Now().Add(-time.Hour)
	if err := os.Chtimes(old, long, long); err != nil {
		t.Fatal(err)
	}
	open(t, dir)
	if got := files(t, dir); got != ".etcd.state.2.tmp file" {
		t.Errorf("files: %s", got)
	}
}

func TestTheSaverSavesTheNewestOnceASecondAndAtTheEnd(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		store := open(t, dir)
		saver := NewSaver(store, store.log)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- saver.Run(ctx) }()
		want := func(revision int64) {
			t.Helper()
			synctest.Wait()
			if st, _, err := store.Load("etcd"); err != nil || st.Revision != revision {
				t.Errorf("revision %d, %v; want %d", st.Revision, err, revision)
			}
		}
		saver.Save("etcd", discovery.State{Revision: 1})
		want(1)
		for revision := range int64(100) {
			saver.Save("etcd", discovery.State{Revision: revision})
		}
		saver.Save("consul", discovery.State{Revision: 5})
		saver.Save("file", discovery.State{Revision: 6, Stored: true})
		want(1)
		time.Sleep(saveGap)
		want(99)
		if _, _, err := store.Load("consul"); err != nil {
			t.Errorf("the other source: %v", err)
		}
		if _, _, err := store.Load("file"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a stored state was saved again: %v", err)
		}
		saver.Save("etcd", discovery.State{Revision: 101})
		saver.SaveExtra("active", []byte("x"))
		want(99)
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run returned %v", err)
		}
		want(101)
		if data, err := store.LoadExtra("active"); string(data) != "x" || err != nil {
			t.Errorf("the extra: %q, %v", data, err)
		}
	})
}

func TestWhatCouldNotBeSavedIsTriedAgain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	synctest.Test(t, func(t *testing.T) {
		store := open(t, dir)
		saver := NewSaver(store, store.log)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- saver.Run(ctx) }()
		if err := os.Rename(dir, dir+".away"); err != nil {
			t.Fatal(err)
		}
		saver.Save("etcd", discovery.State{Revision: 1})
		time.Sleep(3 * saveGap)
		if err := os.Rename(dir+".away", dir); err != nil {
			t.Fatal(err)
		}
		time.Sleep(saveGap)
		synctest.Wait()
		if st, _, err := store.Load("etcd"); err != nil || st.Revision != 1 {
			t.Errorf("revision %d, %v", st.Revision, err)
		}
		cancel()
		<-ended
	})
}

func FuzzDecode(f *testing.F) {
	body, err := encode(full())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(body)
	f.Add([]byte(`{"services":[{"name":"a","instances":null},{"name":"a"}],"documents":[]}`))
	f.Add([]byte(`{"documents":[null]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		st, err := decode(body)
		if err != nil {
			return
		}
		again, err := encode(st)
		if err != nil {
			t.Fatalf("encode what was decoded: %v", err)
		}
		back, err := decode(again)
		if err != nil {
			t.Fatalf("decode what was encoded: %v", err)
		}
		if last, err := encode(back); err != nil || !bytes.Equal(last, again) {
			t.Errorf("%q is encoded as %q and then as %q, %v", body, again, last, err)
		}
	})
}

func FuzzUnseal(f *testing.F) {
	good := seal("etcd.state", time.Unix(1, 2), []byte("body"))
	f.Add(good)
	f.Add([]byte(format + " etcd.state x y\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		saved, body, err := unseal("etcd.state", data)
		if err == nil && !bytes.HasPrefix(data, []byte(format+" etcd.state ")) {
			t.Errorf("took %q as %s, %q", data, saved, body)
		}
	})
}
