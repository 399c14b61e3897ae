package reqreply_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/reqreply"
	"github.com/wherry-go/wherry/retry"
)

type Customer struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

var FindCustomer = reqreply.Method[string, *Customer]{Topic: "customer.find", Group: "customers"}

// A service answers, and a caller asks: a value, null, an error.
func Example() {
	broker := kfake.MustCluster(kfake.NumBrokers(1), kfake.SeedTopics(2, "customer.find")) // yours is kgo.SeedBrokers("host:9092")
	defer broker.Close()
	cl, _ := kgo.NewClient(kgo.SeedBrokers(broker.ListenAddrs()...))
	defer cl.Close()
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()

	customers := &wherry.Consumer{
		Client: cl,
		Group:  "customers",
		Handlers: []wherry.Route{FindCustomer.Handler(func(_ context.Context, id string) (*Customer, error) {
			switch id {
			case "c-1":
				return &Customer{ID: id, Name: "Ada"}, nil
			case "":
				return nil, &reqreply.Error{Code: "invalid", Message: "no id"}
			}
			return nil, nil // null: nobody
		})},
		Policies: []wherry.Policy{reqreply.Faults{Done: true}, retry.Policy{Attempts: 2, Initial: time.Millisecond}},
	}
	caller := &reqreply.Caller{Client: cl, Methods: []reqreply.AnyMethod{FindCustomer}}
	running.Go(func() { _ = customers.Run(ctx) })
	running.Go(func() { _ = caller.Run(ctx) })
	<-customers.Ready()

	for _, id := range []string{"c-1", "c-2", ""} {
		c, err := FindCustomer.Call(ctx, caller, id)
		var answer *reqreply.Error
		switch {
		case errors.As(err, &answer):
			fmt.Printf("%q: error %s, %s\n", id, answer.Code, answer.Message)
		case err != nil:
			fmt.Println(err)
		case c == nil:
			fmt.Printf("%q: nobody\n", id)
		default:
			fmt.Printf("%q: %s\n", id, c.Name)
		}
	}
	// Output:
	// "c-1": Ada
	// "c-2": nobody
	// "": error invalid, no id
}

var Countdown = reqreply.Method[int, int]{Topic: "countdown"}

// An answer of many values.
func ExampleMethod_Stream() {
	broker := kfake.MustCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "countdown"))
	defer broker.Close()
	cl, _ := kgo.NewClient(kgo.SeedBrokers(broker.ListenAddrs()...))
	defer cl.Close()
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()

	counter := &wherry.Consumer{Client: cl, Group: "counters", Handlers: []wherry.Route{
		Countdown.StreamHandler(func(_ context.Context, from int) iter.Seq2[int, error] {
			return func(yield func(int, error) bool) {
				for n := from; n > 0 && yield(n, nil); n-- {
				}
			}
		}),
	}}
	caller := &reqreply.Caller{Client: cl}
	running.Go(func() { _ = counter.Run(ctx) })
	running.Go(func() { _ = caller.Run(ctx) })

	for n, err := range Countdown.Stream(ctx, caller, 3) {
		if err != nil {
			fmt.Println(err)
			break
		}
		fmt.Println(n)
	}
	// Output:
	// 3
	// 2
	// 1
}

// Who is there, and what have they done?
func ExampleServices() {
	broker := kfake.MustCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "customer.find"))
	defer broker.Close()
	cl, _ := kgo.NewClient(kgo.SeedBrokers(broker.ListenAddrs()...))
	defer cl.Close()
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()

	for range 2 { // as a rule in two processes
		customers := &wherry.Consumer{
			Client: cl, Group: "customers",
			Handlers: []wherry.Route{FindCustomer.Handler(func(_ context.Context, id string) (*Customer, error) {
				return &Customer{ID: id}, nil
			})},
			Policies: []wherry.Policy{&reqreply.Service{Name: "customers", Version: "1.2.0", Topic: reqreply.ServicesTopic}},
		}
		running.Go(func() { _ = customers.Run(ctx) })
		<-customers.Ready()
	}
	caller := &reqreply.Caller{Client: cl}
	running.Go(func() { _ = caller.Run(ctx) })
	for range 3 {
		if _, err := FindCustomer.Call(ctx, caller, "c-1"); err != nil {
			fmt.Println(err)
		}
	}

	found, err := reqreply.Services(ctx, caller, reqreply.ServiceQuery{Name: "customers", Most: 2, Wait: 10 * time.Second})
	if err != nil {
		fmt.Println(err)
	}
	answered := uint64(0)
	for _, s := range found {
		fmt.Println(s.Name, s.Version)
		for _, m := range s.Methods {
			answered += m.Answered
		}
	}
	fmt.Println(answered, "answered")
	// Output:
	// customers 1.2.0
	// customers 1.2.0
	// 3 answered
}
