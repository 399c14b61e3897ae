package retry

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
)

// Topics tries again by way of delay topics: a record that failed is written to
// the topic <topic>.<group>.retry.<delay>, read from there when it is due, and
// handled as the record that it was, with its topic, partition, offset,
// timestamp and headers. The Consumer makes the delay topics, and reads them
// beside its own. A Consumer has one Topics at most.
//
//   - No lost hand-off: the record counts as done only when its copy in the
//     delay topic is acknowledged, or committed with it. After a crash in
//     between it is there twice.
//   - Never early: a record is handled after its due time, by the clock of the
//     process that reads it; the due time was written by the clock of the one
//     that failed. Where the two differ, the wait differs by as much.
//   - Attempts, deadline and due time are in headers (wherry-retry-*, replaced
//     at each hop, so they do not grow) and outlive restarts and rebalances.
//   - A record of a delay topic whose headers are missing or garbled is a
//     [*wherry.RecordError] of cause undecodable, at once. One of another group
//     is passed by if the group has a delay topic of that name, and else
//     undecodable as well.
//
// Records of one delay wait for each other, so they are due in the order of
// their topic; where waits were equal but for clocks and latencies, a record
// may wait for the one before it by that difference.
//
// Delay topics are named after their delays. When a change of the Policy does
// away with one, name its delay in Former until it is empty.
type Topics struct {
	// Policy has attempts and waits. Each of its different waits, rounded up to
	// milliseconds, is a topic, at most 20. It must not have Jitter: records of
	// one topic are to be due one after the other.
	//
	// A wait asked for with [After] is made up of the policy's: with topics of
	// 1s, 10s and 1m, 71s are a hop by way of each. So a wait that is many
	// times the longest takes as many hops; a [Rule] with such a wait gives it
	// a topic of its own.
	Policy Policy
	// KeepOrder sends later records of a key behind one that waits; see the
	// package documentation. It costs a further topic and a small record for
	// each that waits. The Consumer's Order must be ByKey or ByPartition, and
	// the delay topics have as many partitions as the topic.
	KeepOrder bool
	// Spec has settings for the delay topics: ReplicationFactor, Config, and
	// Partitions, 0 for as many as the origin's topic has. max.message.bytes
	// must allow for 2 KiB of headers more than there. Kept are records for 7
	// days, or for 7 days more than a delay of over one, unless Config has
	// another retention.ms.
	Spec wherry.TopicSpec
	// Name names a delay topic. It must be pure, and another name for each
	// topic, group and delay, where delay is written as 500ms, 1m30s or 2h.
	// nil means topic + "." + group + ".retry." + delay.
	Name func(topic, group, delay string) string
	// Former are delays of an earlier Policy, whose topics are still read.
	Former []time.Duration
}

func (t Topics) name(topic, group, delay string) string {
	if t.Name != nil {
		return t.Name(topic, group, delay)
	}
	return topic + "." + group + ".retry." + delay
}

type runKey struct{}

// run is what the calls of one Run share.
type run struct {
	hops   map[string]hop    // by the name of the topic
	queues map[string]*queue // by the topic that they are of, with KeepOrder
	stay   bool              // hops keep the number of the partition
}

// Wrap returns next with the attempts around it, for a Consumer's Policies.
// It returns nil for a record that is to be tried again. Elsewhere than in a
// Consumer that was prepared it only calls next.
func (t Topics) Wrap(next wherry.Handler) wherry.Handler {
	tiers, _ := t.Policy.tiers() // Prepare reports the error
	return func(ctx context.Context, r *kgo.Record) error {
		run, ok := ctx.Value(runKey{}).(*run)
		if !ok {
			return next(ctx, r)
		}
		v := &visit{Topics: t, tiers: tiers, stay: run.stay, r: r, trip: tripOf(r, wherry.GroupFrom(ctx)), began: time.Now()}
		if from := wherry.HopFrom(ctx); from != nil {
			if h, ok := run.hops[from.Topic]; ok {
				t, mine, err := h.read(from)
				switch {
				case err != nil:
					if known := next(ctx, r); known != nil {
						return known // the Consumer says the same
					}
					return &wherry.RecordError{Cause: wherry.CauseUndecodable, Err: err}
				case !mine:
					return nil
				}
				v.trip, v.hop = t, &h
			}
		}
		v.lineUp(ctx, run.queues[v.trip.topic])
		return v.handle(ctx, next)
	}
}

