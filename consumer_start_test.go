package wherry_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
)

// Guarantee "start": a new group begins at Consumer.From, committed at once so
// that a second start cannot move it.
func TestStart_From(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		from func(middle time.Time) wherry.Position
		want []string
	}{
		"earliest": {func(time.Time) wherry.Position { return wherry.Earliest }, []string{"old", "middle", "new"}},
		"latest":   {func(time.Time) wherry.Position { return wherry.Latest }, []string{"new"}},
		"at":       {wherry.At, []string{"middle", "new"}},
		"future":   {func(time.Time) wherry.Position { return wherry.At(time.Now().Add(time.Hour)) }, []string{"new"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := kafkatest.NewCluster(t, "order.placed:1")
			now := time.Now().Truncate(time.Millisecond)
			for id, at := range map[string]time.Time{"old": now.Add(-time.Hour)} {
				send(t, k, id, at)
			}
			send(t, k, "middle", now.Add(-time.Minute))
			from := test.from(now.Add(-time.Minute))

			// The first start commits where the group begins, handles nothing
			// and is gone.
			stop := kafkatest.Run(t, &wherry.Consumer{Client: k.Client(t), Group: "g", From: from, Drain: time.Millisecond, Handlers: []wherry.Route{
				orderPlaced.Handler(func(ctx context.Context, _ order) error { <-ctx.Done(); return ctx.Err() }),
			}})
			require.NoError(t, stop())
			require.Len(t, committed(t, k, "g", "order.placed"), 1)

			send(t, k, "new", now)
			seen := newRecorder()
			kafkatest.Run(t, &wherry.Consumer{Client: k.Client(t), Group: "g", From: from, Handlers: []wherry.Route{orderPlaced.Handler(seen.handle)}})
			for _, want := range test.want {
				require.Equal(t, want, receive(t, seen.ch, want))
			}
			require.Equal(t, test.want, seen.all())
		})
	}
}

func send(t *testing.T, k *kafkatest.Cluster, id string, at time.Time) {
	t.Helper()
	r, err := orderPlaced.Record(id, order{ID: id})
	require.NoError(t, err)
	r.Timestamp = at
	kafkatest.SendRecord(t, k, r)
}

func TestStart_ATopicThatIsMadeLaterIsReadFromItsStart(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t)
	c := &wherry.Consumer{Client: k.Client(t), Group: "g", From: wherry.Latest}
	seen := newRecorder()
	c.Handlers = []wherry.Route{orderPlaced.Handler(seen.handle)}
	end, _ := background(t, c)
	select {
	case err := <-end:
		require.FailNow(t, "ended", err)
	case <-time.After(300 * time.Millisecond):
	}
	k.Create(t, kafkatest.Topic{Name: "order.placed"})
	kafkatest.Send(t, k, orderPlaced, "a", order{ID: "a"})
	require.Equal(t, "a", receive(t, seen.ch, "the record of the late topic"))
	receive(t, c.Ready(), "ready")
}

func TestStart_PartitionsThatAreAddedLaterAreReadFromTheirStart(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "order.placed:1")
	seen := newRecorder()
	kafkatest.Run(t, &wherry.Consumer{
		Client: k.Client(t), Group: "g", From: wherry.Latest, Handlers: []wherry.Route{orderPlaced.Handler(seen.handle)},
		Opts: []kgo.Opt{kgo.MetadataMaxAge(100 * time.Millisecond)},
	})
	cl := k.Client(t, kgo.RecordPartitioner(wherry.Partitioner(kgo.StickyKeyPartitioner(nil))))
	added, err := kadm.NewClient(cl).CreatePartitions(t.Context(), 1, "order.placed")
	require.NoError(t, err)
	require.NoError(t, added.Error())
	r, err := orderPlaced.Record("a", order{ID: "a"})
	require.NoError(t, err)
	wherry.ToPartition(r, 1)
	require.NoError(t, cl.ProduceSync(t.Context(), r).FirstErr())
	require.EqualValues(t, 1, r.Partition)
	require.Equal(t, "a", receive(t, seen.ch, "the record of the new partition"))
}

// Guarantee "start": an offset out of range stops with an error naming both
// offsets unless OnReset says otherwise.
func TestStart_OffsetOutOfRange(t *testing.T) {
	t.Parallel()
	boom := errors.New("no reset")
	for name, test := range map[string]struct {
		onReset func(*wherry.OffsetRangeError) (int64, error)
		want    []string
		is      error
	}{
		"stops":       {nil, nil, nil},
		"goes on":     {func(e *wherry.OffsetRangeError) (int64, error) { return e.Start, nil }, []string{"3"}, nil},
		"refuses":     {func(*wherry.OffsetRangeError) (int64, error) { return 0, boom }, nil, boom},
		"wrong again": {func(*wherry.OffsetRangeError) (int64, error) { return 99, nil }, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := kafkatest.NewCluster(t, "order.placed:1")
			for _, id := range []string{"0", "1", "2", "3"} {
				kafkatest.Send(t, k, orderPlaced, id, order{ID: id})
			}
			adm := kadm.NewClient(k.Client(t))
			at := kadm.Offsets{}
			at.AddOffset("order.placed", 0, 1, -1)
			require.NoError(t, adm.CommitAllOffsets(t.Context(), "g", at))
			deleteTo(t, adm, 3)

			seen := newRecorder()
			end, _ := background(t, &wherry.Consumer{Client: k.Client(t), Group: "g", OnReset: test.onReset, Handlers: []wherry.Route{orderPlaced.Handler(seen.handle)}})
			if test.want != nil {
				require.Equal(t, test.want[0], receive(t, seen.ch, "the first record left"))
				return
			}
			err := receive(t, end, "the Consumer to stop")
			if test.is != nil {
				require.ErrorIs(t, err, test.is)
				return
			}
			var e *wherry.OffsetRangeError
			require.ErrorAs(t, err, &e)
			require.Equal(t, wherry.OffsetRangeError{Group: "g", Topic: "order.placed", Offset: 1, Start: 3, End: 4}, *e)
			require.ErrorContains(t, err, "offset 1 of order.placed/0 is out of range, the log holds 3 to 4")
		})
	}
}

