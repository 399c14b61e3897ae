package saga_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/dlq"
	"github.com/wherry-go/wherry/kafkatest"
	"github.com/wherry-go/wherry/retry"
	"github.com/wherry-go/wherry/saga"
)

// order is the state of the sagas of these tests.
type order struct {
	Total int      `json:"total,omitempty"`
	Done  []string `json:"done,omitempty"`
	Pad   string   `json:"pad,omitempty"`
}

// diary has what local steps did, in order, by saga.
type diary struct {
	mu    sync.Mutex
	all   map[string][]string
	times map[string][]time.Time
}

func (l *diary) add(ctx context.Context, what string) {
	op, ok := saga.OpFrom(ctx)
	if !ok {
		panic("no op")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all == nil {
		l.all, l.times = map[string][]string{}, map[string][]time.Time{}
	}
	l.all[op.ID] = append(l.all[op.ID], what)
	l.times[op.ID] = append(l.times[op.ID], time.Now())
}

func (l *diary) of(id string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.all[id])
}

func (l *diary) timesOf(id string) []time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.times[id])
}

// do does a step by noting it.
func (l *diary) do(name string) saga.Action[order] {
	return saga.Local(func(ctx context.Context, _ order) (string, error) {
		l.add(ctx, name)
		return name, nil
	}, func(o *order, r string) { o.Done = append(o.Done, r) })
}

func (l *diary) undo(name string) saga.Action[order] {
	return saga.Do(func(ctx context.Context, _ order) error { l.add(ctx, "undo "+name); return nil })
}

// fail notes an attempt, and fails with what errs has for it: the last for good.
func (l *diary) fail(name string, errs ...error) saga.Action[order] {
	return saga.Do(func(ctx context.Context, _ order) error {
		op, _ := saga.OpFrom(ctx)
		l.add(ctx, fmt.Sprint(name, " ", op.Attempt))
		return errs[min(op.Attempt, len(errs))-1]
	})
}

// step is one that l notes, and its undoing.
func (l *diary) step(name string) saga.Step[order] {
	return saga.Step[order]{Name: name, Do: l.do(name), Undo: l.undo(name)}
}

// trip defines the saga "trip" of steps.
func trip(steps ...saga.Step[order]) saga.Definition[order] {
	return saga.Definition[order]{Name: "trip", Steps: steps}
}

func engine(t testing.TB, k *kafkatest.Cluster, all ...saga.Definition[order]) *saga.Engine[order] {
	return &saga.Engine[order]{Client: k.Client(t), Definitions: all}
}

// await waits until f holds.
func await(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(60 * time.Second); !f(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			require.FailNow(t, "it did not come about: "+what)
		}
	}
}

// lastOf returns the last records of the state topic, by saga, as anybody reads
// them.
func lastOf(t testing.TB, k *kafkatest.Cluster, name string) map[string]saga.Snapshot {
	t.Helper()
	all := map[string]saga.Snapshot{}
	for s, err := range (&saga.Inspector{Client: k.Client(t), Name: name}).List(t.Context(), saga.Filter{}) {
		require.NoError(t, err)
		all[s.ID] = s
	}
	return all
}

// phaseOf waits until a saga has come to a phase, and returns it.
func phaseOf(t testing.TB, k *kafkatest.Cluster, id string, phase saga.Phase) (s saga.Snapshot) {
	t.Helper()
	await(t, fmt.Sprintf("%s is %v", id, phase), func() bool {
		s = lastOf(t, k, "trip")[id]
		return s.Phase == phase
	})
	return s
}

// read reads all of a topic to its end, committed records only.
func read(t testing.TB, k *kafkatest.Cluster, topic string) (all []*kgo.Record) {
	t.Helper()
	cl := k.Client(t, kgo.ConsumeTopics(topic), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	defer cl.Close()
	ends, err := kadm.NewClient(cl).ListCommittedOffsets(t.Context(), topic)
	require.NoError(t, err)
	starts, err := kadm.NewClient(cl).ListStartOffsets(t.Context(), topic)
	require.NoError(t, err)
	next := map[int32]int64{}
	starts.Each(func(o kadm.ListedOffset) { next[o.Partition] = o.Offset })
	for {
		left := false
		ends.Each(func(o kadm.ListedOffset) { left = left || next[o.Partition] < o.Offset })
		if !left {
			return all
		}
		cl.PollFetches(t.Context()).EachRecord(func(r *kgo.Record) {
			next[r.Partition] = r.Offset + 1
			if !r.Attrs.IsControl() {
				all = append(all, r)
			}
		})
	}
}

// noLetters requires that there are no dead letters of saga trip.
func noLetters(t testing.TB, k *kafkatest.Cluster) {
	t.Helper()
	for _, l := range letters(t, k) {
		t.Errorf("a dead letter: %s/%d@%d %q: %s: %s", l.Topic, l.Partition, l.Offset, l.Key, l.Cause, l.Error)
	}
}

// letters are the dead letters of saga trip.
func letters(t testing.TB, k *kafkatest.Cluster) (all []*dlq.Letter) {
	t.Helper()
	for _, r := range read(t, k, "trip.saga.dlq") {
		l, err := dlq.Read(r)
		require.NoError(t, err)
		all = append(all, l)
	}
	return all
}

var (
	errRefused = wherry.Permanent(errors.New("no"))
	errFailed  = errors.New("not now")
	once       = retry.Policy{Attempts: 1}
)

// warnings is a log that a test looks at.
type warnings struct {
	mu  sync.Mutex
	all strings.Builder
}

func (w *warnings) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.all.Write(p)
}

func (w *warnings) text() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.all.String()
}

func (w *warnings) logger() *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }
