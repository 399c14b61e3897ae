package saga_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/internal/planted"
	"github.com/wherry-go/wherry/kafkatest"
	"github.com/wherry-go/wherry/saga"
)

// fence is a cluster with sagas whose state and effects say which engine made
// them, a participant, and all that a read_committed reader sees of them.
type fence struct {
	t    *testing.T
	k    *kafkatest.Cluster
	goOn chan struct{} // local steps that are held go on when it is closed
	held chan string   // those of engine first that are, of sagas whose Total is 1

	starter *saga.Engine[order]

	mu   sync.Mutex
	seen []*kgo.Record
}

const fencePartitions = 4

func newFence(t *testing.T, k *kafkatest.Cluster) *fence {
	k.WallLimit(3 * time.Minute)
	f := &fence{t: t, k: k, goOn: make(chan struct{}), held: make(chan string, 100)}
	kafkatest.Run(t, &wherry.Consumer{Client: k.Client(t, kgo.ClientID("participant")), Group: "asked", Handlers: []wherry.Route{
		asked.Handler(func(_ context.Context, o order) (order, error) { return o, nil }),
	}})
	f.starter = f.engine("starter")
	require.NoError(t, f.starter.Start(t.Context(), "to make the topics", order{}))
	reader := k.Client(t, kgo.ConsumeTopics("trip.saga.inbox", "trip.saga.state", "told", "ask"), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(time.Second))
	kafkatest.Run(t, kafkatest.RunFunc(func(ctx context.Context) error { return f.follow(ctx, reader) }))
	return f
}

// engine is one of the process of a name, which is that of its clients.
func (f *fence) engine(name string) *saga.Engine[order] {
	local := func(step string) saga.Step[order] {
		return saga.Step[order]{Name: step, NoUndo: true, Do: saga.Local(func(ctx context.Context, o order) (string, error) {
			if step == "work" && name == "first" && o.Total == 1 {
				op, _ := saga.OpFrom(ctx)
				f.held <- op.ID
				select {
				case <-f.goOn:
				case <-f.t.Context().Done(): // the test is over
				}
			}
			return step + " by " + name, nil
		}, func(o *order, r string) { o.Done = append(o.Done, r) })}
	}
	return &saga.Engine[order]{
		// A heartbeat may wait for its answer for longer than a zombie sleeps.
		Client: f.k.Client(f.t, kgo.ClientID(name), kgo.RequestTimeoutOverhead(10*time.Minute)), Topics: wherry.TopicSpec{Partitions: fencePartitions},
		Opts: []kgo.Opt{kgo.SessionTimeout(6 * time.Second), kgo.HeartbeatInterval(time.Second), kgo.FetchMaxWait(time.Second), kgo.RebalanceTimeout(5 * time.Second)},
		Definitions: []saga.Definition[order]{trip(
			local("work"),
			saga.Step[order]{Name: "tell", NoUndo: true, Do: saga.Emit(told, func(o order) order { return o })},
			saga.Step[order]{Name: "ask", NoUndo: true, Do: saga.Call(asked, func(o order) order { return o }, nil)},
			local("last"),
		)},
	}
}

// follow notes what a read_committed reader sees, before the inbox is cut.
func (f *fence) follow(ctx context.Context, cl *kgo.Client) error {
	for {
		fetches := cl.PollFetches(ctx)
		if fetches.IsClientClosed() || ctx.Err() != nil {
			return nil //nolint:nilerr // it was asked to end
		}
		f.mu.Lock()
		fetches.EachRecord(func(r *kgo.Record) { f.seen = append(f.seen, r) })
		f.mu.Unlock()
	}
}

// of returns what was seen of a saga in a topic.
func (f *fence) of(topic, id string) (all []*kgo.Record) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.seen {
		// A reply has no key: its correlation id is that of the saga's command.
		if r.Topic == topic && (string(r.Key) == id || topic == "trip.saga.inbox" && strings.HasPrefix(string(valueOf(r, "kafka_correlationId")), correlated(id)+".")) {
			all = append(all, r)
		}
	}
	return all
}

// start starts sagas and returns their ids.
func (f *fence) start(n int, name string, total int, partitions ...int32) (ids []string) {
	f.t.Helper()
	for i := 0; len(ids) < n; i++ {
		id := fmt.Sprintf("%s-%d", name, i)
		if !slices.Contains(partitions, partitionOf(id)) {
			continue
		}
		require.NoError(f.t, f.starter.Start(f.t.Context(), id, order{Total: total}))
		ids = append(ids, id)
	}
	return ids
}

// correlated is how a saga's correlation ids begin.
func correlated(id string) string { return base64.RawURLEncoding.EncodeToString([]byte(id)) }

