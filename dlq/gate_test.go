package dlq_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/sdk/metric"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/dlq"
	"github.com/wherry-go/wherry/kafkatest"
)

// gateBank is a handler whose surroundings come and go.
type gateBank struct {
	mu      sync.Mutex
	down    bool
	begun   time.Time
	tries   []string // "5s key": when each record was tried, since begun
	handled map[string]int
	fails   map[string]error // of a key, whatever the surroundings
}

func newGateBank() *gateBank {
	return &gateBank{down: true, begun: time.Now(), handled: map[string]int{}, fails: map[string]error{}}
}

func (b *gateBank) handle(_ context.Context, r *kgo.Record) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	key := string(r.Key)
	b.tries = append(b.tries, time.Since(b.begun).Round(time.Second).String()+" "+key)
	switch {
	case b.fails[key] != nil:
		return b.fails[key]
	case b.down:
		return errBank
	}
	b.handled[key]++
	return nil
}

func (b *gateBank) set(down bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.down = down
}

// times is when records were tried, without which.
func (b *gateBank) times() (times []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, try := range b.tries {
		at, _, _ := strings.Cut(try, " ")
		times = append(times, at)
	}
	return times
}

func (b *gateBank) keys() (keys []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for key := range b.handled {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// gateFill sends n records, whose keys are "<partition>-<i>", to each partition.
func gateFill(t *testing.T, k *kafkatest.Cluster, partitions, n int) {
	t.Helper()
	cl := k.Client(t, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	for p := range partitions {
		for i := range n {
			r := &kgo.Record{Topic: "orders", Partition: int32(p), Key: []byte(strconv.Itoa(p) + "-" + strconv.Itoa(i))}
			require.NoError(t, cl.ProduceSync(t.Context(), r).FirstErr())
		}
	}
}

func gateConsumer(t *testing.T, k *kafkatest.Cluster, b *gateBank, g dlq.Gate) *wherry.Consumer {
	t.Helper()
	return &wherry.Consumer{
		Client: k.Client(t), Group: "billing", Handlers: queueHandler(b.handle), Policies: []wherry.Policy{&dlq.Queue{Topic: "billing.dlq", Gate: g}},
	}
}

// gateLetters returns the keys of the n letters that there are.
func gateLetters(t *testing.T, k *kafkatest.Cluster, n int) (keys []string) {
	t.Helper()
	for range n {
		keys = append(keys, string(queueLetter(t, k, "billing.dlq").Key))
	}
	kafkatest.None(t, k, wherry.Event[string]{Topic: "billing.dlq"}, time.Second)
	slices.Sort(keys)
	return keys
}

func TestWhileEverythingFailsRecordsAreHeldAndProbedInsteadOfDeadLettered(t *testing.T) {
	t.Parallel()
	kafkatest.Test(t, []string{"orders:4", "billing.dlq:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		gateFill(t, k, 4, 5)
		b := newGateBank()
		kafkatest.Run(t, gateConsumer(t, k, b, dlq.Gate{After: 3, Probes: -1}))
		k.Sleep(t, 6*time.Hour)
		require.Less(t, len(b.times()), 7+6*60+10, "one record is tried each minute")
		gateLetters(t, k, 2) // those that failed before the third

		b.set(false)
		k.Sleep(t, time.Minute)
		require.Len(t, b.keys(), 18, "all but the two letters were handled")
		gateLetters(t, k, 0)
		for key, n := range b.handled {
			require.Equal(t, 1, n, key)
		}
	})
}

func TestProbesGrowFurtherApart(t *testing.T) {
	t.Parallel()
	kafkatest.Test(t, []string{"orders:1", "billing.dlq:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		b := newGateBank()
		kafkatest.Run(t, gateConsumer(t, k, b, dlq.Gate{After: 1}))
		b.begun = time.Now()
		gateFill(t, k, 1, 3)
		k.Sleep(t, 200*time.Second)
		require.Equal(t, []string{"0s", "5s", "15s", "35s", "1m15s", "2m15s", "3m15s"}, b.times())
		require.NotContains(t, strings.Join(b.tries, " "), "0-1", "the others of the partition wait")
	})
}

func TestAllRecordsThatAreHeldAreProbedInTurn(t *testing.T) {
	t.Parallel()
	kafkatest.Test(t, []string{"orders:4", "billing.dlq:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		gateFill(t, k, 4, 1)
		b := newGateBank()
		kafkatest.Run(t, gateConsumer(t, k, b, dlq.Gate{After: 1, Probe: time.Second, MaxProbe: time.Second}))
		k.Sleep(t, 8500*time.Millisecond)
		tried := map[string]int{}
		for _, try := range b.tries[len(b.tries)-8:] {
			_, key, _ := strings.Cut(try, " ")
			tried[key]++
		}
		require.Equal(t, map[string]int{"0-0": 2, "1-0": 2, "2-0": 2, "3-0": 2}, tried)
	})
}

// One poison record does not keep the gate shut: another one is probed, and the
// poison goes to the dead letters when it fails while others succeed.
func TestAPoisonRecordDoesNotKeepTheGateShut(t *testing.T) {
	t.Parallel()
	kafkatest.Test(t, []string{"orders:2", "billing.dlq:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		b := newGateBank()
		b.fails["0-0"] = errors.New("poison")
		kafkatest.Run(t, gateConsumer(t, k, b, dlq.Gate{After: 1, Probes: -1}))
		gateFill(t, k, 1, 3)
		k.Sleep(t, time.Minute)
		gateLetters(t, k, 0)
		b.set(false)
		cl := k.Client(t, kgo.RecordPartitioner(kgo.ManualPartitioner()))
		require.NoError(t, cl.ProduceSync(t.Context(), &kgo.Record{Topic: "orders", Partition: 1, Key: []byte("1-0")}).FirstErr())
		k.Sleep(t, time.Minute)
		require.Equal(t, []string{"1-0"}, b.keys(), "it was probed though it came later")
		// Alone the poison fails once more, which with After 1 shuts the gate again.
		require.NoError(t, cl.ProduceSync(t.Context(), &kgo.Record{Topic: "orders", Partition: 1, Key: []byte("1-1")}).FirstErr())
		k.Sleep(t, 2*time.Minute)
		require.Equal(t, []string{"1-0", "1-1"}, b.keys())
	})
}

func TestARecordThatFailedAsAProbeWhileOthersSucceedBecomesALetter(t *testing.T) {
	t.Parallel()
	kafkatest.Test(t, []string{"orders:2", "billing.dlq:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		gateFill(t, k, 2, 3)
		b := newGateBank()
		b.fails["0-0"] = errors.New("poison")
		kafkatest.Run(t, gateConsumer(t, k, b, dlq.Gate{After: 2, Probes: -1}))
		k.Sleep(t, 20*time.Second)
		before := gateLetters(t, k, 1) // whichever of the two heads failed first
		b.set(false)
		k.Sleep(t, 10*time.Minute)
		want := []string{"0-0"}
		if before[0] == "0-0" {
			want = nil
		}
		require.Equal(t, want, gateLetters(t, k, len(want)))
		require.Len(t, b.keys(), 6-1-len(want))
	})
}

// Where every record that can be tried is to blame itself, no success would ever
// come: after so many probes the record at the head goes.
func TestAfterSoManyProbesARecordGoesToTheDeadLetters(t *testing.T) {
	t.Parallel()
	kafkatest.Test(t, []string{"orders:1", "billing.dlq:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		b := newGateBank()
		b.fails["0-0"], b.fails["0-1"] = errors.New("poison"), errors.New("poison")
		b.set(false)
		gateFill(t, k, 1, 4)
		kafkatest.Run(t, gateConsumer(t, k, b, dlq.Gate{After: 1, Probes: 3}))
		k.Sleep(t, time.Hour)
		require.Equal(t, []string{"0-2", "0-3"}, b.keys())
		l := queueLetter(t, k, "billing.dlq")
		require.Equal(t, "0-0", string(l.Key))
		require.Equal(t, 4, l.Attempts, "it shut the gate and failed three probes")
		require.Equal(t, 35*time.Second, l.Failed.Sub(l.FirstFailed).Round(time.Second))
		require.Equal(t, []string{"0-1"}, gateLetters(t, k, 1))
	})
}

func TestRecordsThatAreToBlameThemselvesNeitherShutTheGateNorAreHeld(t *testing.T) {
	t.Parallel()
	kafkatest.Test(t, []string{"orders:1", "billing.dlq:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		b := newGateBank()
		for i, err := range []error{
			wherry.Permanent(errBank), &wherry.RecordError{Cause: wherry.CauseUndecodable, Err: errBank}, &wherry.OutputError{Topic: "x", Err: errBank},
			&wherry.RecordError{Cause: wherry.CauseExpired, Err: errBank},
		} {
			b.fails["0-"+strconv.Itoa(i)] = err
		}
		b.fails["0-5"] = wherry.Permanent(errBank)
		kafkatest.Run(t, gateConsumer(t, k, b, dlq.Gate{After: 1, Probes: -1}))
		gateFill(t, k, 1, 4)
		require.Equal(t, []string{"0-0", "0-1", "0-2", "0-3"}, gateLetters(t, k, 4))
		gateFill(t, k, 1, 6)
		k.Sleep(t, time.Hour)
		require.Equal(t, []string{"0-0", "0-1", "0-2", "0-3"}, gateLetters(t, k, 4))
		require.Empty(t, b.keys(), "0-4 fails because the bank is away, and 0-5 waits behind it")

		b.set(false)
		k.Sleep(t, time.Minute)
		require.Equal(t, []string{"0-5"}, gateLetters(t, k, 1))
		require.Equal(t, []string{"0-4"}, b.keys())
	})
}

func TestASuccessEndsTheRow(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "orders:1", "billing.dlq:1")
	b := newGateBank()
	b.set(false)
	for _, i := range []int{0, 1, 3, 4, 6, 7} {
		b.fails["0-"+strconv.Itoa(i)] = errBank
	}
	gateFill(t, k, 1, 9)
	kafkatest.Run(t, gateConsumer(t, k, b, dlq.Gate{After: 3}))
	for range 6 {
		queueLetter(t, k, "billing.dlq")
	}
}

func TestAGateMayBeOff(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "orders:1", "billing.dlq:1")
	gateFill(t, k, 1, 60)
	kafkatest.Run(t, gateConsumer(t, k, newGateBank(), dlq.Gate{After: -1}))
	for range 60 {
		queueLetter(t, k, "billing.dlq")
	}
}

func TestTheGateIsOnUnlessItIsTurnedOff(t *testing.T) {
	t.Parallel()
	kafkatest.Test(t, []string{"orders:1", "billing.dlq:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		gateFill(t, k, 1, 60)
		b := newGateBank()
		kafkatest.Run(t, gateConsumer(t, k, b, dlq.Gate{}))
		k.Sleep(t, time.Minute)
		gateLetters(t, k, 49)
	})
}

// What is held is not committed and comes again.
func TestRecordsThatAreHeldComeAgainAfterARestart(t *testing.T) {
	t.Parallel()
	kafkatest.Test(t, []string{"orders:2", "billing.dlq:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		gateFill(t, k, 2, 3)
		b := newGateBank()
		stop := kafkatest.Run(t, gateConsumer(t, k, b, dlq.Gate{After: 1}))
		k.Sleep(t, time.Minute)
		begun := time.Now()
		require.NoError(t, stop())
		require.Less(t, time.Since(begun), time.Second, "nothing has to be waited for")
		gateLetters(t, k, 0)

		b.set(false)
		kafkatest.Run(t, gateConsumer(t, k, b, dlq.Gate{After: 1}))
		k.Sleep(t, time.Minute)
		require.Len(t, b.keys(), 6)
	})
}

// Work that was cut short is no failure.
func TestWorkCutShortDoesNotShutTheGate(t *testing.T) {
	t.Parallel()
	kafkatest.Test(t, []string{"orders:1", "billing.dlq:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		gateFill(t, k, 1, 1)
		var log strings.Builder
		c := gateConsumer(t, k, newGateBank(), dlq.Gate{After: 1})
		c.Logger = slog.New(slog.NewTextHandler(&log, nil))
		c.Handlers = queueHandler(func(ctx context.Context, _ *kgo.Record) error {
			<-ctx.Done()
			return ctx.Err()
		})
		stop := kafkatest.Run(t, c)
		k.Sleep(t, time.Second)
		require.NoError(t, stop())
		require.NotContains(t, log.String(), "dlq:")
	})
}

// Two Consumers of one Queue have a Gate each.
func TestConsumersOfOneQueueHaveAGateEach(t *testing.T) {
	t.Parallel()
	kafkatest.Test(t, []string{"orders:1", "billing.dlq:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		q := &dlq.Queue{Topic: "billing.dlq", Gate: dlq.Gate{After: 1}}
		down, up := newGateBank(), newGateBank()
		up.set(false)
		for group, b := range map[string]*gateBank{"down": down, "up": up} {
			kafkatest.Run(t, &wherry.Consumer{Client: k.Client(t), Group: group, Handlers: queueHandler(b.handle), Policies: []wherry.Policy{q}})
		}
		gateFill(t, k, 1, 3)
		k.Sleep(t, time.Minute)
		require.Len(t, up.keys(), 3)
		require.Empty(t, down.keys())
		gateLetters(t, k, 0)
	})
}

// Records of other keys are held too: they would fail as well.
func TestByKeyAllKeysAreHeld(t *testing.T) {
	t.Parallel()
	kafkatest.Test(t, []string{"orders:1", "billing.dlq:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		gateFill(t, k, 1, 500)
		b := newGateBank()
		c := gateConsumer(t, k, b, dlq.Gate{After: 10})
		c.Order, c.Concurrency = wherry.ByKey, 8
		kafkatest.Run(t, c)
		k.Sleep(t, time.Hour)
		require.Less(t, len(b.times()), 100)
		gateLetters(t, k, 9)
		b.set(false)
		k.Sleep(t, 2*time.Minute)
		require.Len(t, b.keys(), 491)
	})
}

func TestTheGateIsLoggedAndCounted(t *testing.T) {
	t.Parallel()
	kafkatest.Test(t, []string{"orders:1", "billing.dlq:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		gateFill(t, k, 1, 3)
		b := newGateBank()
		c := gateConsumer(t, k, b, dlq.Gate{After: 1})
		reader := metric.NewManualReader()
		var log strings.Builder
		c.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))
		c.Policies[0].(*dlq.Queue).MeterProvider = metric.NewMeterProvider(metric.WithReader(reader))
		redacted := &dlq.Queue{Topic: "billing.dlq", Gate: dlq.Gate{After: 1}, Redact: func(*dlq.Letter) {}}
		var quiet strings.Builder
		kafkatest.Run(t, &wherry.Consumer{
			Client: k.Client(t), Group: "quiet", Handlers: queueHandler(b.handle), Policies: []wherry.Policy{redacted},
			Logger: slog.New(slog.NewTextHandler(&quiet, &slog.HandlerOptions{Level: slog.LevelWarn})),
		})
		stop := kafkatest.Run(t, c)
		k.Sleep(t, time.Minute)
		require.Contains(t, quiet.String(), "failures=1")
		require.NotContains(t, quiet.String(), "declined", "it would have been redacted")
		b.set(false)
		k.Sleep(t, time.Minute)
		require.NoError(t, stop())
		require.Equal(t, map[string]int64{
			"messaging.consumer.group.name=billing wherry.dlq.gate.state=open": 1,
			"messaging.consumer.group.name=billing wherry.dlq.gate.state=shut": 1,
		}, queueSums(t, reader, "wherry.dlq.gate.changes"))
		require.Equal(t, 1, strings.Count(log.String(), "\n"), log.String())
		require.Contains(t, log.String(), `failures=1 cause=failed error="card declined"`)
	})
}
