package reqreply_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
	"github.com/wherry-go/wherry/reqreply"
	"github.com/wherry-go/wherry/retry"
)

// meter is a provider of metrics, and what was measured with it: the value of a
// counter, or how often was measured, by the name and the attributes' values in
// the order of their keys.
func meter() (mp *metric.MeterProvider, read func(*testing.T) map[string]int64) {
	reader := metric.NewManualReader()
	return metric.NewMeterProvider(metric.WithReader(reader)), func(t *testing.T) map[string]int64 {
		t.Helper()
		var all metricdata.ResourceMetrics
		require.NoError(t, reader.Collect(t.Context(), &all))
		got := map[string]int64{}
		put := func(name string, set attribute.Set, n int64) {
			words := []string{strings.TrimPrefix(name, "wherry.reqreply.")}
			for _, kv := range set.ToSlice() {
				words = append(words, kv.Value.String())
			}
			got[strings.Join(words, " ")] = n
		}
		for _, scope := range all.ScopeMetrics {
			require.Equal(t, "github.com/wherry-go/wherry/reqreply", scope.Scope.Name)
			for _, m := range scope.Metrics {
				switch data := m.Data.(type) {
				case metricdata.Sum[int64]:
					for _, p := range data.DataPoints {
						put(m.Name, p.Attributes, p.Value)
					}
				case metricdata.Histogram[float64]:
					require.Equal(t, "s", m.Unit)
					for _, p := range data.DataPoints {
						require.Positive(t, p.Sum)
						put(m.Name, p.Attributes, int64(p.Count)) //nolint:gosec // a count
					}
				default:
					t.Fatalf("%s is a %T", m.Name, data)
				}
			}
		}
		return got
	}
}

func TestCallsAreMeasuredByOutcome(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "user.getUser:1", "user.getUser.reply:1", "silent:1")
	mp, read := meter()
	_, stop := serve(t, k, &wherry.Consumer{}, getUser.Handler(find))
	c := &reqreply.Caller{Client: k.Client(t), MeterProvider: mp, MaxPending: 1}
	end := kafkatest.Run(t, c)
	// A reply may come before the broker has said that it took the request.
	free := func() { eventually(t, "the place is free", func() bool { return c.Status().Pending == 0 }) }
	for range 3 {
		_, err := getUser.Call(within(t, patience), c, "u1")
		require.NoError(t, err)
		free()
	}
	_, err := getUser.Call(within(t, patience), c, "refused")
	require.ErrorContains(t, err, "not for you")
	free()
	require.NoError(t, stop())
	gone := getUser
	gone.Group = "users"
	eventually(t, "it is noticed that the group is empty", func() bool {
		_, err := gone.Call(within(t, patience), c, "u1")
		return errors.Is(err, reqreply.ErrNoResponder)
	})
	free()
	silent := reqreply.Method[string, string]{Topic: "silent", ReplyTopic: "user.getUser.reply"}
	_, err = silent.Call(within(t, 100*time.Millisecond), c, "x")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	late := kafkatest.NextRecord(t, k, "silent")

	sent := c.Status().Sent
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	wait := func(ctx context.Context) {
		_, err := silent.Call(ctx, c, "x")
		failed <- err
	}
	free()
	go wait(ctx)
	eventually(t, "a call is pending", func() bool { return c.Status().Sent == sent+1 })
	require.EqualValues(t, 1, read(t)["active_calls silent"])
	_, err = silent.Call(t.Context(), c, "x")
	require.ErrorIs(t, err, reqreply.ErrBusy)
	cancel()
	require.ErrorIs(t, <-failed, context.Canceled)

	for _, id := range []string{headerOf(late, "kafka_correlationId"), ""} {
		r := &kgo.Record{Topic: "user.getUser.reply"}
		if id != "" {
			r.Headers = []kgo.RecordHeader{{Key: "kafka_correlationId", Value: []byte(id)}}
		}
		kafkatest.SendRecord(t, k, r)
	}
	eventually(t, "late and unknown", func() bool { return c.Status().Late == 1 && c.Status().Unknown == 1 })
	free()
	go wait(t.Context())
	eventually(t, "a call is pending", func() bool { return c.Status().Sent == sent+2 })
	require.NoError(t, end())
	require.ErrorIs(t, <-failed, reqreply.ErrEnded)

	got := read(t)
	require.Positive(t, got["call.duration user.getUser no_responder"])
	delete(got, "call.duration user.getUser no_responder")
	delete(got, "call.duration user.getUser timeout")
	require.Equal(t, map[string]int64{
		"call.duration user.getUser ok":    3,
		"call.duration user.getUser fault": 1,
		"call.duration silent timeout":     1,
		"call.duration silent busy":        1,
		"call.duration silent canceled":    1,
		"call.duration silent ended":       1,
		"active_calls user.getUser":        0,
		"active_calls silent":              0,

		"stray_replies user.getUser.reply late":    1,
		"stray_replies user.getUser.reply unknown": 1,
	}, got)
}

func TestRequestsAreMeasuredByOutcome(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, chargeTopics...)
	k.Create(t, kafkatest.Topic{Name: "payments", Partitions: 1})
	mp, read := meter()
	answers := &wherry.OwnedTable[reqreply.Answered]{Topic: "charge.answers"}
	m := charge
	m.Dedupe = answers
	var n atomic.Int64
	handle := charging(&n)
	kafkatest.Run(t, &wherry.Consumer{
		Client: k.Client(t), Group: "users", Delivery: wherry.ExactlyOnce, Tables: []wherry.Owned{answers},
		Policies: []wherry.Policy{&reqreply.Service{MeterProvider: mp}, reqreply.Faults{Done: true}, retry.Policy{Attempts: 2, Initial: 1}},
		Handlers: []wherry.Route{m.Handler(func(ctx context.Context, o order) (receipt, error) {
			if o.Cents == 13 {
				return receipt{}, errors.New("down")
			}
			return handle(ctx, o)
		})},
	})
	c := caller(t, k, m)
	for _, o := range []order{{ID: "o-1"}, {ID: "o-1"}, {ID: "o-2"}, {ID: "o-3", Cents: -1}, {ID: "o-4", Cents: 13}} {
		_, err := m.Call(within(t, patience), c, o)
		require.Equal(t, o.Cents != 0, err != nil, "%v", err)
	}
	send := func(r *kgo.Record) {
		r.Topic, r.Value, r.Key = "charge", []byte(`{"id":"o-1"}`), []byte("o-1")
		kafkatest.SendRecord(t, k, r)
	}
	send(asked("", "id", "payments", "0"))
	send(asked("", "", "", ""))
	late := asked("", "id", "charge.reply", "0")
	late.Headers = append(late.Headers, kgo.RecordHeader{Key: "wherry-deadline", Value: []byte("2020-01-01T00:00:00Z")})
	send(late)
	_, err := m.Call(within(t, patience), c, order{ID: "o-1"}) // behind those
	require.NoError(t, err)
	require.Equal(t, map[string]int64{
		"requests users charge answered": 2,
		"requests users charge repeated": 2,
		"requests users charge fault":    2, // o-3, and what Faults answered of o-4
		"requests users charge failed":   2, // each attempt
		"requests users charge refused":  1,
		"requests users charge expired":  1,
		"requests users charge event":    1,

		"handler.duration users charge answered": 2,
		"handler.duration users charge fault":    1,
		"handler.duration users charge failed":   2,
		"handler.duration users charge event":    1,
	}, read(t))
}
