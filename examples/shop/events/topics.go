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
	// AuthUsers is the compacted topic that holds the auth service's table: its
	// users, with the hashes of their passwords. AuthInbox is where it brings
	// together those who want to be one, by their e-mail address. Both are its own:
	// nobody else may read or write them.
	AuthUsers = "auth.users"
	AuthInbox = "auth.inbox"
)

// Partitions is how many of its kind may share the work of a service.
const Partitions = 4

// aDay keeps records for a day or two: hashes of passwords have no business in
// an inbox once they are in the table.
var aDay = map[string]string{"retention.ms": "86400000", "segment.ms": "86400000"}

// Topics are the topics of the shop, for [wherry.EnsureTopics]. Each process
// ensures all of them, so that they may start in any order.
func Topics() []wherry.TopicSpec {
	return []wherry.TopicSpec{
		{Name: OrderCreated.Topic, Partitions: Partitions},
		{Name: OrderCancelled.Topic, Partitions: Partitions},
		{Name: PaymentCreated.Topic, Partitions: Partitions},
		{Name: PaymentFailed.Topic, Partitions: Partitions},
		{Name: BillingDeadLetters, Partitions: Partitions},
		{Name: OrdersInbox, Partitions: Partitions},
		{Name: OrdersTable, Partitions: Partitions, Changelog: true},
		{Name: GetUser.Topic, Partitions: Partitions},
		{Name: AuthInbox, Partitions: Partitions, Config: aDay},
		{Name: AuthUsers, Partitions: Partitions, Changelog: true},
	}
}
