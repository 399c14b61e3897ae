// Package retry handles records again whose handler failed: in place, while the
// record waits in memory, or by way of delay topics.
//
//	again := retry.Policy{Attempts: 4, Initial: time.Second}       // after 1 s, 2 s, 4 s
//	tiers := retry.Topics{Policy: retry.Policy{Attempts: 4, Initial: time.Minute, Multiplier: 10}}
//
//	billing := &wherry.Consumer{
//		Client: cl, Group: "billing", Handlers: […],
//		Policies: []wherry.Policy{dead, tiers, again},             // outermost first
//	}
//
// # Which of the two
//
// [Policy] is for trouble that passes within seconds: a lock, a neighbour that
// restarts, a moved leader. The record keeps its place, records that must come
// after it wait, and nothing is written. It is held in memory all the while, so a
// wait is at most the Consumer's MaxWait (5 minutes unless set), and after a restart
// or a rebalance the attempts begin anew.
//
// [Topics] is for trouble that takes minutes or hours. The record is written to a
// topic <topic>.<group>.retry.<delay>, and is done in its own topic once that is
// acknowledged. Attempts, deadline and due time are in headers, so they survive
// restarts. The record loses its place among the others, unless KeepOrder sends
// later records of its key after it.
//
// Both together, as above, are the usual choice: a few quick attempts in place,
// then the long way. [Policy.Do] runs the same schedule around any function.
//
// # What counts as a failure
//
// Any error, and any panic, except:
//
//   - an error that no retry can mend: [wherry.Permanent], bytes that do not
//     decode, an output that the broker refused, a deadline that is over. It goes
//     on to the policy outside at once, as does what a [Rule] gives up;
//   - work that was cut short because the Consumer stops or lost the partition.
//     It does not count as an attempt, and the record comes again.
//
// When no attempt is left the error is a [*wherry.RecordError] with the cause
// (exhausted, also when the time of Within ran out; permanent; or as above), the
// number of calls of the handler in all, the time of the first failure and the
// last error. A dlq.Queue outside writes it to the letter; without a policy
// outside, the Consumer stops with it.
//
// An attempt that fails leaves no outputs: what the handler staged with
// [wherry.Publish] is dropped before the next one. What it did elsewhere is not
// undone, so a handler must tolerate being called again.
//
// # The order of a key
//
// With [Topics].KeepOrder a record is not handled while one of its key that
// came before it in its partition waits: it goes to the delay topic of the
// shortest delay, behind it, without an attempt of its own, and is looked at
// again after each such delay (by way of longer ones where the first of the
// line waits for longer) until all before it are done or given up. Other keys
// flow on, and records without a key have no order.
//
// Which records wait is in a compacted topic <topic>.<group>.retry.keys, by
// partition and offset, so that restarts and rebalances keep the order too.
// What to know of it:
//
//   - It holds for records that are not done yet. As everywhere, a record may be
//     handled again after it was done, if a crash was faster than its commit;
//     such a copy may come after its successors.
//   - The delay topics need as many partitions as the topic: where partitions are
//     added to that, add them there before.
//   - A batch ([wherry.Event.Batch]) of a Consumer ByPartition is handled at
//     once: what comes after a failed record within the batch does not wait.
//   - A record that somebody deletes from a delay topic still holds up its key,
//     until the retention of the delay topics is over. To free it at once,
//     produce a null value for its key, such as "3/4711", to the keys topic. To
//     give up KeepOrder, delete the keys topic.
//
// # Policies within policies
//
// Each counts its own calls, and [wherry.Attempt] counts those of the handler:
// three attempts by way of topics around four in place call the handler up to
// twelve times, and the twelfth sees Attempt 12. That the inner ones are
// exhausted is for the outer ones a failure like any.
package retry
