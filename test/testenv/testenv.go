package testenv

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"
)

// TB is the part of testing.TB that this package uses. When it also has
// Failed() bool, the tail of each server's log is shown only on failure.
type TB interface {
	Helper()
	Fatalf(format string, args ...any)
	Logf(format string, args ...any)
	Cleanup(func())
	TempDir() string
}

// Eventually polls until done returns true and fails the test with what was
// awaited when that takes longer than timeout.
func Eventually(t TB, timeout time.Duration, what string, done func() bool) {
	t.Helper()
	deadline := time.Now().Add(timeout)
	for !done() {
		if time.Now().After(deadline) {
			t.Fatalf("waited %s in vain for: %s", timeout, what)
			return
		}
		time.Sleep(3 * time.Millisecond)
	}
}

// Binary finds a program: in bin/ beside the go.mod above the working
// directory, then on PATH.
func Binary(t TB, name string) string {
	t.Helper()
	if root := moduleRoot(); root != "" {
		path := filepath.Join(root, "bin", name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%s is neither in bin/ nor on PATH: run make tools", name)
	}
	return path
}

func moduleRoot() string {
	dir, err := os.Getwd()
	if err != nil {
		return ""
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return ""
		}
		dir = parent
	}
}

// Ports are drawn below the range from which systems take the local port of
// an outgoing connection (32768 on Linux, 49152 elsewhere): a server that is
// stopped and started again must find its port free.
const (
	lowestPort  = 12000
	highestPort = 32000
)

var handedOut struct {
	sync.Mutex
	ports map[int]bool
}

// FreePort returns a loopback port that nothing listens on, TCP or UDP, and
// that this process was not given before.
func FreePort(t TB) int {
	t.Helper()
	handedOut.Lock()
	defer handedOut.Unlock()
	if handedOut.ports == nil {
		handedOut.ports = map[int]bool{}
	}
	for range 1000 {
		port := lowestPort + rand.IntN(highestPort-lowestPort)
		if handedOut.ports[port] || !portIsFree(port) {
			continue
		}
		handedOut.ports[port] = true
		return port
	}
	t.Fatalf("found no free port between %d and %d", lowestPort, highestPort)
	return 0
}

func portIsFree(port int) bool {
	addr := loopback(port)
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return false
	}
	defer l.Close()
	p, err := net.ListenPacket("udp", addr)
	if err != nil {
		return false
	}
	defer p.Close()
	return true
}

func loopback(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }
