// Package shipping makes labels. Its rows are in a database, and so is what the
// barrier remembers: both are written in one transaction.
package shipping

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"log/slog"
	"path/filepath"

	_ "github.com/ncruces/go-sqlite3/driver" // database/sql's "sqlite3"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/examples/checkout/contract"
	"github.com/wherry-go/wherry/examples/checkout/trouble"
	"github.com/wherry-go/wherry/reqreply"
	"github.com/wherry-go/wherry/saga"
)

// Nowhere is an address that no carrier goes to.
const Nowhere = "nowhere"

const schema = `CREATE TABLE IF NOT EXISTS labels (
	tracking  TEXT NOT NULL PRIMARY KEY,
	checkout  TEXT NOT NULL,
	address   TEXT NOT NULL,
	cancelled BOOLEAN NOT NULL DEFAULT FALSE
);
`

// A Service makes labels and cancels them.
type Service struct {
	wherry.Consumer
	path    string
	db      *sql.DB // while it runs
	barrier saga.Barrier
}

// New returns the service, with its database in the file at path.
func New(cl *kgo.Client, how trouble.Mode, log *slog.Logger, path string) *Service {
	s := &Service{path: path}
	s.Consumer = wherry.Consumer{
		Client: cl, Group: "shipping", Order: wherry.ByKey,
		Handlers: []wherry.Route{
			contract.Ship.HandlerUndo(trouble.In(how, log, s.cancel)),
			contract.Ship.Handler(trouble.In(how, log, s.ship)),
		},
		Policies: []wherry.Policy{reqreply.Faults{Done: true}},
	}
	return s
}

// Run opens the database and works until ctx is done.
func (s *Service) Run(ctx context.Context) (err error) {
	if s.db, err = sql.Open("sqlite3", DSN(s.path)); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.db.Close()) }()
	if _, err := s.db.ExecContext(ctx, schema+s.barrier.Schema()); err != nil {
		return err
	}
	return s.Consumer.Run(ctx)
}

// DSN names the database in a file: a transaction that finds it locked waits.
func DSN(path string) string {
	return "file:" + filepath.ToSlash(path) + "?_pragma=busy_timeout(10000)&_pragma=journal_mode(wal)&_txlock=immediate"
}

func (s *Service) ship(ctx context.Context, p contract.Parcel) (contract.Label, error) {
	if p.Address == Nowhere {
		return contract.Label{}, &reqreply.Error{Code: "no-carrier", Message: "no carrier goes there"}
	}
	return s.once(ctx, func(tx *sql.Tx, op saga.Op) (contract.Label, error) {
		l := contract.Label{Tracking: rand.Text()[:12]}
		_, err := tx.ExecContext(ctx, "INSERT INTO labels (checkout, tracking, address) VALUES (?, ?, ?)", op.ID, l.Tracking, p.Address)
		return l, err
	})
}

// cancel is not called for a label that was not made.
func (s *Service) cancel(ctx context.Context, _ contract.Parcel) (contract.Label, error) {
	return s.once(ctx, func(tx *sql.Tx, op saga.Op) (contract.Label, error) {
		_, err := tx.ExecContext(ctx, "UPDATE labels SET cancelled = TRUE WHERE checkout = ?", op.ID)
		return contract.Label{}, err
	})
}

// once calls fn in a transaction, behind the barrier.
func (s *Service) once(ctx context.Context, fn func(*sql.Tx, saga.Op) (contract.Label, error)) (l contract.Label, err error) {
	op, err := contract.Op(ctx)
	if err != nil {
		return l, err
	}
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return l, err
	}
	defer tx.Rollback() //nolint:errcheck // nothing is left to roll back where it was committed
	if l, err = saga.Once(ctx, s.barrier, tx, func() (contract.Label, error) { return fn(tx, op) }); err != nil {
		return l, err
	}
	return l, tx.Commit()
}
