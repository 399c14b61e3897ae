package participants_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
	"github.com/wherry-go/wherry/reqreply"
)

// BenchmarkParticipant is one request at a time to a participant that does nothing, and its answer.
func BenchmarkParticipant(b *testing.B) {
	answers := &wherry.OwnedTable[reqreply.Answered]{Topic: "stock.answers"}
	for name, c := range map[string]*wherry.Consumer{
		"at least once":             {},
		"exactly once":              {Delivery: wherry.ExactlyOnce},
		"exactly once, with Dedupe": {Delivery: wherry.ExactlyOnce, Tables: []wherry.Owned{answers}},
	} {
		b.Run(name, func(b *testing.B) {
			k := kafkatest.NewCluster(b, append(stockTopics, "stock.reserve.reply:2")...)
			m := reserveStock
			m.ID = nil // each is another request
			if c.Tables != nil {
				m.Dedupe = answers
			}
			c.Client, c.Group = k.Client(b), "stock"
			c.Handlers = []wherry.Route{m.Handler(func(_ context.Context, id string) (reservation, error) { return reservation{No: 1, What: id}, nil })}
			kafkatest.Run(b, c)
			caller := &reqreply.Caller{Client: k.Client(b)}
			kafkatest.Run(b, caller)
			var took []time.Duration
			for b.Loop() {
				began := time.Now()
				_, err := m.Call(b.Context(), caller, "o-1")
				require.NoError(b, err)
				took = append(took, time.Since(began))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
		})
	}
}
