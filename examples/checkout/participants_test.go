package main

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/examples/checkout/contract"
	"github.com/wherry-go/wherry/internal/header"
	"github.com/wherry-go/wherry/kafkatest"
	"github.com/wherry-go/wherry/reqreply"
)

// What a saga may do to a participant: it asks more than once, it undoes more than
// once, and the undo comes first. (For the payments see package payments.)
func TestParticipantsDoAndUndoOnce(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "hand.saga.inbox")
	dir := t.TempDir()
	start(t, k, dir, "-services", "stock,shipping,payments") // payments for their file
	goods := contract.Goods{Item: "engine", Quantity: 2}
	parcel := contract.Parcel{Item: "engine", Quantity: 2, Address: "London"}

	shelf, err := ask(t, k, contract.Reserve, goods, "o-1", "do", "1")
	require.NoError(t, err)
	require.Equal(t, "shelf of the engine", shelf.Shelf)
	again, err := ask(t, k, contract.Reserve, goods, "o-1", "do", "2")
	require.NoError(t, err)
	require.Equal(t, shelf, again)
	label, err := ask(t, k, contract.Ship, parcel, "o-1", "do", "1")
	require.NoError(t, err)
	require.NotEmpty(t, label.Tracking)
	second, err := ask(t, k, contract.Ship, parcel, "o-1", "do", "2")
	require.NoError(t, err)
	require.Equal(t, label, second)
	for _, attempt := range []string{"1", "2"} {
		_, err = ask(t, k, contract.Reserve, goods, "o-1", "undo", attempt)
		require.NoError(t, err)
		_, err = ask(t, k, contract.Ship, parcel, "o-1", "undo", attempt)
		require.NoError(t, err)
	}
	_, err = ask(t, k, contract.Reserve, goods, "o-2", "undo", "1")
	require.NoError(t, err)
	_, err = ask(t, k, contract.Ship, parcel, "o-2", "undo", "1")
	require.NoError(t, err)
	var no *reqreply.Error
	_, err = ask(t, k, contract.Reserve, goods, "o-2", "do", "1")
	require.ErrorAs(t, err, &no)
	require.Equal(t, reqreply.CodeUndone, no.Code)
	_, err = ask(t, k, contract.Ship, parcel, "o-2", "do", "1")
	require.ErrorAs(t, err, &no)
	require.Equal(t, reqreply.CodeUndone, no.Code)

	require.Equal(t, map[string]world{"o-1": {"stock -2": 1, "stock 2": 1, "cancelled label": 1}}, worlds(t, k, dir))
}

// ask sends what a saga sends for an attempt, and returns the answer.
func ask[Req, Resp any](t *testing.T, k *kafkatest.Cluster, m reqreply.Method[Req, Resp], req Req, id, direction, attempt string) (Resp, error) {
	t.Helper()
	const inbox = "hand.saga.inbox"
	r, err := m.Request(t.Context(), req)
	require.NoError(t, err)
	r.Key = []byte(id)
	header.Add(r, header.Saga, "hand")
	header.Add(r, header.SagaDirection, direction)
	correlation := strings.Join([]string{base64.RawURLEncoding.EncodeToString([]byte(id)), "step", direction[:1], attempt, "0"}, ".")
	m.Profile.Address(r, correlation, inbox, 0)
	require.NoError(t, k.Client(t, kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil))).ProduceSync(t.Context(), r).FirstErr())
	reply := kafkatest.NextRecord(t, k, inbox)
	require.Equal(t, correlation, m.Profile.ReplyTo(reply))
	return m.Reply(reply)
}
