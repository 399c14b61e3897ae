package dlq

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/internal/client"
)

// job is one run of a Replayer. It belongs to the goroutine of Run.
type job struct {
	r       *Replayer
	log     *slog.Logger
	cl      *kgo.Client // asks, and ends with the context
	lead    *lead       // nil where nothing is written, as is the next
	settler *settler
	scan    scan // of the dead-letter topic
	view    view
	ledger  *ledger
	targets map[string]error // whether copies may go to a topic, by its name
	tracing tracing
	pacer   pacer
	batch   batch
	busy    chan *outcome // of the letters that are being settled; nil when none are
	most    int           // letters in a batch
	broken  error         // why letters cannot be settled any more
	by      string
	began   time.Time
	told    time.Time // when Progress was last called
	report  Report
}

// open checks the configuration and looks at the topic. It writes nothing. The
// ledger that it makes has what was decided, or where it is not detailed only
// of which letters.
func (r *Replayer) open(ctx context.Context, detailed bool) (_ *job, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("dead letters of %s: %w", r.Topic, err)
		}
	}()
	if err := r.check(); err != nil {
		return nil, err
	}
	var id [8]byte
	_, _ = rand.Read(id[:]) // never fails
	j := &job{
		r: r, log: cmp.Or(r.Logger, slog.Default()), targets: map[string]error{},
		tracing: newTracing(r.Telemetry), by: cmp.Or(r.By, whoami()), began: time.Now(),
		most: settleLetters,
	}
	j.report = Report{Run: hex.EncodeToString(id[:]), By: j.by, Why: r.Why, Began: j.began, Counts: newCounts()}
	j.ledger = newLedger(j.report.Run, detailed)
	j.told = j.began
	if r.Rate > 0 {
		j.pacer.every = time.Duration(float64(time.Second) / r.Rate)
	}
	if j.cl, err = client.Probe(ctx, r.Client, j.log); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			j.close()
		}
	}()
	if j.view, err = look(ctx, j.cl, r.Topic, extent{}, j.log); err != nil {
		return nil, err
	}
	if r.Ends != nil {
		for p, end := range j.view.ends {
			j.view.ends[p] = min(end, r.Ends[p]) // 0 where it is not in it
		}
	}
	j.report.Ends = j.view.ends
	j.scan = scan{lent: r.Client, opts: r.Opts, topic: r.Topic, id: j.view.id, log: j.log}
	j.scan.from, j.scan.to = r.Select.bounds(j.view.starts, j.view.ends)
	return j, nil
}

func (j *job) close() {
	if j.lead != nil {
		j.lead.release()
	}
	j.cl.Close()
}

func (j *job) run(ctx context.Context) error {
	err := j.prepare(ctx)
	if err == nil {
		err = j.letters(ctx)
	}
	if err != nil {
		return fmt.Errorf("dead letters of %s: %w", j.r.Topic, err)
	}
	return nil
}

// prepare checks where copies are to go and reads the ledger, which is taken
// for this run unless it is a dry one.
func (j *job) prepare(ctx context.Context) (err error) {
	if j.r.To != "" {
		if err := j.target(ctx, j.r.To); err != nil {
			return err
		}
	}
	if err := j.ledger.catchUp(ctx, j.scan, j.cl, j.view, false); err != nil || j.r.DryRun {
		return err
	}
	if err := wherry.EnsureTopics(ctx, j.cl, ledgerSpec(j.r.Topic)); err != nil {
		return fmt.Errorf("the ledger: %w", err)
	}
	j.lead, err = j.take(ctx)
	return err
}

// letters goes through the topic.
func (j *job) letters(ctx context.Context) error {
	if !j.r.DryRun {
		late, cancel := graceful(ctx)
		defer cancel()
		j.settler = &settler{j: j, ctx: late, lead: j.lead}
		defer j.settler.finish()
		if err := j.settler.ready(); err != nil {
			return err
		}
		j.ledger.begun = true
		j.scan.idle = j.settle
	}
	for rec, err := range j.scan.records(ctx) {
		if err == nil {
			err = j.letter(ctx, rec)
		}
		if errors.Is(err, errLimit) {
			break
		}
		if err != nil {
			return j.end(ctx, err)
		}
	}
	return j.end(ctx, nil)
}

// errLimit ends a run that has selected as many letters as it may.
var errLimit = errors.New("no more letters are to be selected")

