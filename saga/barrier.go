package saga

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"strings"
	"time"

	"github.com/wherry-go/wherry"
	headers "github.com/wherry-go/wherry/internal/header"
	"github.com/wherry-go/wherry/reqreply"
)

// A Barrier is a table in a participant's database that remembers what was done
// there, by [Op]. [Once] asks it, in the transaction that has the effects.
//
// Its statements are those of PostgreSQL and SQLite: INSERT … ON CONFLICT DO
// NOTHING, parameters written $1, SAVEPOINT. Any driver for database/sql will do.
// A Barrier is a value, safe for concurrent use.
type Barrier struct {
	// Table is the table's name, in PostgreSQL with its schema if that is not the
	// default one: letters, digits and _. "" means saga_barrier. See
	// [Barrier.Schema], which makes none in an attached database of SQLite.
	Table string
}

// What a row says of its Op.
const (
	opDone = "done" // the function was called, and succeeded
	// opVoid is of what was never done: of the step when its undo came first, and
	// of that undo.
	opVoid = "void"
)

// Once calls fn unless the [Op] in ctx was done before, or is void, and returns
// what fn returns. It is for handlers, with a transaction of theirs:
//
//	func (s *Stock) reserve(ctx context.Context, o Order) (resp Reserved, err error) {
//		tx, err := s.db.BeginTx(ctx, nil)
//		if err != nil {
//			return resp, err
//		}
//		defer tx.Rollback()
//		resp, err = saga.Once(ctx, s.barrier, tx, func() (Reserved, error) {
//			// … with tx
//		})
//		if err != nil {
//			return resp, err
//		}
//		return resp, tx.Commit()
//	}
//
// For each saga, id, step and direction, whatever the attempt:
//
//   - An Op that was done before is not done again: Once returns the R of the
//     first time, which the table has as JSON.
//   - An undo of what was not done, or failed, is void: there is nothing to take
//     back. fn is not called, and Once returns the zero R, which
//     [reqreply.Method].HandlerUndo answers. Where the saga knows that the step was
//     done ([Op].Done) fn is called.
//   - A step whose undo came first is void too: Once returns a [*reqreply.Error] of
//     the code [reqreply.CodeUndone]. That is a no, for good.
//   - An Op that is in hand in another transaction is waited for, as the database
//     does for two rows of one key.
//
// After an error, or a panic, of fn neither its effects nor a mark stay, since
// Once rolls back to where it began; the transaction goes on. All is in the
// transaction: the handler must commit it before it answers, also where fn was
// not called. A handler calls Once once: a second call finds what the first did.
//
// An error of the database is returned as it is, and an attempt made anew may
// succeed: a serialization failure, which transactions above READ COMMITTED get
// in place of a wait, or SQLite's "database is locked" (set its busy_timeout). A
// ctx without an Op is an error.
func Once[R any](ctx context.Context, b Barrier, tx *sql.Tx, fn func() (R, error)) (r R, err error) {
	op, ok := OpFrom(ctx)
	if !ok || !headers.Op(op).Valid() {
		return r, wherry.Permanent(errors.New("saga: Once needs the context of a handler whose request is a saga's, see OpFrom"))
	}
	if err := b.check(); err != nil {
		return r, err
	}
	if _, err := tx.ExecContext(ctx, "SAVEPOINT wherry_barrier"); err != nil {
		return r, barrierError(op, err)
	}
	kept := false
	defer func() {
		if kept {
			return
		}
		ctx := context.WithoutCancel(ctx)
		if _, err := tx.ExecContext(ctx, "ROLLBACK TO SAVEPOINT wherry_barrier"); err != nil {
			_ = tx.Rollback() // what must not stay does not
		}
	}()
	call, answer, err := b.enter(ctx, tx, op)
	if err != nil {
		return r, err
	}
	if !call {
		if answer.Valid {
			if err := json.Unmarshal([]byte(answer.String), &r); err != nil {
				return r, barrierError(op, fmt.Errorf("the answer of the first time: %w", err))
			}
		}
		kept = true
		return r, nil
	}
	done, err := fn()
	if err != nil {
		return r, err
	}
	if !reflect.ValueOf(&done).Elem().IsZero() {
		if err := b.answer(ctx, tx, op, done); err != nil {
			return r, err
		}
	}
	kept = true
	return done, nil
}

