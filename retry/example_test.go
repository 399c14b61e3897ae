package retry_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/retry"
)

type Order struct{ ID string }

var OrderPlaced = wherry.Event[Order]{Topic: "order.placed"}

// A record that fails is tried again by way of delay topics, while the one
// after it goes on.
func ExampleTopics() {
	broker := kfake.MustCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "order.placed")) // yours is kgo.SeedBrokers("host:9092")
	defer broker.Close()
	cl, _ := kgo.NewClient(kgo.SeedBrokers(broker.ListenAddrs()...))
	defer cl.Close()
	for _, id := range []string{"o-1", "o-2"} {
		r, _ := OrderPlaced.Record(id, Order{ID: id})
		_ = cl.ProduceSync(context.Background(), r).FirstErr()
	}

	ctx, stop := context.WithCancel(context.Background())
	err := (&wherry.Consumer{
		Client: cl,
		Group:  "billing",
		Policies: []wherry.Policy{
			retry.Topics{Policy: retry.Policy{Attempts: 3, Initial: 20 * time.Millisecond}},
		},
		Handlers: []wherry.Route{
			OrderPlaced.Handler(func(ctx context.Context, o Order) error {
				by := "its own topic"
				if hop := wherry.HopFrom(ctx); hop != nil {
					by = hop.Topic
				}
				fmt.Printf("%s, attempt %d, by %s\n", o.ID, wherry.Attempt(ctx), by)
				if o.ID == "o-1" && wherry.Attempt(ctx) < 3 {
					return errors.New("the card's issuer does not answer")
				}
				if o.ID == "o-1" {
					stop()
				}
				return nil
			}),
		},
	}).Run(ctx)
	fmt.Println("stopped:", err)
	// Output:
	// o-1, attempt 1, by its own topic
	// o-2, attempt 1, by its own topic
	// o-1, attempt 2, by order.placed.billing.retry.20ms
	// o-1, attempt 3, by order.placed.billing.retry.40ms
	// stopped: <nil>
}

func ExamplePolicy_Delays() {
	p := retry.Policy{Attempts: 7, Initial: time.Second, Max: 10 * time.Second}
	for wait := range p.Delays() {
		fmt.Print(wait, " ")
	}
	// Output: 1s 2s 4s 8s 10s 10s
}

func ExamplePolicy_Do() {
	p := retry.Policy{Attempts: 3, Initial: time.Millisecond}
	err := p.Do(context.Background(), func(ctx context.Context) error {
		if wherry.Attempt(ctx) < 3 {
			return errors.New("not yet")
		}
		fmt.Println("attempt", wherry.Attempt(ctx), "succeeds")
		return nil
	})
	fmt.Println(err)
	// Output:
	// attempt 3 succeeds
	// <nil>
}

var (
	errSoldOut = errors.New("sold out")
	errLocked  = errors.New("locked by another one")
)

// Rules give some errors a schedule of their own.
func ExampleRule() {
	p := retry.Policy{
		Attempts: 5,
		Rules: []retry.Rule{
			{If: retry.Is(errSoldOut), GiveUp: true},
			{If: retry.Is(errLocked), Initial: 10 * time.Millisecond, Multiplier: 1},
			{If: retry.Panicked, Attempts: 2},
		},
	}
	for _, err := range []error{
		errors.New("no answer"),
		errLocked,
		errSoldOut,
		retry.After(errors.New("429 Too Many Requests"), 30*time.Second),
	} {
		if wait, cause := p.Next(1, 0, err); cause != "" {
			fmt.Printf("%v: gives up, %s\n", err, cause)
		} else {
			fmt.Printf("%v: again in %v\n", err, wait)
		}
	}
	// Output:
	// no answer: again in 1s
	// locked by another one: again in 10ms
	// sold out: gives up, permanent
	// 429 Too Many Requests: again in 30s
}
