package saga_test

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/saga"
)

type Trip struct{ City, Room, Seat string }

var holiday = saga.Definition[Trip]{
	Name: "holiday",
	Steps: []saga.Step[Trip]{
		{Name: "hotel", Do: saga.Local(bookRoom, func(t *Trip, room string) { t.Room = room }), Undo: saga.Do(cancelRoom)},
		{Name: "flight", Do: saga.Local(bookSeat, func(t *Trip, seat string) { t.Seat = seat }), NoUndo: true},
	},
}

func bookRoom(_ context.Context, t Trip) (room string, err error) {
	fmt.Println("a room in", t.City)
	return "room 7", nil
}

func bookSeat(_ context.Context, t Trip) (seat string, err error) {
	if t.City == "Atlantis" {
		return "", wherry.Permanent(errors.New("nobody flies to Atlantis"))
	}
	fmt.Println("a flight to", t.City)
	return "12A", nil
}

func cancelRoom(_ context.Context, t Trip) error {
	fmt.Println("not", t.Room, "after all")
	return nil
}

func Example() {
	broker := kfake.MustCluster(kfake.NumBrokers(1)) // a Kafka in this process; yours is kgo.SeedBrokers("host:9092")
	defer broker.Close()
	cl, _ := kgo.NewClient(kgo.SeedBrokers(broker.ListenAddrs()...))
	defer cl.Close()
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()

	holidays := saga.Engine[Trip]{Client: cl, Definitions: []saga.Definition[Trip]{holiday}}
	running.Go(func() { _ = holidays.Run(ctx) })

	_ = holidays.Start(ctx, "t-1", Trip{City: "Rome"}) // it is in Kafka from now on, whatever dies
	t, err := holidays.Wait(ctx, "t-1")
	fmt.Println(t, err)
	_ = holidays.Start(ctx, "t-2", Trip{City: "Atlantis"})
	_, err = holidays.Wait(ctx, "t-2")
	fmt.Println(err)
	// Output:
	// a room in Rome
	// a flight to Rome
	// {Rome room 7 12A} <nil>
	// a room in Atlantis
	// not room 7 after all
	// saga holiday: "t-2" was undone, step "flight" was rejected: nobody flies to Atlantis
}
