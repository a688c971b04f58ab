package middleware

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestAFileIsReadAgainAndABadVersionChangesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys")
	write := func(s string) {
		t.Helper()
		if err := os.WriteFile(path+".new", []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	write("one")
	synctest.Test(t, func(t *testing.T) {
		at := &Place{registry: quiet()}
		f, faults := KeepFile(at, "key_file", "test", path, func(b []byte) (string, error) {
			if strings.Contains(string(b), "bad") {
				return "", errors.New("is no good")
			}
			return string(b), nil
		})
		if faults != nil {
			t.Fatal(faults)
		}
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go f.Run(ctx)
		for _, step := range []struct{ write, want string }{{"two", "two"}, {"bad", "two"}, {"", "two"}, {"three", "three"}} {
			if step.write == "" {
				_ = os.Remove(path)
			} else {
				write(step.write)
			}
			time.Sleep(fileEvery)
			synctest.Wait()
			if got := f.Get(); got != step.want {
				t.Errorf("after %q the file says %q, want %q", step.write, got, step.want)
			}
		}
	})
}

func TestSecretsComeFromOnePlace(t *testing.T) {
	dir := t.TempDir()
	good, empty := filepath.Join(dir, "good"), filepath.Join(dir, "empty")
	for path, text := range map[string]string{good: "s3cret\n", empty: "\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("SLUICE_TEST_SECRET", "from-env")
	for _, c := range []struct{ name, env, file, want, fault string }{
		{"a file", "", good, "s3cret", ""},
		{"a variable", "SLUICE_TEST_SECRET", "", "from-env", ""},
		{"neither", "", "", "", "secret_env: is missing, and secret_file too; give one of them"},
		{"both", "SLUICE_TEST_SECRET", good, "", "secret_env: stands beside secret_file; give one of them"},
		{"a variable that is not set", "SLUICE_TEST_NONE", "", "", "secret_env: the environment variable SLUICE_TEST_NONE is not set"},
		{"an empty file", "", empty, "", "secret_file: " + empty + ": is empty"},
		{"a file that is missing", "", filepath.Join(dir, "none"), "", "secret_file: open " + filepath.Join(dir, "none") + ": no such file or directory"},
	} {
		t.Run(c.name, func(t *testing.T) {
			get, faults := KeepSecret(&Place{registry: quiet()}, "secret", c.env, c.file)
			if c.fault != "" {
				if len(faults) != 1 || faults[0].Error() != c.fault {
					t.Errorf("the faults are %v, want %q", faults, c.fault)
				}
				return
			}
			if faults != nil || string(get()) != c.want {
				t.Errorf("got %v", faults)
			}
		})
	}
}