func partitionOf(id string) int32 {
	return int32(kgo.StickyKeyPartitioner(nil).ForTopic("").Partition(&kgo.Record{Key: []byte(id)}, fencePartitions)) //nolint:gosec // less than 4
}

// owned are the partitions of an engine.
func owned(e *saga.Engine[order]) (all []int32) {
	for _, p := range e.Status().Inbox.Partitions {
		all = append(all, p.Partition)
	}
	return all
}

// doubled says what is wrong with sagas that all are to have been done once, by one
// engine alone: one line for each.
func (f *fence) doubled(by string, ids []string) (all []string) {
	for _, id := range ids {
		told, commands, inbox := f.of("told", id), f.of("ask", id), f.of("trip.saga.inbox", id)
		if len(told) != 1 || len(commands) != 1 || len(inbox) != 2 { // start and reply
			all = append(all, fmt.Sprintf("%s: told %d times, asked %d times, %d records in the inbox", id, len(told), len(commands), len(inbox)))
		}
		for _, r := range append(told, commands...) {
			if !strings.Contains(string(r.Value), "work by "+by) {
				all = append(all, fmt.Sprintf("%s: %s has %s", id, r.Topic, r.Value))
			}
		}
		moves, states := uint64(0), f.of("trip.saga.state", id)
		if len(states) != 2 {
			all = append(all, fmt.Sprintf("%s: it has %d states", id, len(states)))
		}
		for i, r := range states {
			s, ok, err := saga.ReadSnapshot("trip", r)
			switch {
			case !ok || err != nil:
				all = append(all, fmt.Sprintf("%s: a record of the state: %v %v", id, ok, err))
			case s.Moves <= moves || strings.Contains(string(s.Raw), "work by") && !strings.Contains(string(s.Raw), "work by "+by) || i == 1 != s.Phase.Ended():
				all = append(all, fmt.Sprintf("%s: record %d of the state is %v after %d moves, and was after %d: %s", id, i, s.Phase, s.Moves, moves, s.Raw))
			}
			moves = s.Moves
		}
	}
	return all
}

// ended requires that sagas are done.
func (f *fence) ended(ids []string) {
	f.t.Helper()
	all := lastOf(f.t, f.k, "trip")
	for _, id := range ids {
		require.Equal(f.t, saga.Done, all[id].Phase, "%s: %v %v", id, all[id].Why, all[id].History)
	}
}

// A zombie is an engine whose heartbeats do not arrive, while it is in the middle
// of something: a local step, or the request of a transaction. It comes back when
// another one has taken its sagas over.
type zombie struct {
	name   string
	key    kmsg.Key // that is held
	topic  string
	local  bool // a local step is held in place of it
	beside bool // the other one was there before
}

func zombies() []zombie {
	return []zombie{
		{name: "in a local step", local: true},
		{name: "in a local step, beside another", local: true, beside: true},
		{name: "before its records", key: kmsg.Produce, topic: "trip.saga.state"},
		{name: "before its offsets, beside another", key: kmsg.TxnOffsetCommit, beside: true},
		{name: "before the end of its transaction", key: kmsg.EndTxn, beside: true},
	}
}

// awaken plays the story of a zombie, and returns what came of it twice.
func (z zombie) awaken(t *testing.T, k *kafkatest.Cluster) []string {
	f := newFence(t, k)
	first, second := f.engine("first"), f.engine("second")
	kafkatest.Run(t, first)
	if z.beside {
		kafkatest.Run(t, second)
	}
	k.Sleep(t, 20*time.Second)
	before := f.start(8, "before", 2, 0, 1, 2, 3) // so that producers are open
	k.Sleep(t, 10*time.Second)
	f.ended(before)

	deaf := k.Delay(t, kafkatest.Requests{Keys: []kmsg.Key{kmsg.Heartbeat}, Client: "first", Count: -1}, time.Hour)
	theirs := owned(first)
	require.NotEmpty(t, theirs)
	var caught []string
	if z.local {
		caught = f.start(5, "caught", 1, theirs...)
		for range caught {
			<-f.held
		}
	} else {
		hold := k.Delay(t, kafkatest.Requests{Keys: []kmsg.Key{z.key}, Topic: z.topic, Client: "first"}, 40*time.Second)
		caught = f.start(5, "caught", 2, theirs...)
		hold.Wait(t, 1)
	}
	if !z.beside {
		kafkatest.Run(t, second)
	}
	k.Sleep(t, 20*time.Second)
	require.Len(t, owned(second), fencePartitions, "it has taken over")
	f.ended(caught)
	after := f.start(5, "after", 2, 0, 1, 2, 3)
	close(f.goOn)
	for i := range 6 { // what was held goes on meanwhile
		k.Sleep(t, 5*time.Second)
		after = append(after, f.start(2, fmt.Sprint("later-", i), 2, 0, 1, 2, 3)...)
	}
	k.Sleep(t, 5*time.Second)
	f.ended(after)
	deaf.Remove()
	k.Sleep(t, 2*time.Minute)
	last := f.start(8, "last", 2, 0, 1, 2, 3)
	k.Sleep(t, 20*time.Second)
	f.ended(last)
	noLetters(t, k)
	wrong := f.doubled("second", caught)
	for _, id := range slices.Concat(after, last) {
		if n := len(f.of("told", id)); n != 1 {
			wrong = append(wrong, fmt.Sprintf("%s is told %d times", id, n))
		}
	}
	return wrong
}

