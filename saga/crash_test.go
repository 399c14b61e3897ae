package saga_test

import (
	"context"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
	"github.com/wherry-go/wherry/reqreply"
	"github.com/wherry-go/wherry/retry"
	"github.com/wherry-go/wherry/saga"
)

// crashing sends an event, calls a participant, does local steps with retries,
// and is undone where Total is a multiple of 3.
func crashing(l *diary) saga.Definition[order] {
	return trip(
		saga.Step[order]{
			Name: "tell", Do: saga.Emit(told, func(o order) order { return o }),
			Undo: saga.Emit(cancelled, func(o order) placed { return placed{strconv.Itoa(o.Total)} }),
		},
		saga.Step[order]{Name: "a", Do: l.do("a"), Undo: l.undo("a")},
		saga.Step[order]{
			Name: "ask", Do: saga.Call(asked, func(o order) order { return o }, func(o *order, r order) { o.Done = append(o.Done, "asked") }),
			Undo: saga.Call(asked, func(o order) order { return o }, nil), Idempotent: true, Timeout: 20 * time.Second, Retry: retry.Policy{Attempts: 20, Initial: time.Second},
		},
		saga.Step[order]{Name: "b", Do: l.fail("b", errFailed, nil), Undo: l.undo("b"), Retry: retry.Policy{Attempts: 3, Initial: time.Second}},
		saga.Step[order]{Name: "c", Do: saga.Do(func(ctx context.Context, o order) error {
			l.add(ctx, "c")
			if o.Total%3 == 0 {
				return errRefused
			}
			return nil
		}), NoUndo: true},
	)
}

var asked = reqreply.Method[order, order]{Topic: "ask"}

// Whatever request an engine dies at, its successor goes on, and every effect in
// Kafka is there once.
func TestS14_CrashAtAnyRequest(t *testing.T) {
	t.Parallel()
	for _, key := range []kmsg.Key{kmsg.Produce, kmsg.TxnOffsetCommit, kmsg.EndTxn, kmsg.Fetch, kmsg.JoinGroup} {
		for _, skip := range []int{0, 1, 3, 6} {
			for _, after := range []bool{false, true} {
				t.Run(fmt.Sprint(key.Name(), " ", skip, " ", after), func(t *testing.T) {
					t.Parallel()
					kafkatest.Test(t, []string{"told", "cancelled", "ask"}, func(t *testing.T, k *kafkatest.Cluster) {
						crashAt(t, k, kafkatest.Requests{Keys: []kmsg.Key{key}, Skip: skip}, after)
					})
				})
			}
		}
	}
}

func crashAt(t *testing.T, k *kafkatest.Cluster, r kafkatest.Requests, after bool) {
	k.WallLimit(3 * time.Minute)
	var l diary
	kafkatest.Run(t, &wherry.Consumer{Client: k.Client(t), Group: "asked", Handlers: []wherry.Route{
		asked.HandlerUndo(func(_ context.Context, o order) (order, error) { return o, nil }),
		asked.Handler(func(_ context.Context, o order) (order, error) { return o, nil }),
	}})
	const n = 12
	newEngine := func(client string) *saga.Engine[order] {
		return &saga.Engine[order]{
			Client: k.Client(t, kgo.ClientID(client)), Definitions: []saga.Definition[order]{crashing(&l)},
			Opts:   []kgo.Opt{kgo.SessionTimeout(6 * time.Second), kgo.HeartbeatInterval(time.Second), kgo.FetchMaxWait(time.Second)},
			Topics: wherry.TopicSpec{Partitions: 3},
		}
	}
	starter := newEngine("starter")
	for i := range n / 2 {
		require.NoError(t, starter.Start(t.Context(), strconv.Itoa(i), order{Total: i}))
	}
	r.Client = "first"
	crash := k.Crash
	if after {
		crash = k.CrashAfter
	}
	f := crash(t, r)
	ctx, cancel := context.WithCancel(context.Background())
	end := make(chan error, 1)
	first := newEngine("first")
	go func() { end <- first.Run(ctx) }()
	for i := n / 2; i < n; i++ {
		require.NoError(t, starter.Start(t.Context(), strconv.Itoa(i), order{Total: i}))
		k.Sleep(t, 700*time.Millisecond)
	}
	k.Sleep(t, 5*time.Second)
	if f.Hits() == 0 {
		k.Crash(t, kafkatest.Requests{Client: "first"})
		k.Sleep(t, time.Second)
	}
	cancel()
	<-end // what it says is of no use: it is dead
	second := newEngine("second")
	kafkatest.Run(t, second)
	k.Sleep(t, 3*time.Minute)

	all := lastOf(t, k, "trip")
	for i := range n {
		id := strconv.Itoa(i)
		want := saga.Done
		if i%3 == 0 {
			want = saga.Undone
		}
		require.Equal(t, want, all[id].Phase, "%s: %v %v", id, all[id].Why, all[id].History)
	}
	require.Equal(t, onceEach(n, func(int) bool { return true }), count(read(t, k, "told")))
	require.Equal(t, onceEach(n, func(i int) bool { return i%3 == 0 }), count(read(t, k, "cancelled")))
	for i := range n {
		got := l.of(strconv.Itoa(i))
		undone := indexes(got, "undo b", "undo a")
		if i%3 != 0 {
			require.Equal(t, []int{-1, -1}, undone)
			continue
		}
		require.Less(t, undone[0], undone[1], "in reverse: %v", got)
		require.Greater(t, undone[0], indexes(got, "c")[0])
	}
	noLetters(t, k)
}

// count counts records by key.
func count(rs []*kgo.Record) map[string]int {
	all := map[string]int{}
	for _, r := range rs {
		all[string(r.Key)]++
	}
	return all
}

func onceEach(n int, which func(int) bool) map[string]int {
	all := map[string]int{}
	for i := range n {
		if which(i) {
			all[strconv.Itoa(i)] = 1
		}
	}
	return all
}

// indexes are where each of what stands first, -1 where it does not.
func indexes(all []string, what ...string) (at []int) {
	for _, w := range what {
		found := -1
		for i, s := range all {
			if s == w {
				found = i
				break
			}
		}
		at = append(at, found)
	}
	return at
}
