package dlq_test

import (
	"context"
	"encoding/json"
	"errors"
	"runtime"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/dlq"
	"github.com/wherry-go/wherry/kafkatest"
)

// onProduce has fn answer what is produced to a topic, until it says no. What
// it does not answer is handled as ever.
func (b bench) onProduce(t *testing.T, topic string, fn func(*kmsg.ProduceRequest) (answer kmsg.Response, err error, handled bool)) {
	t.Helper()
	topics, err := kadm.NewClient(b.cl).ListTopics(kadm.WithAuthorizedOps(t.Context()), topic)
	require.NoError(t, err)
	require.NoError(t, topics.Error())
	b.fake.ControlKey(int16(kmsg.Produce), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
		b.fake.KeepControl()
		req := kreq.(*kmsg.ProduceRequest)
		for _, rt := range req.Topics {
			if rt.Topic == topic || rt.TopicID == topics[topic].ID {
				return fn(req)
			}
		}
		return nil, nil, false
	})
}

// refuse is an answer that refuses all of a request.
func refuse(req *kmsg.ProduceRequest, why *kerr.Error) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.ProduceResponse)
	for _, rt := range req.Topics {
		st := kmsg.NewProduceResponseTopic()
		st.Topic, st.TopicID = rt.Topic, rt.TopicID
		for _, rp := range rt.Partitions {
			sp := kmsg.NewProduceResponseTopicPartition()
			sp.Partition, sp.ErrorCode = rp.Partition, why.Code
			st.Partitions = append(st.Partitions, sp)
		}
		resp.Topics = append(resp.Topics, st)
	}
	return resp
}

// ledger makes the ledger, for tests that break it.
func (b bench) ledger(t *testing.T) {
	t.Helper()
	require.NoError(t, wherry.EnsureTopics(t.Context(), b.cl, wherry.TopicSpec{Name: dlq.LedgerTopic("dead"), Partitions: 1, Changelog: true}))
}

func TestReplay_ALedgerThatTakesNoMarksKeepsCopiesFromBeingThere(t *testing.T) {
	b := faulty(t)
	b.buryN(t, 3)
	b.ledger(t)
	var refusing atomic.Bool
	b.onProduce(t, "dead.ledger", func(req *kmsg.ProduceRequest) (kmsg.Response, error, bool) {
		if refusing.Load() {
			return refuse(req, kerr.TopicAuthorizationFailed), nil, true
		}
		return nil, nil, false
	})
	report, err := b.replayer(func(r *dlq.Replayer) {
		r.Select.Where = func(*dlq.Letter) bool { refusing.Store(true); return true } // after the run has begun
	}).Run(t.Context())
	require.ErrorIs(t, err, kerr.TopicAuthorizationFailed)
	require.ErrorContains(t, err, "the ledger dead.ledger does not take marks")
	require.Equal(t, []int{0, 0, 3}, []int{report.Replayed, report.Unsettled, report.Failed})
	require.Empty(t, b.content(t, "orders"))

	refusing.Store(false)
	require.Equal(t, 3, b.run(t).Replayed)
	require.Equal(t, []string{"k-0", "k-1", "k-2"}, b.keys(t, "orders"))
	require.Equal(t, 3, b.run(t).Decided)
}

func TestReplay_WithoutALedgerNothingIsCopied(t *testing.T) {
	b := faulty(t)
	b.buryN(t, 3)
	b.ledger(t)
	b.onProduce(t, "dead.ledger", func(req *kmsg.ProduceRequest) (kmsg.Response, error, bool) {
		return refuse(req, kerr.TopicAuthorizationFailed), nil, true
	})
	report, err := b.replayer().Run(t.Context())
	require.ErrorContains(t, err, "the ledger dead.ledger cannot be written to")
	require.Zero(t, report.Selected)
	require.Empty(t, b.content(t, "orders"))
}

func TestReplay_WaitsForABrokerThatWentAway(t *testing.T) {
	b := faulty(t)
	b.buryN(t, 100)
	var lost atomic.Int32
	b.onProduce(t, "orders", func(*kmsg.ProduceRequest) (kmsg.Response, error, bool) {
		if lost.Add(1) <= 10 {
			return nil, errors.New("hang up"), true
		}
		return nil, nil, false
	})
	require.Equal(t, 100, b.run(t).Replayed)
	require.Greater(t, lost.Load(), int32(10))
	require.Len(t, b.content(t, "orders"), 100)
}

func TestReplay_EndsPromptlyWithItsContextWhenNoBrokerAnswers(t *testing.T) {
	b := faulty(t)
	b.buryN(t, 3)
	ctx, cancel := context.WithCancelCause(t.Context())
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	var ended atomic.Value
	b.onProduce(t, "orders", func(*kmsg.ProduceRequest) (kmsg.Response, error, bool) {
		b.fake.SleepControl(func() {
			ended.Store(time.Now())
			cancel(errors.New("enough"))
			<-release
		})
		return nil, nil, false
	})
	report, err := b.replayer().Run(ctx)
	require.EqualError(t, err, "dead letters of dead: enough")
	require.Less(t, time.Since(ended.Load().(time.Time)), 4*time.Second)
	require.Positive(t, report.Failed) // the others were not even read
	require.Equal(t, report.Selected, report.Failed)
}

