//go:build unix

package participants_test

import (
	"database/sql"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry/saga"
)

// A Barrier's table may be in a schema, and have a name as long as one can be.
func TestS30_ATableWithItsSchema(t *testing.T) {
	t.Parallel()
	db := openPostgres(t)
	_, err := db.ExecContext(t.Context(), "CREATE SCHEMA checkout; CREATE TABLE effects (what TEXT NOT NULL)")
	require.NoError(t, err)
	for _, table := range []string{"barrier", "B_" + strings.Repeat("x", 61), "_"} {
		b := saga.Barrier{Table: "checkout." + table}
		for range 2 {
			_, err := db.ExecContext(t.Context(), b.Schema())
			require.NoError(t, err, b.Table)
		}
		op := doPay
		op.ID = table
		for range 2 {
			p, err := inTx(db, b, op, oneEffect(op, payAnswer{No: 1}))
			require.NoError(t, err)
			require.Equal(t, 1, p.No)
		}
		require.Equal(t, 1, effectsOf(t, db, op))
		n, err := b.Prune(t.Context(), db, -time.Hour)
		require.NoError(t, err)
		require.EqualValues(t, 1, n)
	}
}

// A function that swallows the error of one of its statements, or ends the
// transaction itself, is no success that was not committed.
func TestS30_AFunctionThatSpoilsItsTransaction(t *testing.T) {
	t.Parallel()
	onDatabases(t, func(t *testing.T, db *sql.DB, b saga.Barrier) {
		spoil := map[string]func(tx *sql.Tx){
			"a statement that failed": func(tx *sql.Tx) { _, _ = tx.Exec("this is no SQL") },
			"a rollback":              func(tx *sql.Tx) { _ = tx.Rollback() },
			"a commit":                func(tx *sql.Tx) { _ = tx.Commit() },
		}
		for name, f := range spoil {
			for _, answer := range []payAnswer{{}, {No: 7}} {
				op := doPay
				op.ID = strings.ReplaceAll(name, " ", "-") + answer.Note
				if answer.No > 0 {
					op.ID += "-answered"
				}
				_, err := inTx(db, b, op, func(tx *sql.Tx) (payAnswer, error) {
					_, err := tx.Exec("INSERT INTO effects (what) VALUES ($1)", op.Key())
					f(tx)
					return answer, err
				})
				marked := 0
				require.NoError(t, db.QueryRow("SELECT count(*) FROM checkout_barrier WHERE op = $1", op.Key()).Scan(&marked))
				require.Equal(t, effectsOf(t, db, op), marked, "%s: the mark is there where the effect is: %v", name, err)
				if err == nil {
					require.Equal(t, 1, marked, name)
				}
			}
		}
	})
}

// Answers of all kinds come back as they were.
func TestS30_AnAnswerIsWhatItWas(t *testing.T) {
	t.Parallel()
	db, b := openSQLite(t), saga.Barrier{}
	_, err := db.Exec(b.Schema())
	require.NoError(t, err)
	again(t, db, b, "text", "a \x00 \u2028 ü")
	again(t, db, b, "no text", "")
	again(t, db, b, "number", int64(1)<<62+1)
	again(t, db, b, "pointer", &payAnswer{No: 1})
	again[*payAnswer](t, db, b, "nil pointer", nil)
	again(t, db, b, "list", []int{})
	again[[]int](t, db, b, "no list", nil)
	again(t, db, b, "map", map[string]payAnswer{"a": {Note: "<&>"}})
	again(t, db, b, "bytes", []byte("\xff\x00"))
	again(t, db, b, "any", any("x"))
	again[any](t, db, b, "no any", nil)
	again(t, db, b, "nothing", struct{}{})
}

func again[R any](t *testing.T, db *sql.DB, b saga.Barrier, id string, answer R) {
	t.Helper()
	op := doPay
	op.ID = id
	for n := range 2 {
		ctx := saga.WithOp(t.Context(), op)
		tx, err := db.BeginTx(ctx, nil)
		require.NoError(t, err)
		got, err := saga.Once(ctx, b, tx, func() (R, error) {
			if n > 0 {
				return answer, errors.New("it is done again")
			}
			return answer, nil
		})
		require.NoError(t, err, id)
		require.Equal(t, answer, got, id)
		require.NoError(t, tx.Commit())
	}
}
