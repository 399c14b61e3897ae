package wherry

import (
	"context"
	"errors"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/wherry-go/wherry/internal/txn"
)

// refused decides what the errors of a transaction's outputs mean. kgo fails
// all records of a produce batch for the sake of one, so those that failed are
// suspects, and are tried fewer at a time until one is alone. Where the error is
// about a topic, all to that topic are to blame.
func (x *exact) refused(ctx context.Context, pl *plan, errs []error) error {
	var suspects []*entry
	found, blamed := map[*entry]*OutputError{}, map[*entry]bool{}
	certain := false
	at := 0
	for _, e := range pl.entries {
		for _, out := range e.outputs {
			err := errs[at]
			at++
			if err == nil {
				continue
			}
			verdict := txn.Judge(err)
			if verdict == txn.Passing {
				return x.failed(ctx, "outputs were not produced", err)
			}
			if found[e] == nil {
				suspects = append(suspects, e)
			}
			if ofTopic := txn.OfTopic(err); found[e] == nil || ofTopic {
				blamed[e] = blamed[e] || ofTopic
				found[e] = &OutputError{Topic: out.Topic, Key: out.Key, Size: size(out), Err: err}
				certain = certain || verdict == txn.Refused
			}
		}
	}
	if len(blamed) > 0 && x.refuseAll(suspects, blamed, found) {
		return nil
	}
	x.most = max(1, len(suspects)/2)
	for _, e := range suspects {
		e.suspect = true
	}
	if len(suspects) > 1 {
		return nil
	}
	const tries = 3
	e := suspects[0]
	if err := found[e].Err; len(e.outputs) > 1 && !e.apart && (errors.Is(err, kerr.MessageTooLarge) || errors.Is(err, kerr.RecordListTooLarge)) {
		e.apart = true // kgo puts what goes to one partition into one batch
		return nil
	}
	if e.doubts++; certain || len(pl.entries) == 1 && e.doubts >= tries {
		x.refuse(e, found[e])
	}
	return nil
}

// refuseAll refuses those that are to blame, but for what stands behind one of
// them and runs again anyway. It reports whether any was.
func (x *exact) refuseAll(suspects []*entry, blamed map[*entry]bool, found map[*entry]*OutputError) (some bool) {
	for _, e := range suspects {
		if !blamed[e] {
			continue
		}
		x.mu.Lock()
		stale := x.stale(e)
		x.mu.Unlock()
		if !stale {
			x.refuse(e, found[e])
			some = true
		}
	}
	return some
}

// refuse hands an entry back whose outputs the brokers refuse. What it wrote to
// tables is rolled back, and all run again that rest on it.
func (x *exact) refuse(e *entry, err *OutputError) {
	i := slices.Index(x.batch, e)
	x.batch = slices.Delete(x.batch, i, i+1)
	x.spoil(e)
	if e.writes {
		n := e.p.partition
		beside := x.run.owned()
		x.mu.Lock()
		x.rollback(n, append(beside, e.p))
		for _, before := range x.batch[:i] {
			if before.rests && before.p.partition == n && !before.p.lane.WasCut() {
				before.state, before.era = x.tables.state(n), before.p.lane.Era()
				before.writes = x.tables.write(n, before.outputs)
			}
		}
		x.mu.Unlock()
	}
	e.end(err)
	if e.it.Refused != nil { // the outputs of the second run were refused as well
		x.run.cannot(e.p.topicPartition, e.it, &RecordError{Cause: CauseRejected, Err: err})
		return
	}
	e.d.interrupted.Store(true) // nothing came of this run
	e.it.Again(err)
}

// spoil has all that stands behind e in its line, and has joined, run again.
func (x *exact) spoil(e *entry) {
	id, place, ok := e.it.Line()
	if !ok {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, after := range slices.Concat(x.batch, x.open) {
		if other, at, ok := after.it.Line(); ok && after.p == e.p && other == id && at > place {
			after.void = true
		}
	}
	x.run.progressed()
}

// try finds out about a suspect that is not committed by itself, because finished
// sets have no room: it waits for others, and they may wait for what it hides. The
// transaction is aborted in any case.
func (x *exact) try(ctx context.Context, e *entry) error {
	ctx, cancel := context.WithTimeout(ctx, 2*txn.Timeout)
	defer cancel()
	w, err := x.producer(ctx)
	if err == nil {
		err = w.Begin()
	}
	if err != nil {
		return x.failed(ctx, "no transaction can be begun", err)
	}
	pl := &plan{entries: []*entry{e}, outputs: e.outputs}
	x.begin(pl)
	errs := produced(ctx, w, pl)
	x.abort(ctx)
	if errs != nil {
		return x.refused(ctx, pl, errs)
	}
	e.suspect, e.apart = false, true // or it would be one again for the sake of others
	return nil
}
