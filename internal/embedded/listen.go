package embedded

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"syscall"
	"time"
)

const defaultAddr = "127.0.0.1:9092"

// endpoint is where to listen and what to tell clients.
type endpoint struct {
	host, port       string
	sayHost, sayPort string // what is advertised; "" is what is listened on
	fallback         bool
}

// endpoint reads the addresses of b.
func (b *Broker) endpoint() (endpoint, error) {
	e := endpoint{fallback: b.Fallback}
	var err error
	addr := cmp.Or(b.Addr, defaultAddr)
	if e.host, e.port, err = net.SplitHostPort(addr); err != nil {
		return e, fmt.Errorf("address %q: %w: give host:port, such as %s", addr, err, defaultAddr)
	}
	if !isPort(e.port) {
		return e, fmt.Errorf("address %q: %q is no port: give a number from 0 (a free port) to 65535", addr, e.port)
	}
	if b.Advertise != "" {
		e.sayHost = b.Advertise
		if host, port, err := net.SplitHostPort(b.Advertise); err == nil {
			if !isPort(port) || port == "0" {
				return e, fmt.Errorf("advertised address %q: %q is no port that clients can connect to", b.Advertise, port)
			}
			e.sayHost, e.sayPort = host, port
		}
	}
	if said := cmp.Or(e.sayHost, e.host); anywhere(said) {
		return e, fmt.Errorf("address %q: a Kafka broker tells its clients where to connect, and %q is no place to "+
			"connect to: also say the name or address that clients use for this machine (Advertise)", addr, said)
	}
	return e, nil
}

// isPort reports whether s is the number of a port, or 0.
func isPort(s string) bool {
	n, err := strconv.Atoi(s)
	return err == nil && n >= 0 && n <= 65535
}

// anywhere reports whether host means all interfaces of a machine.
func anywhere(host string) bool {
	ip := net.ParseIP(host)
	return host == "" || ip != nil && ip.IsUnspecified()
}

// loopback reports whether host, an IP address, is this machine's own.
func loopback(host string) bool {
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// listen takes the port. Clients that connect wait until the door is open: the
// operating system accepts their connections, and nobody answers yet.
func (e endpoint) listen(ctx context.Context, log *slog.Logger) (*door, error) {
	var tcp net.ListenConfig
	addr := net.JoinHostPort(e.host, e.port)
	ln, err := tcp.Listen(ctx, "tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		if !e.fallback {
			return nil, fmt.Errorf("port %s of %s is taken by another program (perhaps another broker): "+
				"stop it, or choose another address, or port 0 for a free one: %w", e.port, cmp.Or(e.host, "all hosts"), err)
		}
		if ln, err = tcp.Listen(ctx, "tcp", net.JoinHostPort(e.host, "0")); err == nil {
			log.Warn("the port is taken by another program: listening on a free one", "wanted", addr, "address", ln.Addr().String())
		}
	}
	if err != nil {
		return nil, fmt.Errorf("listening on %s: %w", addr, err)
	}
	host, port, _ := net.SplitHostPort(ln.Addr().String())
	return &door{
		Listener: ln,
		log:      log,
		say:      place(net.JoinHostPort(cmp.Or(e.sayHost, host), cmp.Or(e.sayPort, port))),
		opened:   make(chan struct{}),
		closed:   make(chan struct{}),
	}, nil
}

// place is the address that kfake tells clients: a net.Addr with any host.
type place string

func (place) Network() string  { return "tcp" }
func (p place) String() string { return string(p) }

// door is kfake's listener: it lets nobody in before open, keeps out what
// does not speak Kafka, and outlives passing faults of accept.
type door struct {
	net.Listener
	log    *slog.Logger
	say    place
	opened chan struct{}
	closed chan struct{}
	once   sync.Once
}

// listenFn is for kfake.ListenFn; kfake's own idea of the address is ignored.
func (d *door) listenFn(_, _ string) (net.Listener, error) { return d, nil }

// open lets clients in. It may be called once.
func (d *door) open() { close(d.opened) }

// Addr returns what clients are told.
func (d *door) Addr() net.Addr { return d.say }

// tcpHost returns the host that is really listened on.
func (d *door) tcpHost() string {
	host, _, _ := net.SplitHostPort(d.Listener.Addr().String())
	return host
}

// Accept waits for the door to open, then for a client. It returns an error
// only after Close, because kfake never calls it again after one.
func (d *door) Accept() (net.Conn, error) {
	select {
	case <-d.opened:
	case <-d.closed:
		return nil, net.ErrClosed
	}
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		conn, err := d.Listener.Accept()
		if err == nil {
			return &guarded{Conn: conn, log: d.log}, nil
		}
		select {
		case <-d.closed:
			return nil, net.ErrClosed
		default:
		}
		d.log.Warn("a client could not be let in", "error", err)
		select {
		case <-time.After(wait):
		case <-d.closed:
			return nil, net.ErrClosed
		}
	}
}

// shut lets nobody in any more and frees the port. It may be called more than
// once.
func (d *door) shut() {
	d.once.Do(func() {
		close(d.closed)
		_ = d.Listener.Close()
	})
}

// Close is shut, for kfake.
func (d *door) Close() error {
	d.shut()
	return nil
}
