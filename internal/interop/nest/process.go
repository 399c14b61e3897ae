package nest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"time"
)

// Process is a running command and what it has written. Its methods may be called
// from several goroutines.
type Process struct {
	cmd  *exec.Cmd
	log  *os.File // written by the process alone, so that whoever measures it has no part in that
	done chan struct{}
}

// Start starts cmd, whose output must not be set. Close ends it.
func Start(cmd *exec.Cmd) (*Process, error) {
	log, err := os.CreateTemp("", "wherry-process-*.log")
	if err != nil {
		return nil, err
	}
	p := &Process{cmd: cmd, log: log, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(err, log.Close(), os.Remove(log.Name()))
	}
	go func() {
		defer close(p.done)
		_ = cmd.Wait() // Stop tells of its code
	}()
	return p, nil
}

// Log is what the process has written so far, until Close.
func (p *Process) Log() string {
	b, err := os.ReadFile(p.log.Name())
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// Close kills the process if it still runs and forgets what it has written.
func (p *Process) Close() error {
	p.Stop(os.Kill)
	return errors.Join(p.log.Close(), os.Remove(p.log.Name()))
}

// Await waits until the process has written something that the pattern matches n
// times, and returns the last of them with its groups. Its error has the whole
// log.
func (p *Process) Await(ctx context.Context, pattern string, n int) ([]string, error) {
	expr, err := regexp.Compile(pattern)
	if err != nil {
		return nil, err
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for ended := false; ; {
		if found := expr.FindAllStringSubmatch(p.Log(), n); len(found) == n {
			return found[n-1], nil
		}
		if ended {
			return nil, fmt.Errorf("the process ended and had not written %q %d times:\n%s", pattern, n, p.Log())
		}
		select {
		case <-tick.C:
		case <-p.done:
			ended = true // one more look at what it wrote last
		case <-ctx.Done():
			return nil, fmt.Errorf("the process has not written %q %d times: %w\n%s", pattern, n, context.Cause(ctx), p.Log())
		}
	}
}

// Stop sends the signal, waits for the end and returns the exit code, -1 where
// the signal ended it.
func (p *Process) Stop(sig os.Signal) int {
	_ = p.cmd.Process.Signal(sig) // it may have ended by itself
	<-p.done
	return p.cmd.ProcessState.ExitCode()
}

// Signal sends a signal.
func (p *Process) Signal(sig os.Signal) error { return p.cmd.Process.Signal(sig) }

// CPU is the processor time that the process has taken, once it has ended.
func (p *Process) CPU() time.Duration {
	<-p.done
	return p.cmd.ProcessState.UserTime() + p.cmd.ProcessState.SystemTime()
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }
