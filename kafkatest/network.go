package kafkatest

import (
	"context"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// network is what lies between the brokers and the clients that were opened with
// Opts. All of a Cluster's faults happen here, so that they are the same on every
// broker. kafkatest's own clients go round it.
type network struct {
	base  func(ctx context.Context, proto, addr string) (net.Conn, error)
	clock atomic.Int64 // when the last request was made, in the test's time

	mu     sync.Mutex
	faults []*Fault            // in the order in which they were made
	conns  map[*conn]struct{}  // the open ones
	topics map[[16]byte]string // names by id, as brokers told clients
}

// process stands for one process of clients: those that were opened with the
// options of one call of Opts, and those that were opened with theirs. Its clients
// share a fate.
type process struct {
	net     *network
	crashed bool // guarded by net.mu
}

// dial connects to a broker.
func (p *process) dial(ctx context.Context, proto, addr string) (net.Conn, error) {
	n := p.net
	if err := n.refused(p, addr); err != nil {
		return nil, err
	}
	base, err := n.base(ctx, proto, addr)
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: base, process: p, addr: addr, closed: make(chan struct{})}
	n.mu.Lock()
	if n.conns == nil {
		n.conns = map[*conn]struct{}{}
	}
	n.conns[c] = struct{}{}
	n.mu.Unlock()
	// Asked again: it may have crashed, or the node gone, while we were dialing.
	if err := n.refused(p, addr); err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// refused returns the error of a dial that a fault forbids.
func (n *network) refused(p *process, addr string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	gone := slices.ContainsFunc(n.faults, func(f *Fault) bool {
		if f.node == "" || f.node != hostport(addr) {
			return false
		}
		f.hit()
		return true
	})
	if gone || p.crashed {
		return &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	}
	return nil
}

// cut closes the connections that are chosen, as their broker's end would.
func (n *network) cut(chosen func(*conn) bool) (closed int) {
	n.mu.Lock()
	var all []*conn
	for c := range n.conns {
		if chosen(c) {
			all = append(all, c)
		}
	}
	n.mu.Unlock()
	for _, c := range all {
		_ = c.Close()
	}
	return len(all)
}

// crash ends the process: none of its connections is left, and none is made.
func (p *process) crash() {
	p.net.mu.Lock()
	p.crashed = true
	p.net.mu.Unlock()
	p.net.cut(func(c *conn) bool { return c.process == p })
}

// forget takes a closed connection away.
func (n *network) forget(c *conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.conns, c)
}

// learn notes the names of topics that clients will ask for by their ids.
func (n *network) learn(names map[[16]byte]string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.topics == nil {
		n.topics = map[[16]byte]string{}
	}
	for id, name := range names {
		n.topics[id] = name
	}
}

// tick notes that a request is being made.
func (n *network) tick() { n.clock.Store(time.Now().UnixNano()) }

// straight connects to a broker without faults.
func (n *network) straight(ctx context.Context, proto, addr string) (net.Conn, error) {
	base, err := n.base(ctx, proto, addr)
	if err != nil {
		return nil, err
	}
	return &straight{base, n}, nil
}

// straight is a connection of our own clients.
type straight struct {
	net.Conn
	net *network
}

func (c *straight) Write(p []byte) (int, error) {
	c.net.tick()
	return c.Conn.Write(p)
}

// hostport makes comparable what clients dial and what brokers say of themselves.
func hostport(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	if host == "localhost" || host == "::1" {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

// errReset is what a client sees of a connection that broke.
func errReset(op string) error {
	return &net.OpError{Op: op, Net: "tcp", Err: os.NewSyscallError(op, syscall.ECONNRESET)}
}
