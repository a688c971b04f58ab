package file

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestOnlyFilesThatMayHaveChangedAreReadAgain(t *testing.T) {
	now := time.Now()
	old := now.Add(-time.Hour)
	for _, tt := range []struct {
		name  string
		time  time.Time // of the file, when it is read first
		then  func(t *testing.T, path string)
		again bool
	}{
		{"nothing happened", old, func(*testing.T, string) {}, false},
		{"other content of the same length", old, func(t *testing.T, path string) { put(t, path, "new", now) }, true},
		{"more content at the same time", old, func(t *testing.T, path string) { put(t, path, "newer", old) }, true},
		{"another file in its place, of the same length and time", old, func(t *testing.T, path string) {
			put(t, path+"~", "new", old)
			if err := os.Rename(path+"~", path); err != nil {
				t.Fatal(err)
			}
		}, true},
		{"other content within the step in which systems keep time", now, func(t *testing.T, path string) { put(t, path, "new", now) }, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "routes", "a.yaml")
			if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			put(t, path, "old", tt.time)
			first, err := read(dir, scan{})
			if err != nil {
				t.Fatal(err)
			}
			tt.then(t, path)
			second, err := read(dir, first)
			if err != nil {
				t.Fatal(err)
			}
			was, is := first.contents["routes/a.yaml"].value, second.contents["routes/a.yaml"].value
			data, err := os.ReadFile(path)
			if err != nil || string(is) != string(data) {
				t.Fatalf("the document is %q, its file %q, %v", is, data, err)
			}
			if again := &was[0] != &is[0]; again != tt.again {
				t.Errorf("read again: %v", again)
			}
		})
	}
}

func put(t *testing.T, path, text string, at time.Time) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, at, at); err != nil {
		t.Fatal(err)
	}
}

func TestDocumentsInAMistypedFolderAreReportedUnread(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"routes/a.yaml": "path: /a", "servces/orders.yaml": "x", "servces/notes.md": "x", "servces/.hidden.yaml": "x",
		"scripts/run.sh": "x", "testdata/bad.yaml": "x", "charts/values.yaml": "x", "sluice.yaml": "x", ".git/config.json": "x",
	})
	docs, err := Load(dir)
	must(t, err)
	want := `file routes a routes/a.yaml=path: /a rev 1 created 1 previous ""
file servces orders servces/orders.yaml= rev 1 created 2 previous ""
`
	if got := lines(docs); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestAFolderOfDocumentsGivenAsTheDirectoryNamesTheOneAboveIt(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"routes/a.yaml": "path: /a"})
	_, err := Load(filepath.Join(dir, "routes"))
	if err == nil || !strings.HasSuffix(err.Error(), "give the directory above it, "+dir) {
		t.Errorf("got %v", err)
	}
}
