package file

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/sluice-gateway/sluice/discovery"
)

// Config says which directory to follow.
type Config struct {
	// Path is the directory; empty switches the source off.
	Path string `mapstructure:"path" json:"path"`
}

// Enabled reports whether there is a directory to follow.
func (c Config) Enabled() bool { return c.Path != "" }

// Validate accepts any path: whether the directory is there shows in New.
func (c Config) Validate() error { return nil }

const (
	// quiet is how long notifications must pause before the files are read.
	quiet = 20 * time.Millisecond
	// unrest bounds the wait for that.
	unrest = 250 * time.Millisecond
	// rescanEvery finds what no notification told, and a directory that is
	// back; without notifications rescanBlind is all there is.
	rescanEvery = 15 * time.Second
	rescanBlind = 2 * time.Second
)

// Source follows a directory. It implements discovery.Source.
type Source struct {
	dir string
	log *slog.Logger
}

// New returns a source for the directory of cfg, which must exist.
func New(cfg Config, log *slog.Logger) (*Source, error) {
	if !cfg.Enabled() {
		return nil, errors.New("file.path: is empty")
	}
	info, err := os.Stat(cfg.Path)
	if err != nil {
		return nil, fmt.Errorf("file.path: %w", err)
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("file.path: %s is not a directory", cfg.Path)
	}
	dir, err := filepath.Abs(cfg.Path)
	if err != nil {
		return nil, fmt.Errorf("file.path: %w", err)
	}
	return &Source{dir: dir, log: log.With("source", discovery.SourceFile)}, nil
}

// Name is discovery.SourceFile.
func (s *Source) Name() string { return discovery.SourceFile }

// Run follows the directory until ctx ends. See discovery.Source.
func (s *Source) Run(ctx context.Context, sink discovery.Sink) error {
	f := &follower{Source: s, sink: sink, told: map[string]string{}}
	for seen := time.Now(); ctx.Err() == nil; {
		// The notifications are set up anew before each scan: a folder that
		// was replaced, or a link that points elsewhere, needs other ones, and
		// what changes after this point is not missed.
		n := s.notify()
		f.scan(ctx, seen)
		seen = f.wait(ctx, n)
		n.close()
	}
	return nil
}

// follower is one Run.
type follower struct {
	*Source
	sink discovery.Sink
	pic  picture
	last scan
	// told are the faults in the log, by key.
	told map[string]string
}

// scan reads the directory and reports what changed since the last time.
func (f *follower) scan(ctx context.Context, seen time.Time) {
	found, err := read(f.dir, f.last)
	if err == nil && len(f.pic.missing(found)) > 0 {
		// The scan may have come between the two renames of an editor.
		select {
		case <-ctx.Done():
			return
		case <-time.After(quiet):
		}
		found, err = read(f.dir, f.last)
	}
	if err != nil {
		err = fmt.Errorf("file.path: %w", err)
		f.tell(map[string]error{f.dir: err})
		f.sink.Contact(err)
		return
	}
	f.last = found
	f.tell(found.faults)
	f.sink.Contact(nil)
	if f.pic.take(found) {
		f.log.Info("documents read", "path", f.dir, "documents", f.pic.docs.Len(), "revision", f.pic.revision)
		f.sink.Report(discovery.State{Revision: f.pic.revision, Documents: f.pic.docs, Seen: seen})
	}
}

// tell logs the faults that are new, and those that are gone.
func (f *follower) tell(faults map[string]error) {
	for _, key := range sortedKeys(faults) {
		text := faults[key].Error()
		if f.told[key] == text {
			continue
		}
		f.told[key] = text
		serving := "nothing"
		if f.pic.docs.Get(key) != nil || key == f.dir {
			serving = "last_good"
		}
		f.log.Warn("file is not taken", "key", key, "error", text, "serving", serving)
	}
	for key := range f.told {
		if faults[key] == nil {
			delete(f.told, key)
			f.log.Info("file is no longer at fault", "key", key)
		}
	}
}

// wait returns once the directory changed and is quiet again, or is due for a
// scan, with the time of the first sign.
func (f *follower) wait(ctx context.Context, n *notifier) time.Time {
	due := time.NewTimer(n.rescan)
	defer due.Stop()
	for {
		select {
		case <-ctx.Done():
			return time.Now()
		case <-due.C:
			return time.Now()
		case err := <-n.errors:
			f.log.Warn("notifications of files were lost; all are read again", "error", err)
			return time.Now()
		case ev := <-n.events:
			if n.concerns(ev) {
				seen := time.Now()
				n.settle(ctx)
				return seen
			}
		}
	}
}

// notifier is the system's notifications of one directory.
type notifier struct {
	dir     string
	rescan  time.Duration
	watcher *fsnotify.Watcher
	events  <-chan fsnotify.Event
	errors  <-chan error
}

// notify asks for notifications about the directory, its folders, and the one
// it stands in, where a link may be swapped. Without any there are scans.
func (s *Source) notify() *notifier {
	n := &notifier{dir: s.dir, rescan: rescanEvery}
	w, err := fsnotify.NewWatcher()
	if err != nil {
		s.log.Warn("no notifications of files; they are read every now and then", "every", rescanBlind, "error", err)
		n.rescan = rescanBlind
		return n
	}
	n.watcher, n.events, n.errors = w, w.Events, w.Errors
	folders := []string{filepath.Dir(s.dir), s.dir}
	for _, kind := range discovery.Kinds() {
		folders = append(folders, filepath.Join(s.dir, string(kind)))
	}
	for _, folder := range folders {
		if err := w.Add(folder); err != nil && !errors.Is(err, fs.ErrNotExist) {
			n.rescan = rescanBlind
		}
	}
	return n
}

func (n *notifier) close() {
	if n.watcher != nil {
		_ = n.watcher.Close()
	}
}

// concerns leaves out what happens beside the directory.
func (n *notifier) concerns(ev fsnotify.Event) bool {
	return ev.Name == n.dir || filepath.Dir(ev.Name) != filepath.Dir(n.dir)
}

// settle returns once no notification came for a moment.
func (n *notifier) settle(ctx context.Context) {
	end := time.NewTimer(unrest)
	defer end.Stop()
	pause := time.NewTimer(quiet)
	defer pause.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-end.C:
			return
		case <-pause.C:
			return
		case ev := <-n.events:
			if n.concerns(ev) {
				pause.Reset(quiet)
			}
		}
	}
}
