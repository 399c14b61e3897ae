package saga_test

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/saga"
)

type Loan struct{ Client, Judge string }

type Decision struct{ Loan, Judge string }

var (
	LoanAsked    = wherry.Event[Loan]{Topic: "loan.asked"}
	LoanApproved = wherry.Event[Decision]{Topic: "loan.approved"}
	LoanDeclined = wherry.Event[Decision]{Topic: "loan.declined"}
	LoanPaid     = wherry.Event[Loan]{Topic: "loan.paid"}
)

func loanOf(d Decision) string { return d.Loan }

var loans = saga.Definition[Loan]{
	Name:  "loans",
	Start: []saga.Trigger[Loan]{saga.On(LoanAsked, func(l Loan) Loan { return l })}, // its key is the saga's id
	Steps: []saga.Step[Loan]{
		{
			Name: "approve", NoUndo: true, Timeout: 72 * time.Hour, // then the loan is not approved
			Do: saga.Await(
				saga.Success(LoanApproved, func(l *Loan, d Decision) { l.Judge = d.Judge }).By(loanOf),
				saga.Failure(LoanDeclined, func(l *Loan, d Decision) { l.Judge = d.Judge }).By(loanOf),
			),
		},
		{Name: "pay", Pivot: true, Do: saga.Emit(LoanPaid, func(l Loan) Loan { return l })},
	},
}

// An event starts the saga, and a person decides, within three days.
func ExampleOn() {
	broker := kfake.MustCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "loan.asked", "loan.approved", "loan.declined", "loan.paid"))
	defer broker.Close()
	cl, _ := kgo.NewClient(kgo.SeedBrokers(broker.ListenAddrs()...))
	defer cl.Close()
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	engine := &saga.Engine[Loan]{Client: cl, Definitions: []saga.Definition[Loan]{loans}}
	running.Go(func() { _ = engine.Run(ctx) })
	<-engine.Ready() // On begins with what comes after the first start

	asked, _ := LoanAsked.Record("l-1", Loan{Client: "ada"})
	approved, _ := LoanApproved.Record("d-7", Decision{Loan: "l-1", Judge: "bob"})
	_ = cl.ProduceSync(ctx, asked, approved).FirstErr() // the decision may come first: it waits

	reader, _ := kgo.NewClient(kgo.SeedBrokers(broker.ListenAddrs()...), kgo.ConsumeTopics("loan.paid"),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	defer reader.Close()
	for _, r := range reader.PollFetches(ctx).Records() {
		l, _ := LoanPaid.Decode(r)
		fmt.Printf("%s: %+v\n", r.Key, l)
	}
	// Output:
	// l-1: {Client:ada Judge:bob}
}
