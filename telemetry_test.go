package wherry_test

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
)

// observed is a Telemetry with what it recorded.
type observed struct {
	wherry.Telemetry
	ended  chan sdktrace.ReadOnlySpan
	reader *metric.ManualReader
}

func observe() *observed {
	o := &observed{ended: make(chan sdktrace.ReadOnlySpan, 1000), reader: metric.NewManualReader()}
	o.Telemetry = wherry.Telemetry{
		TracerProvider: sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(o)),
		MeterProvider:  metric.NewMeterProvider(metric.WithReader(o.reader)),
		Propagator:     propagation.TraceContext{},
	}
	return o
}

func (o *observed) OnStart(context.Context, sdktrace.ReadWriteSpan) {}
func (o *observed) OnEnd(s sdktrace.ReadOnlySpan)                   { o.ended <- s }
func (o *observed) Shutdown(context.Context) error                  { return nil }
func (o *observed) ForceFlush(context.Context) error                { return nil }

// spans awaits n spans, by name.
func (o *observed) spans(t *testing.T, n int) map[string]sdktrace.ReadOnlySpan {
	t.Helper()
	all := map[string]sdktrace.ReadOnlySpan{}
	for range n {
		s := receive(t, o.ended, "a span")
		all[s.Name()] = s
	}
	return all
}

func attributes(s sdktrace.ReadOnlySpan) map[string]string { return values(s.Attributes()) }

func values(kvs []attribute.KeyValue) map[string]string {
	all := map[string]string{}
	for _, kv := range kvs {
		all[string(kv.Key)] = kv.Value.String()
	}
	return all
}

// points returns the attributes of each point of a metric, and how much it
// counts, as text.
func (o *observed) points(t *testing.T, name string) (all []string) {
	t.Helper()
	var rm metricdata.ResourceMetrics
	require.NoError(t, o.reader.Collect(t.Context(), &rm))
	for _, scope := range rm.ScopeMetrics {
		for _, m := range scope.Metrics {
			if m.Name != name {
				continue
			}
			switch data := m.Data.(type) {
			case metricdata.Sum[int64]:
				for _, p := range data.DataPoints {
					all = append(all, fmt.Sprint(p.Value, values(p.Attributes.ToSlice())))
				}
			case metricdata.Histogram[float64]:
				require.Equal(t, "s", m.Unit)
				for _, p := range data.DataPoints {
					all = append(all, fmt.Sprint(p.Count, values(p.Attributes.ToSlice())))
				}
			}
		}
	}
	slices.Sort(all)
	return all
}

const (
	parentTrace = "4bf92f3577b34da6a3ce929d0e0e4736"
	parentSpan  = "00f067aa0ba902b7"
	parent      = "00-" + parentTrace + "-" + parentSpan + "-01"
)

func header(r *kgo.Record, key string) (all []string) {
	for _, h := range r.Headers {
		if h.Key == key {
			all = append(all, string(h.Value))
		}
	}
	return all
}

