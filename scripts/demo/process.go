package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// stopTimeout is how long a process may take to end on SIGTERM.
const stopTimeout = 15 * time.Second

// process is one that the demo started, in a group of its own: Ctrl-C in the
// terminal reaches the demo alone, which then stops them in order.
type process struct {
	name string
	log  string // the file with what it printed
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
}

// spawn starts a program with its output in a file under dir.
func spawn(name, dir, workDir string, env []string, program string, args ...string) (*process, error) {
	p := &process{name: name, log: filepath.Join(dir, name+".log"), done: make(chan struct{})}
	log, err := os.Create(p.log)
	if err != nil {
		return nil, fmt.Errorf("make a log for %s: %w", name, err)
	}
	defer log.Close()
	p.cmd = exec.Command(program, args...)
	p.cmd.Dir, p.cmd.Env = workDir, env
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = ownGroup()
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// signal sends sig to the process and what it started.
func (p *process) signal(sig syscall.Signal) {
	select {
	case <-p.done: // its number may belong to another by now
	default:
		_ = syscall.Kill(-p.pid(), sig)
	}
}

// wait waits until the process has ended; one that takes too long is killed.
func (p *process) wait() {
	select {
	case <-p.done:
	case <-time.After(stopTimeout):
		p.signal(syscall.SIGKILL)
		<-p.done
	}
}

// tail is the end of what the process printed, less the lines of an access
// log, which would push out what matters.
func (p *process) tail(lines int) []byte {
	data, err := os.ReadFile(p.log)
	if err != nil {
		return []byte(err.Error())
	}
	var kept [][]byte
	for line := range bytes.Lines(data) {
		if !bytes.Contains(line, []byte(`"msg":"request"`)) {
			kept = append(kept, line)
		}
	}
	return bytes.TrimSpace(bytes.Join(kept[max(0, len(kept)-lines):], nil))
}
