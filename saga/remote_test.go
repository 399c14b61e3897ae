package saga_test

import (
	"context"
	"fmt"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/dlq"
	"github.com/wherry-go/wherry/kafkatest"
	"github.com/wherry-go/wherry/reqreply"
	"github.com/wherry-go/wherry/retry"
	"github.com/wherry-go/wherry/saga"
)

// requests are those that a participant got.
type requests struct {
	mu  sync.Mutex
	all []*kgo.Record
	ops []saga.Op
}

func (q *requests) add(ctx context.Context) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.all = append(q.all, wherry.RecordFrom(ctx))
	op, _ := saga.OpFrom(ctx)
	q.ops = append(q.ops, op)
}

// Commands are requests that an ordinary handler answers: it cannot tell a saga
// from a caller.
func TestS21_CommandsAreRequestsToOrdinaryHandlers(t *testing.T) {
	t.Parallel()
	for _, delivery := range []wherry.Delivery{wherry.AtLeastOnce, wherry.ExactlyOnce} {
		for name, profile := range map[string]reqreply.Profile{"NestJS": {}, "Spring": reqreply.Spring(), "another": {CorrelationID: "my-id", ReplyTopic: "my-topic", ReplyPartition: "my-partition", Error: "my-error", End: "my-end"}} {
			t.Run(fmt.Sprint(name, " ", delivery), func(t *testing.T) {
				t.Parallel()
				k := kafkatest.NewCluster(t, "reserve", "pay")
				reserve := reqreply.Method[order, order]{Topic: "reserve", Profile: profile}
				pay := reqreply.Method[order, string]{Topic: "pay", Profile: profile}
				var got requests
				kafkatest.Run(t, &wherry.Consumer{
					Client: k.Client(t), Group: "participants", Delivery: delivery, Policies: []wherry.Policy{&dlq.Queue{Topic: "participants.dlq"}, reqreply.Faults{}},
					Handlers: []wherry.Route{
						reserve.HandlerUndo(func(ctx context.Context, o order) (order, error) { got.add(ctx); return o, nil }),
						reserve.Handler(func(ctx context.Context, o order) (order, error) {
							got.add(ctx)
							o.Done = append(o.Done, "reserved")
							return o, nil
						}),
						pay.Handler(func(ctx context.Context, o order) (string, error) {
							got.add(ctx)
							switch {
							case o.Total == 2 && len(got.ops) < 3:
								return "", errFailed // which the saga tries again
							case o.Total == 3:
								return "", &reqreply.Error{Code: "broke", Message: "no money"}
							}
							return "receipt", nil
						}),
					},
				})
				e := engine(t, k, trip(
					saga.Step[order]{
						Name: "reserve", Do: saga.Call(reserve, func(o order) order { return o }, func(o *order, r order) { o.Done = r.Done }),
						Undo: saga.Call(reserve, func(o order) order { return o }, nil), Timeout: time.Minute, Idempotent: true,
					},
					saga.Step[order]{
						Name: "pay it", Do: saga.Call(pay, func(o order) order { return o }, func(o *order, r string) { o.Done = append(o.Done, r) }),
						NoUndo: true, Retry: retry.Policy{Attempts: 3, Initial: 10 * time.Millisecond},
					},
				))
				kafkatest.Run(t, e)
				id := "o.1/ä \x7f"
				require.NoError(t, e.Start(t.Context(), id, order{Total: 1}))
				state, err := e.Wait(t.Context(), id)
				require.NoError(t, err)
				require.Equal(t, []string{"reserved", "receipt"}, state.Done)
				require.Equal(t, []saga.Op{{Saga: "trip", ID: id, Step: "reserve", Attempt: 1}, {Saga: "trip", ID: id, Step: "pay it", Attempt: 1}}, got.ops)
				r := got.all[0]
				require.Equal(t, id, string(r.Key))
				in := map[string]string{}
				for _, h := range r.Headers {
					in[h.Key] = string(h.Value)
				}
				require.Equal(t, "trip", in["wherry-saga"])
				require.Equal(t, "do", in["wherry-saga-direction"])
				deadline, err := time.Parse(time.RFC3339Nano, in["wherry-deadline"])
				require.NoError(t, err)
				require.WithinDuration(t, time.Now().Add(time.Minute), deadline, time.Minute)
				require.NotContains(t, headersOf(got.all[1]), "wherry-deadline", "it has no Timeout")

				got.mu.Lock()
				got.ops = nil
				got.mu.Unlock()
				require.NoError(t, e.Start(t.Context(), "o-2", order{Total: 2}))
				_, err = e.Wait(t.Context(), "o-2")
				require.NoError(t, err)
				require.Equal(t, []int{1, 1, 2}, []int{got.ops[0].Attempt, got.ops[1].Attempt, got.ops[2].Attempt})

				require.NoError(t, e.Start(t.Context(), "o-3", order{Total: 3}))
				_, err = e.Wait(t.Context(), "o-3")
				var abort *saga.AbortError
				require.ErrorAs(t, err, &abort)
				require.Equal(t, "pay it", abort.Step)
				require.ErrorContains(t, err, "no money")
				last := got.ops[len(got.ops)-1]
				require.Equal(t, saga.Op{Saga: "trip", ID: "o-3", Step: "reserve", Undo: true, Done: true, Attempt: 1}, last)
			})
		}
	}
}

