package testenv

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// startTimeout bounds the wait for a server to answer; a machine that builds
// at the same time is slow.
const startTimeout = 60 * time.Second

// Server is one process. Its methods fail the test on error.
type Server struct {
	t       TB
	name    string
	binary  string
	args    []string
	env     []string // beside this process's own
	logPath string
	ready   func() error

	cmd    *exec.Cmd
	exited chan struct{}
}

// launch starts a server on ports that plan chooses and waits until it is
// ready. Another process may take a port between the choice and the bind:
// then plan is asked again.
func launch(t TB, name, binary string, plan func(*Server)) *Server {
	t.Helper()
	s := newServer(t, name, binary)
	for attempt := 1; ; attempt++ {
		plan(s)
		s.spawn()
		err := s.awaitReady()
		if err == nil {
			return s
		}
		taken := strings.Contains(s.tail(), "address already in use")
		s.signalAndWait(syscall.SIGKILL)
		if !taken || attempt == 5 {
			t.Fatalf("start %s: %v\n%s", name, err, s.tail())
			return s
		}
	}
}

func newServer(t TB, name, binary string) *Server {
	t.Helper()
	s := &Server{
		t: t, name: name, binary: Binary(t, binary),
		logPath: filepath.Join(t.TempDir(), name+".log"),
	}
	t.Cleanup(func() {
		s.Stop()
		if f, ok := t.(interface{ Failed() bool }); ok && f.Failed() {
			t.Logf("last lines of %s:\n%s", s.name, s.tail())
		}
	})
	return s
}

func (s *Server) spawn() {
	s.t.Helper()
	log, err := os.OpenFile(s.logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		s.t.Fatalf("open the log of %s: %v", s.name, err)
		return
	}
	defer log.Close()
	cmd := exec.Command(s.binary, s.args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), s.env...)
	cmd.SysProcAttr = ownGroup()
	if err := cmd.Start(); err != nil {
		s.t.Fatalf("start %s: %v", s.name, err)
		return
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	s.cmd, s.exited = cmd, exited
}

func (s *Server) awaitReady() error {
	var err error
	for deadline := time.Now().Add(startTimeout); time.Now().Before(deadline); {
		select {
		case <-s.exited:
			return fmt.Errorf("it ended: %s", s.cmd.ProcessState)
		default:
		}
		if err = s.ready(); err == nil {
			return nil
		}
		time.Sleep(5 * time.Millisecond)
	}
	return fmt.Errorf("not ready after %s: %w", startTimeout, err)
}

// Pid is the process id of the process that runs or ran last.
func (s *Server) Pid() int { return s.cmd.Process.Pid }

// Running reports whether the process has not ended.
func (s *Server) Running() bool {
	if s.cmd == nil {
		return false
	}
	select {
	case <-s.exited:
		return false
	default:
		return true
	}
}

// WaitReady waits until the server answers.
func (s *Server) WaitReady() {
	s.t.Helper()
	if err := s.awaitReady(); err != nil {
		s.t.Fatalf("%s: %v\n%s", s.name, err, s.tail())
	}
}

// Start starts a server that was stopped or killed, on the same ports,
// without waiting until it is ready.
func (s *Server) Start() {
	s.t.Helper()
	if s.Running() {
		s.t.Fatalf("start %s: it runs already", s.name)
		return
	}
	s.spawn()
}

// Restart stops the server if it runs, starts it on the same ports and waits
// until it is ready.
func (s *Server) Restart() {
	s.t.Helper()
	s.Stop()
	s.Start()
	s.WaitReady()
}

// Stop ends the process with SIGTERM and waits until it is gone. A process
// that does not obey is killed.
func (s *Server) Stop() { s.signalAndWait(syscall.SIGTERM) }

// Kill ends the process with SIGKILL and waits until it is gone.
func (s *Server) Kill() { s.signalAndWait(syscall.SIGKILL) }

func (s *Server) signalAndWait(sig syscall.Signal) {
	if !s.Running() {
		return
	}
	_ = s.cmd.Process.Signal(sig)
	// A frozen process takes SIGTERM only once it goes on.
	_ = s.cmd.Process.Signal(syscall.SIGCONT)
	select {
	case <-s.exited:
	case <-time.After(15 * time.Second):
		_ = s.cmd.Process.Kill()
		<-s.exited
	}
}

// Freeze stops the process where it is: its connections stay open and
// nothing answers.
func (s *Server) Freeze() { s.signal(syscall.SIGSTOP) }

// Thaw lets a frozen process go on.
func (s *Server) Thaw() { s.signal(syscall.SIGCONT) }

func (s *Server) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatalf("send %s to %s: %v", sig, s.name, err)
	}
}

// Log is everything that the server has written so far, over every start.
func (s *Server) Log() string {
	s.t.Helper()
	data, err := os.ReadFile(s.logPath)
	if err != nil {
		s.t.Fatalf("read the log of %s: %v", s.name, err)
	}
	return string(data)
}

// tail is the end of the server's log.
func (s *Server) tail() string {
	const lines = 25
	data, err := os.ReadFile(s.logPath)
	if err != nil {
		return err.Error()
	}
	all := bytes.Split(bytes.TrimSpace(data), []byte("\n"))
	return string(bytes.Join(all[max(0, len(all)-lines):], []byte("\n")))
}

// httpReady asks url once and hands the answer to check.
func httpReady(url string, check func(status int, body string) error) error {
	client := http.Client{
		Timeout:   2 * time.Second,
		Transport: &http.Transport{DisableKeepAlives: true},
	}
	res, err := client.Get(url)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	var body bytes.Buffer
	if _, err := body.ReadFrom(res.Body); err != nil {
		return err
	}
	return check(res.StatusCode, body.String())
}

var errNoLeader = errors.New("no leader yet")
