package file

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/discovery"
)

// maxBytes bounds one document; etcd takes less.
const maxBytes = 4 << 20

// settled is how old a file's time must be for it to tell of every later
// change: systems keep it in steps, of two seconds at most.
const settled = 2 * time.Second

// content is one readable document.
type content struct {
	kind  discovery.Kind
	name  string
	value []byte
	info  fs.FileInfo
	at    time.Time // when it was read, or a moment before
}

// still reports whether the file that info is of holds what c does: the same
// file, of the same size and time, which had not been changed just before it
// was read.
func (c content) still(info fs.FileInfo) bool {
	return c.info != nil && os.SameFile(c.info, info) && c.info.Size() == info.Size() &&
		c.info.ModTime().Equal(info.ModTime()) && c.at.Sub(info.ModTime()) > settled
}

// scan is what a directory held at one time, by key ("routes/orders.yaml").
type scan struct {
	contents map[string]content
	// faults are entries that are there and could not be taken.
	faults map[string]error
	// folders counts the folders of documents that exist.
	folders int
}

// read scans dir, which held what before says; files that did not change are
// not read again. It fails only when dir itself cannot be read.
func read(dir string, before scan) (scan, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return scan{}, err
	}
	s := scan{contents: map[string]content{}, faults: map[string]error{}}
	for _, kind := range discovery.Kinds() {
		s.folder(dir, kind, before)
	}
	for _, e := range entries {
		if mistyped(e.Name()) {
			s.stray(dir, e.Name())
		}
	}
	return s, nil
}

// mistyped says that a folder was meant to be one of documents. A directory of
// documents may have others beside them.
func mistyped(folder string) bool {
	var kinds []string
	for _, k := range discovery.Kinds() {
		kinds = append(kinds, string(k))
	}
	return !slices.Contains(kinds, folder) && !ignored(folder) && discovery.Nearest(folder, kinds, 2) != ""
}

// stray takes what looks like documents in a mistyped folder: unread, for
// routing to tell their writer. Other files are nobody's mistake.
func (s *scan) stray(dir, folder string) {
	entries, err := os.ReadDir(filepath.Join(dir, folder))
	if err != nil {
		return // a file, as most are
	}
	for _, e := range entries {
		ending := path.Ext(e.Name())
		if e.IsDir() || ignored(e.Name()) || !slices.Contains(endingsOf(discovery.KindRoute), ending) {
			continue
		}
		s.contents[path.Join(folder, e.Name())] = content{
			kind: discovery.Kind(folder), name: strings.TrimSuffix(e.Name(), ending),
		}
	}
}

func (s *scan) folder(dir string, kind discovery.Kind, before scan) {
	entries, err := os.ReadDir(filepath.Join(dir, string(kind)))
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	s.folders++
	if err != nil {
		s.faults[string(kind)] = err
		return
	}
	endings := endingsOf(kind)
	// Of two files with one name, the ending that stands first counts.
	slices.SortStableFunc(entries, func(a, b fs.DirEntry) int {
		return slices.Index(endings, endingOf(a.Name(), endings)) - slices.Index(endings, endingOf(b.Name(), endings))
	})
	taken := map[string]string{}
	for _, e := range entries {
		if ignored(e.Name()) {
			continue
		}
		full, key := filepath.Join(dir, string(kind), e.Name()), path.Join(string(kind), e.Name())
		at := time.Now()
		info, err := os.Stat(full)
		if err == nil && info.IsDir() {
			continue
		}
		ending := endingOf(e.Name(), endings)
		name := strings.TrimSuffix(e.Name(), ending)
		if !slices.Contains(endings, ending) || name == "" {
			s.faults[key] = fmt.Errorf("is not read: a document's file ends in %s", strings.Join(endings, ", "))
			continue
		}
		if first, ok := taken[name]; ok {
			s.faults[key] = fmt.Errorf("is not read: %s names the same document", first)
			continue
		}
		taken[name] = key
		if old := before.contents[key]; err == nil && old.still(info) {
			s.contents[key] = old
			continue
		}
		var value []byte
		if err == nil {
			value, err = readFile(full, info)
		}
		if err != nil {
			s.faults[key] = err
			continue
		}
		s.contents[key] = content{kind: kind, name: name, value: value, info: info, at: at}
	}
}

// endingsOf lists the endings of a kind's files, in the order of precedence.
func endingsOf(kind discovery.Kind) []string {
	if kind == discovery.KindActive {
		return []string{"", ".txt"}
	}
	return []string{".yaml", ".yml", ".json"}
}

// endingOf is the ending of name among endings. A service's name may hold
// dots, so that any other is none.
func endingOf(name string, endings []string) string {
	if ext := path.Ext(name); slices.Contains(endings, ext) {
		return ext
	}
	return ""
}

// ignored are hidden files and what editors leave behind.
func ignored(name string) bool {
	if strings.HasPrefix(name, ".") || strings.HasPrefix(name, "#") || strings.HasSuffix(name, "~") {
		return true
	}
	switch path.Ext(name) {
	case ".swp", ".swx", ".swo", ".tmp", ".bak", ".orig":
		return true
	}
	return strings.EqualFold(strings.TrimSuffix(name, path.Ext(name)), "readme")
}

// readFile reads a regular file of reasonable size: a pipe would block.
func readFile(name string, info fs.FileInfo) ([]byte, error) {
	if !info.Mode().IsRegular() {
		return nil, errors.New("is not a regular file")
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxBytes+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxBytes {
		return nil, fmt.Errorf("is larger than %d bytes", maxBytes)
	}
	return data, nil
}

// Load reads the documents of a directory once. It returns every fault,
// joined, each with the file it is about.
func Load(dir string) (*discovery.Documents, error) {
	s, err := read(dir, scan{})
	if err != nil {
		return nil, fmt.Errorf("read documents: %w", err)
	}
	if s.folders == 0 {
		if full, err := filepath.Abs(dir); err == nil && slices.Contains(discovery.Kinds(), discovery.Kind(filepath.Base(full))) {
			return nil, fmt.Errorf("read documents: %s is one of the folders of documents: give the directory above it, %s", dir, filepath.Dir(full))
		}
		return nil, fmt.Errorf("read documents: %s holds none of the folders %v", dir, discovery.Kinds())
	}
	var errs []error
	for _, key := range sortedKeys(s.faults) {
		errs = append(errs, fmt.Errorf("%s: %w", key, s.faults[key]))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	var p picture
	p.take(s)
	return p.docs, nil
}
