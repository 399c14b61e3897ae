package participants_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/internal/header"
	"github.com/wherry-go/wherry/kafkatest"
	"github.com/wherry-go/wherry/reqreply"
	"github.com/wherry-go/wherry/retry"
	"github.com/wherry-go/wherry/saga"
)

// A participant is asked here by hand, as an Engine asks it.

const askInbox = "checkout.saga.inbox"

var reserveStock = reqreply.Method[string, reservation]{
	Topic: "stock.reserve",
	Key:   func(id string) string { return id },
	ID:    func(id string) string { return id }, // the same of do and undo
}

type reservation struct {
	No   int    `json:"no"`
	What string `json:"what"`
}

func (r reservation) Validate() error {
	if r.No == 0 {
		return errors.New("no number")
	}
	return nil
}

var stockTopics = []string{"stock.reserve:2", askInbox + ":2", "stock.reserved:2", "stock.released:2"}

var (
	stockReserved = wherry.Event[reservation]{Topic: "stock.reserved"}
	stockReleased = wherry.Event[reservation]{Topic: "stock.released"}
)

// opRequest is what a saga asks of reserveStock.
func opRequest(t testing.TB, op saga.Op) *kgo.Record {
	t.Helper()
	r, err := reserveStock.Request(t.Context(), op.ID)
	require.NoError(t, err)
	wire := header.Op(op)
	wire.AddTo(r)
	reqreply.Profile{}.Address(r, wire.CorrelationID(1), askInbox, 1)
	return r
}

// askStock asks and returns the answer.
func askStock(t testing.TB, k *kafkatest.Cluster, op saga.Op) (reservation, error) {
	t.Helper()
	kafkatest.SendRecord(t, k, opRequest(t, op))
	reply := kafkatest.NextRecord(t, k, askInbox)
	require.Equal(t, header.Op(op).CorrelationID(1), reqreply.Profile{}.ReplyTo(reply))
	return reserveStock.Reply(reply)
}

func doReserve(id string, attempt int) saga.Op {
	return saga.Op{Saga: "checkout", ID: id, Step: "reserve", Attempt: attempt}
}

func undoReserve(id string, attempt int) saga.Op {
	op := doReserve(id, attempt)
	op.Undo = true
	return op
}

func requireFault(t testing.TB, code string, err error) {
	t.Helper()
	fault, ok := errors.AsType[*reqreply.Error](err)
	require.True(t, ok, "%v", err)
	require.Equal(t, code, fault.Code, fault.Message)
}

// stockroom is a participant whose effects are records.
type stockroom struct {
	calls atomic.Int64
	fail  atomic.Pointer[func(op saga.Op) error]
}

func (s *stockroom) handle(e wherry.Event[reservation]) func(context.Context, string) (reservation, error) {
	return func(ctx context.Context, id string) (r reservation, err error) {
		op, ok := saga.OpFrom(ctx)
		if !ok || op.ID != id || op.Undo != (e.Topic == stockReleased.Topic) {
			return r, fmt.Errorf("asked for %v, and its value is %q", op, id)
		}
		r = reservation{No: int(s.calls.Add(1)), What: op.Key()}
		if err := e.Publish(ctx, id, r); err != nil {
			return r, err
		}
		if fail := s.fail.Load(); fail != nil {
			err = (*fail)(op)
		}
		return r, err
	}
}

func (s *stockroom) consumer(client *kgo.Client, opts ...kgo.Opt) *wherry.Consumer {
	m := reserveStock
	m.Dedupe = &wherry.OwnedTable[reqreply.Answered]{Topic: "stock.answers"}
	return &wherry.Consumer{
		Client: client, Group: "stock", Delivery: wherry.ExactlyOnce, Order: wherry.ByKey, Tables: []wherry.Owned{m.Dedupe},
		Handlers: []wherry.Route{m.HandlerUndo(s.handle(stockReleased)), m.Handler(s.handle(stockReserved))}, Opts: opts,
	}
}

