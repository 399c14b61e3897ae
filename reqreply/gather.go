package reqreply

import (
	"context"
	"errors"
	"fmt"
	"iter"
)

// maxReplies is how many replies may wait to be taken by Gather or Stream.
const maxReplies = 10_000

// Result is one of the answers to [Method.Gather]: a value, or the error that
// one of those asked answered, or an answer that does not decode.
type Result[Resp any] struct {
	Value Resp
	Err   error
	// Group is the consumer group that answered, where it said so: handlers of
	// this package do.
	Group string
}

// Gather sends req and returns the answers of up to n who are asked: each
// consumer group that reads the topic answers for itself. It returns when there
// are n, or at the deadline of ctx (or of Timeout). n 0 means all until then.
//
// With fewer than n it returns what there is and the error of ctx. A group that
// answers twice, as one may after a crash, counts once where it says who it is.
// Of a stream the first value is taken.
func (m Method[Req, Resp]) Gather(ctx context.Context, caller *Caller, req Req, n int) (results []Result[Resp], err error) {
	if n < 0 {
		return nil, fmt.Errorf("gather %s: n is %d", m.Topic, n)
	}
	c, err := m.ask(ctx, caller, req, maxReplies)
	if err != nil {
		return nil, fmt.Errorf("gather %s: %w", m.Topic, err)
	}
	defer func() { c.end(err) }()
	from := map[string]bool{}
	for n == 0 || len(results) < n {
		got, err := c.next()
		if err != nil {
			if n == 0 && errors.Is(err, context.DeadlineExceeded) {
				return results, nil
			}
			return results, fmt.Errorf("gather %s: %d answers: %w", m.Topic, len(results), err)
		}
		group := string(got.group)
		if group != "" {
			if from[group] {
				continue
			}
			from[group] = true
		}
		v, err := m.read(c, got)
		results = append(results, Result[Resp]{Value: v, Err: err, Group: group})
	}
	return results, nil
}

// Stream sends req and ranges over the answer's values, up to the one that is
// marked as the last. An error comes last, alone: that of the server, or why no
// more values come. What [Method.StreamHandler] sends and what a NestJS handler
// that returns an Observable sends are such streams; so is a single answer, but
// a null one, which has no values.
//
// The deadline of ctx, or of Timeout, is that of the whole stream, also where
// values wait. Up to 10,000 may; a loop that ends early leaves the others.
//
// A server that crashed may send its values again from the first: those of
// StreamHandler have numbers, and what has been here is passed over.
func (m Method[Req, Resp]) Stream(ctx context.Context, caller *Caller, req Req) iter.Seq2[Resp, error] {
	return func(yield func(Resp, error) bool) {
		var zero Resp
		c, err := m.ask(ctx, caller, req, maxReplies)
		if err != nil {
			yield(zero, fmt.Errorf("stream %s: %w", m.Topic, err))
			return
		}
		defer func() { c.end(err) }()
		next := int64(0)
		for {
			var got answer
			got, err = c.next()
			if err == nil && c.limit.Err() != nil { // the loop is slower than the values
				err = whyOver(&c.limit)
			}
			if err != nil {
				err = fmt.Errorf("stream %s: %w", m.Topic, err)
				yield(zero, err)
				return
			}
			if got.seq >= 0 {
				if got.seq < next {
					continue
				}
				next = got.seq + 1
			}
			if !got.failed && got.end && got.record.Value == nil {
				return // the mark alone
			}
			var v Resp
			v, err = m.read(c, got)
			if !yield(v, err) || err != nil || got.end {
				return
			}
		}
	}
}
