package apache

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"time"
)

// startWait bounds the start. Three nodes on two cores under a load of 10 were
// seen to need 12 s.
const startWait = 45 * time.Second

// Cluster is an Apache Kafka made of processes. Set its fields, call Run once,
// and wait for Ready before anything else.
//
// Its configuration is Kafka's own but for what makes a test quick: groups
// rebalance at once, transactions do not wait 20 ms for the markers of the one
// before, internal topics have 3 partitions, a dead node is noticed after 4 s,
// and topics do not appear by themselves. With three nodes topics have three
// replicas, of which two must be in sync.
type Cluster struct {
	Nodes  int               // 1 or 3; 0 means 1
	Dir    string            // folder of data and logs, kept; "" means one of its own, removed by Run
	Jars   string            // folder with Kafka's jars; "" means what Find returns
	Config map[string]string // more of server.properties, for all nodes; wins over ours
	Users  map[string]string // passwords by user, for SASL PLAIN and SCRAM-SHA-256; empty means no login
	TLS    bool              // whether clients must use TLS
	HeapMB int               // heap of each node; 0 means 128

	once  sync.Once
	ready chan struct{}
	forks chan fork // to Run, whose thread must be the nodes' parent
	died  chan error
	ended chan struct{}
	nodes []*node
	tls   *tls.Config
	temp  bool
	java  string
	jvm   *jvm
}

// fork asks Run to start a node's process.
type fork struct {
	node *node
	done chan error
}

// init makes the channels, so that Ready may be called before Run and a Cluster
// needs no constructor.
func (c *Cluster) init() {
	c.once.Do(func() {
		c.ready = make(chan struct{})
		c.forks = make(chan fork)
		c.died = make(chan error, 3) // one for each node: Run ends with the first
		c.ended = make(chan struct{})
	})
}

// Ready returns a channel that is closed when every node answers clients and
// knows of all the others.
func (c *Cluster) Ready() <-chan struct{} {
	c.init()
	return c.ready
}

// Run starts the nodes, runs them until ctx ends, stops them and returns nil;
// none is left when it returns. It returns earlier, with the end of the node's
// log, when one dies that was not asked to. A cluster in a folder of its own is
// killed, one in Dir is stopped cleanly.
func (c *Cluster) Run(ctx context.Context) (err error) {
	c.init()
	defer close(c.ended)
	// On Linux a node is told to die with the thread that forked it. A locked
	// thread lives as long as this goroutine is in here, that is longer than
	// any node.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	guard, err := c.prepare(ctx)
	if err != nil {
		return fmt.Errorf("apache: %w", err)
	}
	defer func() { _ = guard.Close() }()
	if c.temp {
		defer func() { err = errors.Join(err, os.RemoveAll(c.Dir)) }()
	}
	defer c.end()
	for _, n := range c.nodes {
		if err := n.start(c); err != nil {
			return fmt.Errorf("apache: %w", err)
		}
	}

	started := make(chan error, 1)
	startCtx, cancel := context.WithTimeout(ctx, startWait)
	defer func() {
		cancel()
		for range started {
		}
	}()
	go func() {
		defer close(started)
		if err := c.await(startCtx, c.nodes...); err != nil {
			started <- err
			return
		}
		close(c.ready)
	}()
	starting := started
	for {
		select {
		case <-ctx.Done():
			return nil
		case f := <-c.forks:
			f.done <- f.node.start(c)
		case err := <-c.died:
			return fmt.Errorf("apache: %w", err)
		case err := <-starting:
			if err != nil && ctx.Err() == nil {
				return fmt.Errorf("apache: start: %w", err)
			}
			starting = nil
		}
	}
}

// prepare does all that comes before the first process. The listener returned
// keeps the cluster's block of ports from others of our kind.
func (c *Cluster) prepare(ctx context.Context) (guard net.Listener, err error) {
	c.Nodes = cmp.Or(c.Nodes, 1)
	if c.Nodes != 1 && c.Nodes != 3 {
		return nil, fmt.Errorf("%d nodes: want 1 or 3", c.Nodes)
	}
	if err := checkUsers(c.Users); err != nil {
		return nil, err
	}
	if c.java, err = java(); err != nil {
		return nil, err
	}
	if c.Jars == "" {
		if c.Jars, err = Find(); err != nil {
			return nil, err
		}
	}
	if c.Dir == "" {
		if c.Dir, err = os.MkdirTemp("", "wherry-kafka-"); err != nil {
			return nil, err
		}
		c.temp = true
	} else if c.Dir, err = filepath.Abs(c.Dir); err != nil {
		return nil, err
	}
	guard, port, err := ports(ctx, 3*c.Nodes)
	if err != nil {
		return nil, err
	}
	for i := range c.Nodes {
		c.nodes = append(c.nodes, &node{
			id: i + 1, dir: filepath.Join(c.Dir, "node-"+strconv.Itoa(i+1)),
			client: port + 3*i, inner: port + 3*i + 1, controller: port + 3*i + 2,
		})
	}
	if err := c.write(ctx); err != nil {
		if c.temp {
			err = errors.Join(err, os.RemoveAll(c.Dir))
		}
		return nil, errors.Join(err, guard.Close())
	}
	return guard, nil
}

// write fills the folder: certificates, configuration, formatted storage.
func (c *Cluster) write(ctx context.Context) error {
	for _, n := range c.nodes {
		if err := os.MkdirAll(n.dir, 0o755); err != nil {
			return err
		}
	}
	if c.TLS {
		config, err := writeCertificate(c.keyFile())
		if err != nil {
			return fmt.Errorf("make a certificate: %w", err)
		}
		c.tls = config
	}
	for _, n := range c.nodes {
		if err := os.WriteFile(n.file("server.properties"), c.properties(n), 0o600); err != nil {
			return err
		}
	}
	var err error
	if c.jvm, err = newJVM(c.java, c.Jars, cmp.Or(c.HeapMB, 128)); err != nil {
		return err
	}
	return c.format(ctx)
}

// end stops all nodes at the same time and waits for them. Data that are thrown
// away need no clean stop, which takes 0.4 s where a kill takes 15 ms; but only
// a clean stop leaves a class-data archive.
func (c *Cluster) end() {
	var all sync.WaitGroup
	for _, n := range c.nodes {
		all.Go(func() {
			if c.temp && n.dump == "" {
				_ = n.kill() // down already, else it succeeds
			} else {
				_ = n.stop()
			}
		})
	}
	all.Wait()
}

// Brokers returns the host:port addresses of the nodes' client listeners, once
// Ready is closed.
func (c *Cluster) Brokers() []string {
	var addrs []string
	for _, n := range c.nodes {
		addrs = append(addrs, n.addr(n.client))
	}
	return addrs
}

// ClientTLS returns the configuration with which a client trusts the nodes, or
// nil without TLS, once Ready is closed.
func (c *Cluster) ClientTLS() *tls.Config { return c.tls.Clone() }
