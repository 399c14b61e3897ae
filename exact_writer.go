package wherry

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/internal/client"
	"github.com/wherry-go/wherry/internal/txn"
)

// producer returns the writer, named for a partition of this process: one that
// has its partition no longer would be fenced by the next owner.
func (x *exact) producer(ctx context.Context) (*txn.Writer, error) {
	if x.writer != nil && !x.named.lane.WasCut() {
		return x.writer, nil
	}
	x.discard()
	named := x.name()
	if named == nil {
		return nil, errThrownOut
	}
	if err := x.claimed(ctx); err != nil {
		return nil, err
	}
	w, err := txn.Open(ctx, x.run.c.Client, x.run.producing(), x.run.transactionalID(named.topicPartition))
	if err != nil {
		return nil, err
	}
	x.writer, x.named = w, named
	return w, nil
}

// name returns the lowest partition of this process.
func (x *exact) name() *partition {
	all := x.run.owned()
	for _, e := range x.batch { // of a partition that is being given up
		if !e.p.lane.WasCut() {
			all = append(all, e.p)
		}
	}
	if len(all) == 0 {
		return nil
	}
	return slices.MinFunc(all, func(a, b *partition) int {
		return cmp.Or(cmp.Compare(a.topic, b.topic), cmp.Compare(a.partition, b.partition))
	})
}

// transactionalID is the name of a producer: unique in the group, since one
// member has the partition, and known to the partition's next owner. No topic has
// a slash in its name, so no two groups come to the same one.
func (r *run) transactionalID(tp topicPartition) string {
	return fmt.Sprintf("%s/%s/%d", r.c.Group, tp.topic, tp.partition)
}

// producing are the options of the run's client that are for a producer.
func (r *run) producing() []kgo.Opt {
	opts := []kgo.Opt{kgo.RecordPartitioner(client.Partitioner(r.partitioner))}
	if n, ok := r.cl.OptValue(kgo.ProducerBatchMaxBytes).(int32); ok {
		opts = append(opts, kgo.ProducerBatchMaxBytes(n))
	}
	if c, ok := r.cl.OptValue(kgo.ProducerBatchCompression).([]kgo.CompressionCodec); ok {
		opts = append(opts, kgo.ProducerBatchCompression(c...))
	}
	if d, ok := r.cl.OptValue(kgo.MetadataMinAge).(time.Duration); ok {
		opts = append(opts, kgo.MetadataMinAge(d))
	}
	return opts
}

// claim fences what former owners of partitions left open, so that nobody waits
// until brokers abort it: up to 20 s, in which the offsets of a partition with
// an open transaction are not told.
func (x *exact) claim(added []topicPartition) {
	ids := make([]string, len(added))
	for i, tp := range added {
		ids[i] = x.run.transactionalID(tp)
	}
	over := make(chan struct{})
	x.mu.Lock()
	before := x.claims
	x.claims = over
	x.mu.Unlock()
	go func() {
		defer close(over)
		if before != nil {
			<-before
		}
		ctx, cancel := context.WithTimeout(x.run.working, 2*txn.Timeout)
		defer cancel()
		if err := txn.Fence(ctx, x.run.cl, ids); err != nil && x.run.working.Err() == nil {
			x.run.log.Warn("consumer: what former owners of its partitions left open may hold them up until brokers abort it", "within", 2*txn.Timeout, "error", err)
		}
	}()
}

// claimed waits until what was claimed is fenced: one of those names may be the
// next of the writer.
func (x *exact) claimed(ctx context.Context) error {
	x.mu.Lock()
	over := x.claims
	x.mu.Unlock()
	if over == nil {
		return nil
	}
	select {
	case <-over:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// close ends what the exact has started. Nobody has the token any more.
func (x *exact) close() {
	x.discard()
	if x.timer != nil {
		x.timer.Stop()
	}
	x.mu.Lock()
	over := x.claims
	x.mu.Unlock()
	if over != nil {
		<-over
	}
}
