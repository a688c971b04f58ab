package state

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/discovery"
)

// ErrDamaged is a file that is not as it was written. It was set aside.
var ErrDamaged = errors.New("state file is damaged")

// Store is a state directory. Its methods may be called from any goroutine;
// of two saves under one name at once, one wins whole.
type Store struct {
	dir string
	log *slog.Logger
}

// Open returns the store in dir, which is made if it is not there. A
// directory that cannot be written is an error now and not at the first
// change.
func Open(dir string, log *slog.Logger) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("state_dir: %w", err)
	}
	s := &Store{dir: dir, log: log}
	if err := s.removeLeftovers(); err != nil {
		return nil, fmt.Errorf("state_dir: %w", err)
	}
	probe, err := os.CreateTemp(dir, temporary("probe"))
	if err != nil {
		return nil, fmt.Errorf("state_dir: %w", err)
	}
	_ = probe.Close()
	if err := os.Remove(probe.Name()); err != nil {
		return nil, fmt.Errorf("state_dir: %w", err)
	}
	return s, nil
}

// temporary is the pattern of files that are being written.
func temporary(name string) string { return "." + name + ".*.tmp" }

// leftoverAge tells the leftovers of a crash from the files that a gateway
// beside this one is writing.
const leftoverAge = time.Minute

func (s *Store) removeLeftovers() error {
	names, err := filepath.Glob(filepath.Join(s.dir, temporary("*")))
	if err != nil {
		return err
	}
	for _, name := range names {
		if info, err := os.Stat(name); err == nil && time.Since(info.ModTime()) > leftoverAge {
			_ = os.Remove(name)
		}
	}
	return nil
}

// Save keeps the state of the source of that name.
func (s *Store) Save(name string, st discovery.State) error {
	body, err := encode(st)
	if err != nil {
		return fmt.Errorf("save the state of %s: %w", name, err)
	}
	return s.save(name+".state", body)
}

// Load returns the state of a source as it was saved last, and when. Without
// one the error is fs.ErrNotExist.
func (s *Store) Load(name string) (discovery.State, time.Time, error) {
	file := name + ".state"
	saved, body, err := s.load(file)
	if err != nil {
		return discovery.State{}, time.Time{}, err
	}
	st, err := decode(body)
	if err != nil {
		return discovery.State{}, time.Time{}, s.setAside(file, err)
	}
	return st, saved, nil
}

// SaveExtra keeps bytes under a name of their own, beside the states.
func (s *Store) SaveExtra(name string, data []byte) error {
	return s.save(name+".extra", data)
}

// LoadExtra returns what SaveExtra kept. Without it the error is
// fs.ErrNotExist.
func (s *Store) LoadExtra(name string) ([]byte, error) {
	_, body, err := s.load(name + ".extra")
	return body, err
}

// checkFile keeps names inside the directory.
func checkFile(file string) error {
	if file[0] == '.' || strings.Trim(file, "abcdefghijklmnopqrstuvwxyz0123456789-_.") != "" {
		return fmt.Errorf("state file %q: a name is made of small letters, digits, -, _ and dots, not at its start", file)
	}
	return nil
}

func (s *Store) save(file string, body []byte) error {
	if err := checkFile(file); err != nil {
		return err
	}
	if err := s.replace(file, seal(file, time.Now(), body)); err != nil {
		return fmt.Errorf("save %s: %w", file, err)
	}
	return nil
}

// replace puts data in the place of a file, whole and on disk.
func (s *Store) replace(file string, data []byte) (err error) {
	tmp, err := os.CreateTemp(s.dir, temporary(file)) // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = tmp.Close()
			_ = os.Remove(tmp.Name())
		}
	}()
	if _, err := tmp.Write(data); err != nil {
		return err
	}
	if err := tmp.Sync(); err != nil {
		return err
	}
	if err := tmp.Close(); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), filepath.Join(s.dir, file)); err != nil {
		return err
	}
	return s.syncDir()
}

// syncDir makes a rename last.
func (s *Store) syncDir() error {
	d, err := os.Open(s.dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func (s *Store) load(file string) (saved time.Time, body []byte, err error) {
	if err := checkFile(file); err != nil {
		return saved, nil, err
	}
	data, err := os.ReadFile(filepath.Join(s.dir, file))
	if err != nil {
		return saved, nil, fmt.Errorf("load %s: %w", file, err)
	}
	saved, body, err = unseal(file, data)
	if err != nil {
		return saved, nil, s.setAside(file, err)
	}
	return saved, body, nil
}

// setAside renames a damaged file, for whoever wants to look at it.
func (s *Store) setAside(file string, why error) error {
	path := filepath.Join(s.dir, file)
	aside := path + ".damaged-" + time.Now().UTC().Format("20060102T150405.000000000Z")
	if err := os.Rename(path, aside); err != nil {
		s.log.Error("a damaged state file is ignored and could not be set aside",
			"file", path, "why", why, "error", err)
	} else {
		s.log.Error("a damaged state file is ignored and was set aside", "file", path, "why", why, "now", aside)
	}
	return fmt.Errorf("%s: %w: %w", file, ErrDamaged, why)
}
