package nest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"sync"
	"time"
)

// Process is a running command and what it has written. Its methods may be called
// from several goroutines.
type Process struct {
	cmd  *exec.Cmd
	done chan struct{}

	mu  sync.Mutex
	log bytes.Buffer
}

// Start starts cmd, whose output must not be set.
func Start(cmd *exec.Cmd) (*Process, error) {
	p := &Process{cmd: cmd, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = p, p
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(p.done)
		_ = cmd.Wait() // ExitCode tells
	}()
	return p, nil
}

// Write takes what the process writes.
func (p *Process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.Write(b)
}

// Log is what the process has written so far.
func (p *Process) Log() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
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
	for {
		if found := expr.FindAllStringSubmatch(p.Log(), n); len(found) == n {
			return found[n-1], nil
		}
		select {
		case <-tick.C:
		case <-p.done:
			return nil, fmt.Errorf("the process ended and had not written %q %d times:\n%s", pattern, n, p.Log())
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

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }
