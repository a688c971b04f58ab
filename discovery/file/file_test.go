package file

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-gateway/sluice/discovery"
	"github.com/sluice-gateway/sluice/discovery/discoverytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 30 * time.Second

// write puts files, by path below dir, and makes their folders.
func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		full := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func follow(t *testing.T, dir string) *discoverytest.Sink {
	t.Helper()
	source, err := New(Config{Path: dir}, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	sink := &discoverytest.Sink{}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- source.Run(ctx, sink) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run returned %v", err)
		}
	})
	return sink
}

// lines renders documents for comparison.
func lines(docs *discovery.Documents) string {
	var b strings.Builder
	for _, d := range docs.Sorted() {
		fmt.Fprintf(&b, "%s %s %s %s=%s rev %d created %d previous %q\n",
			d.Source, d.Kind, d.Name, d.Key, d.Value, d.Revision, d.Created, d.Previous)
	}
	return b.String()
}

func await(t *testing.T, sink *discoverytest.Sink, want string) discovery.State {
	t.Helper()
	return sink.Await(t, patience, "documents\n"+want, func(s discovery.State) bool { return lines(s.Documents) == want })
}

func TestEachChangeIsOneRevision(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"routes/orders.yaml": "a", "routes/users.json": "b", "services/orders.yml": "c",
		"consumers/ann.yaml": "d", "plugins/cors.yaml": "e", "active/orders": "blue",
		"routes/.hidden.yaml": "x", "routes/orders.yaml~": "x", "routes/README.md": "x",
		"routes/deeper/x.yaml": "x", "other/y.txt": "x", "z.yaml": "x",
	})
	sink := follow(t, dir)
	first := await(t, sink, `file active orders active/orders=blue rev 1 created 1 previous ""
file consumers ann consumers/ann.yaml=d rev 1 created 2 previous ""
file plugins cors plugins/cors.yaml=e rev 1 created 3 previous ""
file routes orders routes/orders.yaml=a rev 1 created 4 previous ""
file routes users routes/users.json=b rev 1 created 5 previous ""
file services orders services/orders.yml=c rev 1 created 6 previous ""
`)
	if first.Revision != 1 || first.Seen.IsZero() {
		t.Errorf("state: %+v", first)
	}
	write(t, dir, map[string]string{"active/orders": "green"})
	must(t, os.Remove(filepath.Join(dir, "services/orders.yml")))
	must(t, os.RemoveAll(filepath.Join(dir, "plugins")))
	second := sink.Await(t, patience, "the flip and the deletions", func(s discovery.State) bool {
		d := s.Documents.Get("active/orders")
		return string(d.Value) == "green" && string(d.Previous) == "blue" && s.Documents.Len() == 4
	})
	if second.Documents.Get("routes/users.json") != first.Documents.Get("routes/users.json") {
		t.Error("an unchanged document is another pointer")
	}
	if second.Documents.Get("active/orders").Revision <= 1 || second.Revision <= 1 {
		t.Errorf("revisions did not grow:\n%s", lines(second.Documents))
	}
	// A folder that was not there before is followed too.
	write(t, dir, map[string]string{"plugins/jwt.yaml": "f"})
	sink.Await(t, patience, "a document in a new folder", func(s discovery.State) bool {
		d := s.Documents.Get("plugins/jwt.yaml")
		return d != nil && string(d.Value) == "f"
	})
	write(t, dir, map[string]string{"plugins/jwt.yaml": "g"})
	sink.Await(t, patience, "a change in a new folder", func(s discovery.State) bool {
		return string(s.Documents.Get("plugins/jwt.yaml").Value) == "g"
	})
}

func TestAnEditorsRenameIsNoDeletion(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, map[string]string{"routes/a.yaml": "0"})
	sink := follow(t, dir)
	await(t, sink, "file routes a routes/a.yaml=0 rev 1 created 1 previous \"\"\n")
	name := filepath.Join(dir, "routes/a.yaml")
	for i := 1; i <= 20; i++ {
		// As vim and emacs do: the old file moves away, a new one comes.
		must(t, os.Rename(name, name+"~"))
		write(t, dir, map[string]string{"routes/.a.new": fmt.Sprint(i)})
		must(t, os.Rename(filepath.Join(dir, "routes/.a.new"), name))
	}
	sink.Await(t, patience, "the last version", func(s discovery.State) bool {
		d := s.Documents.Get("routes/a.yaml")
		return d != nil && string(d.Value) == "20" && d.Created == 1
	})
	for _, s := range sink.States() {
		if s.Documents.Len() != 1 {
			t.Errorf("revision %d holds %d documents", s.Revision, s.Documents.Len())
		}
	}
}

func TestAConfigMapSwapsItsLink(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	routes := filepath.Join(dir, "routes")
	write(t, dir, map[string]string{
		"routes/..1/a.yaml": "a1", "routes/..1/b.yaml": "b1",
		"routes/..2/a.yaml": "a2", "routes/..2/b.yaml": "b2",
	})
	must(t, os.Symlink("..1", filepath.Join(routes, "..data")))
	must(t, os.Symlink("..data/a.yaml", filepath.Join(routes, "a.yaml")))
	must(t, os.Symlink("..data/b.yaml", filepath.Join(routes, "b.yaml")))
	sink := follow(t, dir)
	await(t, sink, "file routes a routes/a.yaml=a1 rev 1 created 1 previous \"\"\n"+
		"file routes b routes/b.yaml=b1 rev 1 created 2 previous \"\"\n")
	must(t, os.Symlink("..2", filepath.Join(routes, "..data_tmp")))
	must(t, os.Rename(filepath.Join(routes, "..data_tmp"), filepath.Join(routes, "..data")))
	await(t, sink, "file routes a routes/a.yaml=a2 rev 2 created 1 previous \"\"\n"+
		"file routes b routes/b.yaml=b2 rev 2 created 2 previous \"\"\n")
	if n := len(sink.States()); n != 2 {
		t.Errorf("%d reports, want 2", n)
	}
}

func TestALinkToAReleaseIsSwapped(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, map[string]string{"v1/routes/a.yaml": "1", "v2/routes/a.yaml": "2"})
	current := filepath.Join(dir, "current")
	must(t, os.Symlink("v1", current))
	sink := follow(t, current)
	await(t, sink, "file routes a routes/a.yaml=1 rev 1 created 1 previous \"\"\n")
	must(t, os.Symlink("v2", current+".new"))
	must(t, os.Rename(current+".new", current))
	await(t, sink, "file routes a routes/a.yaml=2 rev 2 created 1 previous \"\"\n")
	write(t, dir, map[string]string{"v2/routes/a.yaml": "3"})
	sink.Await(t, patience, "a change in the new release", func(s discovery.State) bool {
		return string(s.Documents.Get("routes/a.yaml").Value) == "3"
	})
}

func TestAFaultKeepsTheLastVersion(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, map[string]string{"routes/a.yaml": "1", "routes/b.yaml": "1"})
	sink := follow(t, dir)
	await(t, sink, "file routes a routes/a.yaml=1 rev 1 created 1 previous \"\"\n"+
		"file routes b routes/b.yaml=1 rev 1 created 2 previous \"\"\n")
	// A link to nowhere stands for a file that cannot be read.
	name := filepath.Join(dir, "routes/a.yaml")
	must(t, os.Symlink("nowhere", name+".new~"))
	must(t, os.Rename(name+".new~", name))
	write(t, dir, map[string]string{"routes/b.yaml": "2"})
	state := sink.Await(t, patience, "the change beside the fault", func(s discovery.State) bool {
		return string(s.Documents.Get("routes/b.yaml").Value) == "2"
	})
	if d := state.Documents.Get("routes/a.yaml"); d == nil || string(d.Value) != "1" {
		t.Errorf("the document at fault: %v", d)
	}
	must(t, os.Remove(name))
	sink.Await(t, patience, "the deletion", func(s discovery.State) bool { return s.Documents.Len() == 1 })
}

func TestADirectoryThatIsGoneChangesNothing(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "documents")
	write(t, dir, map[string]string{"routes/a.yaml": "1"})
	sink := follow(t, dir)
	await(t, sink, "file routes a routes/a.yaml=1 rev 1 created 1 previous \"\"\n")
	must(t, os.Rename(dir, dir+".away"))
	sink.AwaitContact(t, patience, "an error that names the key", 0, func(err error) bool {
		return err != nil && strings.HasPrefix(err.Error(), "file.path: ")
	})
	if n := len(sink.States()); n != 1 {
		t.Errorf("%d reports, want 1", n)
	}
	write(t, dir+".away", map[string]string{"routes/a.yaml": "2"})
	must(t, os.Rename(dir+".away", dir))
	await(t, sink, "file routes a routes/a.yaml=2 rev 2 created 1 previous \"\"\n")
}

func TestADirectoryThatNeverWasIsAnError(t *testing.T) {
	for _, path := range []string{"", filepath.Join(t.TempDir(), "missing"), "file_test.go"} {
		if _, err := New(Config{Path: path}, slog.Default()); err == nil || !strings.HasPrefix(err.Error(), "file.path: ") {
			t.Errorf("%q: %v", path, err)
		}
	}
}

func TestLoadNamesEveryFault(t *testing.T) {
	dir := t.TempDir()
	if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), "holds none of the folders") {
		t.Errorf("an empty directory: %v", err)
	}
	write(t, dir, map[string]string{"routes/a.yaml": "1", "active/orders.v2": "green", "active/users.txt": "blue"})
	docs, err := Load(dir)
	want := "file active orders.v2 active/orders.v2=green rev 1 created 1 previous \"\"\n" +
		"file active users active/users.txt=blue rev 1 created 2 previous \"\"\n" +
		"file routes a routes/a.yaml=1 rev 1 created 3 previous \"\"\n"
	if err != nil || lines(docs) != want {
		t.Errorf("got %v\n%s", err, lines(docs))
	}
	write(t, dir, map[string]string{
		"routes/a.json": "2", "routes/b.ymal": "x", "routes/.yaml": "x",
		"services/big.yaml": strings.Repeat("x", maxBytes+1),
	})
	must(t, syscall.Mkfifo(filepath.Join(dir, "routes/pipe.yaml"), 0o600))
	_, err = Load(dir)
	wantErr := `routes/a.json: is not read: routes/a.yaml names the same document
routes/b.ymal: is not read: a document's file ends in .yaml, .yml, .json
routes/pipe.yaml: is not a regular file
services/big.yaml: is larger than 4194304 bytes`
	if err == nil || err.Error() != wantErr {
		t.Errorf("got  %v\nwant %s", err, wantErr)
	}
	if _, err := Load(filepath.Join(dir, "missing")); err == nil || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing directory: %v", err)
	}
}
