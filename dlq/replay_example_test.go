package dlq_test

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/dlq"
)

// exampleLetters returns a client of a broker with two dead letters in
// billing.dlq, and what ends both.
func exampleLetters(ctx context.Context) (cl *kgo.Client, end func()) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	broker := kfake.MustCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "orders", "billing.dlq"))
	cl, _ = kgo.NewClient(kgo.SeedBrokers(broker.ListenAddrs()...))
	for i, cause := range []wherry.Cause{wherry.CauseExhausted, wherry.CauseUndecodable} {
		l := &dlq.Letter{
			Topic: "orders", Offset: int64(i), Group: "billing", Key: fmt.Appendf(nil, "o-%d", i), Value: []byte("{}"),
			Cause: cause, Error: "the bank is closed", Attempts: 4, Failed: time.Now(),
		}
		r, _ := l.Encode("billing.dlq")
		_ = cl.ProduceSync(ctx, r).FirstErr()
	}
	return cl, func() { cl.Close(); broker.Close() }
}

// After the bank has opened again: first what a replay would do, then the
// replay, of what has failed for the bank.
func ExampleReplayer() {
	ctx := context.Background()
	cl, end := exampleLetters(ctx)
	defer end()

	replay := &dlq.Replayer{
		Client: cl, Topic: "billing.dlq",
		Select: dlq.Selection{Causes: []wherry.Cause{wherry.CauseExhausted}},
		Group:  "billing", // the other groups have handled it
		Rate:   50,
		DryRun: true,
	}
	would, err := replay.Run(ctx)
	fmt.Println(would.Replayed, would.Counts.Topics, err)

	replay.DryRun, replay.Ends = false, would.Ends // and nothing that failed since
	report, err := replay.Run(ctx)
	fmt.Println(report.Read, report.Selected, report.Replayed, err)

	again, err := replay.Run(ctx)
	fmt.Println(again.Decided, again.Replayed, err)
	// Output:
	// 1 map[orders:1] <nil>
	// 2 1 1 <nil>
	// 1 0 <nil>
}

// What no replay can mend is discarded. It stays in the topic, and can be
// listed with what was decided about it.
func ExampleReplayer_List() {
	ctx := context.Background()
	cl, end := exampleLetters(ctx)
	defer end()

	discard := &dlq.Replayer{
		Client: cl, Topic: "billing.dlq", Action: dlq.Discard, By: "ada", Why: "sent by hand",
		Select: dlq.Selection{Causes: []wherry.Cause{wherry.CauseUndecodable}},
	}
	if _, err := discard.Run(ctx); err != nil {
		fmt.Println(err)
	}

	all := &dlq.Replayer{Client: cl, Topic: "billing.dlq", Select: dlq.Selection{Decided: true}}
	for e, err := range all.List(ctx) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("%s %s", e.Key, e.Cause)
		if e.Decision != nil {
			fmt.Printf(": %s by %s, %s", e.Decision.Action, e.Decision.By, e.Decision.Why)
		}
		fmt.Println()
	}
	// Output:
	// o-0 exhausted
	// o-1 undecodable: discarded by ada, sent by hand
}
