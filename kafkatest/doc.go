// Package kafkatest helps to test code that talks to Kafka. Each test gets a broker of
// its own, in memory, within milliseconds; sends and awaits records in one line; and
// starts services that end with the test.
//
//	func TestPayment(t *testing.T) {
//		k := kafkatest.NewCluster(t, "order.placed", "order.paid")
//		kafkatest.Run(t, newBilling(k.Client(t)))           // anything with Run(ctx) error
//		kafkatest.Send(t, k, OrderPlaced, "o-1", Order{…})  // produced and acknowledged
//		paid := kafkatest.Next(t, k, OrderPaid)             // the next one, or a failure that explains
//		kafkatest.None(t, k, OrderPaid, 100*time.Millisecond)
//	}
//
// OrderPlaced and OrderPaid are anything that encodes and decodes the records of a
// topic ([Encoder], [Decoder]), such as a wherry.Event; paid is the decoded value.
// The package knows nothing else about wherry, so code that uses Kafka without it
// can be tested just as well: [Cluster.Client] and [Cluster.Opts] give kgo clients,
// [SendRecord] and [NextRecord] raw records.
//
// # An hour in a millisecond
//
// [Test] runs a test in virtual time: the clock jumps ahead whenever everything
// waits. [Send], [Next], [None], [Run] and clients work in it as everywhere.
//
//	func TestPaymentIsTriedAgainAfterAnHour(t *testing.T) {
//		kafkatest.Test(t, []string{"order.placed", "order.paid"}, func(t *testing.T, k *kafkatest.Cluster) {
//			kafkatest.Run(t, newBilling(k.Client(t)))
//			kafkatest.Send(t, k, OrderPlaced, "o-1", Order{…})
//			kafkatest.None(t, k, OrderPaid, 59*time.Minute)
//			kafkatest.Next(t, k, OrderPaid)
//		})
//	}
//
// It needs go test -tags synctests, and says so where the tag is missing. The code
// under test needs no clock of its own: package time is the virtual one. What to
// know of it:
//
//   - All time-outs pass in virtual time, brokers' too: a transaction that is held
//     open over an hour's wait has been aborted when the hour is over.
//   - Requests cost, waits do not: an idle consumer in a group costs about 40 ms of
//     real time for each virtual hour, and a second for a day (five times that
//     with -race): it has a fetch in wait for 5 s (kgo.FetchMaxWait) and sends a
//     heartbeat as often. Longer ones make a long simulation cheaper.
//   - A partition that is resumed or assigned while a fetch waits is asked for
//     after that fetch, up to 5 s of virtual time later. Where a test measures
//     shorter times, give its clients a shorter kgo.FetchMaxWait.
//   - A sync.Mutex whose holder waits for a broker or a timer stops the clock, and
//     so does a socket; the test is ended then and says where.
//   - Cancelling a context cancels what is under way, in virtual time as well: a
//     worker that ends its transaction with the context that ends the worker
//     loses the transaction that the test has just seen the output of.
//
// # A Kafka that breaks, a little
//
// Faults hit single requests of the code under test, on any broker and in both
// kinds of time. Requests says which: by kind, topic, group, transactional id and
// client id, the first or the n-th.
//
//	k.Drop(t, r)           the request is lost, and its connection
//	k.DropAfter(t, r)      the broker has done it, and the answer is lost
//	k.Delay(t, r, d)       it arrives late
//	k.Refuse(t, r, err)    it is answered with an error
//	k.Crash(t, r)          its client dies before it leaves
//	k.CrashAfter(t, r)     its client dies when the broker has done it
//	k.Disconnect(t, node)  a node is gone
//	k.MoveLeader(t, …)     a partition has another leader (AddNode gives it one)
//
// Each is over after one request, after Requests.Count of them, by Remove, or with
// the test. Hits and Wait tell that it happened: a test whose fault never hit
// proves nothing.
//
//	stop := kafkatest.Run(t, newBilling(k.Client(t)))
//	crash := k.CrashAfter(t, kafkatest.Requests{Keys: []kmsg.Key{kmsg.OffsetCommit}, Group: "billing"})
//	kafkatest.Send(t, k, OrderPlaced, "o-1", Order{…})
//	crash.Wait(t, 1)
//	stop()
//	kafkatest.Run(t, newBilling(k.Client(t)))  // its successor
//
// # Exactly once, or not
//
// ExactlyOnce reads what a service read and what it wrote, and names each input
// whose outputs are missing, doubled or out of order: the end of a test in which
// something broke.
//
//	kafkatest.ExactlyOnce(t, k, kafkatest.Effects{
//		Inputs: []string{"order.placed"}, Outputs: []string{"order.paid"}, Group: "billing",
//	})
//
// # The same tests on a real Kafka
//
// The embedded broker is kfake. It has no replication, no throttling, and no
// time between the end of a transaction and its markers; what it proves, a real
// broker should confirm. With KAFKATEST_BROKERS=127.0.0.1:9092 in the
// environment NewCluster borrows that cluster instead (Test does not):
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
// # A Kafka that breaks in earnest
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
