package wherry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/internal/lane"
	"github.com/wherry-go/wherry/internal/txn"
)

// Delivery is what a Consumer promises of the effects that are in Kafka: what
// handlers publish, what they write to tables, and how far the group has come.
type Delivery int

// Deliveries.
const (
	// AtLeastOnce sends outputs and then commits: after a crash both may come
	// again.
	AtLeastOnce Delivery = iota
	// ExactlyOnce makes the outputs of a record, its writes to owned tables and
	// the group's offset one Kafka transaction, so that readers with
	// isolation.level=read_committed see each effect once, whatever crashes.
	// Many records share a transaction; it is committed at once when the
	// Consumer is idle, and at most every 2 ms when it is not. Effects outside
	// of Kafka are still at least once, and so are calls of the handler.
	//
	// Producers are named <group>/<topic>/<partition>, after the lowest
	// partition that the process has, so there are never more transactional ids
	// than partitions, and whoever takes a partition over fences what its former
	// owner left open. Where access is controlled, the user needs WRITE and
	// DESCRIBE on transactional ids with the prefix "<group>/".
	ExactlyOnce
)

// Bounds of one transaction.
const (
	mostRecords = 10_000
	mostOutputs = 50_000
	mostBytes   = 16 << 20
)

// exact commits what a run has done in transactions.
//
// A record whose chain returned nil joins: its outputs are kept, and the lane
// goes on. The commit loop takes what has joined, produces it, adds offsets and
// finished sets of all partitions touched, and ends the transaction; only then
// are the records done for their lanes. Where a transaction is aborted, nothing
// is run again: the same outputs make the next one. Records run again when one
// of them was refused by a broker and they rest on what it wrote to a table.
type exact struct {
	run *run

	mu     sync.Mutex // never held over a call that blocks
	open   []*entry   // joined, in that order, and in no transaction yet
	tables tables
	held   []*lane.Lane  // until what was rolled back runs again: see rollback
	claims chan struct{} // closed when the fencing of other names is over; nil before any

	// For whoever has the token committing.
	batch  []*entry            // taken from open; what was aborted stays in it
	stuck  map[*partition]bool // those whose finished set had no room for all, in the last plan
	most   int                 // how many suspects may be in one transaction
	doubt  *plan               // a transaction of which it is not known whether it was committed
	writer *txn.Writer         // nil when there is none, or none that is of use
	named  *partition          // what writer is named for
	passed time.Time           // when offsets were last committed for no record
	timer  *time.Timer         // when it is to be done again
}

// entry is a record that joined.
type entry struct {
	p       *partition
	d       *delivery
	it      *lane.Item
	outputs []*kgo.Record
	bytes   int           // of the outputs
	sent    []func(error) // ends the outputs' spans; nil before they are sent
	rests   bool          // on owned tables
	writes  bool          // to owned tables
	suspect bool          // of being what the brokers refuse
	doubts  int           // how often it was that alone
	apart   bool          // its outputs are too large together, and are sent one by one
	void    bool          // it stands behind one that was refused
	state   int64         // of its partition of owned tables, if it rests on them
	era     uint64        // of its lane
}

// join takes in a record whose chain returned nil.
func (x *exact) join(p *partition, d *delivery, it *lane.Item, outputs []*kgo.Record) {
	e := &entry{p: p, d: d, it: it, outputs: outputs, era: it.Era()}
	for _, r := range outputs {
		e.bytes += size(r)
	}
	x.mu.Lock()
	if e.state = d.rests.Load(); e.state != 0 {
		e.rests = true
		if x.stale(e) {
			x.mu.Unlock()
			e.redo() // it has read what was rolled back since
			return
		}
		e.writes = x.tables.write(p.partition, outputs)
	}
	it.Stage(e.bytes)
	x.open = append(x.open, e)
	x.mu.Unlock()
	x.run.progressed()
}

// take moves what has joined into the batch, and drops what belongs to
// partitions that were taken away.
func (x *exact) take() {
	x.mu.Lock()
	if len(x.batch) == 0 {
		x.batch = nil
	}
	x.batch = append(x.batch, x.open...)
	x.open = nil
	var gone, stale []*entry
	held := x.held
	x.held = nil
	behind := x.behind()
	x.batch = slices.DeleteFunc(x.batch, func(e *entry) bool {
		switch {
		case e.p.lane.WasCut():
			gone = append(gone, e)
		case x.stale(e) || behind(e):
			stale = append(stale, e)
		default:
			return false
		}
		return true
	})
	x.mu.Unlock()
	for _, e := range gone {
		e.end(errRevoked)
		e.it.Drop()
	}
	for _, e := range stale {
		e.end(errRolledBack)
		e.redo()
	}
	for _, l := range held {
		l.Release()
	}
}

var errRolledBack = errors.New("what it rests on was rolled back")

// behind returns a function that tells whether an entry stands behind one that is
// stale in the line of its key, or of its partition: what is handled one after
// the other is committed so. It is called under x.mu.
func (x *exact) behind() func(*entry) bool {
	type line struct {
		p  *partition
		id uint64
	}
	var first map[line]uint64
	for _, e := range x.batch {
		if !x.stale(e) {
			continue
		}
		if id, place, ok := e.it.Line(); ok {
			if first == nil {
				first = map[line]uint64{}
			}
			if before, ok := first[line{e.p, id}]; !ok || place < before {
				first[line{e.p, id}] = place
			}
		}
	}
	return func(e *entry) bool {
		if first == nil {
			return false
		}
		id, place, ok := e.it.Line()
		before, found := first[line{e.p, id}]
		return ok && found && before < place
	}
}

