package dlq

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// batch is the letters in hand: decided about, and to be settled in one
// transaction.
type batch struct {
	items []item
	bytes int
	began time.Time // when the first letter came in
}

// item is a letter that was decided about.
type item struct {
	marked
	letter *kgo.Record // the dead letter
	tried  bool        // its copy was produced once
	ended  func(marked, error)
}

// add takes in a letter and the copy that is to be made of it, if any.
func (b *batch) add(it item) {
	if len(b.items) == 0 {
		b.began = time.Now()
	}
	b.items = append(b.items, it)
	b.bytes += itemBytes
	if c := it.copy; c != nil {
		b.bytes += len(c.Key) + len(c.Value)
		for _, h := range c.Headers {
			b.bytes += len(h.Key) + len(h.Value)
		}
	}
}

// itemBytes is about what a letter takes in hand beside its bytes.
const itemBytes = 500

func (b *batch) due(most int) bool {
	return len(b.items) >= most || b.bytes >= settleBytes || b.ageAt(time.Now()) >= settleAfter
}

func (b *batch) ageAt(t time.Time) time.Duration {
	if len(b.items) == 0 {
		return 0
	}
	return t.Sub(b.began)
}

// settle has the letters in hand settled while the run goes on, when those that
// were before them are.
func (j *job) settle() error {
	if err := j.await(); err != nil || len(j.batch.items) == 0 {
		return err
	}
	items := j.batch.items
	j.batch = batch{}
	j.busy = make(chan *outcome, 1)
	go func() { j.busy <- j.settler.settle(items) }()
	return nil
}

// await waits until nothing is being settled, and counts what was. It returns
// an error if the run cannot go on.
func (j *job) await() error {
	if j.busy == nil {
		return j.broken
	}
	out := <-j.busy // which ends soon after the run's context
	j.busy = nil
	for _, it := range out.done {
		j.count(it.action)
		it.end(nil)
	}
	for _, r := range out.refused {
		to := ""
		if r.copy != nil {
			to = r.copy.Topic
			if wholeTopic(r.err) {
				j.targets[to] = r.err
			}
		}
		j.fail(r.letter, to, r.err)
		r.end(r.err)
	}
	for _, it := range out.passed {
		j.report.Selected--
		j.report.Decided++
		it.end(errPassed)
	}
	for _, it := range append(out.left, out.unknown...) {
		it.end(out.err)
	}
	j.report.Failed += len(out.left)
	j.report.Unsettled += len(out.unknown)
	j.most = min(j.most, out.most)
	j.broken = out.err
	j.progress()
	return out.err
}

var errPassed = errors.New("another run has decided about it meanwhile")

func (it item) end(err error) {
	if it.ended != nil {
		it.ended(it.marked, err)
	}
}

// drain settles what is in hand and waits for it.
func (j *job) drain() error {
	err := j.settle()
	if err == nil {
		err = j.await()
	}
	for _, it := range j.batch.items { // the settling before has ended the run
		j.report.Failed++
		it.end(err)
	}
	j.batch = batch{}
	return err
}

// graceful is a context that ends grace after ctx: for what is in hand then.
func graceful(ctx context.Context) (context.Context, context.CancelFunc) {
	late, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		time.AfterFunc(grace, func() { cancel(context.Cause(ctx)) })
	})
	return late, func() { stop(); cancel(nil) }
}
