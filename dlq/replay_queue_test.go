package dlq_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/dlq"
	"github.com/wherry-go/wherry/kafkatest"
)

// A record that fails for ever is replayed three times, with the count carried
// on by the Queue, and then parked.
func TestReplay_WhatFailsForEverEndsInTheParkingTopic(t *testing.T) {
	b := setup(t)
	kafkatest.Run(t, &wherry.Consumer{
		Client: b.cl, Group: "billing", Logger: slog.New(slog.DiscardHandler),
		Policies: []wherry.Policy{&dlq.Queue{Topic: "dead"}},
		Handlers: []wherry.Route{{Topic: "orders", Handler: func(context.Context, *kgo.Record) error { return errors.New("declined") }}},
	})
	require.NoError(t, b.cl.ProduceSync(t.Context(), &kgo.Record{Topic: "orders", Key: []byte("o-1"), Value: []byte("v")}).FirstErr())
	for n := range 4 {
		require.Eventually(t, func() bool { return len(b.content(t, "dead")) == n+1 }, b.timeout, 20*time.Millisecond)
		letters := b.entries(t, dlq.Selection{})
		require.Len(t, letters, 1)
		require.Equal(t, n, letters[0].Replays)
		require.Equal(t, "v", string(letters[0].Value))
		report := b.run(t)
		if n < 3 {
			require.Equal(t, []int{1, 0}, []int{report.Replayed, report.Parked})
		} else {
			require.Equal(t, []int{0, 1}, []int{report.Replayed, report.Parked})
		}
	}
	require.Len(t, b.content(t, "orders"), 4)
	require.Len(t, b.content(t, "dead.parked"), 1)
}
