package apache

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// stopWait bounds a clean stop: a node that has lost its peers never ends one.
const stopWait = 15 * time.Second

var errDown = errors.New("it does not run")

// node is one process of the cluster, or its place while it is down. Its ports
// and its folder stay the same from one process to the next: the others, and
// clients, find it again.
type node struct {
	id                        int
	dir                       string
	client, inner, controller int // ports

	mu     sync.Mutex
	cmd    *exec.Cmd     // nil while it is down
	exited chan struct{} // closed when cmd was waited for
	asked  bool          // whether its end was asked for
	dump   string        // where the process leaves a class-data archive, or ""
}

// file names a file in the node's folder: server.properties, log, data.
func (n *node) file(name string) string { return filepath.Join(n.dir, name) }

// addr returns the address of one of the node's ports.
func (n *node) addr(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// start forks the process. Only Run calls it, for the reason given there.
func (n *node) start(c *Cluster) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cmd != nil {
		return errors.New("it runs already")
	}
	log, err := os.OpenFile(n.file("log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }() // the process has its own descriptor
	args, dump := c.jvm.args(len(c.nodes) == 1)
	//nolint:noctx // it ends by kill and stop, of which Run calls one
	cmd := exec.Command(c.java, append(args, "kafka.Kafka", n.file("server.properties"))...)
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = n.dir, log, log, attributes()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start java: %w", err)
	}
	n.cmd, n.exited, n.asked, n.dump = cmd, make(chan struct{}), false, dump
	go n.wait(cmd, c)
	return nil
}

// wait takes the process's end, and reports one that nobody asked for. It is the
// owner of nothing but cmd: kill, stop and Cluster.end wait for it by exited.
func (n *node) wait(cmd *exec.Cmd, c *Cluster) {
	err := cmd.Wait()
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.asked {
		c.died <- fmt.Errorf("node %d died (%w); the end of its log:\n%s", n.id, err, n.tail())
	}
	if n.dump != "" {
		c.jvm.keep(n.dump)
	}
	n.cmd = nil
	close(n.exited)
}

// tail returns the last lines of the node's log.
func (n *node) tail() string {
	const most = 4 << 10
	log, err := os.ReadFile(n.file("log"))
	if err != nil {
		return err.Error()
	}
	return string(log[max(0, len(log)-most):])
}

// signal sends s and returns the channel that is closed at the process's end;
// nil where there is no process.
func (n *node) signal(s os.Signal) (exited <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cmd == nil {
		return nil
	}
	if s == syscall.SIGKILL || s == syscall.SIGTERM {
		n.asked = true
	}
	_ = n.cmd.Process.Signal(s) // fails only when the process has ended, and then exited tells
	return n.exited
}

// up says whether there is a process.
func (n *node) up() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cmd != nil
}

// kill ends the process at once, if there is one, and waits for its end.
func (n *node) kill() error {
	exited := n.signal(syscall.SIGKILL)
	if exited == nil {
		return errDown
	}
	<-exited
	return nil
}

// stop asks the process to end and waits for it, then kills it.
func (n *node) stop() error {
	_ = n.resume() // a frozen process hears nothing
	exited := n.signal(syscall.SIGTERM)
	if exited == nil {
		return errDown
	}
	timer := time.NewTimer(stopWait)
	defer timer.Stop()
	select {
	case <-exited:
		return nil
	case <-timer.C:
		_ = n.kill()
		return fmt.Errorf("it did not stop within %v and was killed", stopWait)
	}
}
