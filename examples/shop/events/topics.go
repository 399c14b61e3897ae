package events

import "github.com/wherry-go/wherry"

// OrdersTable is the compacted topic that holds the orders service's table: an
// [Order] by its id.
const OrdersTable = "orders"

// partitions is how many of its kind may share the work of a service.
const partitions = 4

// Topics are the topics of the shop, for [wherry.EnsureTopics]. Each process
// ensures all of them, so that they may start in any order.
func Topics() []wherry.TopicSpec {
	return []wherry.TopicSpec{
		{Name: OrderCreated.Topic, Partitions: partitions},
		{Name: PaymentCreated.Topic, Partitions: partitions},
		{Name: OrdersTable, Partitions: partitions, Changelog: true},
	}
}