// stale reports whether an entry is to be run again: it rests on writes that were
// rolled back, or stands behind one that is run again. It is called under x.mu.
func (x *exact) stale(e *entry) bool {
	if e.void || e.it.Spoiled() {
		return true
	}
	return e.rests && (e.state != x.tables.state(e.p.partition) || e.era != e.p.lane.Era())
}

// form returns the entries of the batch, from the first on, that may be one
// transaction: suspects are by themselves. What is stuck goes together or not
// at all, whatever its size.
func (x *exact) form() (entries []*entry) {
	n, outputs, bytes := 0, 0, 0
	full, left := false, map[int32]bool{}
	for _, e := range x.batch {
		switch {
		case e.suspect != x.batch[0].suspect:
			return entries
		case left[e.p.partition] && e.rests: // maybe on what is left out
			continue
		case e.suspect || !x.stuck[e.p]:
			outputs, bytes = outputs+len(e.outputs), bytes+e.bytes
			full = full || e.suspect && n == max(x.most, 1) || n == mostRecords || n > 0 && (outputs > mostOutputs || bytes > mostBytes)
			if n++; full {
				left[e.p.partition] = left[e.p.partition] || e.rests
				continue
			}
		}
		entries = append(entries, e)
	}
	return entries
}

// commit makes one transaction, or several while partitions drain, of those of
// the run and of which, and reports whether all went well. Which is nil for the
// commit loop.
func (x *exact) commit(asked context.Context, which []*partition) bool {
	// A transaction that is cut off is one in doubt.
	ctx, cancel := context.WithCancel(context.WithoutCancel(asked))
	defer cancel()
	var over atomic.Bool
	defer context.AfterFunc(asked, func() { over.Store(true); time.AfterFunc(lastCommit, cancel) })()
	for {
		more, err := x.round(ctx, which)
		if err != nil {
			return false
		}
		if !more {
			return true
		}
		if over.Load() || !slices.ContainsFunc(x.batch, func(e *entry) bool { return e.p.lane.State().Draining }) {
			x.run.progressed()
			return true
		}
	}
}

// round makes one transaction of what has joined. It reports whether more is
// left, and an error after which it is to wait and try again.
func (x *exact) round(ctx context.Context, which []*partition) (more bool, err error) {
	if x.doubt != nil {
		if _, err := x.settle(ctx); err != nil {
			return false, err
		}
	}
	m := x.run.member() // first: see member
	x.take()
	if slices.ContainsFunc(x.batch, func(e *entry) bool { return e.p.member != m.id }) {
		return false, errThrownOut // until retake has cut those
	}
	pl := x.plan(m, which, x.form())
	for stuck := 0; len(pl.entries) == 0 && len(x.stuck) > stuck; {
		stuck = len(x.stuck)
		pl = x.plan(m, which, x.form())
	}
	if i := slices.IndexFunc(x.batch, func(e *entry) bool { return e.suspect }); i >= 0 && len(pl.entries) == 0 {
		return true, x.try(ctx, x.batch[i])
	}
	if len(pl.offsets) == 0 {
		return false, nil
	}
	if len(pl.entries) == 0 && len(which) == 0 && time.Since(x.passed) < commitEvery {
		x.later() // there is nothing but marks of transactions that were passed
		return false, nil
	}
	if len(pl.outputs) == 0 {
		err = x.bare(ctx, pl)
	} else {
		err = x.transact(ctx, pl)
	}
	if err != nil {
		return false, err
	}
	return len(x.batch) > 0, nil
}

var errThrownOut = errors.New("this member was thrown out of the group")

// bare commits offsets alone, which need no transaction.
func (x *exact) bare(ctx context.Context, pl *plan) error {
	refused, err := x.run.commitOffsets(ctx, pl.member, pl.offsets)
	for tp, e := range refused {
		err = errors.Join(err, fmt.Errorf("%v: %w", tp, e))
	}
	if err != nil {
		// Some may have been committed, and all are committed again.
		x.run.notCommitted(ctx, err)
		return err
	}
	x.done(pl)
	if len(pl.entries) == 0 {
		x.passed = time.Now()
	}
	return nil
}

// later has the commit loop look again when offsets alone may be committed.
func (x *exact) later() {
	wait := commitEvery - time.Since(x.passed)
	if x.timer == nil {
		x.timer = time.AfterFunc(wait, x.run.progressed)
	} else {
		x.timer.Reset(wait)
	}
}

// done takes note of a plan that was committed.
func (x *exact) done(pl *plan) {
	for _, e := range pl.entries {
		e.end(nil)
	}
	x.mu.Lock()
	x.tables.commit(pl.entries)
	x.mu.Unlock()
	x.run.mu.Lock()
	for _, p := range pl.partitions {
		at := pl.offsets[p.topicPartition]
		p.committed, p.changes = at.Offset, at.changes
	}
	x.run.mu.Unlock()
	for _, e := range pl.entries {
		e.it.Done()
	}
	in := map[*entry]bool{}
	for _, e := range pl.entries {
		in[e] = true
	}
	x.batch = slices.DeleteFunc(x.batch, func(e *entry) bool { return in[e] })
	if len(pl.entries) > 0 && pl.entries[0].suspect {
		x.most *= 2
	}
}

// redo has the record run again, as if it had not been.
func (e *entry) redo() {
	e.d.interrupted.Store(true)
	e.it.Redo()
}

// end ends the spans of the entry's outputs.
func (e *entry) end(err error) {
	for _, sent := range e.sent {
		if sent != nil {
			sent(err)
		}
	}
	e.sent = nil
}
