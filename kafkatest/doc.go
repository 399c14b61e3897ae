// Package kafkatest helps to test code that talks to Kafka: a broker for each
// test, in memory, in a few milliseconds; records sent and awaited in one line;
// what runs in the background started and stopped with the test.
//
//	func TestPayment(t *testing.T) {
//		k := kafkatest.NewCluster(t, "order.placed", "order.paid")
//		kafkatest.Run(t, newBilling(k.Client(t)))           // anything with Run(ctx) error
//		kafkatest.Send(t, k, OrderPlaced, "o-1", Order{…})  // produced and acknowledged
//		paid := kafkatest.Next(t, k, OrderPaid)             // the next one, or a failure that explains
//		kafkatest.None(t, k, OrderPaid, 100*time.Millisecond)
//	}
//
// OrderPlaced and OrderPaid are whatever encodes and decodes the records of a
// topic (Encoder, Decoder), such as a wherry.Event. This package knows nothing
// else of wherry, and code that uses Kafka without it is tested as well: Client
// and Opts give kgo clients, SendRecord and NextRecord raw records.
//
// # The same tests on a real Kafka
//
// The embedded broker is kfake. It has no replication, no throttling, and no
// time between the end of a transaction and its markers; what it proves, a real
// broker should confirm. With KAFKATEST_BROKERS=127.0.0.1:9092 in the
// environment NewCluster borrows that cluster instead:
//
//   - the topics that a test names are deleted and made anew; topics and groups
//     that appeared during the test are deleted at its end;
//   - one test at a time uses a cluster, across processes (on Unix), so
//     go test ./... works, and t.Parallel does no harm if it comes before
//     NewCluster; a test has one Cluster then, not two;
//   - brokers on other machines are refused, unless KAFKATEST_DISPOSABLE=1 says
//     that nothing there is worth keeping.
//
// Measured on one Apache Kafka 4.1.1 node, this costs about 0.2 s per test.
//
// # A Kafka that breaks
//
// NewApache starts one or three nodes of Apache Kafka for one test, from jars,
// without Docker, and lets it kill, stop, pause and restart them. It needs Java
// 17 and the jars that scripts/kafka-jars brings; a test without them is
// skipped, or fails with KAFKATEST_REQUIRE=1.
//
// # Environment
//
//	KAFKATEST_BROKERS     addresses of a real cluster for NewCluster, separated by commas
//	KAFKATEST_DISPOSABLE  1: that cluster may be on other machines
//	KAFKATEST_JARS        folder of Kafka's jars for NewApache
//	KAFKATEST_REQUIRE     1: NewApache fails where it would skip
package kafkatest
