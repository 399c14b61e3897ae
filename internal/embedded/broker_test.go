package embedded_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wherry-go/wherry/internal/embedded"
)

func TestCleanRestartKeepsEverything(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := start(t, &embedded.Broker{Dir: dir})
	topic(t, b.Address(), "t", 3, map[string]string{"retention.ms": "-1", "segment.bytes": "4096"})
	cl := client(t, b.Address())
	var sent []string
	for i := range 200 {
		sent = append(sent, fmt.Sprintf("v%d", i))
	}
	send(t, cl, sent...)
	inTxn(t, client(t, b.Address(), kgo.TransactionalID("x")), "committed")

	adm := kadm.NewClient(cl)
	offsets := kadm.Offsets{}
	offsets.Add(kadm.Offset{Topic: "t", Partition: 2, At: 7, Metadata: "note"})
	require.NoError(t, adm.CommitAllOffsets(timeout(t), "g", offsets))
	require.NoError(t, b.stop(t))

	b = start(t, &embedded.Broker{Dir: dir})
	require.ElementsMatch(t, append(sent, "committed"), read(t, b.Address(), "t"))
	adm = kadm.NewClient(client(t, b.Address()))
	topics, err := adm.ListTopics(timeout(t))
	require.NoError(t, err)
	require.Len(t, topics["t"].Partitions, 3)
	configs, err := adm.DescribeTopicConfigs(timeout(t), "t")
	require.NoError(t, err)
	var segment string
	for _, c := range configs[0].Configs {
		if c.Key == "segment.bytes" {
			segment = c.MaybeValue()
		}
	}
	require.Equal(t, "4096", segment)
	group, err := adm.FetchOffsets(timeout(t), "g")
	require.NoError(t, err)
	at, ok := group.Lookup("t", 2)
	require.True(t, ok)
	require.EqualValues(t, 7, at.At)
	require.Equal(t, "note", at.Metadata)
	inTxn(t, client(t, b.Address(), kgo.TransactionalID("x")), "again")
	require.Contains(t, read(t, b.Address(), "t"), "again")
	require.NotContains(t, b.logs.String(), "level=WARN")
}

func TestOpenTransactionGoesOnAfterCleanRestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := start(t, &embedded.Broker{Dir: dir})
	topic(t, b.Address(), "t", 1, nil)
	cl := client(t, b.Address(), kgo.TransactionalID("x"))
	require.NoError(t, cl.BeginTransaction())
	send(t, cl, "before")
	require.NoError(t, b.stop(t))

	b = start(t, &embedded.Broker{Dir: dir, Addr: b.Address()})
	require.Empty(t, read(t, b.Address(), "t"))
	send(t, cl, "after")
	require.NoError(t, commit(timeout(t), cl))
	require.Equal(t, []string{"before", "after"}, read(t, b.Address(), "t"))
}

func TestMemoryKeepsNothing(t *testing.T) {
	t.Parallel()
	b := start(t, &embedded.Broker{AutoCreate: true})
	send(t, client(t, b.Address(), kgo.AllowAutoTopicCreation()), "v")
	require.Equal(t, []string{"v"}, read(t, b.Address(), "t"))
	require.Contains(t, b.logs.String(), "everything is gone when it stops")
	require.NoError(t, b.stop(t))
}

func TestStartLineSaysWhatToExpect(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := start(t, &embedded.Broker{Dir: dir})
	line := b.logs.String()
	require.Contains(t, line, "address="+b.Address())
	require.Contains(t, line, "data="+dir)
	require.Contains(t, line, "kill -9")
	require.Contains(t, line, "power cut")
	require.Equal(t, 1, strings.Count(line, "level=INFO"))
}

func TestRunIsForOnce(t *testing.T) {
	t.Parallel()
	b := start(t, &embedded.Broker{})
	require.ErrorContains(t, b.Run(context.Background()), "make a new one")
	require.NoError(t, b.stop(t))
	require.ErrorContains(t, b.Run(context.Background()), "make a new one")
}

