package saga_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/internal/raced"
	"github.com/wherry-go/wherry/kafkatest"
	"github.com/wherry-go/wherry/reqreply"
	"github.com/wherry-go/wherry/saga"
)

// An id is bytes, and comes back as it is from all that is asked for it.
func TestS33_AnIDIsAnyBytes(t *testing.T) {
	t.Parallel()
	kafkatest.Test(t, tripTopics, func(t *testing.T, k *kafkatest.Cluster) {
		var l diary
		e := engine(t, k, tripOfPay(&l))
		e.Topics = wherry.TopicSpec{Partitions: 3}
		kafkatest.Run(t, e)
		ids := []string{
			"\xff\xfe\x00", " ", "a.b/c?d=%2F", "\x1b[2J\r\n", "üñï\u202e\u009b", "saga", "-", strings.Repeat("\xff", 256), "\xff", "\ufffd", // two that JSON takes for one
		}
		for i, id := range ids {
			require.NoError(t, e.Start(t.Context(), id, order{Total: i}))
		}
		for i, id := range ids {
			in, err := e.Get(t.Context(), id)
			require.NoError(t, err)
			require.Equal(t, id, in.ID)
			require.Equal(t, i, in.State.Total)
			why, err := e.Why(t.Context(), id)
			require.NoError(t, err)
			require.Contains(t, why.String(), `at step "pay"`)
			require.NoError(t, e.Pause(t.Context(), id, ada))
			require.NoError(t, e.Resume(t.Context(), id, ada))
			require.Equal(t, []string{"reserve"}, l.of(id))
		}
		seen := map[string]bool{}
		for in, err := range e.List(t.Context(), saga.Filter{}) {
			require.NoError(t, err)
			seen[in.ID] = true
		}
		require.Len(t, seen, len(ids))
		told := make([]<-chan ended, len(ids))
		for i, id := range ids {
			told[i] = wait(t, e, id)
		}
		for i, id := range ids {
			require.True(t, seen[id])
			require.NoError(t, saga.Signal(t.Context(), e, id, tripPaid, order{Total: 100 + i}))
		}
		for i := range ids {
			got := <-told[i]
			require.NoError(t, got.err)
			require.Equal(t, 100+i, got.state.Total)
		}
		e.ForgetRecent() // it is read in the topic then
		for i, id := range ids {
			in, err := e.Get(t.Context(), id)
			require.NoError(t, err)
			require.Equal(t, saga.Done, in.Phase)
			require.Equal(t, 100+i, in.State.Total)
			require.NoError(t, e.Purge(t.Context(), id, ada))
			_, err = e.Get(t.Context(), id)
			require.ErrorIs(t, err, saga.ErrNotFound)
		}
	})
}

// A thousand wait for the end of one saga, and a hundred each for one of their own.
func TestS33_AThousandWait(t *testing.T) {
	t.Parallel()
	kafkatest.Test(t, tripTopics, func(t *testing.T, k *kafkatest.Cluster) {
		var l diary
		e := engine(t, k, tripOfPay(&l))
		kafkatest.Run(t, e)
		many, others := 1000, 100
		if raced.On {
			many, others = 100, 10
		}
		ids := []string{"o-1"}
		for i := range others {
			ids = append(ids, fmt.Sprint("p-", i))
		}
		for i, id := range ids {
			require.NoError(t, e.Start(t.Context(), id, order{Total: i}))
		}
		var all sync.WaitGroup
		for i := range many + others {
			id := "o-1"
			if i >= many {
				id = ids[1+i-many]
			}
			all.Go(func() {
				s, err := e.Wait(t.Context(), id)
				if err != nil || s.Total != 7 {
					t.Errorf("%s: %v %v", id, s, err)
				}
			})
		}
		k.Sleep(t, 5*time.Second)
		require.Equal(t, many+others, e.Waiting())
		for _, id := range ids {
			require.NoError(t, saga.Signal(t.Context(), e, id, tripPaid, order{Total: 7}))
		}
		all.Wait()
		require.Zero(t, e.Waiting())
	})
}

// Two processes have two definitions of one version: the sagas that one of them
// began do not go on with the other's, and can be gone on with by their own.
func TestS27_TwoProcessesWithTwoDefinitionsOfOneVersion(t *testing.T) {
	t.Parallel()
	kafkatest.Test(t, tripTopics, func(t *testing.T, k *kafkatest.Cluster) {
		var l diary
		one := engine(t, k, tripOfPay(&l))
		stop := kafkatest.Run(t, one)
		require.NoError(t, one.Start(t.Context(), "o-1", order{}))
		_, err := one.Get(t.Context(), "o-1")
		require.NoError(t, err)
		require.NoError(t, stop())

		shorter := tripOfPay(&l)
		shorter.Steps = shorter.Steps[:2]
		other := engine(t, k, shorter)
		stop = kafkatest.Run(t, other)
		require.NoError(t, saga.Signal(t.Context(), other, "o-1", tripPaid, order{Total: 3}))
		in, err := other.Get(t.Context(), "o-1")
		require.NoError(t, err)
		require.Equal(t, saga.Quarantined, in.Phase, "and not done without its last step")
		require.Contains(t, in.Why, "it has 3 steps, and the Definition of version 1 has 2 now")
		require.NoError(t, other.Start(t.Context(), "o-2", order{}), "others go on")
		require.NoError(t, saga.Signal(t.Context(), other, "o-2", tripPaid, order{Total: 4}))
		_, err = other.Wait(t.Context(), "o-2")
		require.NoError(t, err)
		require.NoError(t, stop())

		again := engine(t, k, tripOfPay(&l))
		kafkatest.Run(t, again)
		require.NoError(t, again.Resume(t.Context(), "o-1", ada))
		require.NoError(t, saga.Signal(t.Context(), again, "o-1", tripPaid, order{Total: 5}))
		s, err := again.Wait(t.Context(), "o-1")
		require.NoError(t, err)
		require.Equal(t, order{Total: 5, Done: []string{"reserve", "notify"}}, s)
	})
}

