package docs_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	_ "github.com/ncruces/go-sqlite3/driver"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/reqreply"
	"github.com/wherry-go/wherry/retry"
	"github.com/wherry-go/wherry/saga"
	"github.com/wherry-go/wherry/saga/sagatest"
)

// An Order is the state of a checkout.
type Order struct {
	Item      string `json:"item"`
	Cents     int    `json:"cents"`
	Gift      bool   `json:"gift,omitempty"`
	Shelf     string `json:"shelf,omitempty"`
	Payment   string `json:"payment,omitempty"`
	Wrapping  string `json:"wrapping,omitempty"`
	Statement string `json:"statement,omitempty"`
}

// What participants answer, and the event at the end.
var (
	Reserve   = reqreply.Method[Order, string]{Topic: "stock.reserve"}
	Authorize = reqreply.Method[Order, string]{Topic: "payments.authorize"}
	Wrap      = reqreply.Method[Order, string]{Topic: "parcels.wrap"}
	Capture   = reqreply.Method[Order, string]{Topic: "payments.capture"}
	Confirmed = wherry.Event[Order]{Topic: "order.confirmed"}
)

func whole(o Order) Order { return o }

var checkout = saga.Definition[Order]{
	Name:     "checkout",
	Deadline: time.Hour,
	Steps: []saga.Step[Order]{
		{
			Name: "reserve",
			Do:   saga.Call(Reserve, whole, func(o *Order, shelf string) { o.Shelf = shelf }),
			Undo: saga.Call(Reserve, whole, nil), Timeout: 10 * time.Second, Idempotent: true,
		},
		{Name: "prepare", Parallel: []saga.Step[Order]{
			{
				Name: "authorize",
				Do:   saga.Call(Authorize, whole, func(o *Order, id string) { o.Payment = id }),
				Undo: saga.Call(Authorize, whole, nil), Timeout: 30 * time.Second, Idempotent: true,
			},
			{
				Name: "wrap", When: func(o Order) bool { return o.Gift },
				Do:   saga.Call(Wrap, whole, func(o *Order, paper string) { o.Wrapping = paper }),
				Undo: saga.Call(Wrap, whole, nil), Timeout: time.Minute,
			},
		}},
		{
			Name: "capture", Pivot: true,
			Do:      saga.Call(Capture, whole, func(o *Order, number string) { o.Statement = number }),
			Timeout: 30 * time.Second, Idempotent: true, Retry: retry.Policy{Attempts: 10, Initial: time.Second, Max: time.Minute},
		},
		{Name: "confirm", Do: saga.Emit(Confirmed, whole)},
	},
}

// A participant whose effects are Kafka records or in an owned table.
var asked = wherry.OwnedTable[reqreply.Answered]{Topic: "parcels.asked"}

func parcels(cl *kgo.Client) *wherry.Consumer {
	wrap := Wrap
	wrap.Dedupe = &asked
	return &wherry.Consumer{
		Client: cl, Group: "parcels",
		Handlers: []wherry.Route{wrap.HandlerUndo(unwrapParcel), wrap.Handler(wrapParcel)},
		Delivery: wherry.ExactlyOnce, Tables: []wherry.Owned{&asked},
		Policies: []wherry.Policy{reqreply.Faults{Done: true}, retry.Policy{Attempts: 3}},
	}
}

func wrapParcel(context.Context, Order) (string, error) { return "red paper", nil }

func unwrapParcel(context.Context, Order) (string, error) { return "", nil }

// A participant whose effects are in a database.
type Stock struct {
	db      *sql.DB
	barrier saga.Barrier // a table, made with barrier.Schema()
}

func (s *Stock) reserve(ctx context.Context, o Order) (shelf string, err error) {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return "", err
	}
	defer func() { _ = tx.Rollback() }()
	shelf, err = saga.Once(ctx, s.barrier, tx, func() (string, error) {
		row := tx.QueryRowContext(ctx, "UPDATE stock SET left = left - 1 WHERE item = $1 AND left > 0 RETURNING shelf", o.Item)
		if err := row.Scan(&shelf); errors.Is(err, sql.ErrNoRows) {
			return "", &reqreply.Error{Code: "sold_out", Message: o.Item + " is sold out"}
		}
		return shelf, err
	})
	if err != nil {
		return "", err
	}
	return shelf, tx.Commit()
}

// A participant that asks a service over HTTP, which takes an idempotency key.
func authorize(ctx context.Context, o Order) (payment string, err error) {
	op, _ := saga.OpFrom(ctx) // which saga, id, step and direction
	return provider(ctx, op.Key(), o.Cents)
}

func provider(context.Context, string, int) (string, error) { return "p-1", nil }

