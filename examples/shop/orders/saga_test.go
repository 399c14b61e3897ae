package orders_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/examples/shop/events"
	"github.com/wherry-go/wherry/examples/shop/orders"
	"github.com/wherry-go/wherry/kafkatest"
	"github.com/wherry-go/wherry/saga"
)

// written writes the row of an order and its order.created, as a shop without sagas
// did.
func written(t *testing.T, k *kafkatest.Cluster, id, status string) events.Order {
	t.Helper()
	o := events.Order{ID: id, TotalAmount: "1", Status: status, UserID: "user1", CreatedAt: events.Now(), UpdatedAt: events.Now()}
	if status != "" {
		row, err := (&wherry.Table[events.Order]{Topic: events.OrdersTable}).Record(id, o)
		require.NoError(t, err)
		kafkatest.SendRecord(t, k, row)
	}
	again(t, k, o)
	return o
}

// again sends an order's order.created, as it was when it was placed.
func again(t *testing.T, k *kafkatest.Cluster, o events.Order) {
	t.Helper()
	o.Status = events.Pending
	kafkatest.Send(t, k, events.OrderCreated, o.ID, o)
}

// ended waits until the saga of an order has ended, and returns how.
func ended(t *testing.T, k *kafkatest.Cluster, id string) (s saga.Snapshot) {
	t.Helper()
	asks := &saga.Inspector{Client: k.Client(t), Name: orders.Saga}
	require.Eventually(t, func() bool {
		var err error
		s, err = asks.Get(t.Context(), id)
		return err == nil && s.Phase.Ended()
	}, 30*time.Second, 20*time.Millisecond)
	return s
}

func TestOrdersThatWerePlacedBeforeThereWereSagasGetOne(t *testing.T) {
	t.Parallel()
	k := onACluster(t)
	one, two := written(t, k, "one", events.Pending), written(t, k, "two", events.Pending)
	written(t, k, "over", events.Cancelled)
	written(t, k, "foreign", "")
	s := service(k.Client(t))
	kafkatest.Run(t, s)
	kafkatest.SendRecord(t, k, payment(t, one))
	becomes(t, s, one.ID, events.Paid)
	kafkatest.SendRecord(t, k, failure(t, two))
	becomes(t, s, two.ID, events.Cancelled)
	require.Equal(t, "the order is cancelled", ended(t, k, "over").Why)
	require.Equal(t, "Order with ID foreign not found", ended(t, k, "foreign").Why)
	settled(t, k)
	require.Equal(t, map[string]int{two.ID: 1}, cancellations(t, k))
}

// Nobody waits for the payment of an order that is settled, also when its saga is
// forgotten.
func TestOrderCreatedThatComesAgainChangesNothing(t *testing.T) {
	t.Parallel()
	k := onACluster(t)
	s := service(k.Client(t))
	kafkatest.Run(t, s)
	o := place(t, s)
	again(t, k, o)
	kafkatest.SendRecord(t, k, failure(t, o))
	cancelled := becomes(t, s, o.ID, events.Cancelled)
	again(t, k, o)
	settled(t, k)
	require.Equal(t, "Payment failed: declined", ended(t, k, o.ID).Why)
	asks := &saga.Inspector{Client: k.Client(t), Name: orders.Saga}
	require.NoError(t, asks.Do(t.Context(), o.ID, saga.Purge, saga.By{Actor: "test", Reason: "to forget it"}))
	again(t, k, o)
	require.Equal(t, "the order is cancelled", ended(t, k, o.ID).Why)
	settled(t, k)
	require.Equal(t, cancelled, becomes(t, s, o.ID, events.Cancelled))
	require.Equal(t, map[string]int{o.ID: 1}, cancellations(t, k))
}

// An operator cancels one order, says that another was paid, and forgets a third, whose
// user can cancel it nevertheless.
func TestOperatorsHelpOrders(t *testing.T) {
	t.Parallel()
	k := onACluster(t)
	s := service(k.Client(t))
	kafkatest.Run(t, s)
	off, paid, forgotten := place(t, s), place(t, s), place(t, s)
	settled(t, k)
	asks := &saga.Inspector{Client: k.Client(t), Name: orders.Saga}
	by := saga.By{Actor: "test", Reason: "the bank is closed"}
	require.NoError(t, asks.Do(t.Context(), off.ID, saga.Undo, by))
	require.NoError(t, asks.Do(t.Context(), paid.ID, saga.Complete, by))
	require.NoError(t, asks.Do(t.Context(), forgotten.ID, saga.Purge, by))
	becomes(t, s, off.ID, events.Cancelled)
	becomes(t, s, paid.ID, events.Paid)
	o, err := s.Cancel(t.Context(), forgotten.ID)
	require.NoError(t, err)
	require.Equal(t, events.Cancelled, o.Status)
	settled(t, k)
	require.Equal(t, map[string]int{off.ID: 1, forgotten.ID: 1}, cancellations(t, k))
}

var mermaid = regexp.MustCompile("(?s)```mermaid\n.*?```\n")

// SAGATEST_UPDATE=1 writes it.
func TestDiagramOfTheReadmeIsThatOfTheDefinition(t *testing.T) {
	t.Parallel()
	read, err := os.ReadFile("../README.md")
	require.NoError(t, err)
	page, diagram := strings.ReplaceAll(string(read), "\r\n", "\n"), "```mermaid\n"+orders.Definition().Mermaid()+"```\n"
	if os.Getenv("SAGATEST_UPDATE") == "1" {
		page = mermaid.ReplaceAllLiteralString(page, diagram)
		require.NoError(t, os.WriteFile("../README.md", []byte(page), 0o600))
	}
	require.Equal(t, []string{diagram}, mermaid.FindAllString(page, -1))
}
