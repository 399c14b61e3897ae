package kafkatest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// report tells what a test that waited in vain wants to know: what is on the
// topic, and where records went instead.
func (k *Cluster) report(topic string, r *reader) string {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	adm := kadm.NewClient(k.admin)
	ends, err := adm.ListEndOffsets(ctx)
	if err != nil {
		return fmt.Sprintf("\tand the cluster does not answer: %v", err)
	}
	var b strings.Builder
	if err := r.take(ctx); err == nil {
		fmt.Fprintf(&b, "\trecords of %q read before in this test: %d\n", topic, r.given)
		r.give()
	}
	if _, ok := ends[topic]; !ok {
		fmt.Fprintf(&b, "\ttopic %q does not exist: name it in NewCluster or make it with Create\n", topic)
	} else {
		fmt.Fprintf(&b, "\tend offsets of %q: %s\n", topic, offsets(ends[topic]))
		k.reportOpen(ctx, &b, adm, topic, ends[topic])
	}
	var others []string
	for _, name := range slices.Sorted(maps.Keys(ends)) {
		if n := k.grown(name, ends[name]); n > 0 && name != topic {
			others = append(others, fmt.Sprintf("%s %d", name, n))
		}
	}
	if len(others) == 0 {
		others = []string{"none"}
	}
	fmt.Fprintf(&b, "\tother topics with records of this test (transaction markers count): %s", strings.Join(others, ", "))
	return b.String()
}

// reportOpen adds what readers cannot see yet because its transaction is open.
func (k *Cluster) reportOpen(ctx context.Context, b *strings.Builder, adm *kadm.Client, topic string, ends map[int32]kadm.ListedOffset) {
	stable, err := adm.ListCommittedOffsets(ctx, topic)
	if err != nil {
		return
	}
	for _, p := range slices.Sorted(maps.Keys(ends)) {
		if s, ok := stable.Lookup(topic, p); ok && s.Err == nil && s.Offset < ends[p].Offset {
			fmt.Fprintf(b, "\t%s/%d: offsets from %d on wait for a transaction that is still open\n", topic, p, s.Offset)
		}
	}
}

// grown returns by how many offsets a topic grew since the test began.
func (k *Cluster) grown(topic string, ends map[int32]kadm.ListedOffset) (n int64) {
	for p, end := range ends {
		begin, _ := k.begin.Lookup(topic, p)
		n += end.Offset - max(begin.At, 0)
	}
	return n
}

// offsets writes the ends of partitions as "0:3 1:0".
func offsets(ends map[int32]kadm.ListedOffset) string {
	var parts []string
	for _, p := range slices.Sorted(maps.Keys(ends)) {
		parts = append(parts, fmt.Sprintf("%d:%d", p, ends[p].Offset))
	}
	return strings.Join(parts, " ")
}

// describe names a record by its place, its key and the beginning of its value.
func describe(r *kgo.Record) string {
	const most = 64
	value, more := r.Value, ""
	if len(value) > most {
		value, more = value[:most], fmt.Sprintf("… (%d bytes)", len(r.Value))
	}
	return fmt.Sprintf("%s/%d@%d key %q value %q%s", r.Topic, r.Partition, r.Offset, r.Key, value, more)
}

// cause returns why ctx ended where its error alone does not tell, or "".
func cause(ctx context.Context) string {
	if err := context.Cause(ctx); err != nil && !errors.Is(err, errTimeout) && !errors.Is(err, ctx.Err()) {
		return ": " + err.Error()
	}
	return ""
}
