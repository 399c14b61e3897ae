//go:build unix

package participants_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/reqreply"
	"github.com/wherry-go/wherry/saga"
)

// payAnswer is the answer of a participant.
type payAnswer struct {
	No   int
	Note string
}

var (
	doPay   = saga.Op{Saga: "checkout", ID: "o-1", Step: "pay", Attempt: 1}
	undoPay = saga.Op{Saga: "checkout", ID: "o-1", Step: "pay", Undo: true, Attempt: 1}
)

// inTx is a handler's transaction around an effect.
func inTx(db *sql.DB, b saga.Barrier, op saga.Op, fn func(tx *sql.Tx) (payAnswer, error)) (p payAnswer, err error) {
	ctx := saga.WithOp(context.Background(), op)
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return p, err
	}
	defer tx.Rollback()
	if p, err = saga.Once(ctx, b, tx, func() (payAnswer, error) { return fn(tx) }); err != nil {
		return p, err
	}
	return p, tx.Commit()
}

// oneEffect is a handler's work: one row.
func oneEffect(op saga.Op, answer payAnswer) func(tx *sql.Tx) (payAnswer, error) {
	return func(tx *sql.Tx) (payAnswer, error) {
		_, err := tx.Exec("INSERT INTO effects (what) VALUES ($1)", op.Key())
		return answer, err
	}
}

func effectsOf(t *testing.T, db *sql.DB, op saga.Op) (n int) {
	t.Helper()
	require.NoError(t, db.QueryRowContext(t.Context(), "SELECT count(*) FROM effects WHERE what = $1", op.Key()).Scan(&n))
	return n
}

func requireUndone(t *testing.T, err error) {
	t.Helper()
	fault, ok := errors.AsType[*reqreply.Error](err)
	require.True(t, ok, "%v", err)
	require.Equal(t, reqreply.CodeUndone, fault.Code)
	require.ErrorIs(t, err, wherry.ErrPermanent, "no retry can mend it")
}

func TestS30_DuplicatesDoNothingAndAreAnsweredAsTheFirstTime(t *testing.T) {
	t.Parallel()
	onDatabases(t, func(t *testing.T, db *sql.DB, b saga.Barrier) {
		answers := map[bool]payAnswer{false: {1, "paid \x00 ü"}, true: {2, "refunded"}}
		for _, op := range []saga.Op{doPay, undoPay} {
			for attempt := range 3 {
				op.Attempt = attempt + 1
				p, err := inTx(db, b, op, oneEffect(op, payAnswer{No: answers[op.Undo].No + 10*attempt, Note: answers[op.Undo].Note}))
				require.NoError(t, err)
				require.Equal(t, answers[op.Undo], p)
			}
			require.Equal(t, 1, effectsOf(t, db, op))
		}
		p, err := inTx(db, b, doPay, oneEffect(doPay, payAnswer{}))
		require.NoError(t, err, "it was done before it was undone")
		require.Equal(t, answers[false], p)
		require.Equal(t, 1, effectsOf(t, db, doPay))
	})
}

func TestS30_AnUndoThatComesFirstIsRememberedAndTheLateDoRefused(t *testing.T) {
	t.Parallel()
	onDatabases(t, func(t *testing.T, db *sql.DB, b saga.Barrier) {
		for range 2 {
			p, err := inTx(db, b, undoPay, oneEffect(undoPay, payAnswer{No: 1}))
			require.NoError(t, err)
			require.Zero(t, p)
		}
		for range 2 {
			_, err := inTx(db, b, doPay, oneEffect(doPay, payAnswer{No: 2}))
			requireUndone(t, err)
		}
		require.Zero(t, effectsOf(t, db, undoPay)+effectsOf(t, db, doPay))

		// Where the saga knows that it was done, the table has forgotten it.
		forgotten := saga.Op{Saga: "checkout", ID: "o-2", Step: "pay", Undo: true, Done: true, Attempt: 1}
		for range 2 {
			p, err := inTx(db, b, forgotten, oneEffect(forgotten, payAnswer{No: 3}))
			require.NoError(t, err)
			require.Equal(t, payAnswer{No: 3}, p)
		}
		require.Equal(t, 1, effectsOf(t, db, forgotten))
		late := forgotten
		late.Undo, late.Done = false, false
		_, err := inTx(db, b, late, oneEffect(late, payAnswer{}))
		requireUndone(t, err)
	})
}

