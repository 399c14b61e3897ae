package embedded_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/internal/embedded"
)

// limit bounds whatever a test waits for.
const limit = 20 * time.Second

// childDir and childAddr are the data folder and the address in the
// environment of a child process, which is this test binary running nothing
// but a broker.
const (
	childDir  = "EMBEDDED_TEST_CHILD_DIR"
	childAddr = "EMBEDDED_TEST_CHILD_ADDR"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		os.Exit(child(dir))
	}
	os.Exit(m.Run())
}

// child runs a broker until SIGTERM, and prints its address when it is ready.
func child(dir string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	b := &embedded.Broker{Dir: dir, Addr: os.Getenv(childAddr), AutoCreate: true}
	go func() {
		<-b.Ready()
		fmt.Println(b.Address())
	}()
	if err := b.Run(ctx); err != nil {
		fmt.Println("error:", err)
		return 1
	}
	return 0
}

// startChild starts a broker in a process of its own and returns its address.
func startChild(t *testing.T, dir string) (*exec.Cmd, string) {
	t.Helper()
	return startChildAt(t, dir, "127.0.0.1:0")
}

func startChildAt(t *testing.T, dir, addr string) (*exec.Cmd, string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childDir+"="+dir, childAddr+"="+addr)
	cmd.Stderr = io.Discard
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	require.NotContains(t, line, "error")
	return cmd, strings.TrimSpace(line)
}

// running is a broker in this process.
type running struct {
	*embedded.Broker
	logs *logs
	done chan error
	end  context.CancelFunc
}

// start runs b and waits until it is ready. It ends with the test, if not
// stopped before.
func start(t *testing.T, b *embedded.Broker) *running {
	t.Helper()
	r, err := try(t, b)
	require.NoError(t, err)
	return r
}

// try is start for a broker that may fail to.
func try(t *testing.T, b *embedded.Broker) (*running, error) {
	t.Helper()
	r := &running{Broker: b, logs: &logs{}, done: make(chan error, 1)}
	if b.Addr == "" {
		b.Addr = "127.0.0.1:0"
	}
	if b.Logger == nil {
		b.Logger = slog.New(slog.NewTextHandler(r.logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	var ctx context.Context
	ctx, r.end = context.WithCancel(context.Background())
	go func() { r.done <- b.Run(ctx) }()
	t.Cleanup(func() { r.end() })
	select {
	case <-b.Ready():
		t.Cleanup(func() { _ = r.stop(t) })
		return r, nil
	case err := <-r.done:
		r.done <- err
		require.Error(t, err, "Run returned before it was ready")
		return r, err
	case <-time.After(limit):
		t.Fatal("the broker is not ready")
		return nil, nil
	}
}

// stop ends Run and returns its error.
func (r *running) stop(t *testing.T) error {
	t.Helper()
	r.end()
	select {
	case err := <-r.done:
		r.done <- err
		return err
	case <-time.After(limit):
		t.Fatal("Run does not return")
		return nil
	}
}

// logs is what a broker has logged.
type logs struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// client returns a client that is closed when the test ends.
func client(t *testing.T, addr string, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(addr), kgo.ProducerLinger(0), kgo.MetadataMinAge(20 * time.Millisecond),
		kgo.DefaultProduceTopic("t"), kgo.DisableClientMetrics(),
	}, opts...)...)
	require.NoError(t, err)
	t.Cleanup(cl.CloseAllowingRebalance)
	return cl
}

func timeout(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	t.Cleanup(cancel)
	return ctx
}

// topic creates a topic with one partition, or more.
func topic(t *testing.T, addr, name string, partitions int32, configs map[string]string) {
	t.Helper()
	set := map[string]*string{}
	for k, v := range configs {
		set[k] = &v
	}
	_, err := kadm.NewClient(client(t, addr)).CreateTopic(timeout(t), partitions, 1, set, name)
	require.NoError(t, err)
}

// send produces values to partition 0 of topic t, and waits for them.
func send(t *testing.T, cl *kgo.Client, values ...string) {
	t.Helper()
	for _, v := range values {
		require.NoError(t, cl.ProduceSync(timeout(t), &kgo.Record{Value: []byte(v)}).FirstErr())
	}
}

// inTxn produces values in a transaction and commits it.
func inTxn(t *testing.T, cl *kgo.Client, values ...string) {
	t.Helper()
	require.NoError(t, cl.BeginTransaction())
	send(t, cl, values...)
	require.NoError(t, commit(timeout(t), cl))
}

// commit ends a transaction. franz-go 1.22.2 acknowledges the first record to
// a topic before it has stored the topic's partitions; EndTransaction in
// between finds none, aborts, and returns nil. A purge, here of a topic that
// is in no use, waits for whoever stores them.
func commit(ctx context.Context, cl *kgo.Client) error {
	cl.PurgeTopicsFromProducing("none")
	return cl.EndTransaction(ctx, kgo.TryCommit)
}

// read returns the committed values of a topic: partition by partition, in
// order, to the last stable offset.
func read(t *testing.T, addr, topic string) []string {
	t.Helper()
	values := []string{}
	for _, r := range records(t, addr, topic) {
		values = append(values, string(r.Value))
	}
	return values
}

func records(t *testing.T, addr, topic string) []*kgo.Record {
	t.Helper()
	ends, err := kadm.NewClient(client(t, addr)).ListCommittedOffsets(timeout(t), topic)
	require.NoError(t, err)
	require.NoError(t, ends.Error())
	cl := client(
		t, addr, kgo.ConsumeTopics(topic), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(100*time.Millisecond),
	)
	left := map[int32]int64{}
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset > 0 {
			left[o.Partition] = o.Offset
		}
	})
	ctx, found := timeout(t), []*kgo.Record{}
	starts, err := kadm.NewClient(cl).ListStartOffsets(ctx, topic)
	require.NoError(t, err)
	starts.Each(func(o kadm.ListedOffset) {
		if o.Offset >= left[o.Partition] {
			delete(left, o.Partition)
		}
	})
	for len(left) > 0 {
		fetches := cl.PollFetches(ctx)
		require.NoError(t, fetches.Err0(), "left: %v", left)
		fetches.EachRecord(func(r *kgo.Record) {
			if !r.Attrs.IsControl() {
				found = append(found, r)
			}
			if r.Offset+1 >= left[r.Partition] {
				delete(left, r.Partition)
			}
		})
	}
	return found
}

// killed returns a copy of a running broker's folder: what a kill -9 at this
// moment would leave.
func killed(t *testing.T, r *running) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.CopyFS(dir, os.DirFS(r.Dir)))
	return dir
}

// segment returns the path of the only segment of a partition.
func segment(t *testing.T, dir, partition string) string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "partitions", partition, "*.dat"))
	require.NoError(t, err)
	require.Len(t, paths, 1)
	return paths[0]
}

// freeAddr returns an address that was free a moment ago.
func freeAddr(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, ln.Close())
	return ln.Addr().String()
}
