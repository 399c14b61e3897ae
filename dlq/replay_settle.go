package dlq

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/internal/txn"
)

// settler settles letters: their copies and their marks in the ledger are one
// transaction. It works for one goroutine at a time.
type settler struct {
	j      *job
	ctx    context.Context //nolint:containedctx // of the run, and of what is in hand at its end
	lead   *lead
	w      *txn.Writer // nil before the first transaction, and when it is of no use any more
	close  func()
	wrote  bool // a transaction was committed
	fenced int  // how often in a row the writer was found fenced
	doubts int  // how often in a row the ledger refused marks for no clear reason
}

// maxDoubts is how often a ledger that refuses marks for no clear reason is asked
// again.
const maxDoubts = 10

// outcome is what came of letters that were to be settled.
type outcome struct {
	done    []item // committed
	refused []refusal
	passed  []item // another run has decided about them meanwhile
	left    []item // not decided about, because of err
	unknown []item // of one transaction, of which err is why it is not known
	err     error  // the run cannot go on
	most    int    // no more letters than this should be in a transaction
}

// refusal is a letter whose copy a broker does not take.
type refusal struct {
	item
	err error
}

// settle settles letters, in transactions as few as can be.
func (s *settler) settle(items []item) *outcome {
	out := &outcome{most: math.MaxInt}
	out.err = s.some(items, out)
	return out
}

// some settles letters that may be in one transaction.
func (s *settler) some(items []item, out *outcome) error {
	for doubts := 0; ; {
		if err := s.ready(); err != nil {
			out.left = append(out.left, items...)
			return err
		}
		items = slices.DeleteFunc(slices.Clone(items), func(it item) bool {
			_, theirs := s.j.ledger.since(it.place)
			if theirs {
				out.passed = append(out.passed, it)
			}
			return theirs
		})
		if len(items) == 0 {
			return nil
		}
		faults, err := s.try(items)
		switch {
		case errors.Is(err, errLess), errors.Is(err, errAgain) && s.fenced > 1 && len(items) > 1: // it takes longer than brokers allow
			out.most = min(out.most, len(items)/2)
			return s.parts(out, items[:len(items)/2], items[len(items)/2:])
		case errors.Is(err, errAgain):
			continue
		case errors.Is(err, errUnsettled):
			out.unknown = items
			return err
		case err != nil:
			out.left = append(out.left, items...)
			return err
		case faults == nil:
			s.fenced = 0
			out.done = append(out.done, items...)
			return nil
		}
		// The transaction is aborted. A topic that takes nothing is to blame for
		// each of its letters, other refusals may be for a neighbour's sake: who
		// is alone in being refused is to blame, others are tried in two parts.
		var suspects []int
		var rest []item
		for i, it := range items {
			switch fault := faults[i]; {
			case fault != nil && wholeTopic(fault):
				out.refused = append(out.refused, refusal{it, fault})
				continue
			case fault != nil:
				suspects = append(suspects, len(rest))
			}
			rest = append(rest, it)
		}
		switch n := len(suspects); {
		case n == 0:
		case n == 1 && (doubts > 0 || txn.Judge(alone(faults)) == txn.Refused):
			i := suspects[0]
			out.refused = append(out.refused, refusal{rest[i], alone(faults)})
			rest = slices.Delete(rest, i, i+1)
		case len(rest) == 1:
			doubts++
		case n == 1:
			return s.parts(out, rest[:suspects[0]], rest[suspects[0]:suspects[0]+1], rest[suspects[0]+1:])
		default:
			return s.halves(out, rest, suspects[n/2], alone(faults))
		}
		items = rest
	}
}

// alone returns the one error that is not a whole topic's.
func alone(faults []error) error {
	i := slices.IndexFunc(faults, func(err error) bool { return err != nil && !wholeTopic(err) })
	return faults[i]
}

// parts settles some letters after others.
func (s *settler) parts(out *outcome, parts ...[]item) error {
	var err error
	for _, p := range parts {
		if err != nil {
			out.left = append(out.left, p...)
		} else if len(p) > 0 {
			err = s.some(p, out)
		}
	}
	return err
}

// halves settles letters in two parts. If they were refused for nothing but
// their size together, later transactions are to have no more.
func (s *settler) halves(out *outcome, items []item, middle int, why error) error {
	before := len(out.refused)
	err := s.parts(out, items[:middle], items[middle:])
	if err == nil && tooLarge(why) && len(out.refused) == before {
		out.most = min(out.most, max(1, len(items)/2))
	}
	return err
}

