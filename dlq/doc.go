// Package dlq writes, reads and replays dead letters: records that could not be
// handled, in a topic of their own, with what is needed to understand them.
//
// # Writing them
//
// A [Queue] is a policy of a Consumer. A record that fails inside it becomes a dead
// letter, and the Consumer goes on:
//
//	billing := &wherry.Consumer{
//		Client: cl, Group: "billing",
//		Handlers: []wherry.Route{OrderCreated.Handler(svc.Pay)},
//		Policies: []wherry.Policy{
//			wherry.Telemetry{},
//			&dlq.Queue{Topic: "billing.dlq"}, // outside of what retries
//			retry.Policy{Attempts: 4},
//		},
//	}
//
// The letter is the record as it was, byte for byte, with headers that say where
// it came from and why it failed; or, as FormatEnvelope, a JSON document that a
// service in JavaScript reads. The record counts as done when the letter is
// acknowledged. What is private in a record is removed by [Queue].Redact.
//
// A dead-letter topic is for records that are to blame for their failure. While
// everything fails, say because a database is down, the [Gate] of a Queue holds the
// records back instead. It tries one from time to time, and lets all of them go on
// as soon as one was handled.
//
// # Reading them
//
// [Read] makes a [Letter] of a dead letter, whoever wrote it: this package,
// Spring Kafka, Kafka Connect, Kafka Streams, a broker's share group, Spring
// Cloud Stream, SmallRye, Watermill, Wolverine, or a NestJS service. Its Original
// method gives back the record that failed, ready to be produced again.
//
//	l, err := dlq.Read(record)
//	fmt.Println(l.Topic, l.Partition, l.Offset, l.Cause, l.Error)
//	err = cl.ProduceSync(ctx, l.Original()).FirstErr()
//
// # Replaying them
//
// A [Replayer] goes through a dead-letter topic. It sends the letters that a
// [Selection] picks back to where they came from, to one consumer group only, or
// elsewhere; or it parks or discards them. What was decided about a letter, by whom
// and why, is kept in a ledger, a topic of its own, so that a later run skips the
// letter. Copy and entry are one transaction. A dry run counts and changes nothing.
// The command wherry dlq is a Replayer for the terminal.
//
//	report, err := (&dlq.Replayer{Client: cl, Topic: "billing.dlq", Select: dlq.Selection{…}, Rate: 50}).Run(ctx)
//
// # Guarantees
//
//   - No lost hand-off: a record leaves its topic only when its dead letter is
//     acknowledged. Where that cannot be, the Consumer stops with the record
//     uncommitted.
//   - A letter is replayed once for each decision to do so: for readers with
//     read_committed no kill, no lost answer and no second run beside the first
//     doubles or loses its copy.
//   - Exact bytes: key, value and headers of a record come back from its letter
//     byte for byte, null as null and empty as empty, in both formats.
//   - Bounded: the headers of a letter stay under 16 KiB and are UTF-8, whatever
//     an error says.
//   - Work that was cut short by a shutdown or a rebalance is not dead-lettered.
package dlq