func TestS15_AnEngineThatComesBackAsAZombieLeavesNothing(t *testing.T) {
	t.Parallel()
	for _, z := range zombies() {
		t.Run(z.name, func(t *testing.T) {
			t.Parallel()
			kafkatest.Test(t, []string{"told", "ask"}, func(t *testing.T, k *kafkatest.Cluster) {
				require.Empty(t, z.awaken(t, k))
			})
		})
	}
}

// It is the group's generation in each transaction that does it. Not parallel: a
// planted fault is everybody's.
func TestS15_WithoutFencingAZombieIsSeen(t *testing.T) {
	planted.Set(planted.NoFencing)
	defer planted.Set(planted.None)
	kafkatest.Test(t, []string{"told", "ask"}, func(t *testing.T, k *kafkatest.Cluster) {
		wrong := zombie{local: true, beside: true}.awaken(t, k)
		require.NotEmpty(t, wrong)
		t.Log(wrong[0])
	})
}

// A rebalance takes partitions from an engine that lives, and has transactions or
// local steps of theirs in hand, slow ones: those of the others go on.
func rebalanced(t *testing.T, k *kafkatest.Cluster, local bool) (wrong []string) {
	f := newFence(t, k)
	first, second := f.engine("first"), f.engine("second")
	kafkatest.Run(t, first)
	k.Sleep(t, 20*time.Second)
	before := f.start(8, "before", 2, 0, 1, 2, 3)
	k.Sleep(t, 10*time.Second)
	f.ended(before)
	ids := map[int32][]string{}
	total := 2
	if local {
		total = 1
	} else {
		k.Delay(t, kafkatest.Requests{Keys: []kmsg.Key{kmsg.EndTxn}, Client: "first", Count: -1}, 700*time.Millisecond)
	}
	for p := range int32(fencePartitions) {
		ids[p] = f.start(3, fmt.Sprint("caught-", p), total, p)
		if local {
			for range ids[p] {
				<-f.held
			}
		}
	}
	kafkatest.Run(t, second)
	k.Sleep(t, 10*time.Second)
	kept, moved := owned(first), owned(second)
	require.NotEmpty(t, kept)
	require.NotEmpty(t, moved)
	if local { // they have ended where they are now, and not where they are held
		for _, p := range moved {
			f.ended(ids[p])
		}
		for _, p := range kept {
			if slices.Contains(moved, p) {
				continue // the planted fault
			}
			require.Empty(t, f.of("told", ids[p][0]))
		}
	}
	close(f.goOn)
	k.Sleep(t, time.Minute)
	for p := range int32(fencePartitions) {
		by := "first"
		if local && slices.Contains(moved, p) {
			by = "second"
		}
		wrong = append(wrong, f.doubled(by, ids[p])...)
	}
	noLetters(t, k)
	return wrong
}

func TestS15_WhatIsInHandOfAPartitionThatIsTakenAwayIsDropped(t *testing.T) {
	t.Parallel()
	kafkatest.Test(t, []string{"told", "ask"}, func(t *testing.T, k *kafkatest.Cluster) {
		require.Empty(t, rebalanced(t, k, true))
	})
}

func TestS15_ATransactionIsOverBeforeItsPartitionIsGivenUp(t *testing.T) {
	t.Parallel()
	kafkatest.Test(t, []string{"told", "ask"}, func(t *testing.T, k *kafkatest.Cluster) {
		require.Empty(t, rebalanced(t, k, false))
	})
}

func TestS15_AnEngineThatKeepsWhatIsTakenAwayIsSeen(t *testing.T) {
	planted.Set(planted.KeepRevoked)
	defer planted.Set(planted.None)
	kafkatest.Test(t, []string{"told", "ask"}, func(t *testing.T, k *kafkatest.Cluster) {
		wrong := rebalanced(t, k, true)
		require.NotEmpty(t, wrong)
		t.Log(wrong[0])
	})
}