// stockEffects counts the records of each id in what is committed of a topic.
func stockEffects(t testing.TB, k *kafkatest.Cluster, topic string) map[string]int {
	t.Helper()
	end := kafkatest.SendRecord(t, k, &kgo.Record{Topic: topic, Key: []byte("end"), Partition: 0})
	ends := map[int32]bool{end.Partition: true}
	for p := int32(0); len(ends) < 2; p++ {
		r := &kgo.Record{Topic: topic, Key: fmt.Appendf(nil, "end %d", p)}
		ends[kafkatest.SendRecord(t, k, r).Partition] = true
	}
	counts, seen := map[string]int{}, map[int32]bool{}
	for len(seen) < 2 {
		r := kafkatest.NextRecord(t, k, topic)
		if id := string(r.Key); strings.HasPrefix(id, "end") {
			seen[r.Partition] = true
		} else {
			counts[id]++
		}
	}
	return counts
}

func TestS31_ADuplicateIsAnsweredAsTheFirstTime(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, stockTopics...)
	var s stockroom
	stop := kafkatest.Run(t, s.consumer(k.Client(t)))
	first := map[bool]reservation{}
	for _, op := range []saga.Op{doReserve("o-1", 1), doReserve("o-1", 2), undoReserve("o-1", 1), undoReserve("o-1", 2), doReserve("o-1", 3)} {
		r, err := askStock(t, k, op)
		require.NoError(t, err)
		require.Equal(t, op.Key(), r.What)
		if _, ok := first[op.Undo]; !ok {
			first[op.Undo] = r
		}
		require.Equal(t, first[op.Undo], r)
	}
	require.NoError(t, stop())

	kafkatest.Run(t, s.consumer(k.Client(t))) // a successor knows them
	for _, op := range []saga.Op{doReserve("o-1", 4), undoReserve("o-1", 3)} {
		r, err := askStock(t, k, op)
		require.NoError(t, err)
		require.Equal(t, first[op.Undo], r)
	}
	require.EqualValues(t, 2, s.calls.Load())
	require.Equal(t, map[string]int{"o-1": 1}, stockEffects(t, k, "stock.reserved"))
	require.Equal(t, map[string]int{"o-1": 1}, stockEffects(t, k, "stock.released"))
}

func TestS31_AnUndoThatComesFirstIsRememberedAndTheLateDoRefused(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, stockTopics...)
	var s stockroom
	stop := kafkatest.Run(t, s.consumer(k.Client(t)))
	for attempt := range 4 {
		if attempt == 2 { // also in a successor
			require.NoError(t, stop())
			kafkatest.Run(t, s.consumer(k.Client(t)))
		}
		r, err := askStock(t, k, undoReserve("o-1", attempt+1))
		require.NoError(t, err)
		require.Zero(t, r)
		_, err = askStock(t, k, doReserve("o-1", attempt+1))
		requireFault(t, reqreply.CodeUndone, err)
	}
	require.Zero(t, s.calls.Load())

	// Where the saga knows that it was done, the table has forgotten it.
	forgotten := undoReserve("o-2", 1)
	forgotten.Done = true
	for range 2 {
		r, err := askStock(t, k, forgotten)
		require.NoError(t, err)
		require.Equal(t, 1, r.No)
	}
	_, err := askStock(t, k, doReserve("o-2", 1))
	requireFault(t, reqreply.CodeUndone, err)
	require.Empty(t, stockEffects(t, k, "stock.reserved"))
	require.Equal(t, map[string]int{"o-2": 1}, stockEffects(t, k, "stock.released"))
}

