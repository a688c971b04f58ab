package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sleeper starts a process that would run for an hour.
func sleeper(t *testing.T, script string) *process {
	t.Helper()
	p, err := spawn("sleeper", t.TempDir(), t.TempDir(), os.Environ(), "sh", "-c", script)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.signal(syscall.SIGKILL)
		<-p.done
	})
	return p
}

// testStack is one whose steps can be made, with nothing running in it.
func testStack(t *testing.T, p ports) *stack {
	// Ended long ago: stop sends it nothing.
	ended := &process{cmd: &exec.Cmd{Process: &os.Process{Pid: 4242}}, done: make(chan struct{})}
	close(ended.done)
	services := map[string]*process{"orders-green-1": ended}
	return &stack{root: t.TempDir(), dir: t.TempDir(), out: io.Discard, ports: p, services: services}
}

func usualPorts() ports {
	return ports{gateway: gatewayPort, admin: adminPort, consul: consulPort, etcd: etcdPort}
}

func TestPageShowsEveryCommandThatTheCheckRuns(t *testing.T) {
	for name, p := range map[string]ports{
		"on the usual ports": usualPorts(),
		"on other ports":     {gateway: 20001, admin: 20002, consul: 20003, etcd: 20004},
	} {
		t.Run(name, func(t *testing.T) {
			s := testStack(t, p)
			var page strings.Builder
			printPage(&page, s, s.steps())
			for _, st := range s.steps() {
				if !strings.Contains(page.String(), "    "+st.command+"\n") && !strings.Contains(page.String(), "    "+st.command+"   # ") {
					t.Errorf("the page lacks the command %s", st.command)
				}
			}
			line := "export SLUICE_ADMIN_LISTEN=127.0.0.1:20002 SLUICE_ETCD_ENDPOINTS=http://127.0.0.1:20004 " +
				"ETCDCTL_ENDPOINTS=http://127.0.0.1:20004 CONSUL_HTTP_ADDR=http://127.0.0.1:20003\n"
			if got, want := strings.Contains(page.String(), line), p != usualPorts(); got != want {
				t.Errorf("the page holds the exports: %t, want %t", got, want)
			}
		})
	}
}

func TestStepsExpectSomething(t *testing.T) {
	steps := testStack(t, usualPorts()).steps()
	if steps[0].title == "" {
		t.Error("the page begins without a title")
	}
	for _, st := range steps {
		if len(st.want) == 0 {
			t.Errorf("any answer would do for %s", st.command)
		}
		for _, expression := range slices.Concat(st.want, st.reject) {
			if _, err := regexp.Compile("(?m)" + expression); err != nil {
				t.Errorf("%s: %v", st.command, err)
			}
		}
	}
}

