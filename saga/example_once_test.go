package saga_test

import (
	"context"
	"database/sql"
	"errors"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/reqreply"
	"github.com/wherry-go/wherry/retry"
	"github.com/wherry-go/wherry/saga"
)

var BookRoom = reqreply.Method[Trip, string]{Topic: "hotels.book"}

// Hotel is a participant that has its rooms in a database.
type Hotel struct {
	db      *sql.DB // PostgreSQL or SQLite
	barrier saga.Barrier
}

func (h *Hotel) init(ctx context.Context) error {
	_, err := h.db.ExecContext(ctx, h.barrier.Schema()) // nothing where the table is there
	return err
}

func (h *Hotel) once(ctx context.Context, fn func(tx *sql.Tx) (string, error)) (room string, err error) {
	tx, err := h.db.BeginTx(ctx, nil)
	if err != nil {
		return "", err
	}
	defer func() { _ = tx.Rollback() }()
	room, err = saga.Once(ctx, h.barrier, tx, func() (string, error) { return fn(tx) })
	if err != nil {
		return "", err
	}
	return room, tx.Commit()
}

func (h *Hotel) book(ctx context.Context, t Trip) (string, error) {
	op, _ := saga.OpFrom(ctx) // op.ID is the saga's
	return h.once(ctx, func(tx *sql.Tx) (room string, err error) {
		row := tx.QueryRowContext(ctx, "UPDATE rooms SET trip = $1 WHERE city = $2 AND trip IS NULL RETURNING room", op.ID, t.City)
		if err := row.Scan(&room); errors.Is(err, sql.ErrNoRows) {
			return "", &reqreply.Error{Code: "full", Message: "there is no room in " + t.City}
		}
		return room, err
	})
}

func (h *Hotel) cancel(ctx context.Context, _ Trip) (string, error) {
	op, _ := saga.OpFrom(ctx)
	return h.once(ctx, func(tx *sql.Tx) (string, error) {
		_, err := tx.ExecContext(ctx, "UPDATE rooms SET trip = NULL WHERE trip = $1", op.ID)
		return "", err
	})
}

func (h *Hotel) consumer(cl *kgo.Client) *wherry.Consumer {
	return &wherry.Consumer{
		Client: cl, Group: "hotels",
		Handlers: []wherry.Route{BookRoom.HandlerUndo(h.cancel), BookRoom.Handler(h.book)},
		Policies: []wherry.Policy{reqreply.Faults{Done: true}, retry.Policy{Attempts: 3}},
	}
}

// A participant books and cancels in its database, each once.
func ExampleOnce() {
	var (
		ctx context.Context
		db  *sql.DB
		cl  *kgo.Client
	)
	hotel := &Hotel{db: db}
	if err := hotel.init(ctx); err != nil {
		return
	}
	_ = hotel.consumer(cl).Run(ctx)
}
