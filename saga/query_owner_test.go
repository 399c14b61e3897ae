package saga_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
	"github.com/wherry-go/wherry/saga"
)

var tripTopics = []string{"paid:1", "declined:1"}

// ended is what Wait returned.
type ended struct {
	state order
	err   error
}

func wait(t testing.TB, e *saga.Engine[order], id string) <-chan ended {
	t.Helper()
	told := make(chan ended, 1)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	t.Cleanup(cancel)
	go func() {
		s, err := e.Wait(ctx, id)
		told <- ended{s, err}
	}()
	return told
}

// Who waits is in the memory of an owner; where that is another one meanwhile,
// it is asked anew.
func TestS33_WaitOutlivesTheOwner(t *testing.T) {
	t.Parallel()
	kafkatest.Test(t, tripTopics, func(t *testing.T, k *kafkatest.Cluster) {
		var l diary
		first := engine(t, k, tripOfPay(&l))
		stop := kafkatest.Run(t, first)
		require.NoError(t, first.Start(t.Context(), "o-1", order{}))
		asking := engine(t, k, tripOfPay(&l))
		told := wait(t, asking, "o-1")
		k.Sleep(t, time.Second)
		require.Equal(t, 1, first.Waiting())
		require.NoError(t, stop())
		k.Sleep(t, time.Minute) // nobody is there
		second := engine(t, k, tripOfPay(&l))
		kafkatest.Run(t, second)
		k.Sleep(t, 20*time.Second)
		require.Equal(t, 1, second.Waiting())
		require.Empty(t, told)
		require.NoError(t, saga.Signal(t.Context(), second, "o-1", tripPaid, order{Total: 4}))
		got := <-told
		require.NoError(t, got.err)
		require.Equal(t, 4, got.state.Total)
	})
}

// An owner that was frozen, and has lost its sagas meanwhile, says nothing when it
// wakes up: what it says is in its transaction.
func TestS33_AFrozenOwnerAnswersNothingStale(t *testing.T) {
	t.Parallel()
	kafkatest.Test(t, tripTopics, func(t *testing.T, k *kafkatest.Cluster) {
		var l diary
		frozen := &saga.Engine[order]{Client: k.Client(t, kgo.ClientID("frozen")), Definitions: []saga.Definition[order]{tripOfPay(&l)}}
		kafkatest.Run(t, frozen)
		asking := engine(t, k, tripOfPay(&l))
		require.NoError(t, asking.Start(t.Context(), "o-1", order{}))
		_, err := asking.Get(t.Context(), "o-1")
		require.NoError(t, err)
		// It has taken a question in, and answered it, and cannot commit that.
		f := k.Delay(t, kafkatest.Requests{Keys: []kmsg.Key{kmsg.EndTxn, kmsg.Heartbeat, kmsg.JoinGroup}, Client: "frozen", Count: -1}, 3*time.Minute)
		asked := make(chan saga.Instance[order], 1)
		go func() {
			in, err := asking.Get(context.Background(), "o-1")
			if err != nil {
				in.Why = err.Error()
			}
			asked <- in
		}()
		k.Sleep(t, time.Second)
		require.Positive(t, f.Hits())
		require.Empty(t, asked)
		other := &saga.Engine[order]{Client: k.Client(t), Definitions: []saga.Definition[order]{tripOfPay(&l)}}
		ctx, stop := context.WithCancel(context.Background())
		var run sync.WaitGroup
		run.Go(func() { _ = other.Run(ctx) })
		k.Sleep(t, 90*time.Second)
		require.NoError(t, saga.Signal(t.Context(), asking, "o-1", tripPaid, order{Total: 4}))
		k.Sleep(t, 5*time.Minute) // the frozen one has woken up
		in, err := asking.Get(t.Context(), "o-1")
		require.NoError(t, err)
		require.Equal(t, saga.Done, in.Phase)
		<-asked
		// The frozen one's answer is in the log, and does not count.
		require.Less(t, len(answers(t, k, kgo.ReadCommitted())), len(answers(t, k, kgo.ReadUncommitted())))
		for id, n := range times(answers(t, k, kgo.ReadCommitted())) {
			require.Equal(t, 1, n, id)
		}
		stop()
		run.Wait()
	})
}

func times(ids []string) map[string]int {
	all := map[string]int{}
	for _, id := range ids {
		all[id]++
	}
	return all
}

// answers are the correlation ids of what is in the reply topic.
func answers(t testing.TB, k *kafkatest.Cluster, level kgo.IsolationLevel) (ids []string) {
	t.Helper()
	topic := "trip.saga.reply"
	ends, err := kadm.NewClient(k.Client(t)).ListCommittedOffsets(t.Context(), topic)
	require.NoError(t, err)
	from, left := map[int32]kgo.Offset{}, map[int32]int64{}
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset > 0 {
			from[o.Partition], left[o.Partition] = kgo.NewOffset().AtStart(), o.Offset
		}
	})
	in := k.Client(t, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}), kgo.FetchIsolationLevel(level), kgo.KeepControlRecords())
	defer in.Close()
	for len(left) > 0 {
		fetches := in.PollFetches(t.Context())
		require.NoError(t, fetches.Err())
		for r := range fetches.RecordsAll() {
			for _, h := range r.Headers {
				if h.Key == "kafka_correlationId" {
					ids = append(ids, string(h.Value))
				}
			}
			if r.Offset+1 >= left[r.Partition] {
				delete(left, r.Partition)
			}
		}
	}
	return ids
}

