package dlq_test

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/dlq"
)

// A record that cannot be handled becomes a dead letter, here without the
// number of a card, and the next one is handled.
func ExampleQueue() {
	broker := kfake.MustCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "orders"))
	defer broker.Close()
	cl, _ := kgo.NewClient(kgo.SeedBrokers(broker.ListenAddrs()...))
	defer cl.Close()
	ctx, stop := context.WithCancel(context.Background())
	for _, order := range []string{`{"id":"o-1","card":"4242"}`, `{"id":"o-2"}`} {
		_ = cl.ProduceSync(ctx, &kgo.Record{Topic: "orders", Value: []byte(order)}).FirstErr()
	}

	err := (&wherry.Consumer{
		Client: cl,
		Group:  "billing",
		Policies: []wherry.Policy{&dlq.Queue{
			Topic: "billing.dlq",
			Redact: func(l *dlq.Letter) {
				l.Value = []byte(strings.ReplaceAll(string(l.Value), "4242", "****"))
			},
		}},
		Handlers: []wherry.Route{{Topic: "orders", Handler: func(_ context.Context, r *kgo.Record) error {
			if strings.Contains(string(r.Value), "card") {
				return wherry.Permanent(errors.New("cards are not taken"))
			}
			stop()
			return nil
		}}},
	}).Run(ctx)
	fmt.Println("stopped:", err)

	reader, _ := kgo.NewClient(kgo.SeedBrokers(broker.ListenAddrs()...), kgo.ConsumeTopics("billing.dlq"))
	defer reader.Close()
	for _, r := range reader.PollFetches(context.Background()).Records() {
		l, _ := dlq.Read(r)
		fmt.Printf("%s/%d@%d of %s: %s, %s\n", l.Topic, l.Partition, l.Offset, l.Group, l.Cause, l.Error)
		fmt.Printf("%s\n", l.Original().Value)
	}
	// Output:
	// stopped: <nil>
	// orders/0@0 of billing: permanent, cards are not taken
	// {"id":"o-1","card":"****"}
}

// A dead letter of Kafka Connect, and the record to send again.
func ExampleRead() {
	l, err := dlq.Read(&kgo.Record{
		Topic: "sink.dlq", Offset: 7, Key: []byte("o-1"), Value: []byte("{"),
		Headers: []kgo.RecordHeader{
			{Key: "tenant", Value: []byte("a")},
			{Key: "__connect.errors.topic", Value: []byte("orders")},
			{Key: "__connect.errors.partition", Value: []byte("3")},
			{Key: "__connect.errors.offset", Value: []byte("42")},
			{Key: "__connect.errors.stage", Value: []byte("VALUE_CONVERTER")},
			{Key: "__connect.errors.exception.message", Value: []byte("no JSON")},
		},
	})
	fmt.Println(err, l.Format, l.Topic, l.Partition, l.Offset, l.Cause, l.Error)

	again := l.Original()
	fmt.Printf("%s %s %s %s\n", again.Topic, again.Key, again.Value, again.Headers[0].Key)
	// Output:
	// <nil> connect orders 3 42 undecodable no JSON
	// orders o-1 { tenant
}
