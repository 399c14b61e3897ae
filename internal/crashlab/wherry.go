package crashlab

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/dlq"
	"github.com/wherry-go/wherry/retry"
)

// Wherry is the subject that the laboratory is for: a Consumer whose Delivery is
// ExactlyOnce, with an owned table, retries and dead letters.
func Wherry(ctx context.Context, m Member, ready func()) error {
	cl, err := kgo.NewClient(m.Opts...)
	if err != nil {
		return err
	}
	defer cl.Close()
	inputs := wherry.Event[Input]{Topic: m.Topics.In}
	h := &handler{Member: m, counters: &wherry.OwnedTable[Output]{Topic: m.Topics.Table}}
	route := inputs.Handler(h.handle)
	if m.Variant == Batches {
		route = inputs.Batch(h.batch).Sized(20, 5*time.Millisecond)
	}
	order := wherry.ByKey
	if m.Variant == ByPartition {
		order = wherry.ByPartition
	}
	var again wherry.Policy = retry.Policy{Attempts: 3, Initial: 50 * time.Millisecond, Multiplier: 4}
	if m.Variant == DelayTopics {
		// Without KeepOrder records of one key would be handled side by side.
		again = retry.Topics{Policy: retry.Policy{Attempts: 3, Initial: time.Second, Multiplier: 1}, KeepOrder: true}
	}
	c := &wherry.Consumer{
		Client: cl, Group: m.Topics.Group, Handlers: []wherry.Route{route},
		Delivery: wherry.ExactlyOnce, Tables: []wherry.Owned{h.counters},
		Order: order, Concurrency: 16, Logger: m.Logger,
		Policies: []wherry.Policy{&dlq.Queue{Topic: m.Topics.Dead, Gate: dlq.Gate{After: -1}}, again},
		Opts:     []kgo.Opt{kgo.SessionTimeout(m.Session), kgo.HeartbeatInterval(m.Session / 10)},
	}
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		select {
		case <-c.Ready():
			ready()
		case <-ended:
		}
	}()
	return c.Run(ctx)
}

type handler struct {
	Member
	counters *wherry.OwnedTable[Output]
}

var errUnlucky = errors.New("out of luck")

// handle does all that an input is for, and fails after it if it is to.
func (h *handler) handle(ctx context.Context, in Input) error {
	r, attempt := wherry.RecordFrom(ctx), wherry.Attempt(ctx)
	before, _, err := h.counters.Get(ctx, in.Key)
	if err != nil {
		return err
	}
	if err := work(ctx, in); err != nil {
		return err
	}
	count := in.Next(before.Count)
	if in.Kind == Reset {
		err = h.counters.Delete(ctx, in.Key)
	} else {
		err = h.counters.Put(ctx, in.Key, h.output(in, r, count, attempt))
	}
	if err != nil {
		return err
	}
	if err := wherry.Publish(ctx, h.outputs(in, r, count, attempt)...); err != nil {
		return err
	}
	switch {
	case in.Fail(attempt):
		return fmt.Errorf("attempt %d: %w", attempt, errUnlucky)
	case in.Kind == Rejected:
		return wherry.Publish(ctx, &kgo.Record{Topic: h.Topics.Small, Key: r.Key, Value: noise()})
	}
	return nil
}

// batch handles messages side by side, as their keys allow.
func (h *handler) batch(_ context.Context, batch []wherry.Message[Input]) []error {
	errs := make([]error, len(batch))
	for i, m := range batch {
		errs[i] = h.handle(m.Context, m.Value)
	}
	return errs
}

// noise is more than topic Small takes, however it is compressed.
func noise() []byte {
	b, r := make([]byte, 3*SmallBytes), rand.New(rand.NewPCG(1, 2))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}
