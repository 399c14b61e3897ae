package dlq

import (
	"context"
	"fmt"
	"iter"
)

// Entry is a dead letter and what was decided about it.
type Entry struct {
	*Letter
	// Decision is what the ledger has, nil while nothing was decided.
	Decision *Decision
}

// List ranges over the letters that Select selects, to the end that the topic
// has at the call, those of a partition in its order. It writes nothing. Of the
// fields it needs Client and Topic, and minds Select, Ends, Opts and Logger:
// Select.Decided also lists what earlier runs decided.
//
// A letter that is garbled comes with what could be read of it and a
// [*LetterError]. Any other error comes alone and is the last. Letters without
// key and value (Missing) come as they are.
func (r *Replayer) List(ctx context.Context) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		j, err := r.open(ctx, true)
		if err != nil {
			yield(Entry{}, err)
			return
		}
		defer j.close()
		if err := j.ledger.catchUp(ctx, j.scan, j.cl, j.view, false); err != nil {
			yield(Entry{}, fmt.Errorf("dead letters of %s: %w", r.Topic, err))
			return
		}
		listed := 0
		for rec, err := range j.scan.records(ctx) {
			if err != nil {
				yield(Entry{}, fmt.Errorf("dead letters of %s: %w", r.Topic, err))
				return
			}
			l, garbled := Read(rec)
			if garbled != nil {
				garbled = &LetterError{rec.Topic, rec.Partition, rec.Offset, "", garbled}
			}
			decision := j.ledger.get(placeOf(l))
			if decision != nil && !r.Select.Decided || !r.Select.Match(l) {
				continue
			}
			listed++
			if !yield(Entry{l, decision}, garbled) || listed == r.Select.Limit {
				return
			}
		}
	}
}