func TestS31_WhatFailsIsNotKept(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, stockTopics...)
	var s stockroom
	no := func(op saga.Op) error {
		if op.Attempt == 1 {
			return &reqreply.Error{Code: "sold-out", Message: "for now"}
		}
		return nil
	}
	s.fail.Store(&no)
	kafkatest.Run(t, s.consumer(k.Client(t)))
	for _, op := range []saga.Op{doReserve("o-1", 1), undoReserve("o-1", 1)} {
		_, err := askStock(t, k, op)
		if op.Undo {
			require.NoError(t, err, "it was not done")
		} else {
			requireFault(t, "sold-out", err)
		}
	}
	for _, op := range []saga.Op{doReserve("o-2", 1), undoReserve("o-2", 1)} {
		_, err := askStock(t, k, op)
		requireFault(t, "sold-out", err)
		op.Attempt = 2
		_, err = askStock(t, k, op)
		require.NoError(t, err)
		if op.Undo {
			break
		}
	}
	require.Equal(t, map[string]int{"o-2": 1}, stockEffects(t, k, "stock.reserved"))
	require.Equal(t, map[string]int{"o-2": 1}, stockEffects(t, k, "stock.released"))
}

// The process dies around the end of the transaction that has effect, mark and
// answer.
func TestS31_ACrashAroundTheTransaction(t *testing.T) {
	t.Parallel()
	for name, arm := range map[string]func(*kafkatest.Cluster, testing.TB, kafkatest.Requests) *kafkatest.Fault{
		"before": (*kafkatest.Cluster).Crash, "after": (*kafkatest.Cluster).CrashAfter,
	} {
		t.Run(name, func(t *testing.T) {
			static := kgo.InstanceID("one") // a successor is let in at once
			k := kafkatest.NewCluster(t, stockTopics...)
			var s stockroom
			client := k.Client(t)
			first, cancel := context.WithCancel(context.Background())
			c, ended := s.consumer(client, static), make(chan error, 1)
			go func() { ended <- c.Run(first) }()
			<-c.Ready()
			crash := arm(k, t, kafkatest.Requests{Keys: []kmsg.Key{kmsg.EndTxn}})
			other := k.Client(t) // another process
			for _, op := range []saga.Op{doReserve("o-1", 1), doReserve("o-1", 2), undoReserve("o-1", 1), undoReserve("o-1", 2)} {
				require.NoError(t, other.ProduceSync(t.Context(), opRequest(t, op)).FirstErr())
			}
			crash.Wait(t, 1)
			cancel()
			<-ended
			kafkatest.Run(t, s.consumer(k.Client(t), static))
			answers := map[bool]reservation{}
			for _, op := range []saga.Op{doReserve("o-1", 1), doReserve("o-1", 2), undoReserve("o-1", 1), undoReserve("o-1", 2)} {
				reply := kafkatest.NextRecord(t, k, askInbox)
				require.Equal(t, header.Op(op).CorrelationID(1), reqreply.Profile{}.ReplyTo(reply))
				r, err := reserveStock.Reply(reply)
				require.NoError(t, err)
				if before, ok := answers[op.Undo]; ok {
					require.Equal(t, before, r)
				}
				answers[op.Undo] = r
			}
			require.Equal(t, map[string]int{"o-1": 1}, stockEffects(t, k, "stock.reserved"))
			require.Equal(t, map[string]int{"o-1": 1}, stockEffects(t, k, "stock.released"))
		})
	}
}