func TestStart_OffsetBeyondTheEnd(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "order.placed:1")
	at := kadm.Offsets{}
	at.AddOffset("order.placed", 0, 7, -1)
	require.NoError(t, kadm.NewClient(k.Client(t)).CommitAllOffsets(t.Context(), "g", at))
	end, _ := background(t, &wherry.Consumer{Client: k.Client(t), Group: "g", Handlers: []wherry.Route{orderPlaced.Handler(newRecorder().handle)}})
	var e *wherry.OffsetRangeError
	require.ErrorAs(t, receive(t, end, "the Consumer to stop"), &e)
	require.EqualValues(t, 7, e.Offset)
}

// The log may also be cut off under a Consumer that reads it.
func TestStart_OffsetOutOfRangeWhileReading(t *testing.T) {
	t.Parallel()
	for name, onReset := range map[string]func(*wherry.OffsetRangeError) (int64, error){
		"stops":   nil,
		"goes on": func(e *wherry.OffsetRangeError) (int64, error) { return e.Start, nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := kafkatest.NewCluster(t, "order.placed:1")
			for i := range 100 {
				kafkatest.Send(t, k, orderPlaced, ids(i), order{ID: ids(i)})
			}
			// MaxHeld makes the Consumer pause after what the first polls
			// brought; what it reads next is gone by then.
			began, goOn := make(chan string, 200), make(chan struct{})
			c := &wherry.Consumer{
				Client: k.Client(t), Group: "g", OnReset: onReset, MaxHeld: 1,
				Handlers: []wherry.Route{orderPlaced.Handler(func(_ context.Context, o order) error { began <- o.ID; <-goOn; return nil })},
				Opts:     []kgo.Opt{kgo.FetchMaxBytes(200), kgo.FetchMaxPartitionBytes(200)},
			}
			end, _ := background(t, c)
			receive(t, began, "the first record")
			require.Eventually(t, func() bool { s := c.Status(); return len(s.Partitions) == 1 && s.Partitions[0].Paused }, patience, time.Millisecond)
			kafkatest.Send(t, k, orderPlaced, "last", order{ID: "last"})
			deleteTo(t, kadm.NewClient(k.Client(t)), 100)
			close(goOn)
			if onReset == nil {
				var e *wherry.OffsetRangeError
				require.ErrorAs(t, receive(t, end, "the Consumer to stop"), &e)
				require.EqualValues(t, 100, e.Start)
				require.EqualValues(t, 101, e.End)
				return
			}
			for receive(t, began, "the last record") != "last" {
			}
		})
	}
}

func deleteTo(t *testing.T, adm *kadm.Client, offset int64) {
	t.Helper()
	at := kadm.Offsets{}
	at.AddOffset("order.placed", 0, offset, -1)
	deleted, err := adm.DeleteRecords(t.Context(), at)
	require.NoError(t, err)
	require.NoError(t, deleted.Error())
}

// A broker that is down at the start is waited for, and a stop meanwhile is a
// clean one.
func TestStart_BrokerIsDown(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addr := l.Addr().String()
	require.NoError(t, l.Close())
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.DisableClientMetrics())
	require.NoError(t, err)
	defer cl.Close()
	end, stop := background(t, &wherry.Consumer{Client: cl, Group: "g", Handlers: []wherry.Route{orderPlaced.Handler(newRecorder().handle)}})
	select {
	case err := <-end:
		require.FailNow(t, "did not wait", err)
	case <-time.After(600 * time.Millisecond): // two attempts
	}
	stop()
	require.NoError(t, receive(t, end, "the end"))
}

// Members that share out partitions in another way, as those of KafkaJS do, are
// in the group: which they are is what the broker does not say.
func TestStart_InAGroupOfAnotherKindIsAnErrorThatTellsWhatToDo(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "order.placed:1")
	assigned := make(chan struct{}, 10)
	other := k.Client(t, kgo.ConsumerGroup("g"), kgo.ConsumeTopics("order.placed"), kgo.Balancers(kgo.RoundRobinBalancer()),
		kgo.OnPartitionsAssigned(func(context.Context, *kgo.Client, map[string][]int32) { assigned <- struct{}{} }))
	kafkatest.Run(t, kafkatest.RunFunc(func(ctx context.Context) error {
		for ctx.Err() == nil {
			other.PollFetches(ctx)
		}
		return nil
	}))
	receive(t, assigned, "the other member to have joined")
	end, _ := background(t, &wherry.Consumer{Client: k.Client(t), Group: "g", Logger: quiet, Handlers: []wherry.Route{orderPlaced.Handler(newRecorder().handle)}})
	err := receive(t, end, "the Consumer to stop")
	require.ErrorIs(t, err, kerr.InconsistentGroupProtocol)
	require.ErrorContains(t, err, `consumer "g": another client library, such as KafkaJS, or a client with another balancer is in this group: stop it first: `)
}