func TestRunWithEndedContextDoesNothing(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	b := &embedded.Broker{Addr: "127.0.0.1:0"}
	require.NoError(t, b.Run(ctx))
	require.Empty(t, b.Address())
	select {
	case <-b.Ready():
		t.Fatal("ready")
	default:
	}
}

func TestPortTaken(t *testing.T) {
	t.Parallel()
	first := start(t, &embedded.Broker{})
	_, err := try(t, &embedded.Broker{Addr: first.Address(), Dir: t.TempDir()})
	require.ErrorContains(t, err, "is taken by another program")
	require.ErrorContains(t, err, "choose another address")

	second := start(t, &embedded.Broker{Addr: first.Address(), Fallback: true})
	require.NotEqual(t, first.Address(), second.Address())
	require.Contains(t, second.logs.String(), "listening on a free one")
	require.Contains(t, second.logs.String(), "level=WARN")
	topic(t, second.Address(), "t", 1, nil)
}

func TestFaultsOfTheFieldsComeAtOnce(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		broker *embedded.Broker
		want   []string
	}{
		"no port":               {&embedded.Broker{Addr: "localhost", Partitions: -1}, []string{"missing port", "-1 partitions"}},
		"port is a word":        {&embedded.Broker{Addr: "localhost:kafka"}, []string{`"kafka" is no port`}},
		"port too large":        {&embedded.Broker{Addr: "localhost:70000"}, []string{"is no port"}},
		"everywhere":            {&embedded.Broker{Addr: "0.0.0.0:0"}, []string{"is no place to connect to", "Advertise"}},
		"everywhere by default": {&embedded.Broker{Addr: ":9092"}, []string{"is no place to connect to"}},
		"everywhere in v6":      {&embedded.Broker{Addr: "[::]:0"}, []string{"is no place to connect to"}},
		"advertises everywhere": {&embedded.Broker{Addr: "127.0.0.1:0", Advertise: "0.0.0.0"}, []string{"is no place to connect to"}},
		"advertises no port":    {&embedded.Broker{Addr: "127.0.0.1:0", Advertise: "host:0"}, []string{"is no port that clients can connect to"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := try(t, row.broker)
			for _, want := range row.want {
				require.ErrorContains(t, err, want)
			}
		})
	}
}

func TestAdvertisedAddressIsWhatClientsAreTold(t *testing.T) {
	t.Parallel()
	b := start(t, &embedded.Broker{Addr: "0.0.0.0:0", Advertise: "localhost"})
	host, port, err := net.SplitHostPort(b.Address())
	require.NoError(t, err)
	require.Equal(t, "localhost", host)
	require.Contains(t, b.logs.String(), "can be reached from other machines")
	topic(t, "127.0.0.1:"+port, "t", 1, nil)
	send(t, client(t, b.Address()), "v")
	require.Equal(t, []string{"v"}, read(t, b.Address(), "t"))

	b = start(t, &embedded.Broker{Addr: freeAddr(t), Advertise: "kafka.example:1234"})
	require.Equal(t, "kafka.example:1234", b.Address())
	meta, err := kmsg.NewPtrMetadataRequest().RequestWith(timeout(t), client(t, b.Addr).SeedBrokers()[0])
	require.NoError(t, err)
	require.Equal(t, "kafka.example", meta.Brokers[0].Host)
	require.EqualValues(t, 1234, meta.Brokers[0].Port)
}

func TestAutoCreate(t *testing.T) {
	t.Parallel()
	b := start(t, &embedded.Broker{AutoCreate: true, Partitions: 3})
	send(t, client(t, b.Address(), kgo.AllowAutoTopicCreation()), "v")
	topics, err := kadm.NewClient(client(t, b.Address())).ListTopics(timeout(t), "t")
	require.NoError(t, err)
	require.Len(t, topics["t"].Partitions, 3)

	bad := client(t, b.Address(), kgo.AllowAutoTopicCreation(), kgo.UnknownTopicRetries(0))
	require.Error(t, bad.ProduceSync(timeout(t), &kgo.Record{Topic: "no/such name"}).FirstErr())

	without := client(t, b.Address(), kgo.UnknownTopicRetries(0))
	require.Error(t, without.ProduceSync(timeout(t), &kgo.Record{Topic: "u"}).FirstErr(), "the client did not allow it")

	off := start(t, &embedded.Broker{})
	cl := client(t, off.Address(), kgo.AllowAutoTopicCreation(), kgo.UnknownTopicRetries(0))
	require.Error(t, cl.ProduceSync(timeout(t), &kgo.Record{}).FirstErr())
}

func TestDefaultIsOnePartition(t *testing.T) {
	t.Parallel()
	b := start(t, &embedded.Broker{})
	topic(t, b.Address(), "t", -1, nil)
	topics, err := kadm.NewClient(client(t, b.Address())).ListTopics(timeout(t), "t")
	require.NoError(t, err)
	require.Len(t, topics["t"].Partitions, 1)
}

func TestOutlivesWhatIsNoKafka(t *testing.T) {
	t.Parallel()
	b := start(t, &embedded.Broker{AutoCreate: true})
	ctx := timeout(t)

	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+b.Address(), http.NoBody)
	require.NoError(t, err)
	_, err = http.DefaultClient.Do(req) //nolint:bodyclose // there is none
	require.Error(t, err)
	require.Contains(t, b.logs.String(), "does not speak Kafka")

	for name, bytes := range map[string]string{
		"unknown key":   "\x00\x00\x00\x0a\x7f\xff\x00\x00\x00\x00\x00\x01\x00\x00",
		"negative key":  "\x00\x00\x00\x0a\xff\xff\x00\x00\x00\x00\x00\x01\x00\x00",
		"huge size":     "\xff\xff\xff\xff\x00\x03\x00\x00",
		"size zero":     "\x00\x00\x00\x00\x00\x03\x00\x00",
		"TLS":           "\x16\x03\x01\x02\x00\x01\x00\x01",
		"garbage after": "\x00\x00\x00\x0c\x00\x03\x00\x09\xff\xff\xff\xff\xff\xff\xff\xff",
	} {
		conn, err := net.Dial("tcp", b.Address())
		require.NoError(t, err, name)
		require.NoError(t, conn.SetDeadline(time.Now().Add(limit)))
		_, err = conn.Write([]byte(bytes))
		require.NoError(t, err, name)
		n, err := io.Copy(io.Discard, conn) // ends when the broker closes
		require.NoError(t, ignoreReset(err), name)
		require.Zero(t, n, name)
		require.NoError(t, conn.Close())
	}
	send(t, client(t, b.Address(), kgo.AllowAutoTopicCreation()), "still here")
}

func ignoreReset(err error) error {
	if err != nil && strings.Contains(err.Error(), "reset") {
		return nil
	}
	return err
}

// Not parallel: it counts goroutines of the whole process.
func TestRunLeavesNoGoroutine(t *testing.T) {
	before := brokerGoroutines()
	b := start(t, &embedded.Broker{Dir: t.TempDir(), AutoCreate: true})
	for i := range 3 {
		cl := client(
			t, b.Address(), kgo.AllowAutoTopicCreation(), kgo.ConsumeTopics("t"), kgo.ConsumerGroup(fmt.Sprint("g", i)),
			kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		)
		send(t, cl, "v")
		require.NotZero(t, cl.PollFetches(timeout(t)).NumRecords())
	}
	require.NoError(t, b.stop(t)) // the clients are still connected

	// kfake's goroutines see that it is closed when they run next.
	require.Eventually(t, func() bool { return brokerGoroutines() <= before }, limit, 5*time.Millisecond, "%d goroutines before, %d after", before, brokerGoroutines())
}

// brokerGoroutines counts the goroutines of brokers.
func brokerGoroutines() int {
	buf := make([]byte, 8<<20)
	buf = buf[:runtime.Stack(buf, true)]
	n := 0
	for g := range strings.SplitSeq(string(buf), "\n\n") {
		if strings.Contains(g, "/kfake.") || strings.Contains(g, "internal/embedded.(") {
			n++
		}
	}
	return n
}