func TestReplay_CutShortSettlesWhatIsInHandAndIsEndedByAnother(t *testing.T) {
	b := setup(t)
	b.buryN(t, 500)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	seen := 0
	report, err := b.replayer(func(r *dlq.Replayer) {
		r.Rate = 2000
		r.Select.Where = func(*dlq.Letter) bool {
			if seen++; seen == 250 {
				cancel()
			}
			return true
		}
	}).Run(ctx)
	require.ErrorIs(t, err, context.Canceled)
	require.Positive(t, report.Replayed)
	require.Equal(t, report.Selected, report.Replayed+report.Failed+report.Unsettled)
	require.Zero(t, report.Unsettled)
	require.Len(t, b.content(t, "orders"), report.Replayed)

	rest := b.run(t)
	require.Equal(t, []int{report.Replayed, 500 - report.Replayed}, []int{rest.Decided, rest.Replayed})
	require.Len(t, b.content(t, "orders"), 500)
}

func TestReplay_OneRunAtATimeWorksOnATopic(t *testing.T) {
	b := setup(t)
	b.buryN(t, 3)
	atWork, release := make(chan struct{}), make(chan struct{})
	first := make(chan error, 1)
	var report dlq.Report
	go func() {
		var err error
		report, err = b.replayer(func(r *dlq.Replayer) {
			r.By = "the first"
			r.Select.Where = func(l *dlq.Letter) bool {
				if l.Record.Offset == 0 {
					close(atWork)
					<-release
				}
				return true
			}
		}).Run(t.Context())
		first <- err
	}()
	<-atWork
	second, err := b.replayer().Run(t.Context())
	require.ErrorIs(t, err, dlq.ErrBusy)
	require.ErrorContains(t, err, "by the first since")
	require.Zero(t, second.Selected)
	require.Equal(t, 3, b.run(t, func(r *dlq.Replayer) { r.DryRun = true }).Replayed, "a dry run is never busy")
	close(release)
	require.NoError(t, <-first)
	require.Equal(t, 3, report.Replayed)
	require.Equal(t, 3, b.run(t).Decided, "the first has left")
	require.Len(t, b.content(t, "orders"), 3)
}

func TestReplay_OfRunsThatBeginAtOnceOneCopies(t *testing.T) {
	b := setup(t)
	b.buryN(t, 50)
	b.ledger(t)
	type outcome struct {
		report dlq.Report
		err    error
	}
	outcomes := make(chan outcome, 4)
	for i := range cap(outcomes) {
		go func() {
			report, err := b.replayer(func(r *dlq.Replayer) { r.By = strconv.Itoa(i) }).Run(t.Context())
			outcomes <- outcome{report, err}
		}()
	}
	for range cap(outcomes) {
		if o := <-outcomes; o.err != nil {
			require.ErrorIs(t, o.err, dlq.ErrBusy)
		}
	}
	require.Len(t, b.content(t, "orders"), 50)
}

func TestReplay_ARunThatWasKilledIsNotWaitedForLong(t *testing.T) {
	b := setup(t)
	b.buryN(t, 3)
	b.ledger(t)
	topics, err := kadm.NewClient(b.cl).ListTopics(t.Context(), "dead")
	require.NoError(t, err)
	lease, err := json.Marshal(map[string]any{"by": "the dead", "began": now, "first": -1})
	require.NoError(t, err)
	for key, age := range map[string]time.Duration{"killed": 0, "killed long ago": time.Hour} {
		require.NoError(t, b.cl.ProduceSync(t.Context(), &kgo.Record{
			Topic: "dead.ledger", Key: []byte("run/" + kafkaID(topics["dead"].ID) + "/" + key), Value: lease, Timestamp: time.Now().Add(-age),
		}).FirstErr())
	}
	report := b.run(t)
	require.Equal(t, 3, report.Replayed)
	require.Less(t, report.Took, 8*time.Second)
}

// A real broker is killed and comes back while a replay is under way.
func TestReplay_OutlastsTheRestartOfABroker(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewApache(t, kafkatest.ApacheConfig{Topics: []string{"orders:1", "dead:1"}})
	b := bench{cl: k.Client(t), opts: k.Opts(), timeout: k.Timeout}
	b.buryN(t, 400)
	killed := make(chan struct{})
	report := b.run(t, func(r *dlq.Replayer) {
		r.Rate = 400
		r.Select.Where = func(l *dlq.Letter) bool {
			if l.Record.Offset == 100 {
				k.Kill(t, 1)
				go func() { defer close(killed); k.Restart(t, 1) }()
			}
			return true
		}
	})
	<-killed
	require.Equal(t, []int{400, 0, 0}, []int{report.Replayed, report.Failed, report.Unsettled})
	require.Len(t, b.content(t, "orders"), 400)
	require.Equal(t, 400, b.run(t).Decided)
}

func TestReplay_LeavesNothingRunning(t *testing.T) {
	// Not parallel to others: it counts goroutines.
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "orders", "dead"))
	require.NoError(t, err)
	defer fake.Close()
	b := bench{fake: fake, timeout: 10 * time.Second, opts: []kgo.Opt{kgo.SeedBrokers(fake.ListenAddrs()...), kgo.DisableClientMetrics()}}
	b.cl = b.open(t)
	b.buryN(t, 10)
	before := runtime.NumGoroutine()
	b.run(t)
	for range b.replayer(func(r *dlq.Replayer) { r.Select.Decided = true }).List(t.Context()) {
		break
	}
	// Not with require.Eventually, which has goroutines of its own.
	tick, limit := time.NewTicker(10*time.Millisecond), time.After(b.timeout)
	defer tick.Stop()
	for runtime.NumGoroutine() > before {
		select {
		case <-tick.C:
		case <-limit:
			stacks := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
		}
	}
}
