package dlq_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/dlq"
	"github.com/wherry-go/wherry/kafkatest"
)

// queueEnds runs a Consumer until it ends by itself and returns why.
func queueEnds(t *testing.T, k *kafkatest.Cluster, c *wherry.Consumer) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), k.Timeout)
	defer cancel()
	err := c.Run(ctx)
	require.NoError(t, ctx.Err(), "the Consumer does not end")
	return err
}

// queueEmpty says that nothing was written to a topic of one partition.
func queueEmpty(t *testing.T, k *kafkatest.Cluster, topic string) {
	t.Helper()
	mark := kafkatest.SendRecord(t, k, &kgo.Record{Topic: topic})
	require.Zero(t, mark.Offset, "there is something in %s", topic)
}

// When the broker refuses what the handler published, the record's letter says so.
func TestAnOutputThatIsRefusedIsACause(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "orders:1", "billing.dlq:1", "done:1")
	k.Create(t, kafkatest.Topic{Name: "small", Partitions: 1, Config: map[string]string{"max.message.bytes": "1000"}})
	kafkatest.Run(t, &wherry.Consumer{
		Client: k.Client(t), Group: "billing", Policies: []wherry.Policy{&dlq.Queue{Topic: "billing.dlq"}},
		Handlers: queueHandler(func(ctx context.Context, r *kgo.Record) error {
			topic := "done"
			if string(r.Key) == "bad" {
				topic = "small"
			}
			return wherry.Publish(ctx, &kgo.Record{Topic: topic, Key: r.Key, Value: queueNoise(5000)})
		}),
	})
	kafkatest.SendRecord(t, k, &kgo.Record{Topic: "orders", Key: []byte("bad"), Value: []byte("v")})
	kafkatest.SendRecord(t, k, &kgo.Record{Topic: "orders", Key: []byte("good")})
	require.Equal(t, "good", string(kafkatest.NextRecord(t, k, "done").Key))
	l := queueLetter(t, k, "billing.dlq")
	require.Equal(t, []any{"bad", "v", wherry.CauseRejected, "*wherry.OutputError"}, []any{string(l.Key), string(l.Value), l.Cause, l.ErrorType})
	require.Contains(t, l.Error, "output to small")
	queueEmpty(t, k, "small")
}

// queueNoise does not compress.
func queueNoise(n int) []byte {
	b, x := make([]byte, n), uint32(1)
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return b
}

// When the dead letter itself is refused, the record stays and the Consumer stops.
func TestWhenTheLetterIsRefusedTheRecordStays(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "orders:1")
	k.Create(t, kafkatest.Topic{Name: "billing.dlq", Partitions: 1, Config: map[string]string{"max.message.bytes": "1000"}})
	var calls atomic.Int32
	c := &wherry.Consumer{
		Client: k.Client(t), Group: "billing", Policies: []wherry.Policy{&dlq.Queue{Topic: "billing.dlq"}},
		Handlers: queueHandler(func(context.Context, *kgo.Record) error { calls.Add(1); return errBank }),
	}
	kafkatest.SendRecord(t, k, &kgo.Record{Topic: "orders", Value: queueNoise(5000)})
	err := queueEnds(t, k, c)
	var e *wherry.RecordError
	require.ErrorAs(t, err, &e)
	require.Equal(t, []any{"orders", int64(0), wherry.CauseRejected}, []any{e.Topic, e.Offset, e.Cause})
	require.ErrorContains(t, err, "max.message.bytes of topic billing.dlq")
	require.ErrorIs(t, err, kerr.MessageTooLarge)
	require.EqualValues(t, 1, calls.Load())
	require.LessOrEqual(t, queueCommitted(t, k, "billing"), int64(0))
	queueEmpty(t, k, "billing.dlq")
}