// One more than may wait is told to ask again, and does.
func TestS33_TooManyWait(t *testing.T) {
	t.Parallel()
	kafkatest.Test(t, tripTopics, func(t *testing.T, k *kafkatest.Cluster) {
		var l diary
		e := engine(t, k, tripOfPay(&l))
		kafkatest.Run(t, e)
		require.NoError(t, e.Start(t.Context(), "o-1", order{}))
		fewer := e.FillWaits()
		told := wait(t, e, "o-1")
		k.Sleep(t, 10*time.Second)
		fewer()
		require.Zero(t, e.Waiting())
		k.Sleep(t, 5*time.Second)
		require.Equal(t, 1, e.Waiting())
		require.NoError(t, saga.Signal(t.Context(), e, "o-1", tripPaid, order{}))
		require.NoError(t, (<-told).err)
		require.Zero(t, e.Waiting())
	})
}

// Who waits no more is forgotten, when another one asks for the same saga.
func TestS33_WhoGaveUpIsForgotten(t *testing.T) {
	t.Parallel()
	kafkatest.Test(t, tripTopics, func(t *testing.T, k *kafkatest.Cluster) {
		var l diary
		e := engine(t, k, tripOfPay(&l))
		kafkatest.Run(t, e)
		require.NoError(t, e.Start(t.Context(), "o-1", order{}))
		for range 5 {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			_, err := e.Wait(ctx, "o-1")
			require.ErrorIs(t, err, context.DeadlineExceeded)
			cancel()
			k.Sleep(t, time.Second)
		}
		require.Equal(t, 1, e.Waiting())
	})
}

// However many wait for a large saga, it ends; those who are not told at once
// ask again.
func TestS33_ManyWaitForALargeSaga(t *testing.T) {
	t.Parallel()
	kafkatest.Test(t, tripTopics, func(t *testing.T, k *kafkatest.Cluster) {
		var l diary
		e := engine(t, k, tripOfPay(&l))
		kafkatest.Run(t, e)
		require.NoError(t, e.Start(t.Context(), "o-1", order{Pad: strings.Repeat("x", 200_000)}))
		var all []<-chan ended
		for range 20 {
			all = append(all, wait(t, e, "o-1"))
		}
		k.Sleep(t, time.Second)
		require.Equal(t, 20, e.Waiting())
		require.NoError(t, saga.Signal(t.Context(), e, "o-1", tripPaid, order{}))
		for _, told := range all {
			got := <-told
			require.NoError(t, got.err)
			require.Len(t, got.state.Pad, 200_000)
		}
	})
}

// Clients hash over the partitions that there are; of a topic that has grown the
// owner sends a question on to where the saga is.
func TestS33_AnswersWhereTopicsHaveGrown(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, tripTopics...)
	var l diary
	e := engine(t, k, tripOfPay(&l))
	e.Topics = wherry.TopicSpec{Partitions: 2}
	stop := kafkatest.Run(t, e)
	for i := range 8 {
		require.NoError(t, e.Start(patience(t), fmt.Sprint("o-", i), order{Total: i}))
	}
	require.NoError(t, stop())
	_, err := kadm.NewClient(k.Client(t)).CreatePartitions(t.Context(), 5, "trip.saga.inbox", "trip.saga.state")
	require.NoError(t, err)
	again := engine(t, k, tripOfPay(&l))
	kafkatest.Run(t, again)
	for i := range 8 {
		id := fmt.Sprint("o-", i)
		in, err := again.Get(patience(t), id)
		require.NoError(t, err)
		require.Equal(t, i, in.State.Total)
		require.NoError(t, again.Undo(patience(t), id, ada))
		_, err = again.Wait(patience(t), id)
		require.ErrorContains(t, err, "the customer called")
	}
}

// A record that no program here can read is told of, and can be purged.
func TestS33_ARecordThatCannotBeRead(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, tripTopics...)
	var l diary
	e := engine(t, k, tripOfPay(&l))
	e.Topics = wherry.TopicSpec{Partitions: 1}
	require.NoError(t, e.Start(patience(t), "o-1", order{}))
	bad := &kgo.Record{Topic: "trip.saga.state", Key: []byte("o-bad"), Value: []byte{2, 3, 4}}
	require.NoError(t, k.Client(t).ProduceSync(t.Context(), bad).FirstErr())
	kafkatest.Run(t, e)
	_, err := e.Get(patience(t), "o-1")
	require.NoError(t, err)
	const why = "it is of format 2, and this program reads format 1"
	_, err = e.Get(patience(t), "o-bad")
	require.ErrorContains(t, err, why)
	_, err = e.Wait(patience(t), "o-bad")
	require.ErrorContains(t, err, why)
	require.ErrorContains(t, e.Pause(patience(t), "o-bad", ada), why)
	var ids []string
	for in, err := range e.List(patience(t), saga.Filter{}) {
		ids = append(ids, in.ID)
		if in.ID == "o-bad" {
			require.ErrorContains(t, err, why)
		}
	}
	require.Equal(t, []string{"o-1", "o-bad"}, ids)
	c, err := e.Count(patience(t))
	require.NoError(t, err)
	require.Equal(t, 1, c.Unreadable)
	require.NoError(t, e.Purge(patience(t), "o-bad", ada))
	_, err = e.Get(patience(t), "o-bad")
	require.ErrorIs(t, err, saga.ErrNotFound)
}

// Without Run, those who ask at the same time share a Caller, and the last one
// closes it.
func TestS33_OneCallerForThoseWhoAsk(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, tripTopics...)
	var l diary
	stop := kafkatest.Run(t, engine(t, k, tripOfPay(&l)))
	e := engine(t, k, tripOfPay(&l))
	require.NoError(t, e.Start(patience(t), "o-1", order{}))
	var all sync.WaitGroup
	for range 30 {
		all.Go(func() {
			if _, err := e.Get(patience(t), "o-1"); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	require.False(t, e.Asks())
	require.NoError(t, stop())
}