var (
	errAgain = errors.New("nothing was committed: try again")
	errLess  = errors.New("nothing was committed: try with fewer letters")
	// errUnsettled is in the error of a run that ended before it knew whether
	// its last transaction was committed.
	errUnsettled = errors.New("whether the last letters are done is not known: another run finds out")
)

// try makes one transaction of letters. It returns nothing when that is
// committed; what the copies were refused with when it was aborted for that;
// errAgain or errLess when it was aborted; or why the run cannot go on.
func (s *settler) try(items []item) (faults []error, err error) {
	if err := s.w.Begin(); err != nil {
		return nil, s.spoiled(err)
	}
	copies := make([]*kgo.Record, 0, len(items))
	for i := range items {
		it := &items[i]
		if it.copy == nil {
			continue
		}
		if c := it.copy; it.tried {
			it.copy = &kgo.Record{Topic: c.Topic, Key: c.Key, Value: c.Value, Headers: c.Headers, Timestamp: c.Timestamp}
		}
		it.tried = true
		copies = append(copies, it.copy)
	}
	if errs := s.w.Produce(s.ctx, copies); errs != nil {
		return s.refused(items, errs)
	}
	all := make([]marked, len(items))
	for i, it := range items {
		all[i] = it.marked
	}
	d := Decision{At: time.Now().UTC(), By: s.j.by, Why: s.j.r.Why, Run: s.j.report.Run}
	marks, err := markRecords(s.j.r.Topic, s.j.view.id, all, d)
	if err != nil {
		return nil, err
	}
	if errs := s.w.Produce(s.ctx, marks); errs != nil {
		return nil, s.unmarked(errs, len(items))
	}
	if err := s.w.Commit(s.ctx, append(copies, marks...)); err != nil {
		return nil, s.uncertain(items, err)
	}
	s.j.ledger.wrote(marks)
	s.doubts, s.wrote = 0, true
	return nil, nil
}

// unmarked aborts a transaction whose marks the ledger did not take.
func (s *settler) unmarked(errs []error, letters int) error {
	faults, err := s.refused(nil, errs)
	if faults == nil {
		return err
	}
	why := faults[0]
	switch {
	case tooLarge(why) && letters > 1:
		return errLess
	case txn.Judge(why) == txn.Doubtful && s.doubts < maxDoubts:
		s.doubts++
		if err := s.pause(); err != nil {
			return err
		}
		return errAgain
	}
	return fmt.Errorf("the ledger %s does not take marks, and without them nothing is copied: %w", LedgerTopic(s.j.r.Topic), why)
}

// refused aborts a transaction in which records failed, which are the copies of
// items, or those of the ledger. It returns the errors that are about the
// records, by item; none if there are none.
func (s *settler) refused(items []item, errs []error) (faults []error, err error) {
	var other error
	about := func(err error) bool {
		if err == nil {
			return false
		}
		if txn.Judge(err) == txn.Passing {
			other = err
			return false
		}
		return true
	}
	if items == nil {
		if i := slices.IndexFunc(errs, about); i >= 0 {
			faults = errs[i : i+1]
		}
	} else {
		var some bool
		faults = make([]error, len(items))
		nth := 0
		for i, it := range items {
			if it.copy == nil {
				continue
			}
			if err := errs[nth]; about(err) {
				faults[i], some = err, true
			}
			nth++
		}
		if !some {
			faults = nil
		}
	}
	if faults == nil {
		return nil, s.spoiled(other)
	}
	if err := s.w.Abort(s.ctx); err != nil {
		return nil, s.spoiled(err)
	}
	return faults, nil
}

func tooLarge(err error) bool {
	return errors.Is(err, kerr.MessageTooLarge) || errors.Is(err, kerr.RecordListTooLarge)
}

// wholeTopic reports whether a refusal is about the topic, not about a record.
func wholeTopic(err error) bool {
	return slices.ContainsFunc([]error{
		kerr.TopicAuthorizationFailed, kerr.UnknownTopicOrPartition, kerr.UnknownTopicID, kerr.InvalidTopicException,
	}, func(e error) bool { return errors.Is(err, e) })
}