func TestVerifyComparesAnAnswer(t *testing.T) {
	tests := []struct {
		name   string
		step   step
		output string
		want   string // the error, or ""
	}{
		{"every expression matches", step{want: []string{`^OK$`, `b`}}, "a\nOK\nb\n", ""},
		{"one does not match", step{want: []string{`OK`, `green`}}, "OK", "nothing in the answer matches green"},
		{"nothing printed where something is wanted", step{want: []string{`OK`}}, "", "nothing in the answer matches OK"},
		{"something printed where nothing is wanted", step{want: []string{`\A\z`}}, "error", `nothing in the answer matches \A\z`},
		{"what is rejected is there", step{want: []string{`a`}, reject: []string{`502`}}, "a 502", `the answer must not hold "502"`},
		{"what is rejected is not there", step{want: []string{`a`}, reject: []string{`502`}}, "a 200", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := ""
			if err := tt.step.verify(tt.output); err != nil {
				got = err.Error()
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestCheckCountsAndTellsWhatFailed(t *testing.T) {
	s := testStack(t, usualPorts())
	var out strings.Builder
	s.out = &out
	marker := s.root + "/seen"
	steps := []step{
		{title: "First.", command: "echo hello", want: []string{`\Ahello\n\z`}, once: true},
		{command: "exit 3", want: []string{`\A\z`}, once: true},
		{title: "Settles.", command: "test -e seen && echo there || touch seen", want: []string{`there`}},
		{command: "echo ready; exec sleep 3600", want: []string{`^ready$`}, stays: true},
		{command: "echo away", want: []string{`here`}, once: true},
	}
	err := checkSteps(t.Context(), s, steps)
	s.stop()
	if err != errFailed {
		t.Errorf("got error %v, want %v", err, errFailed)
	}
	want := `
First.
PASS  echo hello
FAIL  exit 3
      it ended with: exit status 3; it printed:
      | 
Settles.
PASS  test -e seen && echo there || touch seen
PASS  echo ready; exec sleep 3600
FAIL  echo away
      nothing in the answer matches here; it printed:
      | away

3 passed, 2 failed
`
	if out.String() != want {
		t.Errorf("printed:\n%s\nwant:\n%s", out.String(), want)
	}
	if _, err := os.Stat(marker); err != nil {
		t.Errorf("commands did not run in the repository's root: %v", err)
	}
}

func TestStopEndsWhatAShellStarted(t *testing.T) {
	// The pipe ends when nobody is left to write to it.
	path := filepath.Join(t.TempDir(), "alive")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	p := sleeper(t, "sleep 3600 >"+quote(path)+" & wait")
	alive, err := os.Open(path) // returns once the sleep has opened it
	if err != nil {
		t.Fatal(err)
	}
	defer alive.Close()
	s := &stack{extra: []*process{p}}
	s.stop()
	if err := alive.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(alive); err != nil {
		t.Errorf("the shell's child lives on: %v", err)
	}
}

func TestAPartThatEndsUnaskedEndsTheDemoWithItsReason(t *testing.T) {
	ctx, fail := context.WithCancelCause(t.Context())
	defer fail(nil)
	s := &stack{root: t.TempDir(), dir: t.TempDir(), fail: fail}
	if err := os.Mkdir(s.root+"/bin", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.bin("etcd"), []byte("#!/bin/sh\necho no space left; echo '{\"msg\":\"request\"}'; exit 7\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	p, err := s.launch("etcd", "etcd")
	if err != nil {
		t.Fatal(err)
	}
	<-ctx.Done()
	if got, want := fmt.Sprint(context.Cause(ctx)), "etcd ended: exit status 7"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := string(p.tail(5)), "no space left"; got != want {
		t.Errorf("the log ends with %q, want %q", got, want)
	}
}

func TestPortsThatAreTakenAreAvoided(t *testing.T) {
	taken, err := net.Listen("tcp", loopback(0))
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := taken.Addr().(*net.TCPAddr).Port
	got, err := claim(port)
	if err != nil {
		t.Fatal(err)
	}
	defer got.Close()
	if got.Addr().(*net.TCPAddr).Port == port {
		t.Errorf("got port %d although it is taken", port)
	}
}

func TestQuoteMakesOneShellWord(t *testing.T) {
	for _, path := range []string{"/plain/path", "/with space", "/it's", "/a$HOME", "/x;y", `/back\slash`} {
		out, err := exec.Command("sh", "-c", "printf %s "+quote(path)).Output()
		if err != nil || string(out) != path {
			t.Errorf("quote(%q) = %s, which the shell reads as %q (%v)", path, quote(path), out, err)
		}
	}
}

func TestTheReadmesCommandsAreStepsOfTheDemo(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	steps := testStack(t, usualPorts()).steps()
	found := 0
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if !hasAnyPrefix(line, "bin/", "curl ") {
			continue
		}
		found++
		if !slices.ContainsFunc(steps, func(st step) bool { return strings.Contains(st.command, line) }) {
			t.Errorf("the demo does not try %s", line)
		}
	}
	if found == 0 {
		t.Error("README.md has no command to try")
	}
}