func TestTelemetry_SpansAndMetricsOfARecordAndItsOutputs(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "order.placed:1", "payment.made:1")
	o := observe()
	inner := make(chan trace.SpanContext, 1)
	kafkatest.Run(t, &wherry.Consumer{
		Client: k.Client(t), Group: "telemetry", Policies: []wherry.Policy{o},
		Handlers: []wherry.Route{orderPlaced.Handler(func(ctx context.Context, _ order) error {
			inner <- trace.SpanContextFromContext(ctx)
			// Two records forwarded with the headers of the one in hand.
			in := wherry.RecordFrom(ctx)
			return wherry.Publish(ctx,
				&kgo.Record{Topic: "payment.made", Key: []byte("1"), Value: []byte("{}"), Headers: in.Headers},
				&kgo.Record{Topic: "payment.made", Key: []byte("2"), Value: []byte("{}"), Headers: in.Headers})
		})},
	})
	kafkatest.SendRecord(t, k, &kgo.Record{
		Topic: "order.placed", Key: []byte("o-1"), Value: []byte(`{"id":"o-1"}`),
		Headers: []kgo.RecordHeader{{Key: "traceparent", Value: []byte(parent)}, {Key: "own", Value: []byte("kept")}},
	})
	var process sdktrace.ReadOnlySpan
	var sends []sdktrace.ReadOnlySpan
	for range 3 {
		s := receive(t, o.ended, "a span")
		if s.Name() == "send payment.made" {
			sends = append(sends, s)
		} else {
			process = s
		}
	}
	require.Equal(t, "process order.placed", process.Name())
	require.Equal(t, trace.SpanKindConsumer, process.SpanKind())
	require.Equal(t, parentTrace, process.SpanContext().TraceID().String())
	require.Equal(t, parentSpan, process.Parent().SpanID().String())
	require.True(t, process.Parent().IsRemote())
	require.Equal(t, codes.Unset, process.Status().Code)
	require.Equal(t, process.SpanContext(), <-inner, "the handler runs in the span")
	require.Equal(t, map[string]string{
		"messaging.system":                   "kafka",
		"messaging.operation.name":           "process",
		"messaging.operation.type":           "process",
		"messaging.destination.name":         "order.placed",
		"messaging.destination.partition.id": "0",
		"messaging.consumer.group.name":      "telemetry",
		"messaging.kafka.offset":             "0",
		"messaging.kafka.message.key":        "o-1",
		"messaging.message.body.size":        "12",
	}, attributes(process))

	require.Len(t, sends, 2)
	parents := map[string]bool{}
	for i, send := range sends {
		require.Equal(t, trace.SpanKindProducer, send.SpanKind())
		require.Equal(t, process.SpanContext().SpanID(), send.Parent().SpanID())
		require.Equal(t, map[string]string{
			"messaging.system":                   "kafka",
			"messaging.operation.name":           "send",
			"messaging.operation.type":           "send",
			"messaging.destination.name":         "payment.made",
			"messaging.destination.partition.id": "0",
			"messaging.kafka.offset":             strconv.Itoa(i),
		}, attributes(send))
		parents[fmt.Sprintf("00-%s-%s-01", parentTrace, send.SpanContext().SpanID())] = true
	}
	for range 2 {
		out := kafkatest.NextRecord(t, k, "payment.made")
		got := header(out, "traceparent")
		require.Len(t, got, 1, "the forwarded header is replaced, not joined by another")
		require.True(t, parents[got[0]], "each output has the trace of its own span: %s", got)
		delete(parents, got[0])
		require.Equal(t, []string{"kept"}, header(out, "own"))
	}

	shared := "map[messaging.consumer.group.name:telemetry messaging.destination.name:order.placed messaging.destination.partition.id:0 messaging.operation.name:process messaging.system:kafka]"
	require.Equal(t, []string{"1" + shared}, without(o.points(t, "messaging.client.consumed.messages")))
	require.Equal(t, []string{"1" + shared}, without(o.points(t, "messaging.process.duration")))
	require.Equal(t, []string{"2map[messaging.destination.name:payment.made messaging.destination.partition.id:0 messaging.operation.name:send messaging.system:kafka]"}, without(o.points(t, "messaging.client.sent.messages")))
}

// without takes the space out that fmt puts between a number and a map.
func without(all []string) []string {
	for i := range all {
		all[i] = strings.Replace(all[i], " map", "map", 1)
	}
	return all
}

// Forwarded headers have room behind their end in common: what is put there
// for one output must not be seen in the other.
func TestTelemetry_OutputsDoNotShareTheirHeaders(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "order.placed:1", "payment.made:1")
	o := observe()
	kafkatest.Run(t, &wherry.Consumer{
		Client: k.Client(t), Group: "shared", Policies: []wherry.Policy{o},
		Handlers: []wherry.Route{orderPlaced.Handler(func(ctx context.Context, _ order) error {
			common := append(make([]kgo.RecordHeader, 0, 8), kgo.RecordHeader{Key: "own", Value: []byte("kept")})
			for range 20 {
				if err := wherry.Publish(ctx, &kgo.Record{Topic: "payment.made", Value: []byte("{}"), Headers: common}); err != nil {
					return err
				}
			}
			return nil
		})},
	})
	kafkatest.Send(t, k, orderPlaced, "", order{})
	seen := map[string]bool{}
	for range 20 {
		out := kafkatest.NextRecord(t, k, "payment.made")
		require.Len(t, header(out, "traceparent"), 1)
		seen[header(out, "traceparent")[0]] = true
	}
	require.Len(t, seen, 20)
}