// visit is one call of Wrap's handler.
type visit struct {
	Topics
	tiers []tier
	stay  bool
	r     *kgo.Record // as read from its own topic
	hop   *hop        // by which it came; nil if by none
	trip  trip
	began time.Time

	// With KeepOrder and a key, else nil and zero.
	key   []byte
	queue *queue
	at    place
	line  line // zero until it is asked for
}

func (v *visit) handle(ctx context.Context, next wherry.Handler) error {
	if wherry.Refused(ctx) == nil { // else the copy itself was refused, and would be again
		if waits, err := v.wait(ctx); waits {
			return err
		}
		if v.trip.until.After(v.began) {
			return v.send(ctx, v.began, v.trip.until.Sub(v.began))
		}
	}
	if end := v.trip.deadline; !end.IsZero() && end.Before(v.began) {
		return v.fail(ctx, wherry.CauseExpired, "", fmt.Errorf("the time of its attempts was over at %v, the last one ended with: %s", end.Format(time.RFC3339), v.trip.err))
	}
	err := next(wherry.WithAttempt(ctx, v.trip.attempts+1), v.r)
	switch {
	case wherry.Interrupted(ctx):
		return err
	case err == nil:
		return v.leave(ctx)
	}
	f := failureOf(v.r, err)
	v.note(f)
	left := time.Duration(math.MaxInt64)
	if !v.trip.deadline.IsZero() {
		left = time.Until(v.trip.deadline)
	}
	wait, cause := v.Policy.next(v.trip.round, left, f)
	if cause != "" {
		return v.fail(ctx, cause, f.stack, f.err)
	}
	if err := v.send(ctx, time.Now(), wait); err != nil {
		if wherry.Interrupted(ctx) {
			return err
		}
		cause = wherry.CauseExhausted
		if _, refused := errors.AsType[*wherry.OutputError](err); refused {
			cause = wherry.CauseRejected
		}
		return v.fail(ctx, cause, f.stack, fmt.Errorf("%w; not tried again: %w", f.err, err))
	}
	logRetry(ctx, v.r, v.trip.attempts, wait, f.err)
	return nil
}

// note adds a failure to the trip.
func (v *visit) note(f failure) {
	t := &v.trip
	t.attempts = max(t.attempts+1, f.attempts)
	t.round++
	t.err = f.err.Error()
	if t.round == 1 {
		t.first = f.first
		if v.Policy.Within > 0 {
			t.deadline = v.began.Add(v.Policy.Within)
		}
	}
}

// fail returns the error with which no further attempt is made.
func (v *visit) fail(ctx context.Context, cause wherry.Cause, stack string, err error) error {
	e := &wherry.RecordError{Cause: cause, Attempts: v.trip.attempts, Stack: stack, Err: err}
	if e.Attempts > 1 {
		e.First = v.trip.first
	}
	_ = v.leave(ctx) // there is room for it: the handler's outputs were dropped
	return e
}

// send stages the record, which has failed, for the delay topic where it waits
// from now on, or for a part of the time.
func (v *visit) send(ctx context.Context, now time.Time, wait time.Duration) error {
	to := pick(v.tiers, wait)
	if v.queue != nil && v.hop == nil {
		to = v.tiers[0] // all go home first
	}
	due, until := now.Add(to.delay), now.Add(wait)
	if !until.After(due) {
		due, until = until, time.Time{}
	}
	return v.stage(ctx, to, v.trip, due, until)
}

// stage stages the record for a delay topic.
func (v *visit) stage(ctx context.Context, to tier, t trip, due, until time.Time) error {
	t.due, t.until = due, until
	out := &kgo.Record{Topic: v.name(t.topic, t.group, to.label), Key: v.r.Key, Value: v.r.Value, Headers: v.r.Headers}
	t.write(out)
	if v.queue != nil {
		return v.publish(ctx, out, t)
	}
	if v.stay {
		wherry.ToPartition(out, t.partition)
	}
	return wherry.Publish(ctx, out)
}