func TestS30_WhatFailsLeavesNothing(t *testing.T) {
	t.Parallel()
	onDatabases(t, func(t *testing.T, db *sql.DB, b saga.Barrier) {
		broken := errors.New("broken")
		fail := func(tx *sql.Tx) (payAnswer, error) {
			_, err := oneEffect(doPay, payAnswer{})(tx)
			return payAnswer{No: 1}, errors.Join(broken, err)
		}
		_, err := inTx(db, b, doPay, fail)
		require.ErrorIs(t, err, broken)
		require.Panics(t, func() {
			_, _ = inTx(db, b, doPay, func(tx *sql.Tx) (payAnswer, error) { _, _ = oneEffect(doPay, payAnswer{})(tx); panic("broken") })
		})
		require.Zero(t, effectsOf(t, db, doPay))

		// Also where the handler commits all the same, what it did itself stays.
		ctx := saga.WithOp(t.Context(), doPay)
		tx, err := db.BeginTx(ctx, nil)
		require.NoError(t, err)
		defer tx.Rollback()
		_, err = tx.Exec("INSERT INTO effects (what) VALUES ('its own')")
		require.NoError(t, err)
		for _, statement := range []string{"INSERT INTO effects (what) VALUES ('inside')", "this is no SQL"} {
			_, err = saga.Once(ctx, b, tx, func() (payAnswer, error) {
				_, err := tx.Exec(statement)
				return payAnswer{}, errors.Join(broken, err)
			})
			require.ErrorIs(t, err, broken)
		}
		require.NoError(t, tx.Commit())
		var n int
		require.NoError(t, db.QueryRow("SELECT count(*) FROM effects").Scan(&n))
		require.Equal(t, 1, n)

		// An attempt made anew is made.
		p, err := inTx(db, b, doPay, oneEffect(doPay, payAnswer{No: 7}))
		require.NoError(t, err)
		require.Equal(t, 7, p.No)

		// And what has failed is not there to be undone.
		failed := saga.Op{Saga: "checkout", ID: "o-2", Step: "pay", Attempt: 1}
		_, err = inTx(db, b, failed, fail)
		require.ErrorIs(t, err, broken)
		failed.Undo = true
		_, err = inTx(db, b, failed, oneEffect(failed, payAnswer{}))
		require.NoError(t, err)
		require.Zero(t, effectsOf(t, db, failed))
	})
}

// A transaction that is cut off, its connection lost, is as if it had never been.
func TestS30_ACrashBeforeTheCommit(t *testing.T) {
	t.Parallel()
	onDatabases(t, func(t *testing.T, db *sql.DB, b saga.Barrier) {
		for _, op := range []saga.Op{doPay, undoPay} {
			ctx, crash := context.WithCancel(saga.WithOp(context.Background(), op))
			tx, err := db.BeginTx(ctx, nil)
			require.NoError(t, err)
			_, err = saga.Once(ctx, b, tx, func() (payAnswer, error) { return oneEffect(op, payAnswer{No: 1})(tx) })
			require.NoError(t, err)
			crash()
			require.Error(t, tx.Commit())
			require.Zero(t, effectsOf(t, db, op))
			p, err := inTx(db, b, op, oneEffect(op, payAnswer{No: 2}))
			require.NoError(t, err)
			require.Equal(t, payAnswer{No: 2}, p)
			require.Equal(t, 1, effectsOf(t, db, op))
		}
	})
}

