package wherry_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
)

func TestHasHeaderLooksAtTheLastOfItsKey(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		headers []kgo.RecordHeader
		want    bool
	}{
		{name: "none"},
		{name: "the value", headers: []kgo.RecordHeader{{Key: "type", Value: []byte("refund")}}, want: true},
		{name: "another value", headers: []kgo.RecordHeader{{Key: "type", Value: []byte("refunds")}}},
		{name: "another case", headers: []kgo.RecordHeader{{Key: "Type", Value: []byte("refund")}}},
		{name: "another one later", headers: []kgo.RecordHeader{{Key: "type", Value: []byte("refund")}, {Key: "type"}}},
		{name: "another one earlier", headers: []kgo.RecordHeader{{Key: "type", Value: []byte("order")}, {Key: "type", Value: []byte("refund")}, {Key: "z"}}, want: true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, test.want, wherry.HasHeader("type", "refund")(&kgo.Record{Headers: test.headers}))
		})
	}
	require.True(t, wherry.HasHeader("type", "")(&kgo.Record{Headers: []kgo.RecordHeader{{Key: "type"}}}), "a null value is an empty one")
}

func TestWhenReturnsANarrowerCopy(t *testing.T) {
	t.Parallel()
	wide := wherry.Route{Topic: "orders", Handler: returns(nil)}
	require.NotNil(t, wide.When(wherry.HasHeader("a", "b")).Match)
	require.Nil(t, wide.Match)
}

func TestTheFirstRouteThatMatchesTakesTheRecord(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "order.placed:1")
	taken := make(chan string, 10)
	take := func(name string) wherry.Handler {
		return func(context.Context, *kgo.Record) error { taken <- name; return nil }
	}
	route := wherry.Route{Topic: "order.placed"}
	refund, vip, rest := route, route, route
	refund.Handler, vip.Handler, rest.Handler = take("refund"), take("vip"), take("rest")
	kafkatest.Run(t, &wherry.Consumer{
		Client: k.Client(t), Group: "routes",
		Handlers: []wherry.Route{refund.When(wherry.HasHeader("type", "refund")), vip.When(wherry.HasHeader("vip", "yes")), rest},
	})
	send := func(headers ...kgo.RecordHeader) string {
		kafkatest.SendRecord(t, k, &kgo.Record{Topic: "order.placed", Value: []byte("{}"), Headers: headers})
		return receive(t, taken, "a route to take it")
	}
	isRefund, isVIP := kgo.RecordHeader{Key: "type", Value: []byte("refund")}, kgo.RecordHeader{Key: "vip", Value: []byte("yes")}
	require.Equal(t, "rest", send())
	require.Equal(t, "refund", send(isRefund))
	require.Equal(t, "vip", send(isVIP))
	require.Equal(t, "refund", send(isVIP, isRefund))
}

func TestARecordThatNoRouteTakesIsUndecodable(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "order.placed:1")
	kafkatest.Send(t, k, orderPlaced, "", order{})
	end, _ := background(t, &wherry.Consumer{
		Client: k.Client(t), Group: "routes",
		Handlers: []wherry.Route{orderPlaced.Handler(newRecorder().handle).When(wherry.HasHeader("type", "refund"))},
	})
	err := receive(t, end, "the Consumer to stop")
	var e *wherry.RecordError
	require.ErrorAs(t, err, &e)
	require.Equal(t, wherry.CauseUndecodable, e.Cause)
	require.ErrorContains(t, err, "no route of topic order.placed matches")
}

func TestAMatchThatPanicsIsTheRecordsError(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "order.placed:1")
	kafkatest.Send(t, k, orderPlaced, "", order{})
	end, _ := background(t, &wherry.Consumer{
		Client: k.Client(t), Group: "routes",
		Handlers: []wherry.Route{orderPlaced.Handler(newRecorder().handle).When(func(r *kgo.Record) bool { return r.Headers[0].Key == "type" })},
	})
	var e *wherry.RecordError
	require.ErrorAs(t, receive(t, end, "the Consumer to stop"), &e)
	require.Equal(t, wherry.CausePanic, e.Cause)
}
