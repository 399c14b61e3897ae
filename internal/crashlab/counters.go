package crashlab

import (
	"context"
	"fmt"
	"sync"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// A Workload is what the processes of a run handle, and the judge of what comes
// of it. Its client is one that no fault hits.
type Workload interface {
	// Open makes the topics.
	Open(ctx context.Context) error
	// Topics returns the names of all topics of the run.
	Topics() []string
	// Table is a table that processes write to in their transactions.
	Table() string
	// Send sends the n-th input, and calls acked when it is acknowledged, or
	// will not be.
	Send(ctx context.Context, n int, acked func(error))
	// Sample looks at the run as it goes on.
	Sample(ctx context.Context)
	// Behind says what is still to be done, "" for nothing.
	Behind(ctx context.Context) (string, error)
	// Judge reads what the run left behind, when all processes have ended, and
	// says what is wrong. The error is the laboratory's own.
	Judge(ctx context.Context) ([]Finding, error)
	// Sent is how many inputs Judge found.
	Sent() int
	Close()
}

// NewWorkload returns that of a variant.
func NewWorkload(v Variant, cl *kgo.Client, run string, seed uint64) Workload {
	if v == Sagas {
		return newSagaWork(cl, run, seed)
	}
	return &counters{reader: Reader{Client: cl, Topics: Named(run)}, seed: seed, keys: 40, variant: v}
}

// counters are the workload of all variants but Sagas.
type counters struct {
	reader  Reader
	seed    uint64
	keys    int
	variant Variant
	log     Log // as Judge read it

	mu      sync.Mutex
	samples []Sample
}

func (c *counters) Open(ctx context.Context) error {
	for _, topic := range c.Topics() {
		if err := createTopic(ctx, c.reader.Client, topic, Partitions, c.reader.Topics.Config(topic)); err != nil {
			return err
		}
	}
	return nil
}

func createTopic(ctx context.Context, cl *kgo.Client, topic string, partitions int32, config map[string]string) error {
	configs := map[string]*string{}
	for name, value := range config {
		configs[name] = &value
	}
	if _, err := kadm.NewClient(cl).CreateTopic(ctx, partitions, -1, configs, topic); err != nil {
		return fmt.Errorf("topic %s: %w", topic, err)
	}
	return nil
}

func (c *counters) Topics() []string { return c.reader.Topics.All() }

func (c *counters) Table() string { return c.reader.Topics.Table }

func (c *counters) Send(ctx context.Context, n int, acked func(error)) {
	c.reader.Client.Produce(ctx, InputOf(c.seed, n, c.keys).Record(c.reader.Topics.In), func(_ *kgo.Record, err error) { acked(err) })
}

func (c *counters) Sample(ctx context.Context) {
	if s, err := c.reader.Sample(ctx); err == nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.samples = append(c.samples, s)
	}
}

func (c *counters) Behind(ctx context.Context) (string, error) { return c.reader.Behind(ctx) }

func (c *counters) Judge(ctx context.Context) ([]Finding, error) {
	log, err := c.reader.Log(ctx)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	if c.variant != DelayTopics {
		log.Samples = c.samples
	}
	c.mu.Unlock()
	c.log = log
	return Check(c.reader.Topics, log), nil
}

func (c *counters) Sent() int { return len(c.log.In) }

func (c *counters) Close() {}