// letter decides about a letter, if it is selected. An error ends the run.
func (j *job) letter(ctx context.Context, rec *kgo.Record) error {
	if j.report.Read++; j.report.Read%pollRecords == 0 {
		j.progress()
	}
	l, garbled := Read(rec)
	if !j.r.Select.Match(l) {
		return nil
	}
	if !j.r.Select.Decided && j.ledger.has(placeOf(l)) {
		j.report.Decided++
		return nil
	}
	j.report.Selected++
	j.report.Counts.add(l, j.began)
	if err := j.decide(ctx, l, garbled); err != nil {
		return err
	}
	if limit := j.r.Select.Limit; limit > 0 && j.report.Selected >= limit {
		return errLimit
	}
	return nil
}

// end settles what is in hand of a run that is over, or cannot go on because of
// why.
func (j *job) end(ctx context.Context, why error) error {
	err := j.drain()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if errors.Is(why, err) {
		return why
	}
	return errors.Join(why, err)
}

func placeOf(l *Letter) place { return place{l.Record.Partition, l.Record.Offset} }

// decide does what is to be done about a selected letter, or hands it to the
// batch. A garbled one can be parked and discarded. An error ends the run.
func (j *job) decide(ctx context.Context, l *Letter, garbled error) error {
	action := cmp.Or(j.r.Action, Replay)
	if most := cmp.Or(j.r.MaxReplays, defaultMaxReplays); action == Replay && most > 0 && replays(l) >= most {
		action = Park
	}
	if action == Replay && garbled != nil {
		j.fail(l.Record, "", garbled)
		return nil
	}
	c, err := j.copyOf(ctx, l, action)
	switch {
	case ctx.Err() != nil:
		j.report.Failed++ // selected, and not decided
		return context.Cause(ctx)
	case err != nil:
		to := ""
		if c != nil {
			to = c.Topic
		}
		j.fail(l.Record, to, err)
		return nil
	case j.r.DryRun:
		j.count(action)
		j.progress()
		return nil
	}
	if c != nil {
		if err := j.pace(ctx); err != nil {
			j.report.Failed++
			return err
		}
	}
	it := item{marked: marked{place: placeOf(l), action: action, copy: c}, letter: l.Record}
	if c != nil {
		it.ended = j.tracing.begin(ctx, l, c, action)
	}
	j.batch.add(it)
	if j.batch.due(j.most) {
		return j.settle()
	}
	return nil
}

// copyOf returns the record that an action produces, nil if none, and what is
// against it.
func (j *job) copyOf(ctx context.Context, l *Letter, action Action) (c *kgo.Record, err error) {
	switch action {
	case Discard:
		return nil, nil
	case Park:
		c = parkedCopy(l, j.r.parking())
		return c, j.target(ctx, c.Topic)
	case Replay:
	}
	c = j.r.replayCopy(l)
	if err := j.target(ctx, c.Topic); err != nil || !l.Missing {
		return c, err
	}
	if l, err = j.complete(ctx, l); err != nil {
		return c, err
	}
	return j.r.replayCopy(l), nil
}

// pace waits until the rate allows another copy. What is in hand is settled
// before a long wait.
func (j *job) pace(ctx context.Context) error {
	wait := j.pacer.wait(time.Now())
	if wait <= 0 {
		return nil
	}
	due := time.Now().Add(wait)
	if j.batch.ageAt(due) > settleAfter {
		if err := j.settle(); err != nil {
			return err
		}
	}
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(time.Until(due)):
		return nil
	}
}

func (j *job) count(action Action) {
	switch action {
	case Replay:
		j.report.Replayed++
	case Park:
		j.report.Parked++
	case Discard:
		j.report.Discarded++
	}
}

// fail notes that a letter stays undecided.
func (j *job) fail(rec *kgo.Record, to string, err error) {
	j.report.Failed++
	if len(j.report.Failures) < maxFailures {
		j.report.Failures = append(j.report.Failures, &LetterError{rec.Topic, rec.Partition, rec.Offset, to, err})
	}
}

// progress tells how far the run is, if it is time to.
func (j *job) progress() {
	if j.r.Progress == nil || time.Since(j.told) < progressEvery {
		return
	}
	j.told = time.Now()
	n := j.report.clone()
	n.Took = time.Since(j.began)
	j.r.Progress(n)
}
