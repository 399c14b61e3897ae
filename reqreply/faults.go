package reqreply

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
)

// Faults is a [wherry.Policy] that answers requests which could not be handled with
// an error, so that their callers do not wait for the deadline, and then returns the
// error. It belongs outside the policies that retry and inside those that keep the
// request:
//
//	Policies: []wherry.Policy{
//		wherry.Telemetry{},
//		&dlq.Queue{Topic: "users.dlq"}, // gets the request that failed
//		reqreply.Faults{},              // its caller gets an error
//		retry.Policy{Attempts: 3},
//	}
//
// The answer is sent only if a policy outside handles the error, or with Done. Its
// code is the [wherry.Cause]; its message says no more than that (unless the request
// does not decode), since what went wrong inside a service is not for its callers.
// A caller that has stopped waiting gets no answer, and records that are no requests
// are left to the other policies.
type Faults struct {
	// Done is for servers without dead letters: Faults logs the error and returns
	// nil, so that the record is done, even if nobody waits for the answer any more
	// or the answer itself was refused, say because its topic was deleted. With
	// false the error is returned, and the Consumer stops with it if no policy
	// outside handles it.
	Done bool
	// Error returns what is answered to an error. nil, and an Error that is nil,
	// mean the default. It must be safe for concurrent use.
	Error func(err error) *Error
}

// Wrap returns next with the answers to its errors around it.
func (f Faults) Wrap(next wherry.Handler) wherry.Handler {
	return func(ctx context.Context, r *kgo.Record) error {
		err := next(ctx, r)
		if err == nil || wherry.Interrupted(ctx) {
			return err
		}
		s := runningFrom(ctx, r)
		if s == nil {
			return err
		}
		a, invalid := s.names.address(r)
		if invalid != nil || !a.asks() {
			return err
		}
		if !a.awaited(time.Now()) {
			return f.end(ctx, s, r, err, false)
		}
		for s.answers(ctx, &a) != nil { // the Methods of a topic may allow different ones
			if s.before == nil {
				return f.end(ctx, s, r, err, false)
			}
			s = s.before
		}
		answer := f.faultOf(err)
		if refused, ok := errors.AsType[*wherry.OutputError](err); ok && refused.Topic == a.topic {
			if !tooLargeFor(refused) { // nor would this one be taken
				s.reach.forget(a.topic)
				return f.end(ctx, s, r, err, false)
			}
			answer = tooLarge(refused)
		}
		if unsent := s.stage(ctx, r, &a, []*kgo.Record{s.faultRecord(answer)}); unsent != nil {
			return errors.Join(err, unsent)
		}
		s.count(ctx, fault, 0)
		return f.end(ctx, s, r, err, true)
	}
}

// end returns err, or makes an end of it.
func (f Faults) end(ctx context.Context, s *running, r *kgo.Record, err error, told bool) error {
	if f.Done {
		s.log.ErrorContext(ctx, "reqreply: a request failed", "caller was told", told, "topic", r.Topic, "partition", r.Partition, "offset", r.Offset, "error", err)
		return nil
	}
	return err
}

func (f Faults) faultOf(err error) *Error {
	if f.Error != nil {
		if e := f.Error(err); e != nil {
			return e
		}
	}
	return faultOf(err)
}

func tooLargeFor(refused *wherry.OutputError) bool {
	return errors.Is(refused, kerr.MessageTooLarge) || errors.Is(refused, kerr.RecordListTooLarge)
}
