package embedded_test

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/internal/embedded"
)

// A broker for as long as a program runs. Waiting for Run as well as for Ready
// notices that it cannot start.
func ExampleBroker() {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	b := &embedded.Broker{Addr: "127.0.0.1:0", AutoCreate: true, Logger: slog.New(slog.DiscardHandler)}
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	select {
	case <-b.Ready():
	case err := <-ended:
		fmt.Println(err)
		return
	}

	cl, err := kgo.NewClient(kgo.SeedBrokers(b.Address()), kgo.AllowAutoTopicCreation(), kgo.DefaultProduceTopic("greetings"))
	if err != nil {
		fmt.Println(err)
		return
	}
	r, err := cl.ProduceSync(ctx, kgo.StringRecord("hello")).First()
	fmt.Println(r.Topic, r.Offset, err)

	cl.Close()
	stop()
	fmt.Println(<-ended)
	// Output:
	// greetings 0 <nil>
	// <nil>
}
