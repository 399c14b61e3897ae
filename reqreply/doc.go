// Package reqreply is request and reply over Kafka: a question goes to a topic of
// requests, and its answer to the partition of a reply topic that the caller reads.
//
//	var GetUser = reqreply.Method[string, *User]{Topic: "user.getUser"}
//
// # Answering
//
// [Method.Handler] makes a [wherry.Route] of a plain function, for a
// [wherry.Consumer] like any other:
//
//	users := &wherry.Consumer{
//		Client: cl, Group: "users",
//		Handlers: []wherry.Route{GetUser.Handler(func(ctx context.Context, id string) (*User, error) {
//			if id == "" {
//				return nil, &reqreply.Error{Code: "invalid", Message: "no id"}
//			}
//			return find(ctx, id)
//		})},
//		Policies: []wherry.Policy{
//			&dlq.Queue{Topic: "users.dlq"},
//			reqreply.Faults{},
//			retry.Policy{Attempts: 3},
//		},
//	}
//
// The answer is an output of the request's record: it is sent when handler and
// policies are done, and with wherry.ExactlyOnce it is in one transaction with
// what the handler published, its tables and the group's offset. An [*Error] is an
// answer too. Any other error goes to the policies, and [Faults] is the one that
// tells the caller when the others have given up. Without a policy that handles the
// error, such as a dlq.Queue or Faults with Done, the Consumer stops with it.
//
// A step of a saga is a request like any other; [Method.HandlerUndo] takes those
// that undo one.
//
// # Asking
//
//	caller := &reqreply.Caller{Client: cl}
//	go caller.Run(ctx)
//	user, err := GetUser.Call(ctx, caller, "user1")
//
// The deadline of the context travels with the request, and a server skips requests
// that nobody waits for any more. [Method.Gather] collects the answers of several
// groups, [Method.Stream] reads an answer of many values.
//
// # Looking
//
// A [Service] among the policies counts what handlers do, and [Services] asks for
// it: which instances there are, which version each of them is, how long the
// question took, and what became of the requests of each Method. The question goes
// to a topic that every instance reads, from its end and without a group, beside
// its requests; no handler is called.
//
//	users := &reqreply.Service{Name: "users", Version: "1.2.0", Topic: reqreply.ServicesTopic}
//	found, err := reqreply.Services(ctx, caller, reqreply.ServiceQuery{Name: "users"})
//
// There is no such question in the topic of a Method, because a server in another
// language would take it for a request and handle it. ServiceQuery.Method asks for
// those that serve a Method, and with [Method].Group set a call finds out at once
// that there is nobody.
//
// A call is a span "call <topic>", the parent of what wherry.Telemetry makes of
// its request. Metrics, by OpenTelemetry's API, with the topic as
// messaging.destination.name, what became of it as wherry.outcome, and at
// servers the group as messaging.consumer.group.name:
//
//	wherry.reqreply.call.duration     s, of calls: ok, fault, timeout, no_responder, busy, ended, canceled, failed
//	wherry.reqreply.active_calls      calls that wait (no outcome)
//	wherry.reqreply.stray_replies     replies that no call took: late, unknown; by the reply topic
//	wherry.reqreply.requests          at servers: answered, fault, failed, expired, refused, repeated; event
//	wherry.reqreply.handler.duration  s, of handlers: answered, fault, failed, expired; event
//
// A fault is an [*Error]: an answer. Failed is each attempt that went to the
// policies; where [Faults] answers in the end, that is a fault besides.
//
// # On the wire
//
// The headers are those of NestJS 12 by default, so that either side may be a
// NestJS service: its ClientKafka.send calls a Handler, and Call calls its
// @MessagePattern. Values travel as [Text] has them. [Spring] is the [Profile]
// for Spring Kafka, and any names can be set.
//
//	kafka_correlationId      on both: which request it is
//	kafka_replyTopic         on a request: where to answer to
//	kafka_replyPartition     on a request: decimal text, or an int32 (Spring)
//	kafka_nest-err           on a reply that is an error: text or JSON
//	kafka_nest-is-disposed   on the last reply
//	wherry-deadline          on a request: RFC 3339, after it nobody waits
//	wherry-request-id        on a request: see Method.ID
//	wherry-reply-group       on a reply: whose answer it is
//	wherry-reply-seq         on a reply of a stream: its number, from 0
//
// # What is promised
//
//   - A reply is not missed: its partition is read from an offset that was known
//     before the request was sent. It is lost only with what Kafka loses.
//   - A call ends: with its answer, at its deadline, or at once with the Caller.
//   - A Consumer that is at least once may handle and answer a request twice; the
//     second answer is ignored, and counted as late. With wherry.ExactlyOnce the
//     effects in Kafka and the answer are there once, and with [Method].Dedupe a
//     request that is sent again is not handled again.
//   - A call that failed may have been handled, or may still be, except after
//     [ErrNoResponder] and [ErrBusy].
//   - A request cannot have a server write to a topic that it does not allow, nor
//     stop it by naming one that does not exist. (One that is deleted within
//     seconds of its last use may still be written to: that is a refused output,
//     which goes to the policies. Faults with Done bears it.)
//   - Bounded: calls in hand, replies that wait, headers that are echoed.
package reqreply