// One transaction is open with the first, and the second comes: it waits, and
// sees what became of the first.
func TestS30_TheSecondWaitsForTheFirst(t *testing.T) {
	t.Parallel()
	onDatabases(t, func(t *testing.T, db *sql.DB, b saga.Barrier) {
		for i, test := range []struct {
			first, second saga.Op
			commit        bool
			done          bool // whether the second is
			refused       bool
		}{
			{doPay, doPay, true, false, false},
			{doPay, doPay, false, true, false},
			{doPay, undoPay, true, true, false},
			{doPay, undoPay, false, false, false}, // void
			{undoPay, doPay, true, false, true},
			{undoPay, doPay, false, true, false},
			{undoPay, undoPay, true, false, false},
			{undoPay, undoPay, false, false, false},
		} {
			test.first.ID, test.second.ID = fmt.Sprint("o-", i), fmt.Sprint("o-", i)
			ctx := saga.WithOp(t.Context(), test.first)
			tx, err := db.BeginTx(ctx, nil)
			require.NoError(t, err)
			_, err = saga.Once(ctx, b, tx, func() (payAnswer, error) { return oneEffect(test.first, payAnswer{No: 1})(tx) })
			require.NoError(t, err)
			ended := make(chan error, 1)
			go func() {
				_, err := inTx(db, b, test.second, oneEffect(test.second, payAnswer{No: 2}))
				ended <- err
			}()
			select { // it may just not have come so far, which no case rests on
			case err := <-ended:
				require.Fail(t, "it did not wait", "%d: %v", i, err)
			case <-time.After(50 * time.Millisecond):
			}
			if test.commit {
				require.NoError(t, tx.Commit())
			} else {
				require.NoError(t, tx.Rollback())
			}
			if err := <-ended; test.refused {
				requireUndone(t, err)
			} else {
				require.NoError(t, err, i)
			}
			want := 0
			if test.done {
				want++
			}
			if test.first == test.second && test.commit && !test.first.Undo {
				want++ // that of the first
			}
			require.Equal(t, want, effectsOf(t, db, test.second), i)
		}
	})
}

// Do and undo of many sagas race each other, each several times side by side, and
// some transactions are cut off. However it goes, a step is done and undone at most
// once, and never done without being undone.
func TestS30_DoAndUndoRace(t *testing.T) {
	t.Parallel()
	onDatabases(t, func(t *testing.T, db *sql.DB, b saga.Barrier) {
		db.SetMaxOpenConns(16)
		const sagas = 40
		var done, void int
		for i := range sagas {
			var all sync.WaitGroup
			for _, n := range rand.Perm(6) {
				op := saga.Op{Saga: "checkout", ID: fmt.Sprint("o-", i), Step: "pay", Undo: n%2 == 0, Attempt: n + 1}
				all.Go(func() {
					for try := 0; ; try++ {
						cut := try == 0 && rand.IntN(3) == 0
						_, err := inTx(db, b, op, func(tx *sql.Tx) (payAnswer, error) {
							p, err := oneEffect(op, payAnswer{No: n})(tx)
							if cut {
								err = errors.Join(err, tx.Rollback())
							}
							return p, err
						})
						if fault, ok := errors.AsType[*reqreply.Error](err); err == nil || ok && fault.Code == reqreply.CodeUndone && !op.Undo {
							return
						}
						if !cut {
							t.Error(err)
							return
						}
					}
				})
			}
			all.Wait()
			op := saga.Op{Saga: "checkout", ID: fmt.Sprint("o-", i), Step: "pay"}
			undo := op
			undo.Undo = true
			switch effectsOf(t, db, op)*10 + effectsOf(t, db, undo) {
			case 11:
				done++
			case 0:
				void++
			default:
				t.Errorf("saga %d: done %d times, undone %d times", i, effectsOf(t, db, op), effectsOf(t, db, undo))
			}
		}
		t.Logf("%d done and undone, %d void", done, void)
	})
}

// A transaction whose snapshot is older than the other's commit cannot wait: it
// fails, and an attempt made anew sees what there is.
func TestS30_ASnapshotThatIsTooOldFailsAndIsTriedAgain(t *testing.T) {
	t.Parallel()
	db, b := openPostgres(t), saga.Barrier{}
	_, err := db.Exec(b.Schema() + "CREATE TABLE effects (what TEXT NOT NULL)")
	require.NoError(t, err)
	for _, level := range []sql.IsolationLevel{sql.LevelRepeatableRead, sql.LevelSerializable} {
		op := doPay
		op.ID = level.String()
		ctx := saga.WithOp(t.Context(), op)
		tx, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: level})
		require.NoError(t, err)
		var n int
		require.NoError(t, tx.QueryRow("SELECT count(*) FROM effects").Scan(&n))
		_, err = inTx(db, b, op, oneEffect(op, payAnswer{No: 1}))
		require.NoError(t, err)
		_, err = saga.Once(ctx, b, tx, func() (payAnswer, error) { return oneEffect(op, payAnswer{No: 2})(tx) })
		require.ErrorContains(t, err, "could not serialize")
		require.NoError(t, tx.Rollback())
		p, err := inTx(db, b, op, oneEffect(op, payAnswer{No: 3}))
		require.NoError(t, err)
		require.Equal(t, 1, p.No)
		require.Equal(t, 1, effectsOf(t, db, op))
	}
}