// Do and undo of many sagas in either order, each several times, while members come
// and go.
func TestS31_DoAndUndoInAnyOrder(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, stockTopics...)
	var s stockroom
	// Where the one that stops is not heard to leave, the other waits not longer.
	session := []kgo.Opt{kgo.SessionTimeout(6 * time.Second), kgo.HeartbeatInterval(500 * time.Millisecond)}
	moody := func(op saga.Op) error {
		if rand.IntN(4) == 0 {
			return &reqreply.Error{Code: "moody"}
		}
		return nil
	}
	s.fail.Store(&moody)
	stop := kafkatest.Run(t, s.consumer(k.Client(t), session...))
	cl := k.Client(t) // another process
	const sagas, each = 100, 8
	send := func(from, to int) {
		for i := from; i < to; i++ {
			id := fmt.Sprint("o-", i)
			for _, n := range rand.Perm(each) {
				op := doReserve(id, n+1)
				op.Undo = n%2 == 0
				cl.Produce(t.Context(), opRequest(t, op), func(_ *kgo.Record, err error) {
					if err != nil {
						t.Error(err)
					}
				})
			}
		}
		require.NoError(t, cl.Flush(t.Context()))
	}
	send(0, sagas/2)
	second := s.consumer(k.Client(t), session...)
	kafkatest.Run(t, second)
	send(sagas/2, sagas)
	require.NoError(t, stop())
	undone := map[string]bool{}
	for range sagas * each {
		reply := kafkatest.NextRecord(t, k, askInbox)
		op, _, ok := header.ParseCorrelationID(reqreply.Profile{}.ReplyTo(reply))
		require.True(t, ok)
		if _, err := reserveStock.Reply(reply); err == nil && op.Undo {
			undone[op.ID] = true
		}
	}
	for i := range sagas { // as a saga does: until it is answered
		id := fmt.Sprint("o-", i)
		for attempt := each; !undone[id]; attempt++ {
			require.Less(t, attempt, 100*each, "moody, not stubborn")
			_, err := askStock(t, k, undoReserve(id, attempt))
			undone[id] = err == nil
		}
	}
	reserved, released := stockEffects(t, k, "stock.reserved"), stockEffects(t, k, "stock.released")
	require.Equal(t, reserved, released)
	for id, n := range reserved {
		require.Equal(t, 1, n, id)
	}
	require.NotEmpty(t, reserved)
	require.Less(t, len(reserved), sagas, "some undos come first")
}

func TestS31_WhereDoAndUndoWouldNotMeet(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, stockTopics...)
	var s stockroom
	kafkatest.Run(t, s.consumer(k.Client(t)))
	r := opRequest(t, doReserve("o-1", 1))
	r.Key = []byte("o-7")
	kafkatest.SendRecord(t, k, r)
	_, err := reserveStock.Reply(kafkatest.NextRecord(t, k, askInbox))
	requireFault(t, "permanent", err)
	require.ErrorContains(t, err, "the key of the request")
	require.Zero(t, s.calls.Load())
}

// A do that fails waits in a delay topic, and its undo behind it.
func TestS31_AnUndoDoesNotOvertakeADoThatIsTriedAgain(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, stockTopics...)
	var s stockroom
	failed := make(chan struct{})
	broken := func(op saga.Op) error {
		if s.calls.Load() == 1 {
			close(failed)
			return errors.New("broken")
		}
		return nil
	}
	s.fail.Store(&broken)
	c := s.consumer(k.Client(t))
	c.Policies = []wherry.Policy{retry.Topics{Policy: retry.Policy{Attempts: 2, Initial: 500 * time.Millisecond}, KeepOrder: true}}
	kafkatest.Run(t, c)
	kafkatest.SendRecord(t, k, opRequest(t, doReserve("o-1", 1)))
	<-failed
	kafkatest.SendRecord(t, k, opRequest(t, undoReserve("o-1", 1)))
	for _, op := range []saga.Op{doReserve("o-1", 1), undoReserve("o-1", 1)} {
		reply := kafkatest.NextRecord(t, k, askInbox)
		require.Equal(t, header.Op(op).CorrelationID(1), reqreply.Profile{}.ReplyTo(reply))
		_, err := reserveStock.Reply(reply)
		require.NoError(t, err)
	}
	require.Equal(t, map[string]int{"o-1": 1}, stockEffects(t, k, "stock.reserved"))
	require.Equal(t, map[string]int{"o-1": 1}, stockEffects(t, k, "stock.released"))
}

