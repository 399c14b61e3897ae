package dlq

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// batch is the letters in hand: decided about, their copies on the way, and
// not marked yet. It is what becomes one transaction where copies and marks
// are to be exactly once.
type batch struct {
	j      *job
	items  []item
	copies *flight
	bytes  int
	began  time.Time // when the first letter came in
}

type item struct {
	letter *Letter
	action Action
	copy   *kgo.Record // nil where none is made
	nth    int         // of the copies
}

func newBatch(ctx context.Context, j *job) *batch {
	return &batch{j: j, copies: newFlight(ctx, j.out)}
}

// add takes in a letter and sends its copy.
func (b *batch) add(l *Letter, action Action, c *kgo.Record) {
	if len(b.items) == 0 {
		b.began = time.Now()
	}
	it := item{letter: l, action: action, copy: c}
	if c != nil {
		ended := b.j.tracing.begin(b.copies.ctx, l, c, action)
		it.nth = b.copies.send(c, ended)
		b.bytes += len(c.Key) + len(c.Value)
		for _, h := range c.Headers {
			b.bytes += len(h.Key) + len(h.Value)
		}
	}
	b.items = append(b.items, it)
}

func (b *batch) due() bool {
	return len(b.items) >= settleLetters || b.bytes >= settleBytes || b.ageAt(time.Now()) >= settleAfter
}

func (b *batch) ageAt(t time.Time) time.Duration {
	if len(b.items) == 0 {
		return 0
	}
	return t.Sub(b.began)
}

// settle waits until the copies in hand are decided upon and marks the letters
// whose copies were acknowledged. It returns an error if the run cannot go on.
func (j *job) settle(ctx context.Context) error {
	b := j.batch
	if len(b.items) == 0 {
		return nil
	}
	j.batch = newBatch(ctx, j)
	errs := b.copies.wait()
	var decided []item
	for _, it := range b.items {
		var err error
		if it.copy != nil {
			err = errs[it.nth]
		}
		if err != nil && refusedForOthers(err) && ctx.Err() == nil {
			again := newFlight(ctx, j.out)
			it.copy = resend(it.copy)
			again.send(it.copy, nil)
			err = again.wait()[0]
		}
		switch {
		case err == nil:
			decided = append(decided, it)
			j.count(it.action)
		case errors.Is(err, errUnsettled):
			j.report.Unsettled++
		default:
			j.fail(it.letter.Record, it.copy.Topic, err)
		}
	}
	err := j.mark(ctx, decided)
	j.progress()
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return err
}

// mark writes what was decided into the ledger.
func (j *job) mark(ctx context.Context, decided []item) error {
	// The copies are there: what can be marked is, also after ctx is done.
	marks := newFlight(context.WithoutCancel(ctx), j.out)
	marks.until = ctx
	now := time.Now().UTC()
	for _, it := range decided {
		d := Decision{Action: it.action, At: now, By: j.by, Why: j.r.Why, Run: j.report.Run}
		if it.copy != nil {
			d.To, d.ToPartition, d.ToOffset = it.copy.Topic, it.copy.Partition, it.copy.Offset
		}
		rec, err := markRecord(j.r.Topic, j.view.id, placeOf(it.letter), d)
		if err != nil {
			return err
		}
		marks.send(rec, nil)
	}
	var first error
	for i, err := range marks.wait() {
		if err == nil {
			continue
		}
		if first == nil {
			first = err
		}
		if decided[i].action == Discard { // nothing was done but the mark
			j.report.Discarded--
			j.fail(decided[i].letter.Record, "", err)
		} else {
			j.report.Unmarked++
		}
	}
	if first != nil && ctx.Err() == nil {
		return fmt.Errorf("the ledger %s does not take marks, what was copied without one would be copied again: %w", LedgerTopic(j.r.Topic), first)
	}
	return nil
}

// refusedForOthers reports whether a copy may have been refused for one that
// was in a batch with it.
func refusedForOthers(err error) bool {
	_, isKafka := errors.AsType[*kerr.Error](err)
	return isKafka && !slices.ContainsFunc([]error{
		kerr.TopicAuthorizationFailed, kerr.UnknownTopicOrPartition, kerr.UnknownTopicID, kerr.InvalidTopicException, kerr.ClusterAuthorizationFailed,
	}, func(e error) bool { return errors.Is(err, e) })
}

// resend returns a record that can be produced once more.
func resend(c *kgo.Record) *kgo.Record {
	return &kgo.Record{Topic: c.Topic, Key: c.Key, Value: c.Value, Headers: c.Headers, Timestamp: c.Timestamp}
}

// errUnsettled is the outcome of a record that was handed to the client and
// not decided upon when the run ended.
var errUnsettled = errors.New("sent, and not acknowledged in time: it may have been written")

// flight is records that were produced and are to be waited for together.
type flight struct {
	ctx   context.Context //nolint:containedctx // of the records, which live as long
	until context.Context //nolint:containedctx // when it is done, only grace is waited
	cl    *kgo.Client

	mu    sync.Mutex // never held over a call that blocks
	errs  []error
	left  int
	empty chan struct{} // closed when nothing is left; nil until wait
}

func newFlight(ctx context.Context, cl *kgo.Client) *flight {
	return &flight{ctx: ctx, until: ctx, cl: cl}
}

// send produces a record and returns its number. ended is called when its
// outcome is known; nil is none.
func (f *flight) send(r *kgo.Record, ended func(error)) (nth int) {
	f.mu.Lock()
	nth = len(f.errs)
	f.errs = append(f.errs, errUnsettled)
	f.left++
	f.mu.Unlock()
	f.cl.Produce(f.ctx, r, func(_ *kgo.Record, err error) {
		if ended != nil {
			ended(err)
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		f.errs[nth] = err
		f.left--
		if f.left == 0 && f.empty != nil {
			close(f.empty)
		}
	})
	return nth
}

// wait waits for the outcomes. When the context is done it waits no longer than
// grace; what is not known then is errUnsettled.
func (f *flight) wait() []error {
	f.mu.Lock()
	if f.left == 0 {
		defer f.mu.Unlock()
		return f.errs
	}
	f.empty = make(chan struct{})
	f.mu.Unlock()
	select {
	case <-f.empty:
	case <-f.until.Done():
		select {
		case <-f.empty:
		case <-time.After(grace):
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.errs)
}
