// Package contract is what the services of a checkout have in common: what they
// can be asked for, and the topics that they are asked on.
package contract

import (
	"context"
	"errors"
	"strings"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/reqreply"
	"github.com/wherry-go/wherry/saga"
)

// What can be asked for. A service in another language, as the one in
// nestjs/payments.ts, has the topics and the JSON in common with these.
var (
	// Reserve puts goods aside. Its undoing, on the same topic, puts them back.
	Reserve = reqreply.Method[Goods, Reservation]{Topic: "stock.reserve"}
	// Pay charges a customer, and Refund gives the money back. Two topics, as
	// NestJS has a handler for each.
	Pay    = reqreply.Method[Charge, Payment]{Topic: "payments.pay"}
	Refund = reqreply.Method[Charge, Payment]{Topic: "payments.refund"}
	// Ship makes the label of a parcel. Its undoing cancels it.
	Ship = reqreply.Method[Parcel, Label]{Topic: "shipping.ship"}
	// Capture books a sale. It cannot be taken back.
	Capture = reqreply.Method[Sale, Entry]{Topic: "ledger.capture"}
	// Notify tells the customer.
	Notify = reqreply.Method[Notice, struct{}]{Topic: "notify.customer"}
)

// What the services write beside their answers.
var (
	// StockMoved has each change of the stock, once.
	StockMoved = wherry.Event[Movement]{Topic: "stock.moved"}
	// Entries has the sales, by checkout. Its topic is compacted.
	Entries = wherry.Event[Entry]{Topic: "ledger.entries"}
)

// Topics are those of the services.
func Topics() []wherry.TopicSpec {
	specs := []wherry.TopicSpec{{Name: Entries.Topic, Partitions: partitions, Changelog: true}}
	for _, name := range []string{
		Reserve.Topic, Pay.Topic, Refund.Topic, Ship.Topic, Capture.Topic, Notify.Topic, StockMoved.Topic,
	} {
		specs = append(specs, wherry.TopicSpec{Name: name, Partitions: partitions})
	}
	return specs
}

const partitions = 4

// Goods are so many of an item.
type Goods struct {
	Item     string `json:"item"`
	Quantity int    `json:"quantity"`
}

// Validate refuses what cannot be reserved.
func (g Goods) Validate() error {
	if g.Item == "" || g.Quantity < 1 {
		return errors.New("goods need an item, and a quantity of at least 1")
	}
	return nil
}

// Reservation says where the goods lie.
type Reservation struct {
	Shelf string `json:"shelf"`
}

// Movement is a change of the stock: less than nothing goes out.
type Movement struct {
	Checkout string `json:"checkout"`
	Item     string `json:"item"`
	Quantity int    `json:"quantity"`
}

// Charge is what a customer has to pay, in cents.
type Charge struct {
	Customer string `json:"customer"`
	Amount   int64  `json:"amount"`
}

// Payment is a charge that was made, or given back.
type Payment struct {
	ID string `json:"id"`
}

// Parcel is what is sent where.
type Parcel struct {
	Item     string `json:"item"`
	Quantity int    `json:"quantity"`
	Address  string `json:"address"`
}

// Label is what is stuck on a parcel.
type Label struct {
	Tracking string `json:"tracking"`
}

// Sale is what is booked.
type Sale struct {
	Payment string `json:"payment"`
	Amount  int64  `json:"amount"`
}

// Entry is a line of the ledger.
type Entry struct {
	Number  string `json:"number"`
	Payment string `json:"payment"`
	Amount  int64  `json:"amount"`
}

// Notice is what a customer is told.
type Notice struct {
	Customer string `json:"customer"`
	Text     string `json:"text"`
}

// Op returns what a saga asks for: its parts are the idempotency key. Who is no
// saga has none, and is refused.
func Op(ctx context.Context) (saga.Op, error) {
	op, ok := saga.OpFrom(ctx)
	if !ok {
		return op, &reqreply.Error{Code: "no-saga", Message: "the request has no idempotency key: only sagas may ask for this"}
	}
	return op, nil
}

// Step names the step of a saga, the same whether it is done or undone: the key of
// op without its last part, the direction.
func Step(op saga.Op) string {
	key := op.Key()
	return key[:strings.LastIndexByte(key, '/')]
}
