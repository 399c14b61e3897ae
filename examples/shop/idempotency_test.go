package main

import (
	"encoding/json"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry/examples/shop/events"
)

const keyHeader = "Idempotency-Key"

func TestOrderOfOneKeyIsPlacedOnceAndAnsweredTheSame(t *testing.T) {
	t.Parallel()
	p := start(t)
	p.ready()
	first := p.send(http.MethodPost, "/orders", seedOrder, keyHeader, `"k-1"`)
	require.Equal(t, http.StatusCreated, first.Status, "%v", first.Message)
	var o events.Order
	require.NoError(t, json.Unmarshal(first.Data, &o))
	p.paid(o.ID)
	for _, given := range []string{`"k-1"`, "k-1"} {
		again := p.send(http.MethodPost, "/orders", seedOrder, keyHeader, given)
		require.Equal(t, http.StatusCreated, again.Status, "%v", again.Message)
		require.Equal(t, string(first.Data), string(again.Data))
	}
	// The same body, written otherwise, is the same order.
	again := p.send(http.MethodPost, "/orders", `{"userId":"user1","status":"pending","totalAmount":"99.99"}`, keyHeader, `"k-1"`)
	require.Equal(t, string(first.Data), string(again.Data))
	require.Len(t, p.list(), 1)
	require.Len(t, read(t, p.brokers, events.OrderCreated.Topic, 1), 1)

	reused := p.send(http.MethodPost, "/orders", `{"totalAmount":"1","status":"pending","userId":"user1"}`, keyHeader, `"k-1"`)
	require.Equal(t, http.StatusUnprocessableEntity, reused.Status)
	require.Equal(t, "The Idempotency-Key was used for order "+o.ID+", which is another one than this: choose a new key", reused.Message)
	// A key is one user's.
	out := p.send(http.MethodPost, "/orders", orderOf("user2"), keyHeader, `"k-1"`)
	require.Equal(t, http.StatusCreated, out.Status)
	require.Len(t, p.list(), 2)
}

func TestKeyThatIsMalformedPlacesNothing(t *testing.T) {
	t.Parallel()
	p := start(t, "-services", "orders,auth")
	p.ready()
	for _, headers := range [][]string{
		{keyHeader, ""}, {keyHeader, `""`}, {keyHeader, `"a`}, {keyHeader, "a b"}, {keyHeader, `"a";b`}, {keyHeader, "a", keyHeader, "b"},
	} {
		out := p.send(http.MethodPost, "/orders", seedOrder, headers...)
		require.Equal(t, http.StatusBadRequest, out.Status, "%v", headers)
		require.Equal(t, `the Idempotency-Key header must be one string of 1 to 253 characters, such as "8e03978e-40d5-43e8-bc93-6894a57f9324"`, out.Message)
	}
	require.Empty(t, p.list())
}

func TestKeyIsKnownInEveryProcessAndAfterARestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := start(t, "-data", dir)
	p.ready()
	q := start(t, "-brokers", p.brokers[0], "-services", "orders")
	q.ready()
	first := p.send(http.MethodPost, "/orders", seedOrder, keyHeader, `"k-1"`)
	require.Equal(t, http.StatusCreated, first.Status, "%v", first.Message)
	again := q.send(http.MethodPost, "/orders", seedOrder, keyHeader, `"k-1"`)
	require.Equal(t, string(first.Data), string(again.Data))
	require.NoError(t, q.stop())
	require.NoError(t, p.stop())

	p = start(t, "-data", dir)
	p.ready()
	again = p.send(http.MethodPost, "/orders", seedOrder, keyHeader, `"k-1"`)
	require.Equal(t, http.StatusCreated, again.Status, "%v", again.Message)
	require.Equal(t, string(first.Data), string(again.Data))
	require.Len(t, p.list(), 1)
}