func headersOf(r *kgo.Record) (keys []string) {
	for _, h := range r.Headers {
		keys = append(keys, h.Key)
	}
	return keys
}

// A reply that is lost, or late, or comes twice.
func TestS21_ParticipantsThatAreSlowOrGone(t *testing.T) {
	t.Parallel()
	kafkatest.Test(t, []string{"ask"}, func(t *testing.T, k *kafkatest.Cluster) {
		k.WallLimit(3 * time.Minute)
		e := engine(t, k, trip(
			saga.Step[order]{
				Name: "ask", Idempotent: true, Timeout: 30 * time.Second, Retry: retry.Policy{Attempts: 10, Initial: time.Second}, NoUndo: true,
				Do: saga.Call(asked, func(o order) order { return o }, func(o *order, r order) { o.Done = append(o.Done, "asked") }),
			},
		))
		kafkatest.Run(t, e)
		require.NoError(t, e.Start(t.Context(), "o-1", order{}))
		k.Sleep(t, 70*time.Second) // two attempts are not answered
		why, err := e.Why(t.Context(), "o-1")
		require.NoError(t, err)
		require.Contains(t, why.String(), "ask")
		require.Contains(t, why.String(), "3")
		kafkatest.Run(t, &wherry.Consumer{Client: k.Client(t), Group: "asked", Handlers: []wherry.Route{
			asked.Handler(func(_ context.Context, o order) (order, error) { return o, nil }),
		}})
		k.Sleep(t, time.Minute)
		s := lastOf(t, k, "trip")["o-1"]
		require.Equal(t, saga.Done, s.Phase)
		require.JSONEq(t, `{"done":["asked"]}`, string(s.Raw), "one reply counts")
	})
}