func TestALetterThatIsTooLargeShedsItsTexts(t *testing.T) {
	t.Parallel()
	const limit = 40_000
	long := strings.Repeat("declined ", 1000)
	tests := []struct {
		name   string
		format dlq.Format
		value  int
		check  func(t *testing.T, l *dlq.Letter)
	}{
		{"all of it fits", dlq.FormatWherry, limit - 14_000, func(t *testing.T, l *dlq.Letter) {
			require.NotEmpty(t, l.Stack)
			require.Greater(t, len(l.Error), 6000)
		}},
		{"the stack does not", dlq.FormatWherry, limit - 8000, func(t *testing.T, l *dlq.Letter) {
			require.Empty(t, l.Stack)
			require.Greater(t, len(l.Error), 6000)
		}},
		{"the error does not", dlq.FormatWherry, limit - 1000, func(t *testing.T, l *dlq.Letter) {
			require.Empty(t, l.Stack)
			require.LessOrEqual(t, len(l.Error), 256)
			require.Contains(t, l.Error, "declined")
		}},
		{"no text at all", dlq.FormatWherry, limit - 560, func(t *testing.T, l *dlq.Letter) { require.Empty(t, l.Error+l.ErrorType+l.Stack) }},
		{"base64 in an envelope does not", dlq.FormatEnvelope, limit - 1000, func(t *testing.T, l *dlq.Letter) { require.Equal(t, dlq.FormatWherry, l.Format) }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			k := kafkatest.NewCluster(t, "orders:1", "billing.dlq:1")
			kafkatest.Run(t, &wherry.Consumer{
				Client: k.Client(t, kgo.ProducerBatchMaxBytes(limit)), Group: "billing", Policies: []wherry.Policy{&dlq.Queue{Topic: "billing.dlq", Format: test.format}},
				Handlers: queueHandler(func(context.Context, *kgo.Record) error {
					return &wherry.RecordError{Cause: wherry.CausePanic, Err: fmt.Errorf("%s%w", long, errBank), Stack: long}
				}),
			})
			value := queueNoise(test.value)
			kafkatest.SendRecord(t, k, &kgo.Record{Topic: "orders", Key: []byte("o-1"), Value: value})
			l := queueLetter(t, k, "billing.dlq")
			require.Equal(t, value, l.Value)
			require.Equal(t, []any{"orders", int32(0), int64(0), "billing", wherry.CausePanic}, []any{l.Topic, l.Partition, l.Offset, l.Group, l.Cause})
			test.check(t, l)
		})
	}
}

func TestALetterThatCannotBeMadeSmallEnoughLeavesItsRecord(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "orders:1", "billing.dlq:1")
	kafkatest.SendRecord(t, k, &kgo.Record{Topic: "orders", Value: queueNoise(20_000)})
	err := queueEnds(t, k, &wherry.Consumer{
		Client: k.Client(t, kgo.ProducerBatchMaxBytes(20_000)), Group: "billing", Policies: []wherry.Policy{&dlq.Queue{Topic: "billing.dlq"}}, Handlers: queueHandler(queueFails(errBank)),
	})
	require.ErrorContains(t, err, "set kgo.ProducerBatchMaxBytes")
	require.ErrorContains(t, err, "orders/0@0")
	require.LessOrEqual(t, queueCommitted(t, k, "billing"), int64(0))
	queueEmpty(t, k, "billing.dlq")
}

