package reqreply_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
	"github.com/wherry-go/wherry/reqreply"
)

func TestTheServersSpanIsAChildOfTheCalls(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, topics...)
	recorder := tracetest.NewSpanRecorder()
	tp := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder))
	serve(t, k, &wherry.Consumer{Policies: []wherry.Policy{wherry.Telemetry{TracerProvider: tp, Propagator: propagation.TraceContext{}}}}, getUser.Handler(find))
	c := &reqreply.Caller{Client: k.Client(t), TracerProvider: tp, Propagator: propagation.TraceContext{}}
	kafkatest.Run(t, c)
	_, err := getUser.Call(within(t, patience), c, "u1")
	require.NoError(t, err)
	_, err = getUser.Call(within(t, patience), c, "refused")
	require.Error(t, err)
	byName := map[string][]sdktrace.ReadOnlySpan{}
	eventually(t, "six spans", func() bool { return len(recorder.Ended()) == 6 })
	for _, s := range recorder.Ended() {
		byName[s.Name()] = append(byName[s.Name()], s)
	}
	require.Len(t, byName["call user.getUser"], 2)
	call, process := byName["call user.getUser"][0], byName["process user.getUser"][0]
	require.Equal(t, trace.SpanKindClient, call.SpanKind())
	require.Equal(t, call.SpanContext().SpanID(), process.Parent().SpanID())
	require.Equal(t, call.SpanContext().TraceID(), byName["send user.getUser.reply"][0].SpanContext().TraceID())
	require.Equal(t, codes.Unset, call.Status().Code)
	require.Equal(t, codes.Error, byName["call user.getUser"][1].Status().Code)
}