func TestS20_OpFromTheHeadersOfARequest(t *testing.T) {
	t.Parallel()
	own := reqreply.Profile{CorrelationID: "x-id", ReplyTopic: "x-topic", ReplyPartition: "x-partition"}
	for name, profile := range map[string]reqreply.Profile{"NestJS": {}, "Spring": reqreply.Spring(), "own names": own} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := kafkatest.NewCluster(t, "ask:1", askInbox+":2")
			type found struct {
				op saga.Op
				ok bool
			}
			ops := make(chan found, 1)
			m := reqreply.Method[string, string]{Topic: "ask", Profile: profile}
			handle := func(ctx context.Context, _ string) (string, error) {
				op, ok := saga.OpFrom(ctx)
				ops <- found{op, ok}
				return "", nil
			}
			kafkatest.Run(t, &wherry.Consumer{Client: k.Client(t), Group: "g", Handlers: []wherry.Route{m.HandlerUndo(handle), m.Handler(handle)}})
			ask := func(op saga.Op, change func(r *kgo.Record)) found {
				r, err := m.Request(t.Context(), "")
				require.NoError(t, err)
				header.Op(op).AddTo(r)
				profile.Address(r, header.Op(op).CorrelationID(1), askInbox, 1)
				change(r)
				kafkatest.SendRecord(t, k, r)
				return <-ops
			}
			as := func(*kgo.Record) {}
			done := undoReserve("\x00\xff", 3)
			done.Done = true
			for _, op := range []saga.Op{doReserve("o-1", 1), undoReserve(strings.Repeat("\xff", 256), 2), done} {
				require.Equal(t, found{op, true}, ask(op, as))
			}
			set := func(key, value string) func(*kgo.Record) {
				return func(r *kgo.Record) { header.Set(r, key, value) }
			}
			drop := func(key string) func(*kgo.Record) {
				return func(r *kgo.Record) { header.Strip(r, func(k string) bool { return k == key }) }
			}
			id := profile.CorrelationID
			if id == "" {
				id = header.CorrelationID
			}
			require.True(t, ask(doReserve("o-1", 1), drop(header.SagaDirection)).ok, "the correlation id has it too")
			for what, change := range map[string]func(*kgo.Record){
				"no saga":                   drop(header.Saga),
				"a saga that cannot be":     set(header.Saga, "check out"),
				"a saga without a name":     set(header.Saga, ""),
				"another direction":         set(header.SagaDirection, "undo"),
				"no correlation id":         drop(id),
				"one of another kind":       set(id, "f3a09c81d2b74e6590a1c"),
				"one of 2 kB":               set(id, strings.Repeat("a.", 1000)),
				"a step of no length":       set(id, "by0x..d.1.0"),
				"attempt 0":                 set(id, "by0x.pay.d.0.0"),
				"an id of 257 bytes":        set(id, header.Op{ID: strings.Repeat("x", 257), Step: "pay", Attempt: 1}.CorrelationID(0)),
				"an id of no length":        set(id, ".pay.d.1.0"),
				"an unknown direction of 1": set(id, "by0x.pay.x.1.0"),
			} {
				got := ask(doReserve("o-1", 1), change)
				require.Equal(t, found{}, got, what)
			}
		})
	}
}

func TestS20_TheKeyIsTheSameForEveryAttempt(t *testing.T) {
	t.Parallel()
	op := undoReserve("o/1", 1)
	again := op
	again.Attempt, again.Done = 7, true
	require.Equal(t, op.Key(), again.Key())
	require.Equal(t, "checkout/o%2F1/reserve/undo", op.Key())
	require.Equal(t, `saga checkout "o/1": undo reserve, attempt 7`, again.String())
	for _, other := range []saga.Op{doReserve("o/1", 1), undoReserve("o/2", 1), {Saga: "c", ID: "o/1", Step: "reserve", Undo: true}, {Saga: "checkout", ID: "o/1", Step: "pay", Undo: true}} {
		require.NotEqual(t, op.Key(), other.Key())
	}
}

func TestS20_OpFromElsewhere(t *testing.T) {
	t.Parallel()
	_, ok := saga.OpFrom(t.Context())
	require.False(t, ok)
	op, ok := saga.OpFrom(saga.WithOp(t.Context(), doReserve("o-1", 2)))
	require.True(t, ok)
	require.Equal(t, doReserve("o-1", 2), op)
}
