package dlq_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/dlq"
)

const oldTrace = "0af7651916cd43dd8448eb211c80319c"

func traced(l *dlq.Letter) {
	l.Headers = append(l.Headers,
		kgo.RecordHeader{Key: "traceparent", Value: []byte("00-" + oldTrace + "-b7ad6b7169203331-01")},
		kgo.RecordHeader{Key: "tracestate", Value: []byte("a=b")})
}

func TestReplay_ACopyBeginsATraceThatIsLinkedToTheOldOne(t *testing.T) {
	b := setup(t)
	b.bury(t, letter(0, traced))
	spans := tracetest.NewSpanRecorder()
	tp := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
	b.run(t, func(r *dlq.Replayer) {
		r.Telemetry = wherry.Telemetry{TracerProvider: tp, Propagator: propagation.TraceContext{}}
	})
	require.Len(t, spans.Ended(), 1)
	span := spans.Ended()[0]
	require.Equal(t, "send orders", span.Name())
	require.Equal(t, trace.SpanKindProducer, span.SpanKind())
	require.False(t, span.Parent().IsValid())
	require.Len(t, span.Links(), 1)
	require.Equal(t, oldTrace, span.Links()[0].SpanContext.TraceID().String())
	got := headersOf(b.content(t, "orders")[0])
	require.Equal(t, "00-"+span.SpanContext().TraceID().String()+"-"+span.SpanContext().SpanID().String()+"-01", got["traceparent"])
	require.NotContains(t, got, "tracestate")
}

func TestReplay_WithoutTelemetryTheStaleTraceIsGone(t *testing.T) {
	b := setup(t)
	b.bury(t, letter(0, traced))
	b.run(t)
	require.Equal(t, map[string]string{"app": "\xff\x00", "wherry-dlq-replays": "1"}, headersOf(b.content(t, "orders")[0]))
}

func TestReplay_ProgressIsToldOnceASecondAndAtTheEnd(t *testing.T) {
	b := setup(t)
	b.buryN(t, 30)
	var told []dlq.Report // no lock: it is the goroutine of Run
	report := b.run(t, func(r *dlq.Replayer) {
		r.Rate = 12
		r.Progress = func(p dlq.Report) { told = append(told, p) }
	})
	require.GreaterOrEqual(t, len(told), 2)
	require.LessOrEqual(t, len(told), 1+int(report.Took/time.Second))
	for i := 1; i < len(told); i++ {
		require.Greater(t, told[i].Replayed, told[i-1].Replayed-1)
		require.Greater(t, told[i].Took, told[i-1].Took)
	}
	require.Equal(t, report, told[len(told)-1])
	require.Less(t, told[0].Counts.Topics["orders"], 30, "a Report is the callback's to keep")
}