func TestRedactChangesWhatIsStoredAndNothingElse(t *testing.T) {
	t.Parallel()
	for _, format := range letterFormats {
		t.Run(string(format), func(t *testing.T) {
			t.Parallel()
			k := kafkatest.NewCluster(t, "orders:1")
			var calls atomic.Int32
			kept := make(chan string, 1)
			var log strings.Builder
			stop := kafkatest.Run(t, &wherry.Consumer{
				Client: k.Client(t), Group: "billing", Logger: slog.New(slog.NewTextHandler(&log, nil)),
				Policies: []wherry.Policy{
					queueWraps(func(ctx context.Context, err error) error {
						r := wherry.RecordFrom(ctx)
						kept <- string(r.Value) + string(r.Headers[0].Value)
						return err
					}),
					&dlq.Queue{Topic: "billing.dlq", Format: format, Redact: func(l *dlq.Letter) {
						calls.Add(1)
						copy(l.Value, "*****")
						copy(l.Headers[0].Value, "****")
						l.Error = strings.ReplaceAll(l.Error, "4242", "****")
						l.Topic, l.Partition, l.Offset = "elsewhere", 9, 9
					}},
				},
				Handlers: queueHandler(queueFails(fmt.Errorf("card 4242: %w", errBank))),
			})
			kafkatest.SendRecord(t, k, &kgo.Record{Topic: "orders", Value: []byte("PIN: 1234"), Headers: textHeaders("card:4242")})
			l := queueLetter(t, k, "billing.dlq")
			require.Equal(t, "*****1234", string(l.Value))
			require.Equal(t, textHeaders("card:****"), l.Headers)
			require.Equal(t, "card ****: card declined", l.Error)
			require.Equal(t, []any{"orders", int32(0), int64(0)}, []any{l.Topic, l.Partition, l.Offset})
			require.Equal(t, "PIN: 12344242", <-kept)
			require.EqualValues(t, 1, calls.Load())
			require.NotContains(t, string(l.Record.Value), "4242")
			require.NoError(t, stop())
			require.NotContains(t, log.String(), "4242")
		})
	}
}

// The record may neither be lost nor stored as it is.
func TestARedactThatPanicsLeavesTheRecord(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "orders:1", "billing.dlq:1")
	kafkatest.SendRecord(t, k, &kgo.Record{Topic: "orders", Value: []byte("PIN: 1234")})
	err := queueEnds(t, k, &wherry.Consumer{
		Client: k.Client(t), Group: "billing", Handlers: queueHandler(queueFails(errBank)),
		Policies: []wherry.Policy{&dlq.Queue{Topic: "billing.dlq", Redact: func(*dlq.Letter) { panic("no such field") }}},
	})
	require.ErrorContains(t, err, "Redact panicked, so nothing is written to billing.dlq: no such field")
	require.NotContains(t, err.Error(), errBank.Error())
	require.LessOrEqual(t, queueCommitted(t, k, "billing"), int64(0))
	queueEmpty(t, k, "billing.dlq")
}

// queueSums returns the sums of a counter by the values of its attributes.
func queueSums(t *testing.T, reader *metric.ManualReader, name string) map[string]int64 {
	t.Helper()
	var all metricdata.ResourceMetrics
	require.NoError(t, reader.Collect(t.Context(), &all))
	sums := map[string]int64{}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			if m.Name != name {
				continue
			}
			require.Equal(t, "github.com/wherry-go/wherry/dlq", scope.Scope.Name)
			for _, point := range m.Data.(metricdata.Sum[int64]).DataPoints {
				var key []string
				for _, a := range point.Attributes.ToSlice() {
					key = append(key, string(a.Key)+"="+a.Value.AsString())
				}
				sums[strings.Join(key, " ")] += point.Value
			}
		}
	}
	return sums
}

func TestDeadLettersAreCounted(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "orders:1")
	reader := metric.NewManualReader()
	stop := kafkatest.Run(t, &wherry.Consumer{
		Client: k.Client(t), Group: "billing", Handlers: queueHandler(queueFails(wherry.Permanent(errBank), "a", "b")),
		Policies: []wherry.Policy{&dlq.Queue{Topic: "billing.dlq", MeterProvider: metric.NewMeterProvider(metric.WithReader(reader))}},
	})
	for _, key := range []string{"a", "c", "b"} {
		kafkatest.SendRecord(t, k, &kgo.Record{Topic: "orders", Key: []byte(key)})
	}
	queueLetter(t, k, "billing.dlq")
	queueLetter(t, k, "billing.dlq")
	require.NoError(t, stop())
	require.Equal(t, map[string]int64{
		"error.type=permanent messaging.consumer.group.name=billing messaging.destination.name=orders messaging.system=kafka": 2,
	}, queueSums(t, reader, "wherry.dlq.letters"))
}
