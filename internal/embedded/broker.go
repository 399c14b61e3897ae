package embedded

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
)

// Broker is a Kafka-protocol broker in this process, for development and
// tests. It is one node without replication, encryption or authentication;
// whoever reaches its port can read and write everything.
//
// Set the fields, then call [Broker.Run] once, in a goroutine of its own. A
// Broker must not be copied after the first call of a method.
type Broker struct {
	// Dir is the data folder, made if it is missing. One process at a time
	// can use it. "" keeps all in memory until Run returns.
	Dir string

	// Addr is the "host:port" to listen on. "" means 127.0.0.1:9092; port 0
	// means a free port. To listen on all interfaces (no host, 0.0.0.0, ::)
	// needs Advertise.
	Addr string

	// Advertise is the "host" or "host:port" that clients are told to connect
	// to. "" means the address that is listened on.
	Advertise string

	// Fallback listens on a free port when that of Addr is taken, and warns of
	// it in the log. Without it a taken port is an error.
	Fallback bool

	// AutoCreate creates a topic when a client asks for one that does not
	// exist, as Apache Kafka does by default (auto.create.topics.enable).
	AutoCreate bool

	// Partitions is how many partitions a topic gets whose creator names no
	// number. 0 means 1, as in Apache Kafka.
	Partitions int

	// Logger gets one line at start and all warnings. nil means
	// slog.Default(). Requests that failed are logged at debug level.
	Logger *slog.Logger

	once    sync.Once
	ready   chan struct{}
	ran     atomic.Bool
	address atomic.Value
}

// Ready returns a channel that is closed when clients can connect. It may be
// called before Run and from any goroutine. It is never closed when Run fails
// first, so wait for both: for Ready and for Run's return.
func (b *Broker) Ready() <-chan struct{} {
	b.once.Do(func() { b.ready = make(chan struct{}) })
	return b.ready
}

// Address returns the "host:port" that clients connect to, with the real port
// in place of 0. It is empty until Ready is closed, and stays after Run.
func (b *Broker) Address() string {
	addr, _ := b.address.Load().(string)
	return addr
}

// Run opens and repairs the data folder, lets clients in and serves them until
// ctx is done. Then it cuts the connections, writes everything to the folder,
// frees the folder and the port, and returns nil.
//
// An error before Ready is closed means that the broker did not start: the
// configuration is wrong (all faults at once), the folder is in use, not
// writable, or damaged beyond repair, or the port is taken. An error after it
// means that the folder may lack some of the last run's state.
//
// Run can be called once. Close clients before ctx ends, or they try to
// reconnect.
func (b *Broker) Run(ctx context.Context) (err error) {
	if !b.ran.CompareAndSwap(false, true) {
		return errors.New("local broker: this Broker has run already: make a new one for each run")
	}
	log := cmp.Or(b.Logger, slog.Default())
	where, err := b.endpoint()
	if err := errors.Join(err, b.faults()); err != nil {
		return fmt.Errorf("local broker: %w", err)
	}
	if ctx.Err() != nil {
		return nil
	}

	store, err := openStore(b.Dir, log)
	if err != nil {
		return fmt.Errorf("local broker: %w", err)
	}
	defer func() { err = errors.Join(err, store.unlock()) }()
	door, err := where.listen(ctx, log)
	if ctx.Err() != nil && err != nil {
		return nil
	}
	if err != nil {
		return fmt.Errorf("local broker: %w", err)
	}
	defer door.shut()
	if err := store.at(door.Addr().String()); err != nil {
		return fmt.Errorf("local broker: %w", err)
	}

	kernel := &kernelLog{log: log}
	cluster, err := b.open(store, door, kernel)
	if err != nil {
		return fmt.Errorf("local broker: %w", err)
	}
	if ctx.Err() == nil {
		b.letIn(door, log)
		<-ctx.Done()
	}
	door.shut()
	if err := store.close(cluster, kernel); err != nil {
		return fmt.Errorf("local broker: %w", err)
	}
	return nil
}

// faults returns everything that is wrong with the fields but the addresses.
func (b *Broker) faults() error {
	if b.Partitions < 0 {
		return fmt.Errorf("%d partitions are not possible: give at least 1, or 0 for the default of 1", b.Partitions)
	}
	return nil
}

// letIn opens the door and tells everybody.
func (b *Broker) letIn(door *door, log *slog.Logger) {
	b.address.Store(door.Addr().String())
	kept, note := b.Dir, "for development: a clean stop keeps everything; after a kill -9 open transactions are aborted, "+
		"and one that was just being committed may be torn or be handled again; a power cut may lose acknowledged records"
	if kept == "" {
		kept, note = "memory", "for development: everything is gone when it stops"
	}
	log.Info("local kafka broker is ready", "address", b.Address(), "data", kept, "note", note)
	if host := door.tcpHost(); !loopback(host) {
		log.Warn("the broker can be reached from other machines and asks for no password", "host", host)
	}
	door.open()
	b.Ready()
	close(b.ready)
}

// open starts kfake on a repaired folder. The door is still shut, so nobody
// sees the state before the compaction.
func (b *Broker) open(store *store, door *door, kernel *kernelLog) (*kfake.Cluster, error) {
	found, err := store.repair()
	if err != nil {
		return nil, err
	}
	opts := []kfake.Opt{
		kfake.NumBrokers(1),
		kfake.ClusterID("wherry"),
		kfake.DefaultNumPartitions(cmp.Or(b.Partitions, 1)),
		kfake.ListenFn(door.listenFn),
		kfake.WithLogger(kernel),
		kfake.BrokerConfigs(map[string]string{
			// kfake's cleaner runs in the middle of transactions and loses
			// records then: it gets an interval of a hundred years, and the
			// folder is compacted at start.
			"log.cleaner.backoff.ms": strconv.FormatInt((100 * 365 * 24 * time.Hour).Milliseconds(), 10),
			// It also takes old keys out of compacted topics, and offsets back
			// to 0 when a topic runs empty: nothing expires unless a topic
			// says so.
			"log.retention.ms": "-1",
		}),
	}
	if store != nil {
		opts = append(opts, kfake.DataDir(store.dir))
	}
	cluster, err := kfake.NewCluster(opts...)
	if err != nil {
		return nil, store.explain(err)
	}
	if b.AutoCreate {
		autoCreate(cluster)
	}
	if err := store.compact(cluster, kernel, found); err != nil {
		return nil, errors.Join(err, store.close(cluster, kernel))
	}
	return cluster, nil
}
