package main

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"time"
)

const (
	// settleTimeout bounds the repeats of a step that does not match yet.
	settleTimeout = 20 * time.Second
	// commandTimeout bounds one command.
	commandTimeout = 60 * time.Second
)

// verify compares what a command printed with what the step says.
func (st step) verify(output string) error {
	for _, w := range st.want {
		if !regexp.MustCompile(`(?m)` + w).MatchString(output) {
			return fmt.Errorf("nothing in the answer matches %s", w)
		}
	}
	for _, r := range st.reject {
		if m := regexp.MustCompile(`(?m)` + r).FindString(output); m != "" {
			return fmt.Errorf("the answer must not hold %q", m)
		}
	}
	return nil
}

// checkSteps runs every command of the page and prints a line for each.
func checkSteps(ctx context.Context, s *stack, steps []step) error {
	passed, failed := 0, 0
	fmt.Fprintln(s.out)
	for _, st := range steps {
		if st.title != "" {
			fmt.Fprintln(s.out, st.title)
		}
		output, err := s.try(ctx, st)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err == nil {
			passed++
			fmt.Fprintf(s.out, "PASS  %s\n", st.command)
			continue
		}
		failed++
		fmt.Fprintf(s.out, "FAIL  %s\n      %v; it printed:\n%s\n", st.command, err, indent(output))
	}
	fmt.Fprintf(s.out, "\n%d passed, %d failed\n", passed, failed)
	if failed > 0 {
		return errFailed
	}
	return nil
}

// try runs a step as often as it allows, and returns what it printed last.
func (s *stack) try(ctx context.Context, st step) (output string, err error) {
	if st.stays {
		return s.tryStaying(ctx, st)
	}
	for deadline := time.Now().Add(settleTimeout); ; {
		if output, err = s.sh(ctx, st.command); err == nil {
			err = st.verify(output)
		}
		if err == nil || st.once || ctx.Err() != nil || time.Now().After(deadline) {
			return output, err
		}
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return output, err
		}
	}
}

// sh runs a command as a person's shell would, after the page's exports.
func (s *stack) sh(ctx context.Context, command string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", command)
	cmd.Dir, cmd.Env = s.root, s.env()
	cmd.SysProcAttr = ownGroup()
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	output, err := cmd.CombinedOutput()
	if err != nil {
		return string(output), fmt.Errorf("it ended with: %w", err)
	}
	return string(output), nil
}

// tryStaying starts a command that runs until the demo ends.
func (s *stack) tryStaying(ctx context.Context, st step) (string, error) {
	p, err := spawn(fmt.Sprintf("step-%d", len(s.extra)+1), s.dir, s.root, s.env(), "sh", "-c", st.command)
	if err != nil {
		return "", err
	}
	s.extra = append(s.extra, p)
	for deadline := time.Now().Add(settleTimeout); ; {
		output := string(p.tail(20))
		err := st.verify(output)
		if err == nil || time.Now().After(deadline) {
			return output, err
		}
		select {
		case <-p.done:
			return string(p.tail(20)), fmt.Errorf("it ended: %s", p.cmd.ProcessState)
		default:
		}
		if err := sleep(ctx, 20*time.Millisecond); err != nil {
			return output, err
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func indent(s string) string {
	return "      | " + strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "\n      | ")
}
