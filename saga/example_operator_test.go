package saga_test

import (
	"context"
	"fmt"
	"sync"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/saga"
)

// An operator asks what a saga waits for, and ends the wait.
func ExampleEngine_Why() {
	broker := kfake.MustCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "parcel.picked"))
	defer broker.Close()
	cl, _ := kgo.NewClient(kgo.SeedBrokers(broker.ListenAddrs()...))
	defer cl.Close()
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	type Parcel struct{ To string }
	picked := wherry.Event[Parcel]{Topic: "parcel.picked"}
	engine := &saga.Engine[Parcel]{Client: cl, Definitions: []saga.Definition[Parcel]{{
		Name: "parcels",
		Steps: []saga.Step[Parcel]{
			{Name: "pick", NoUndo: true, Do: saga.Await(saga.Success[Parcel](picked, nil))},
		},
	}}}
	running.Go(func() { _ = engine.Run(ctx) })
	<-engine.Ready() // queries need an Engine that runs

	_ = engine.Start(ctx, "p-1", Parcel{To: "Ada"})
	why, err := engine.Why(ctx, "p-1") // why.String is a sentence, with times
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(why.Phase, "for", why.For, "at", why.Steps[0].Step+":", why.Steps[0].Does)
	err = engine.Undo(ctx, "p-1", saga.By{Actor: "bob", Reason: "she has moved"})
	fmt.Println("undo:", err)
	_, err = engine.Wait(ctx, "p-1")
	fmt.Println(err)
	// Output:
	// running for its steps at pick: await success parcel.picked
	// undo: <nil>
	// saga parcels: "p-1" was undone, step "pick" was rejected: undo by bob: she has moved
}
