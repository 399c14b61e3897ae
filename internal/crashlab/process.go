//go:build unix

package crashlab

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/wherry-go/wherry/internal/planted"
)

// Process is a process of the laboratory, seen from its parent.
type Process struct {
	Child
	cmd    *exec.Cmd
	stdin  io.Closer
	ready  chan struct{}
	exited chan struct{}

	mu     sync.Mutex
	asked  bool // its end was asked for
	killed bool
	frozen bool
	counts map[string]int
}

// StartProcess starts program, which calls RunChild, as a process of the
// laboratory. What it logs is in a file of dir with its name.
func StartProcess(program, dir string, c Child) (*Process, error) {
	told, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	log, err := os.OpenFile(filepath.Join(dir, c.Run+"-"+c.Name+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }() // the process has its own descriptor
	//nolint:noctx // it ends by Stop, Kill, or with us
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), childEnv+"="+string(told), planted.Env+"="+c.Plant)
	cmd.Stderr = log
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &Process{Child: c, cmd: cmd, stdin: in, ready: make(chan struct{}), exited: make(chan struct{})}
	go p.wait(out)
	return p, nil
}

// wait reads what the process says, and takes its end.
func (p *Process) wait(out io.Reader) {
	defer close(p.exited)
	lines := bufio.NewScanner(out)
	for ready := false; lines.Scan(); {
		if lines.Text() == "ready" && !ready {
			ready = true
			close(p.ready)
		}
		if text, ok := strings.CutPrefix(lines.Text(), "counts "); ok {
			p.mu.Lock()
			_ = json.Unmarshal([]byte(text), &p.counts)
			p.mu.Unlock()
		}
	}
	_ = p.cmd.Wait() // the state tells
	_ = p.stdin.Close()
}

// Ready is closed when the process has joined its group. It may end before.
func (p *Process) Ready() <-chan struct{} { return p.ready }

// Exited is closed when it has ended.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// Gone reports whether it has ended.
func (p *Process) Gone() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

// signal sends a signal to the process, if there still is one.
func (p *Process) signal(s syscall.Signal) {
	if !p.Gone() {
		_ = p.cmd.Process.Signal(s) // it may have ended meanwhile
	}
}

// Kill ends it at once (SIGKILL), and waits for its end.
func (p *Process) Kill() {
	p.mu.Lock()
	p.killed = true
	p.mu.Unlock()
	p.signal(syscall.SIGKILL)
	<-p.exited
}

// Stop asks it to end (SIGTERM).
func (p *Process) Stop() {
	p.mu.Lock()
	p.asked = true
	p.mu.Unlock()
	p.signal(syscall.SIGTERM)
}

// Freeze stops its threads (SIGSTOP): its connections stay open, and nothing
// answers. Thaw lets it go on.
func (p *Process) Freeze() {
	p.mu.Lock()
	p.frozen = true
	p.mu.Unlock()
	p.signal(syscall.SIGSTOP)
}

// Thaw is the end of Freeze.
func (p *Process) Thaw() {
	p.mu.Lock()
	p.frozen = false
	p.mu.Unlock()
	p.signal(syscall.SIGCONT)
}

// Frozen reports whether it is frozen.
func (p *Process) Frozen() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.frozen
}

// Counts returns how many requests of each kind it made, when it has ended
// because it was asked to.
func (p *Process) Counts() map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.counts
}

// Died reports whether it ended itself, as it was told.
func (p *Process) Died() bool { return p.Gone() && p.cmd.ProcessState.ExitCode() == diedCode }

// Err tells of an end that is no part of a plan: nobody killed the process, it
// was not told to die, and it did not end well.
func (p *Process) Err() error {
	if !p.Gone() {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch code := p.cmd.ProcessState.ExitCode(); {
	case p.killed, code == diedCode && p.Death.N > 0 && p.Death.Cut == 0 && p.Death.Mute == 0, code == 0 && p.asked:
		return nil
	default:
		return fmt.Errorf("process %s ended by itself: %v; see its log", p.Name, p.cmd.ProcessState)
	}
}