// One trace for the whole saga: that of its start. Each input has a span in it, with
// a link to where it came from.
func TestS37_OneTraceForTheWholeSaga(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, append(payingTopics, "ask")...)
	spans := tracetest.NewInMemoryExporter()
	tp := sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans))
	reader := metric.NewManualReader()
	var l diary
	def := paying(&l)
	def.Steps = append(def.Steps, saga.Step[order]{Name: "ask", NoUndo: true, Do: saga.Call(asked, func(o order) order { return o }, nil)})
	e := engine(t, k, def)
	e.TracerProvider, e.Propagator, e.MeterProvider = tp, propagation.TraceContext{}, metric.NewMeterProvider(metric.WithReader(reader))
	kafkatest.Run(t, e)
	kafkatest.Run(t, &wherry.Consumer{
		Client: k.Client(t), Group: "asked", Policies: []wherry.Policy{wherry.Telemetry{TracerProvider: tp, Propagator: propagation.TraceContext{}}},
		Handlers: []wherry.Route{asked.Handler(func(_ context.Context, o order) (order, error) { return o, nil })},
	})
	ctx, root := tp.Tracer("test").Start(t.Context(), "root")
	require.NoError(t, e.Start(ctx, "o-1", order{Total: 1}))
	root.End()
	made := kafkatest.NextRecord(t, k, "order.made")
	other, otherSpan := tp.Tracer("test").Start(t.Context(), "other")
	r, err := wasPaid.Record("o-1", payment{})
	require.NoError(t, err)
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(other, carrier)
	r.Headers = append(r.Headers, kgo.RecordHeader{Key: "traceparent", Value: []byte(carrier["traceparent"])})
	kafkatest.SendRecord(t, k, r)
	otherSpan.End()
	await(t, "the saga ends", func() bool { return e.Status().Ended == 1 })

	id := root.SpanContext().TraceID()
	require.Contains(t, string(valueOf(made, "traceparent")), id.String())
	inputs, links := []string{}, []trace.TraceID{}
	await(t, "the spans", func() bool {
		inputs, links = nil, nil
		for _, s := range spans.GetSpans() {
			if s.Name != "saga trip" || s.SpanContext.TraceID() != id {
				continue
			}
			for _, a := range s.Attributes {
				if a.Key == "wherry.saga.input" {
					inputs = append(inputs, a.Value.AsString())
				}
			}
			for _, link := range s.Links {
				links = append(links, link.SpanContext.TraceID())
			}
		}
		return len(inputs) == 3
	})
	slices.Sort(inputs)
	require.Equal(t, []string{"event", "reply", "start"}, inputs)
	require.Contains(t, links, otherSpan.SpanContext().TraceID())
	participant := slices.IndexFunc(spans.GetSpans(), func(s tracetest.SpanStub) bool { return s.Name == "process ask" })
	require.Equal(t, id, spans.GetSpans()[participant].SpanContext.TraceID(), "the participant is in it")
	local := slices.IndexFunc(spans.GetSpans(), func(s tracetest.SpanStub) bool { return s.Name == "saga trip log" })
	require.Equal(t, id, spans.GetSpans()[local].SpanContext.TraceID())

	got := measured(t, reader)
	moves := map[string]int64{}
	for _, p := range got["wherry.saga.transitions"].Data.(metricdata.Sum[int64]).DataPoints {
		v, _ := p.Attributes.Value("wherry.saga.transition")
		moves[v.AsString()] = p.Value
	}
	require.Equal(t, map[string]int64{"started": 1, "sent": 3, "done": 3, "ended": 1}, moves)
	ends := got["wherry.saga.ended"].Data.(metricdata.Sum[int64]).DataPoints
	require.Len(t, ends, 1)
	require.EqualValues(t, 1, ends[0].Value)
	for _, name := range []string{"wherry.saga.active", "wherry.saga.queued", "wherry.saga.early_events", "wherry.saga.waiting_commands", "wherry.saga.oldest"} {
		require.Contains(t, got, name)
	}
}

func valueOf(r *kgo.Record, key string) []byte {
	for _, h := range r.Headers {
		if h.Key == key {
			return h.Value
		}
	}
	return nil
}

// Not parallel to others: it counts goroutines.
func TestS28_WhatAnEngineCosts(t *testing.T) {
	k := kafkatest.NewCluster(t)
	var l diary
	e := engine(t, k, trip(saga.Step[order]{Name: "a", Do: l.do("a"), NoUndo: true}))
	before := runtime.NumGoroutine()
	ctx, cancel := context.WithCancel(t.Context())
	end := make(chan error, 1)
	go func() { end <- e.Run(ctx) }()
	<-e.Ready()
	require.NoError(t, e.Start(t.Context(), "o-1", order{}))
	await(t, "the saga ends", func() bool { return e.Status().Ended == 1 })
	t.Logf("%d goroutines", runtime.NumGoroutine()-before)
	cancel()
	require.NoError(t, <-end)
	// Those of the embedded broker's connections end a little later.
	await(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= before+3 })
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	for _, s := range strings.Split(string(stacks), "\n\n") {
		require.NotContains(t, s, "wherry/saga.(", "left behind")
	}
}

// A broker that is not there yet is waited for.
func TestS28_ABrokerThatIsAbsentIsWaitedFor(t *testing.T) {
	t.Parallel()
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := nobody.Addr().String()
	require.NoError(t, nobody.Close())
	cl, err := kgo.NewClient(kgo.SeedBrokers(address))
	require.NoError(t, err)
	defer cl.Close()
	var l diary
	var warned warnings
	e := &saga.Engine[order]{Client: cl, Logger: warned.logger(), Definitions: []saga.Definition[order]{trip(saga.Step[order]{Name: "a", Do: l.do("a"), NoUndo: true})}}
	ctx, cancel := context.WithCancel(t.Context())
	end := make(chan error, 1)
	go func() { end <- e.Run(ctx) }()
	await(t, "it says that it waits", func() bool { return strings.Contains(warned.text(), "no broker answers") })
	cancel()
	require.NoError(t, <-end)
	limited, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, e.Start(limited, "o-1", order{}), context.DeadlineExceeded)
}