// A verb that leads to what cannot be produced is not applied, and who asked for
// it is told so: the saga is quarantined as it was before.
func TestS26_AVerbWhoseOutputIsTooLargeIsAnswered(t *testing.T) {
	t.Parallel()
	kafkatest.Test(t, append([]string{"ask:1"}, tripTopics...), func(t *testing.T, k *kafkatest.Cluster) {
		large := reqreply.Method[order, order]{Topic: "ask"}
		e := engine(t, k, trip(
			saga.Step[order]{Name: "pay", NoUndo: true, Do: saga.Await[order](saga.Success(tripPaid, func(*order, order) {}))},
			saga.Step[order]{Name: "ask", NoUndo: true, Do: saga.Call(large, func(order) order { return order{Pad: strings.Repeat("x", 2<<20)} }, nil)},
		))
		kafkatest.Run(t, e)
		require.NoError(t, e.Start(t.Context(), "o-1", order{}))
		began := time.Now()
		for range 2 {
			var refused *saga.VerbError
			err := e.Complete(t.Context(), "o-1", ada)
			require.ErrorAs(t, err, &refused)
			require.Contains(t, refused.Reason, "complete: it leads to what cannot be produced")
			require.Less(t, time.Since(began), 10*time.Second)
			in, err := e.Get(t.Context(), "o-1")
			require.NoError(t, err)
			require.Equal(t, saga.Quarantined, in.Phase)
			require.Equal(t, "doing", in.Steps[0].Status)
			require.Empty(t, verbs(in))
		}
		require.NoError(t, e.Resume(t.Context(), "o-1", ada))
	})
}

// Who asks with wrong names, or without anything, is told what is wrong at once.
func TestS33_WhoAsksWronglyIsTold(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "paid:1", "declined:1")
	for _, name := range []string{"none", "a b", "a/b", "..", strings.Repeat("x", 300), "\xff", "\x00"} {
		i := &saga.Inspector{Client: k.Client(t), Name: name}
		_, err := i.Get(patience(t), "o-1")
		require.Error(t, err, "%q", name)
		require.NotErrorIs(t, err, patience(t).Err())
		_, err = i.Count(patience(t))
		require.Error(t, err, "%q", name)
		require.Error(t, i.Do(patience(t), "o-1", saga.Pause, ada), "%q", name)
		for _, err := range i.List(patience(t), saga.Filter{}) {
			require.Error(t, err)
		}
	}
}

// A signal that its saga would pass over, since it is about another one, is told
// to who sends it.
func TestS33_ASignalThatIsAboutAnotherSagaIsAnError(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "paid:1")
	bill := wherry.Event[order]{Topic: "paid"}
	e := engine(t, k, trip(saga.Step[order]{Name: "pay", NoUndo: true, Do: saga.Await[order](
		saga.Success(bill, func(o *order, p order) { o.Total = p.Total }).By(func(o order) string { return o.Pad }))}))
	kafkatest.Run(t, e)
	require.NoError(t, e.Start(patience(t), "o-1", order{}))
	err := saga.Signal(patience(t), e, "o-1", bill, order{Total: 1, Pad: "o-2"})
	require.ErrorContains(t, err, `a record of paid is about saga ["o-2"], and this is "o-1"`)
	require.NoError(t, saga.Signal(patience(t), e, "o-1", bill, order{Total: 2, Pad: "o-1"}))
	s, err := e.Wait(patience(t), "o-1")
	require.NoError(t, err)
	require.Equal(t, 2, s.Total)
}

// The answer to the verb that ended a saga was lost.
func TestS35_AVerbThatEndedTheSagaIsAskedAgain(t *testing.T) {
	t.Parallel()
	kafkatest.Test(t, tripTopics, func(t *testing.T, k *kafkatest.Cluster) {
		e := engine(t, k, trip(saga.Step[order]{Name: "pay", NoUndo: true, Do: saga.Await[order](saga.Success(tripPaid, func(*order, order) {}))}))
		kafkatest.Run(t, e)
		require.NoError(t, e.Start(t.Context(), "o-1", order{}))
		by := ada
		by.ID = "ticket-7"
		require.NoError(t, e.Skip(t.Context(), "o-1", by))
		require.NoError(t, e.Skip(t.Context(), "o-1", by))
		by.ID = "ticket-8"
		require.ErrorContains(t, e.Skip(t.Context(), "o-1", by), "has ended")
	})
}
