package crashlab

import (
	"context"
	"encoding/json"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Variant is how the workload is handled.
type Variant string

// Variants.
const (
	ByKey       Variant = "by key"
	ByPartition Variant = "by partition"
	Batches     Variant = "batches"      // by key
	DelayTopics Variant = "delay topics" // by key; what fails is tried again by way of a topic, and what comes after it behind it
)

// Sagas is a variant with a workload of its own: see SagaSteps.
const Sagas Variant = "sagas"

// Variants returns all of them but Sagas.
func Variants() []Variant { return []Variant{ByKey, ByPartition, Batches, DelayTopics} }

// Member is one process of the workload.
type Member struct {
	Name    string // its client id
	Run     string
	Seed    uint64
	Opts    []kgo.Opt
	Topics  Topics
	Variant Variant
	Session time.Duration // of the group
	Logger  *slog.Logger
	// MaxActive is how many sagas of a partition may be active, 0 for any number.
	MaxActive int
}

// A Subject handles the workload as a member of its group until ctx ends, and
// then returns nil: the code under test. It calls ready when it has joined.
type Subject func(ctx context.Context, m Member, ready func()) error

// outputs are the records of A and B that an attempt emits.
func (m Member) outputs(in Input, r *kgo.Record, count, attempt int) []*kgo.Record {
	if in.Kind == Quiet {
		return nil
	}
	value := m.value(in, r, count, attempt)
	return []*kgo.Record{
		{Topic: m.Topics.A, Key: []byte(in.Key), Value: value},
		{Topic: m.Topics.B, Key: []byte(in.Key), Value: value},
	}
}

// value is what an attempt at the input r writes.
func (m Member) value(in Input, r *kgo.Record, count, attempt int) []byte {
	value, err := json.Marshal(m.output(in, r, count, attempt))
	if err != nil {
		panic(err) // it has no field that cannot be encoded
	}
	return value
}

func (m Member) output(in Input, r *kgo.Record, count, attempt int) Output {
	return Output{N: in.N, From: from(r), Count: count, Process: m.Name, Attempt: attempt, Fails: in.Fail(attempt)}
}

// work takes the time that the input's handler takes.
func work(ctx context.Context, in Input) error {
	if in.Work == 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(in.Work)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
