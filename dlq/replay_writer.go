package dlq

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/wherry-go/wherry/internal/client"
	"github.com/wherry-go/wherry/internal/txn"
)

// ReplayID returns the transactional id that the runs over a dead-letter topic
// produce with. One alone has it at a time: who opens it ends what the others
// have left open, and nothing that they still send is taken. It needs WRITE and
// DESCRIBE, where a cluster asks for it.
func ReplayID(deadLetters string) string { return deadLetters + ".replay" }

const (
	// retryPause is for how long a run waits before it tries again what a broker
	// did not do.
	retryPause = 250 * time.Millisecond
	// shownWithin is how long the end of a run waits at most until readers see
	// its last transaction.
	shownWithin = 5 * time.Second
	// maxFenced is how often in a row a run opens its transactional id anew when
	// it is fenced, by brokers after txn.Timeout or by somebody who is no run.
	maxFenced = 20
)

// ready sees to it that there is a writer, and that what former ones did is
// known.
func (s *settler) ready() error {
	for told := false; s.w == nil; told = true {
		err := s.open()
		switch {
		case err == nil:
			return nil
		case s.ctx.Err() != nil:
			return context.Cause(s.ctx)
		case !passing(err):
			return err
		case !told:
			s.j.log.WarnContext(s.ctx, "dlq: opening a producer failed, trying again", "topic", s.j.r.Topic, "error", err)
		}
		if err := s.pause(); err != nil {
			return err
		}
	}
	return nil
}

func (s *settler) pause() error {
	select {
	case <-s.ctx.Done():
		return context.Cause(s.ctx)
	case <-time.After(retryPause):
		return nil
	}
}

// passing reports whether waiting may mend what opening failed for.
func passing(err error) bool {
	return txn.Judge(err) == txn.Passing && !client.Permanent(err) &&
		!errors.Is(err, ErrTakenOver) && !errors.Is(err, kerr.InvalidTransactionTimeout)
}

// open opens the writer, unless another run has taken over, and reads the
// ledger to the end that it has then. So it knows all that former producers of
// the id have committed: their open transactions are decided, and they make no
// more.
func (s *settler) open() error {
	lost, err := s.lead.lost(s.ctx)
	if err != nil {
		return err
	}
	if !lost {
		w, err := txn.Open(s.ctx, s.j.r.Client, s.j.r.Opts, ReplayID(s.j.r.Topic))
		if err != nil {
			return s.explain(err)
		}
		once := sync.OnceFunc(w.Close)
		stop := context.AfterFunc(s.ctx, once) // what waits for a broker then ends
		s.w, s.close = w, func() { stop(); once() }
	}
	if err := s.j.ledger.catchUp(s.ctx, s.j.scan, s.j.cl, s.j.view, true); err != nil {
		s.drop()
		return err
	}
	if lost {
		return ErrTakenOver
	}
	return nil
}

// explain adds to a refusal what it takes to mend it.
func (s *settler) explain(err error) error {
	if errors.Is(err, kerr.TransactionalIDAuthorizationFailed) {
		return fmt.Errorf("a replay is in transactions: grant WRITE and DESCRIBE on the transactional id %s: %w", ReplayID(s.j.r.Topic), kerr.TransactionalIDAuthorizationFailed)
	}
	return err
}

// drop closes the writer.
func (s *settler) drop() {
	if s.w != nil {
		s.close()
		s.w = nil
	}
}

// finish closes the writer and waits until readers see what it has committed:
// brokers answer a commit before they have told all partitions of it, and let
// nobody open the transactional id until they have.
func (s *settler) finish() {
	if s.w == nil {
		return
	}
	s.drop()
	if !s.wrote {
		return
	}
	ctx, cancel := context.WithTimeout(s.ctx, shownWithin)
	defer cancel()
	if w, err := txn.Open(ctx, s.j.r.Client, s.j.r.Opts, ReplayID(s.j.r.Topic)); err == nil {
		w.Close()
	}
}

// spoiled drops a writer in whose transaction something went wrong that is not
// a record's fault, before its end was asked for. Opening the next one aborts
// that. It returns errAgain, or why the run cannot go on.
func (s *settler) spoiled(why error) error {
	s.drop()
	if s.ctx.Err() != nil {
		return context.Cause(s.ctx)
	}
	if client.Permanent(why) {
		return s.explain(why)
	}
	if isFenced(why) {
		if s.fenced++; s.fenced > maxFenced {
			return fmt.Errorf("somebody who is no Replayer uses the transactional id %s, or it takes longer than %v to write one letter: %w",
				ReplayID(s.j.r.Topic), txn.Timeout, why)
		}
		return errAgain // ready tells whether it was another run
	}
	s.j.log.WarnContext(s.ctx, "dlq: a transaction failed, trying again", "topic", s.j.r.Topic, "error", why)
	if err := s.pause(); err != nil {
		return err
	}
	return errAgain
}

func isFenced(err error) bool {
	return slices.ContainsFunc([]error{kerr.ProducerFenced, kerr.InvalidProducerEpoch}, func(e error) bool { return errors.Is(err, e) })
}

// uncertain finds out whether a transaction was committed whose commit returned
// an error. It returns nil if it was, and otherwise as spoiled does.
func (s *settler) uncertain(items []item, why error) error {
	read := false
	err := s.spoiled(why)
	if errors.Is(err, errAgain) {
		err = s.ready()
		read = err == nil || errors.Is(err, ErrTakenOver)
	}
	if !read {
		return errors.Join(err, errUnsettled)
	}
	if ours, _ := s.j.ledger.since(items[0].place); ours {
		return nil // and whether the run can go on, the next transaction finds out
	}
	return cmp.Or(err, errAgain)
}