func TestS30_OpsAreToldApart(t *testing.T) {
	t.Parallel()
	onDatabases(t, func(t *testing.T, db *sql.DB, b saga.Barrier) {
		n := 0
		for _, name := range []string{"checkout", "checkout.pay", "pay"} {
			for _, id := range []string{"o-1", "o-1/pay", "o-1%2Fpay", "\xff\x00", "'; DROP TABLE effects; --", "ü"} {
				for _, step := range []string{"pay", "pay do", "do"} {
					n++
					op := saga.Op{Saga: name, ID: id, Step: step, Attempt: 1}
					p, err := inTx(db, b, op, oneEffect(op, payAnswer{No: n}))
					require.NoError(t, err)
					require.Equal(t, n, p.No)
				}
			}
		}
	})
}

func TestS30_PruneForgetsWhatIsOld(t *testing.T) {
	t.Parallel()
	onDatabases(t, func(t *testing.T, db *sql.DB, b saga.Barrier) {
		_, err := inTx(db, b, doPay, oneEffect(doPay, payAnswer{No: 1}))
		require.NoError(t, err)
		n, err := b.Prune(t.Context(), db, time.Hour)
		require.NoError(t, err)
		require.Zero(t, n)
		n, err = b.Prune(t.Context(), db, -time.Hour)
		require.NoError(t, err)
		require.EqualValues(t, 1, n)
		_, err = inTx(db, b, doPay, oneEffect(doPay, payAnswer{No: 1}))
		require.NoError(t, err)
		require.Equal(t, 2, effectsOf(t, db, doPay))
	})
}

func TestS30_WhatCannotWorkIsAnError(t *testing.T) {
	t.Parallel()
	db := openSQLite(t)
	never := func(*sql.Tx) (payAnswer, error) { t.Error("it was called"); return payAnswer{}, nil }
	for _, op := range []saga.Op{{}, {Saga: "s", ID: "i", Step: "p"}, {Saga: "s", Step: "p", Attempt: 1}, {Saga: "s", ID: "i", Step: "a/b", Attempt: 1}} {
		_, err := inTx(db, saga.Barrier{}, op, never)
		require.ErrorContains(t, err, "OpFrom", "%+v", op)
	}
	tx, err := db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	_, err = saga.Once(t.Context(), saga.Barrier{}, tx, func() (payAnswer, error) { return never(tx) })
	require.ErrorContains(t, err, "OpFrom")
	require.NoError(t, tx.Rollback())
	for _, table := range []string{"a b", "1a", "a;b", "a.b.c", "\"a\"", "a.", "a\n", "ä"} {
		_, err := inTx(db, saga.Barrier{Table: table}, doPay, never)
		require.ErrorContains(t, err, "use letters", table)
		_, err = saga.Barrier{Table: table}.Prune(t.Context(), db, time.Hour)
		require.ErrorContains(t, err, "use letters", table)
	}
	_, err = inTx(db, saga.Barrier{Table: "none"}, doPay, never)
	require.ErrorContains(t, err, "none", "a table that is not there")

	// An answer that cannot be kept is no success.
	_, err = db.Exec(saga.Barrier{Table: "kept"}.Schema())
	require.NoError(t, err)
	ctx := saga.WithOp(t.Context(), doPay)
	tx, err = db.BeginTx(ctx, nil)
	require.NoError(t, err)
	defer tx.Rollback()
	_, err = saga.Once(ctx, saga.Barrier{Table: "kept"}, tx, func() (float64, error) { return math.NaN(), nil })
	require.ErrorContains(t, err, "keeping its answer")
	again, err := saga.Once(ctx, saga.Barrier{Table: "kept"}, tx, func() (float64, error) { return 7, nil })
	require.NoError(t, err)
	require.InDelta(t, 7, again, 0)
}
