package wherry_test

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/reqreply"
)

type User struct{ ID, Name string }

var GetUser = reqreply.Method[string, *User]{Topic: "user.getUser", Group: "auth", Timeout: 5 * time.Second}

func find(_ context.Context, id string) (*User, error) {
	if id != "user1" {
		return nil, nil // null on the wire: nobody
	}
	return &User{ID: id, Name: "Ada"}, nil
}

// One service asks another one.
func Example_requestReply() {
	broker := kfake.MustCluster(kfake.NumBrokers(1), kfake.SeedTopics(4, "user.getUser"))
	defer broker.Close()
	cl, _ := kgo.NewClient(kgo.SeedBrokers(broker.ListenAddrs()...))
	defer cl.Close()
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()

	auth := &wherry.Consumer{
		Client: cl, Group: "auth",
		Handlers: []wherry.Route{GetUser.Handler(find)},
		Policies: []wherry.Policy{reqreply.Faults{Done: true}}, // a caller gets an error when the handler fails
	}
	caller := &reqreply.Caller{Client: cl} // in the service that asks

	running.Go(func() { _ = auth.Run(ctx) })
	running.Go(func() { _ = caller.Run(ctx) })
	<-auth.Ready()

	user, err := GetUser.Call(ctx, caller, "user1")
	fmt.Println(user.Name, err)
	// Output:
	// Ada <nil>
}
