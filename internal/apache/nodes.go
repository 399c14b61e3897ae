package apache

import (
	"context"
	"errors"
	"fmt"
)

// Kill ends node n (the first is 1) as a crash does (SIGKILL) and returns when
// it has ended. Its data stay. The cluster gives it up after 4 s, and until then
// refuses a node of the same number, so that a Restart right after it takes 5 s.
func (c *Cluster) Kill(n int) error {
	return c.on(n, "kill", func(n *node) error { return n.kill() })
}

// Stop ends node n cleanly (SIGTERM): it hands its partitions to other nodes
// first. A node that does not end within 15 s, because too few of the others
// are up, is killed, which is an error.
func (c *Cluster) Stop(n int) error {
	return c.on(n, "stop", func(n *node) error { return n.stop() })
}

// Restart starts node n after Kill or Stop, on the same ports and data, and
// returns when it answers, knows of all nodes that are up and is in sync with
// their data: another may be lost then. Where most nodes are down none of them
// answers alone: restart those at the same time.
func (c *Cluster) Restart(ctx context.Context, n int) error {
	return c.on(n, "restart", func(n *node) error {
		f := fork{node: n, done: make(chan error, 1)}
		select {
		case c.forks <- f:
		case <-c.ended:
			return errors.New("the cluster has ended")
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if err := <-f.done; err != nil {
			return err
		}
		return c.await(ctx, n)
	})
}

// Pause freezes node n (SIGSTOP): its connections stay open and it answers
// nothing, as a machine under a long garbage collection.
func (c *Cluster) Pause(n int) error {
	return c.on(n, "pause", func(n *node) error { return n.pause() })
}

// Resume lets a paused node (SIGCONT) go on. One that was not paused does not
// mind.
func (c *Cluster) Resume(n int) error {
	return c.on(n, "resume", func(n *node) error { return n.resume() })
}

// on calls f with node number n and says in its error which node it was.
func (c *Cluster) on(n int, verb string, f func(*node) error) error {
	if n < 1 || n > len(c.nodes) {
		return fmt.Errorf("apache: %s node %d: the nodes are numbered 1 to %d", verb, n, len(c.nodes))
	}
	if err := f(c.nodes[n-1]); err != nil {
		return fmt.Errorf("apache: %s node %d: %w", verb, n, err)
	}
	return nil
}
