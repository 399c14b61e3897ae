package events_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/examples/shop/events"
)

var noon = events.Time{Time: time.Date(2026, 11, 22, 13, 0, 0, 999_999, time.FixedZone("CET", 3600))}

func TestOrderIsWrittenAsTheSeedWritesIt(t *testing.T) {
	t.Parallel()
	o := events.Order{ID: "o-1", TotalAmount: "99.99", Status: events.Pending, UserID: "user1", CreatedAt: noon, UpdatedAt: noon}
	r, err := events.OrderCreated.Record(o.ID, o)
	require.NoError(t, err)
	require.Equal(t, "order.created", r.Topic)
	require.Equal(t, "o-1", string(r.Key))
	require.Empty(t, r.Headers)
	require.JSONEq(t, `{"id":"o-1","totalAmount":"99.99","status":"pending","userId":"user1","createdAt":"2026-11-22T12:00:00.000Z","updatedAt":"2026-11-22T12:00:00.000Z"}`, string(r.Value))
}

func TestPaymentIsWrittenAsTheSeedWritesIt(t *testing.T) {
	t.Parallel()
	p := events.Payment{ID: "p-1", OrderID: "o-1", Amount: "99.99", Status: events.PaymentPaid, CreatedAt: noon}
	r, err := events.PaymentCreated.Record(p.OrderID, p)
	require.NoError(t, err)
	require.Equal(t, "payment.created", r.Topic)
	require.Equal(t, "o-1", string(r.Key))
	require.JSONEq(t, `{"id":"p-1","orderId":"o-1","amount":"99.99","status":"PAID","createdAt":"2026-11-22T12:00:00.000Z","updatedAt":null}`, string(r.Value))
}

func TestFailureAndCancellationAreWrittenAsTheSeedWritesThem(t *testing.T) {
	t.Parallel()
	o := events.Order{ID: "o-1", TotalAmount: "99.99", Status: events.Pending, UserID: "user1", CreatedAt: noon, UpdatedAt: noon}
	r, err := events.PaymentFailed.Record(o.ID, events.PaymentFailure{Order: o, Error: "declined", FailedAt: noon})
	require.NoError(t, err)
	require.Equal(t, "payment.failed", r.Topic)
	require.JSONEq(t, `{"order":{"id":"o-1","totalAmount":"99.99","status":"pending","userId":"user1","createdAt":"2026-11-22T12:00:00.000Z","updatedAt":"2026-11-22T12:00:00.000Z"},"error":"declined","failedAt":"2026-11-22T12:00:00.000Z"}`, string(r.Value))
	o.Status = events.Cancelled
	r, err = events.OrderCancelled.Record(o.ID, events.Cancellation{Order: o, Reason: "declined", CancelledAt: noon})
	require.NoError(t, err)
	require.Equal(t, "order.cancelled", r.Topic)
	require.JSONEq(t, `{"order":{"id":"o-1","totalAmount":"99.99","status":"cancelled","userId":"user1","createdAt":"2026-11-22T12:00:00.000Z","updatedAt":"2026-11-22T12:00:00.000Z"},"reason":"declined","cancelledAt":"2026-11-22T12:00:00.000Z"}`, string(r.Value))
	_, err = events.PaymentFailed.Record("", events.PaymentFailure{})
	require.ErrorContains(t, err, "the order has no id")
}

func TestTimeSurvivesWritingAndReading(t *testing.T) {
	t.Parallel()
	now := events.Now()
	b, err := json.Marshal(now)
	require.NoError(t, err)
	require.Len(t, string(b), len(`"2026-11-22T12:00:00.000Z"`))
	var again events.Time
	require.NoError(t, json.Unmarshal(b, &again))
	require.Equal(t, now, again)
	require.NoError(t, json.Unmarshal([]byte(`"2026-11-22T13:00:00+01:00"`), &again))
	require.Equal(t, "2026-11-22T12:00:00.000Z", again.String())
}

func TestEventsWithoutIDsAreRefused(t *testing.T) {
	t.Parallel()
	_, err := events.OrderCreated.Decode(&kgo.Record{Value: []byte(`{}`)})
	var e *wherry.RecordError
	require.ErrorAs(t, err, &e)
	require.Equal(t, wherry.CauseUndecodable, e.Cause)
	_, err = events.PaymentCreated.Record("", events.Payment{})
	require.ErrorContains(t, err, "the payment has no orderId")
}
