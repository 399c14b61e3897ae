//go:build unix

package participants_test

import (
	"context"
	"database/sql"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/internal/header"
	"github.com/wherry-go/wherry/kafkatest"
	"github.com/wherry-go/wherry/reqreply"
	"github.com/wherry-go/wherry/saga"
)

// shelf is a participant whose effects are in a database, behind a Barrier.
type shelf struct {
	db    *sql.DB
	b     saga.Barrier
	calls atomic.Int64
}

func (s *shelf) handle(ctx context.Context, _ string) (r reservation, err error) {
	no := int(s.calls.Add(1))
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return r, err
	}
	defer tx.Rollback()
	r, err = saga.Once(ctx, s.b, tx, func() (reservation, error) {
		op, _ := saga.OpFrom(ctx)
		_, err := tx.ExecContext(ctx, "INSERT INTO effects (what) VALUES ($1)", op.Key())
		return reservation{No: no, What: op.Key()}, err
	})
	if err != nil {
		return r, err
	}
	return r, tx.Commit()
}

func (s *shelf) consumer(client *kgo.Client) *wherry.Consumer {
	return &wherry.Consumer{
		Client: client, Group: "shelf",
		Handlers: []wherry.Route{reserveStock.HandlerUndo(s.handle), reserveStock.Handler(s.handle)},
		Opts:     []kgo.Opt{kgo.InstanceID("one")}, // a successor is let in at once
	}
}

// The process dies between the commit of the database and that of the offset: the
// request comes again, and is answered again, with what it was answered before.
func TestS29_AnAtLeastOnceConsumerSufficesBehindABarrier(t *testing.T) {
	t.Parallel()
	onDatabases(t, func(t *testing.T, db *sql.DB, b saga.Barrier) {
		k := kafkatest.NewCluster(t, stockTopics...)
		s := &shelf{db: db, b: b}
		first, cancel := context.WithCancel(context.Background())
		c, ended := s.consumer(k.Client(t)), make(chan error, 1)
		go func() { ended <- c.Run(first) }()
		<-c.Ready()
		// Not the first commits, with which a new group says where it begins.
		committed := k.Delay(t, kafkatest.Requests{Keys: []kmsg.Key{kmsg.OffsetCommit}, Group: "shelf"}, 0)
		_, err := askStock(t, k, doReserve("o-0", 1))
		require.NoError(t, err)
		committed.Wait(t, 1)
		crash := k.Crash(t, kafkatest.Requests{Keys: []kmsg.Key{kmsg.OffsetCommit}, Group: "shelf"})
		r, err := askStock(t, k, doReserve("o-1", 1))
		require.NoError(t, err)
		crash.Wait(t, 1)
		cancel()
		<-ended

		kafkatest.Run(t, s.consumer(k.Client(t)))
		reply := kafkatest.NextRecord(t, k, askInbox)
		require.Equal(t, header.Op(doReserve("o-1", 1)).CorrelationID(1), reqreply.Profile{}.ReplyTo(reply))
		again, err := reserveStock.Reply(reply)
		require.NoError(t, err)
		require.Equal(t, r, again)
		require.EqualValues(t, 3, s.calls.Load(), "the handler was called again")
		require.Equal(t, 1, effectsOf(t, db, doReserve("o-1", 1)), "and its effect is there once")
	})
}

// Undo before do, and both again, as requests of a saga.
func TestS30_BehindAConsumer(t *testing.T) {
	t.Parallel()
	onDatabases(t, func(t *testing.T, db *sql.DB, b saga.Barrier) {
		k := kafkatest.NewCluster(t, stockTopics...)
		s := &shelf{db: db, b: b}
		kafkatest.Run(t, s.consumer(k.Client(t)))
		for range 2 {
			r, err := askStock(t, k, undoReserve("o-1", 1))
			require.NoError(t, err)
			require.Zero(t, r, "which Validate would refuse")
			_, err = askStock(t, k, doReserve("o-1", 1))
			requireFault(t, reqreply.CodeUndone, err)
		}
		var first reservation
		for attempt := range 2 {
			r, err := askStock(t, k, doReserve("o-2", attempt+1))
			require.NoError(t, err)
			if attempt == 0 {
				first = r
			}
			require.Equal(t, first, r)
		}
		require.Zero(t, effectsOf(t, db, doReserve("o-1", 1)))
		require.Equal(t, 1, effectsOf(t, db, doReserve("o-2", 1)))

		// One that no saga sent is not handled without protection.
		r, err := reserveStock.Request(t.Context(), "o-3")
		require.NoError(t, err)
		reqreply.Profile{}.Address(r, "an id", askInbox, 1)
		kafkatest.SendRecord(t, k, r)
		_, err = reserveStock.Reply(kafkatest.NextRecord(t, k, askInbox))
		fault, ok := errors.AsType[*reqreply.Error](err)
		require.True(t, ok)
		require.Contains(t, fault.Message, "OpFrom")
	})
}