func TestTelemetry_ErrorsByTheirCause(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		handler wherry.Handler
		value   string
		kind    string
	}{
		{name: "any error", handler: returns(errBank), kind: "failed"},
		{name: "a permanent one", handler: returns(wherry.Permanent(errBank)), kind: "permanent"},
		{name: "what a policy inside knows", handler: returns(&wherry.RecordError{Cause: wherry.CauseExhausted, Err: errBank}), kind: "exhausted"},
		{name: "a panic", handler: func(context.Context, *kgo.Record) error { panic("out of money") }, kind: "panic"},
		{name: "undecodable", handler: orderPlaced.Handler(newRecorder().handle).Handler, value: "{", kind: "undecodable"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			k := kafkatest.NewCluster(t, "order.placed:1")
			o := observe()
			kafkatest.Run(t, &wherry.Consumer{
				Client: k.Client(t), Group: "errors", Policies: []wherry.Policy{forgiving(), o},
				Handlers: []wherry.Route{{Topic: "order.placed", Handler: test.handler}},
			})
			kafkatest.SendRecord(t, k, &kgo.Record{Topic: "order.placed", Value: []byte(test.value)})
			s := o.spans(t, 1)["process order.placed"]
			require.Equal(t, codes.Error, s.Status().Code)
			require.NotEmpty(t, s.Status().Description)
			require.Equal(t, test.kind, attributes(s)["error.type"])
			require.Equal(t, trace.SpanID{}, s.Parent().SpanID(), "without a traceparent it is the first of its trace")
			points := o.points(t, "messaging.process.duration")
			require.Len(t, points, 1)
			require.Contains(t, points[0], "error.type:"+test.kind)
		})
	}
}

func TestTelemetry_DroppedOutputsLeaveNoSpans(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "order.placed:1", "payment.made:1")
	o := observe()
	kafkatest.Run(t, &wherry.Consumer{
		Client: k.Client(t), Group: "dropped", Policies: []wherry.Policy{forgiving(), o},
		Handlers: []wherry.Route{orderPlaced.Handler(func(ctx context.Context, v order) error {
			_ = pay(ctx, v.ID)
			if v.ID == "bad" {
				return errBank
			}
			return nil
		})},
	})
	kafkatest.Send(t, k, orderPlaced, "", order{ID: "bad"})
	kafkatest.Send(t, k, orderPlaced, "", order{ID: "good"})
	var names []string
	for range 3 {
		names = append(names, receive(t, o.ended, "a span").Name())
	}
	require.Equal(t, []string{"process order.placed", "process order.placed", "send payment.made"}, names)
	require.Equal(t, "good", kafkatest.Next(t, k, paymentMade).OrderID)
	require.Contains(t, o.points(t, "messaging.client.sent.messages")[0], "1 ")
}

func TestTelemetry_ARefusedOutput(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "order.placed:1")
	o := observe()
	end, _ := background(t, &wherry.Consumer{
		Client: k.Client(t), Group: "refused", Policies: []wherry.Policy{o},
		Handlers: []wherry.Route{orderPlaced.Handler(func(ctx context.Context, _ order) error {
			return wherry.Publish(ctx, &kgo.Record{Topic: "no.such.topic"})
		})},
	})
	kafkatest.Send(t, k, orderPlaced, "", order{})
	require.ErrorIs(t, receive(t, end, "the Consumer to stop"), kerr.UnknownTopicOrPartition)
	var kinds []string
	for range 3 { // process, send, and process once more with the refusal
		s := receive(t, o.ended, "a span")
		kinds = append(kinds, s.Name()+" "+attributes(s)["error.type"])
	}
	require.Equal(t, []string{"process order.placed ", "send no.such.topic rejected", "process order.placed rejected"}, kinds)
	require.Contains(t, o.points(t, "messaging.client.sent.messages")[0], "error.type:rejected")
}

func TestTelemetry_WorkThatIsCutShortIsNoError(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "order.placed:1")
	o := observe()
	begun := make(chan struct{})
	stop := kafkatest.Run(t, &wherry.Consumer{
		Client: k.Client(t), Group: "cut", Policies: []wherry.Policy{o}, Drain: 1,
		Handlers: []wherry.Route{orderPlaced.Handler(func(ctx context.Context, _ order) error {
			close(begun)
			<-ctx.Done()
			return context.Cause(ctx)
		})},
	})
	kafkatest.Send(t, k, orderPlaced, "", order{})
	receive(t, begun, "the handler")
	_ = stop() // may say that the handler took longer than twice a nanosecond
	s := o.spans(t, 1)["process order.placed"]
	require.Equal(t, codes.Unset, s.Status().Code)
	require.NotContains(t, attributes(s), "error.type")
	require.NotContains(t, o.points(t, "messaging.process.duration")[0], "error.type")
}

func TestTelemetry_ATombstoneAndARecordWithoutAKey(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "order.placed:1")
	o := observe()
	kafkatest.Run(t, &wherry.Consumer{Client: k.Client(t), Group: "null", Policies: []wherry.Policy{o}, Handlers: []wherry.Route{{Topic: "order.placed", Handler: returns(nil)}}})
	kafkatest.SendRecord(t, k, &kgo.Record{Topic: "order.placed"})
	got := attributes(o.spans(t, 1)["process order.placed"])
	require.Equal(t, "true", got["messaging.kafka.message.tombstone"])
	require.NotContains(t, got, "messaging.kafka.message.key")
	require.Equal(t, "0", got["messaging.message.body.size"])
}

func TestTelemetry_WithoutAnSDKNothingBreaksAndATraceGoesOn(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "order.placed:1", "payment.made:1")
	kafkatest.Run(t, &wherry.Consumer{
		Client: k.Client(t), Group: "bare", Policies: []wherry.Policy{wherry.Telemetry{Propagator: propagation.TraceContext{}}, wherry.Telemetry{}},
		Handlers: []wherry.Route{orderPlaced.Handler(func(ctx context.Context, v order) error { return pay(ctx, v.ID) })},
	})
	kafkatest.SendRecord(t, k, &kgo.Record{Topic: "order.placed", Value: []byte(`{"id":"o-1"}`), Headers: []kgo.RecordHeader{{Key: "traceparent", Value: []byte(parent)}}})
	require.Equal(t, "o-1", kafkatest.Next(t, k, paymentMade).OrderID)
	kafkatest.SendRecord(t, k, &kgo.Record{Topic: "order.placed", Value: []byte(`{"id":"o-2"}`), Headers: []kgo.RecordHeader{{Key: "traceparent", Value: []byte("garbage")}}})
	require.Equal(t, "o-2", kafkatest.Next(t, k, paymentMade).OrderID)
}

// A note, not a limit: what a record costs.
func TestTelemetry_AllocationsPerRecord(t *testing.T) {
	r := &kgo.Record{Topic: "order.placed", Key: []byte("o-1"), Value: []byte("{}"), Headers: []kgo.RecordHeader{{Key: "traceparent", Value: []byte(parent)}}}
	sampled := observe()
	for name, policy := range map[string]wherry.Telemetry{
		"no SDK": {},
		"an SDK": {
			TracerProvider: sdktrace.NewTracerProvider(), MeterProvider: sampled.MeterProvider, Propagator: sampled.Propagator,
		},
	} {
		h := policy.Wrap(returns(nil))
		t.Logf("%s: %.0f allocations for each record", name, testing.AllocsPerRun(1000, func() { _ = h(t.Context(), r) }))
	}
}
