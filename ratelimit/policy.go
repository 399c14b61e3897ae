package ratelimit

import (
	"context"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
)

// Wrap returns next with a wait before it, for a Consumer's Policies: a record
// is handled when its key has room. While it waits it keeps its place and gives
// its slot away, see wherry.Wait. With Order [wherry.ByKey] what must come after
// it waits too and others flow on, so that a noisy tenant waits in his own lane;
// with ByPartition it holds up its partition.
//
// Outside of a retry.Policy each record is counted once, inside of it each
// attempt. Waits end when the Consumer stops or loses the partition; the record
// comes again, and is counted when it is handled. A record that would have to
// wait longer than the Consumer's MaxWait is not handled: the [*LimitError]
// goes to the policies outside, of which retry.Topics keeps the record for as
// long as needed. So does the error of a store that does not answer, unless
// FailOpen, and a [*CostError], which is permanent.
func (l *Limiter) Wrap(next wherry.Handler) wherry.Handler {
	return func(ctx context.Context, r *kgo.Record) error {
		if wherry.Refused(ctx) != nil { // it was handled, and is not again
			return next(ctx, r)
		}
		cost := 1
		if l.Cost != nil {
			cost = l.Cost(r)
		}
		if cost != 0 {
			if err := l.WaitFor(ctx, l.keyOf(r), cost); err != nil {
				return err
			}
		}
		return next(ctx, r)
	}
}

// Prepare checks the Limiter's fields.
func (l *Limiter) Prepare(*wherry.Setup) error { return l.Check() }

func (l *Limiter) keyOf(r *kgo.Record) string {
	if l.Key != nil {
		return l.Key(r)
	}
	return string(r.Key)
}