// enter writes op into the table. It returns whether it is to be done now, and
// else what was answered before.
func (b Barrier) enter(ctx context.Context, tx *sql.Tx, op Op) (call bool, answer sql.NullString, err error) {
	state := opDone
	if op.Undo {
		do := op
		do.Undo = false
		first, err := b.insert(ctx, tx, do, opVoid)
		if err != nil {
			return false, answer, err
		}
		if first && !op.Done {
			state = opVoid
		}
	}
	first, err := b.insert(ctx, tx, op, state)
	if err != nil || first {
		return state == opDone, answer, err
	}
	err = tx.QueryRowContext(ctx, "SELECT state, answer FROM "+b.table()+" WHERE op = $1", op.Key()).Scan(&state, &answer)
	switch {
	case err != nil:
		return false, answer, barrierError(op, err)
	case state == opVoid && !op.Undo:
		return false, answer, &reqreply.Error{Code: reqreply.CodeUndone, Message: "it was undone before it was done"}
	}
	return false, answer, nil
}

// insert reports whether op was not in the table.
func (b Barrier) insert(ctx context.Context, tx *sql.Tx, op Op, state string) (first bool, err error) {
	done, err := tx.ExecContext(ctx, "INSERT INTO "+b.table()+" (op, state, at) VALUES ($1, $2, $3) ON CONFLICT (op) DO NOTHING",
		op.Key(), state, time.Now().UnixMilli())
	if err != nil {
		return false, barrierError(op, err)
	}
	rows, err := done.RowsAffected()
	if err != nil {
		return false, barrierError(op, err)
	}
	return rows == 1, nil
}

func (b Barrier) answer(ctx context.Context, tx *sql.Tx, op Op, r any) error {
	text, err := json.Marshal(r)
	if err != nil {
		return barrierError(op, fmt.Errorf("keeping its answer: %w", err))
	}
	if _, err := tx.ExecContext(ctx, "UPDATE "+b.table()+" SET answer = $1 WHERE op = $2", string(text), op.Key()); err != nil {
		return barrierError(op, err)
	}
	return nil
}

func barrierError(op Op, err error) error { return fmt.Errorf("barrier: %v: %w", op, err) }

// Schema returns the statements that make the table, and change nothing where it
// is: for PostgreSQL and SQLite. op is [Op.Key], and at milliseconds since 1970.
func (b Barrier) Schema() string {
	name := b.table()[strings.LastIndexByte(b.table(), '.')+1:]
	return `CREATE TABLE IF NOT EXISTS ` + b.table() + ` (
	op     TEXT   NOT NULL PRIMARY KEY,
	state  TEXT   NOT NULL,
	answer TEXT,
	at     BIGINT NOT NULL
);
CREATE INDEX IF NOT EXISTS ` + name + `_at ON ` + b.table() + ` (at);
`
}

// Prune forgets what is older than age, and returns how much that was. Age must
// be longer than any saga may take, parked ones with it: a step that comes again
// after that is done again, and an undo of it whose outcome the saga does not
// know is taken for one with nothing to take back.
func (b Barrier) Prune(ctx context.Context, db *sql.DB, age time.Duration) (int64, error) {
	if err := b.check(); err != nil {
		return 0, err
	}
	done, err := db.ExecContext(ctx, "DELETE FROM "+b.table()+" WHERE at < $1", time.Now().Add(-age).UnixMilli())
	if err != nil {
		return 0, fmt.Errorf("barrier: %w", err)
	}
	return done.RowsAffected()
}

var tableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)?$`)

func (b Barrier) check() error {
	if !tableName.MatchString(b.table()) {
		return fmt.Errorf("barrier: Table %.100q: use letters, digits and _", b.Table)
	}
	return nil
}

func (b Barrier) table() string { return cmp.Or(b.Table, "saga_barrier") }
