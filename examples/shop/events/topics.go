package events

import "github.com/wherry-go/wherry"

// Topics that are no events.
const (
	// OrdersTable is the compacted topic that holds the orders service's table:
	// an [Order] by its id.
	OrdersTable = "orders"
	// OrdersInbox is where the orders service brings together all that befalls
	// an order, by the order's id. It is its own: nobody else reads or writes it.
	OrdersInbox = "orders.inbox"
	// BillingDeadLetters has the orders that billing could not handle, each as
	// the other side writes it: {originalMessage, error, failedAt, retryCount}.
	BillingDeadLetters = "billing.dlq"
)

// partitions is how many of its kind may share the work of a service.
const partitions = 4

// Topics are the topics of the shop, for [wherry.EnsureTopics]. Each process
// ensures all of them, so that they may start in any order.
func Topics() []wherry.TopicSpec {
	return []wherry.TopicSpec{
		{Name: OrderCreated.Topic, Partitions: partitions},
		{Name: OrderCancelled.Topic, Partitions: partitions},
		{Name: PaymentCreated.Topic, Partitions: partitions},
		{Name: PaymentFailed.Topic, Partitions: partitions},
		{Name: BillingDeadLetters, Partitions: partitions},
		{Name: OrdersInbox, Partitions: partitions},
		{Name: OrdersTable, Partitions: partitions, Changelog: true},
	}
}
