package lane_test

import (
	"context"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/internal/lane"
)

// What a lane itself costs for each record, without Kafka.
func BenchmarkLane(b *testing.B) {
	for name, order := range map[string]lane.Order{"in turn": lane.InTurn, "by key": lane.ByKey, "any": lane.Any} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			var n atomic.Int64
			all := make(chan struct{})
			room := make(chan struct{}, 1)
			l := lane.New(b.Context(), lane.Config{
				Order: order, Pool: lane.NewPool(64), Until: b.Context(), Finished: func() {},
				MaxRecords: 10_000,
				Room: func() {
					select {
					case room <- struct{}{}:
					default:
					}
				},
				Work: func(_ context.Context, it *lane.Item) {
					it.Finish()
					if n.Add(1) == int64(b.N) {
						close(all)
					}
				},
			})
			batch := make([]*kgo.Record, 1000)
			keys := make([][]byte, 1000)
			for i := range keys {
				keys[i] = strconv.AppendInt(nil, int64(i), 10)
			}
			for at := 0; at < b.N; at += len(batch) {
				for i := range batch {
					batch[i] = &kgo.Record{Offset: int64(at + i), Key: keys[i]}
				}
				l.Feed(batch[:min(len(batch), b.N-at)])
				for l.Full() {
					<-room
				}
			}
			<-all
			l.Cut(context.Canceled)
			<-l.Exited()
		})
	}
}
