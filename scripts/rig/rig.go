// Package rig is what drills and benchmarks stand on: it lets a program use
// test/testenv, and sets up a gateway in front of real services that follow a
// real Consul and a real etcd.
package rig

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/admin"
	"github.com/sluice-gateway/sluice/test/testenv"
)

// Program stands in for testing.TB: it panics where a test would fail, and
// runs cleanups when it is closed.
type Program struct {
	cleanups []func()
	dir      string
	n        int
	failed   bool
}

// Failure is what Fatalf panics with.
type Failure struct{ Message string }

func (f Failure) Error() string { return f.Message }

// NewProgram makes a Program with a temporary directory of its own.
func NewProgram() (*Program, error) {
	dir, err := os.MkdirTemp("", "sluice-rig-")
	if err != nil {
		return nil, fmt.Errorf("make a temporary directory: %w", err)
	}
	p := &Program{dir: dir}
	p.Cleanup(func() { _ = os.RemoveAll(dir) })
	return p, nil
}

// Helper does nothing; see testing.TB.
func (p *Program) Helper() {}

// Fatalf panics with a Failure.
func (p *Program) Fatalf(format string, args ...any) {
	p.failed = true
	panic(Failure{fmt.Sprintf(format, args...)})
}

// Failed says whether Fatalf was called.
func (p *Program) Failed() bool { return p.failed }

// Logf prints to stderr.
func (p *Program) Logf(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

// Cleanup runs f when the program is closed, last in first out.
func (p *Program) Cleanup(f func()) { p.cleanups = append(p.cleanups, f) }

// TempDir makes a directory that Close removes.
func (p *Program) TempDir() string {
	p.n++
	dir := filepath.Join(p.dir, fmt.Sprint(p.n))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		p.Fatalf("make %s: %v", dir, err)
	}
	return dir
}

// Close runs the cleanups.
func (p *Program) Close() {
	for i := len(p.cleanups) - 1; i >= 0; i-- {
		p.cleanups[i]()
	}
	p.cleanups = nil
}

// Run calls f with a Program and turns a Fatalf into an error.
func Run(f func(p *Program)) (err error) {
	p, err := NewProgram()
	if err != nil {
		return err
	}
	defer p.Close()
	defer func() {
		if r := recover(); r != nil {
			failure, ok := r.(Failure)
			if !ok {
				panic(r)
			}
			err = failure
		}
	}()
	f(p)
	return nil
}

// Answer is what demo-service says of itself.
type Answer struct {
	Service  string `json:"service"`
	Instance string `json:"instance"`
	Colour   string `json:"colour"`
}

// Colour reads the colour out of an answer's body, or the code out of a
// refusal's; for load.Config.Tag.
func Colour(status int, _ http.Header, body []byte) string {
	var a struct {
		Answer
		Code string `json:"code"`
	}
	switch {
	case json.Unmarshal(body, &a) != nil:
		return ""
	case status != http.StatusOK:
		return a.Code
	}
	return a.Colour
}

// Get asks url once, on a connection of client, and decodes the answer.
func Get(client *http.Client, url string) (status int, a Answer, err error) {
	resp, err := client.Get(url)
	if err != nil {
		return 0, a, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return resp.StatusCode, a, err
	}
	_ = json.Unmarshal(body, &a) // not every answer is a demo-service's
	return resp.StatusCode, a, nil
}

// Status asks a gateway for its status.
func Status(g *testenv.Gateway) (admin.Status, error) {
	var s admin.Status
	resp, err := http.Get(g.AdminURL() + "/api/v1/status")
	if err != nil {
		return s, err
	}
	defer resp.Body.Close()
	return s, json.NewDecoder(resp.Body).Decode(&s)
}

// AwaitApplied waits until the gateway serves revision and returns when it
// was first seen to.
func AwaitApplied(p testenv.TB, g *testenv.Gateway, revision int64) time.Time {
	p.Helper()
	testenv.Eventually(p, 30*time.Second, fmt.Sprintf("%s applies revision %d", g.Name, revision), func() bool {
		s, err := Status(g)
		return err == nil && s.Revision >= revision
	})
	return time.Now()
}

// AwaitInstances waits until the gateway has n instances of service in the
// healthy state.
func AwaitInstances(p testenv.TB, g *testenv.Gateway, service string, n int) {
	p.Helper()
	testenv.Eventually(p, 60*time.Second, fmt.Sprintf("%s has %d instances of %s", g.Name, n, service), func() bool {
		var l struct{ Items []admin.Instance }
		resp, err := http.Get(g.AdminURL() + "/api/v1/instances?name=" + service)
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		if json.NewDecoder(resp.Body).Decode(&l) != nil {
			return false
		}
		healthy := 0
		for _, i := range l.Items {
			if i.State == "healthy" {
				healthy++
			}
		}
		return healthy == n && healthy == len(l.Items)
	})
}

// Command runs a program of bin/ and returns its output.
func Command(ctx context.Context, p testenv.TB, name string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, testenv.Binary(p, name), args...).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}
