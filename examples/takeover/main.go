// Command takeover is the billing service of a NestJS system, rewritten: it
// takes the place of the NestJS one on the same topics, in the same group, while
// all others stay as they are. docs/nestjs.md goes through it step by step.
//
//	KAFKA_BROKERS=127.0.0.1:9092 go run ./examples/takeover
package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/dlq"
	"github.com/wherry-go/wherry/retry"
)

// The payloads, with the names of the NestJS side's JSON. Time is what Date
// becomes there.
type (
	Order struct {
		ID          string `json:"id"`
		TotalAmount string `json:"totalAmount"`
		Status      string `json:"status"`
		UserID      string `json:"userId"`
		CreatedAt   Time   `json:"createdAt"`
		UpdatedAt   Time   `json:"updatedAt"`
	}
	Payment struct {
		ID        string `json:"id"`
		OrderID   string `json:"orderId"`
		Amount    string `json:"amount"`
		Status    string `json:"status"`
		CreatedAt Time   `json:"createdAt"`
		UpdatedAt *Time  `json:"updatedAt"`
	}
	Failure struct {
		Order    Order  `json:"order"`
		Error    string `json:"error"`
		FailedAt Time   `json:"failedAt"`
	}
)

// One line for each @EventPattern and each emit.
var (
	OrderCreated   = wherry.Event[Order]{Topic: "order.created"}
	PaymentCreated = wherry.Event[Payment]{Topic: "payment.created"}
	PaymentFailed  = wherry.Event[Failure]{Topic: "payment.failed"}
)

// Validate refuses what parses and is no order all the same, such as {}.
func (o Order) Validate() error {
	if o.ID == "" {
		return errors.New("the order has no id")
	}
	return nil
}

// pay is the method with @EventPattern('order.created').
func pay(ctx context.Context, o Order) error {
	if os.Getenv("PAYMENTS") == "fail" {
		return fmt.Errorf("the payment of %s was declined", o.TotalAmount)
	}
	slog.InfoContext(ctx, "paid", "order", o.ID, "amount", o.TotalAmount)
	return PaymentCreated.Publish(ctx, o.ID, Payment{
		ID: rand.Text(), OrderID: o.ID, Amount: o.TotalAmount, Status: "PAID", CreatedAt: now(),
	})
}

// tellFailure emits payment.failed for an order on which the retries have given
// up, and hands the error on, to the dead letters.
func tellFailure(next wherry.Handler) wherry.Handler {
	return func(ctx context.Context, r *kgo.Record) error {
		err := next(ctx, r)
		if err == nil || wherry.Interrupted(ctx) {
			return err
		}
		o, bad := OrderCreated.Decode(r)
		if bad != nil {
			return err // bytes that are no order: there is nobody to tell of
		}
		why := err.Error()
		if e, ok := errors.AsType[*wherry.RecordError](err); ok {
			why = e.Err.Error()
		}
		if untold := PaymentFailed.Publish(ctx, o.ID, Failure{Order: o, Error: why, FailedAt: now()}); untold != nil {
			return errors.Join(err, untold)
		}
		return err
	}
}

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	brokers := strings.Split(cmp.Or(os.Getenv("KAFKA_BROKERS"), "127.0.0.1:9092"), ",")
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ProducerBatchCompression(kgo.NoCompression()))
	if err != nil {
		return err
	}
	defer cl.Close()
	c := wherry.Consumer{
		Client:   cl,
		Group:    "billing-server", // the groupId "billing", as NestJS has made it
		Handlers: []wherry.Route{OrderCreated.Handler(pay)},
		Order:    wherry.ByKey,       // an order that is tried again holds up no other one
		Delivery: wherry.ExactlyOnce, // what pay publishes, and that it has, are one transaction
		Policies: []wherry.Policy{ // outermost first
			&dlq.Queue{Topic: "billing.dlq", Format: dlq.FormatEnvelope, Gate: dlq.Gate{After: -1}},
			wherry.Middleware(tellFailure),
			retry.Policy{Attempts: 4, Initial: time.Second}, // 1, 2 and 4 s
		},
	}
	go func() {
		select {
		case <-c.Ready():
			slog.Info("ready")
		case <-ctx.Done():
		}
	}()
	return c.Run(ctx)
}

func main() {
	if err := run(); err != nil {
		slog.Error("ended", "error", err)
		os.Exit(1)
	}
}