// All of it in one process.
func Example_checkout() {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	broker := kfake.MustCluster(kfake.NumBrokers(1), kfake.SeedTopics(4, "stock.reserve", "payments.authorize", "parcels.wrap", "payments.capture", "order.confirmed"))
	defer broker.Close()
	cl, _ := kgo.NewClient(kgo.SeedBrokers(broker.ListenAddrs()...))
	defer cl.Close()
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()

	others := &wherry.Consumer{Client: cl, Group: "others", Handlers: []wherry.Route{
		Reserve.HandlerUndo(func(_ context.Context, o Order) (string, error) {
			fmt.Println("back on shelf", o.Shelf)
			return "", nil
		}),
		Reserve.Handler(func(context.Context, Order) (string, error) { return "A3", nil }),
		Authorize.HandlerUndo(func(_ context.Context, o Order) (string, error) {
			fmt.Println("payment", o.Payment, "is void")
			return "", nil
		}),
		Authorize.Handler(authorize),
		Capture.Handler(func(_ context.Context, o Order) (string, error) {
			if o.Cents > 10_000 {
				return "", &reqreply.Error{Code: "limit", Message: "the limit of the card is 100.00"}
			}
			return "s-1", nil
		}),
	}}
	engine := &saga.Engine[Order]{Client: cl, Definitions: []saga.Definition[Order]{checkout}}
	for _, run := range []func(context.Context) error{engine.Run, parcels(cl).Run, others.Run} {
		running.Go(func() {
			if err := run(ctx); err != nil {
				fmt.Println(err)
			}
		})
	}

	_ = engine.Start(ctx, "o-1", Order{Item: "lamp", Cents: 9_999, Gift: true})
	o, err := engine.Wait(ctx, "o-1")
	fmt.Println(o, err)
	_ = engine.Start(ctx, "o-2", Order{Item: "lamp", Cents: 10_001})
	_, err = engine.Wait(ctx, "o-2")
	fmt.Println(err)
	// Output:
	// {lamp 9999 true A3 p-1 red paper s-1} <nil>
	// payment p-1 is void
	// back on shelf A3
	// saga checkout: "o-2" was undone, step "capture" was rejected: payments.capture: limit: the limit of the card is 100.00
}

func TestCheckout_ADeclinedPayment(t *testing.T) {
	s := sagatest.Start(t, checkout, "o-1", Order{Item: "lamp", Cents: 9_999})
	s.Asked("reserve")
	s.Reply("reserve", "A3")
	s.Refuse("authorize", "declined", "the card has expired")
	s.Asked("undo reserve")
	s.Lose("undo reserve")
	s.Next() // the attempt times out
	s.Next() // and is made again
	s.Reply("undo reserve", "")
	s.Undone("authorize")
}

func TestCheckout_WhateverComesOfIt(t *testing.T) {
	sagatest.Everything(t, checkout, Order{Item: "lamp", Cents: 9_999, Gift: true}, sagatest.World[Order]{})
}

func TestCheckout_ItsShape(t *testing.T) {
	sagatest.Shape(t, checkout, "testdata/checkout.shape")
}

func TestStock_ReservesOnce(t *testing.T) {
	t.Parallel()
	db, err := sql.Open("sqlite3", "file:"+t.TempDir()+"/stock")
	require.NoError(t, err)
	defer db.Close()
	s := &Stock{db: db}
	_, err = db.Exec(s.barrier.Schema() + "CREATE TABLE stock (item TEXT, shelf TEXT, left INTEGER); INSERT INTO stock VALUES ('lamp', 'A3', 1)")
	require.NoError(t, err)
	op := saga.Op{Saga: "checkout", ID: "o-1", Step: "reserve", Attempt: 1}
	for range 2 {
		shelf, err := s.reserve(saga.WithOp(t.Context(), op), Order{Item: "lamp"})
		require.NoError(t, err)
		require.Equal(t, "A3", shelf)
		op.Attempt++
	}
	op.ID = "o-2"
	_, err = s.reserve(saga.WithOp(t.Context(), op), Order{Item: "lamp"})
	require.ErrorContains(t, err, "lamp is sold out")
}

// The second version of a saga, beside the first.
func TestCheckout_TwoVersions(t *testing.T) {
	t.Parallel()
	second := checkout
	second.Version = 2
	second.Steps = append(second.Steps[:len(second.Steps):len(second.Steps)], saga.Step[Order]{Name: "archive", Do: saga.Do(func(context.Context, Order) error { return nil })})
	engine := saga.Engine[Order]{Definitions: []saga.Definition[Order]{checkout, second}}
	require.EqualError(t, engine.Run(t.Context()), "saga engine: no client: set Client to a *kgo.Client") // and nothing else
}
