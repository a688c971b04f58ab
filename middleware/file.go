package middleware

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/routing"
)

const (
	// maxFileBytes bounds a file that a plugin reads: keys, users, secrets.
	maxFileBytes = 4 << 20
	// fileEvery is how often such a file is looked at. Reading a few small
	// files costs nothing, and unlike a watch it sees every way of replacing
	// one: a rename, a link that is swapped, a volume mounted over it.
	fileEvery = time.Second
)

// File is a file that is read again when it changes. What cannot be read or
// parsed is logged and changes nothing. Safe for concurrent use.
type File[T any] struct {
	path    string
	parse   func([]byte) (T, error)
	log     *slog.Logger
	value   atomic.Pointer[T]
	content []byte // of value; only Run changes it
}

// KeepFile reads a file for the configuration in p, or finds the one already
// kept; field is where its path stands. A file that cannot be read or parsed
// now is a fault: what it guards must not serve without it. kind names parse,
// as two plugins may read one file differently.
func KeepFile[T any](p *Place, field, kind, path string, parse func([]byte) (T, error)) (*File[T], routing.Faults) {
	content, err := readFile(path)
	if err != nil {
		return nil, routing.Faults{{Field: p.At(field), Message: err.Error()}}
	}
	value, err := parse(content)
	if err != nil {
		return nil, routing.Faults{{Field: p.At(field), Message: fmt.Sprintf("%s: %s", path, err)}}
	}
	return Keep(p, "file/"+kind+"/"+path, func() *File[T] {
		f := &File[T]{path: path, parse: parse, log: p.Log(), content: content}
		f.value.Store(&value)
		return f
	}), nil
}

// Get returns what the newest good version of the file says.
func (f *File[T]) Get() T { return *f.value.Load() }

// Run follows the file until ctx ends.
func (f *File[T]) Run(ctx context.Context) {
	ticker := time.NewTicker(fileEvery)
	defer ticker.Stop()
	said := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		err := f.reread()
		switch {
		case err == nil:
			said = ""
		case err.Error() != said: // once per fault
			said = err.Error()
			f.log.Error("a plugin's file cannot be used; its last good version serves on", "file", f.path, "error", err)
		}
	}
}

func (f *File[T]) reread() error {
	content, err := readFile(f.path)
	if err != nil {
		return err
	}
	if bytes.Equal(content, f.content) {
		return nil
	}
	value, err := f.parse(content)
	if err != nil {
		return err
	}
	f.content = content
	f.value.Store(&value)
	f.log.Info("a plugin's file has changed", "file", f.path)
	return nil
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	content, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		return nil, err
	}
	if len(content) > maxFileBytes {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, maxFileBytes)
	}
	return content, nil
}

// KeepSecret finds a secret that stands in an environment variable (field
// NAME_env) or in a file (NAME_file), of which exactly one has to be given.
// The returned function gives the newest value. No fault quotes it.
func KeepSecret(p *Place, name, env, path string) (func() []byte, routing.Faults) {
	fault := func(field, message string) (func() []byte, routing.Faults) {
		return nil, routing.Faults{{Field: p.At(field), Message: message}}
	}
	switch {
	case env == "" && path == "":
		return fault(name+"_env", "is missing, and "+name+"_file too; give one of them")
	case env != "" && path != "":
		return fault(name+"_env", "stands beside "+name+"_file; give one of them")
	case env != "":
		value := os.Getenv(env)
		if value == "" {
			return fault(name+"_env", "the environment variable "+env+" is not set")
		}
		return func() []byte { return []byte(value) }, nil
	}
	f, faults := KeepFile(p, name+"_file", "secret", path, func(content []byte) ([]byte, error) {
		secret := strings.TrimSpace(string(content))
		if secret == "" {
			return nil, fmt.Errorf("is empty")
		}
		return []byte(secret), nil
	})
	if faults != nil {
		return nil, faults
	}
	return f.Get, nil
}
