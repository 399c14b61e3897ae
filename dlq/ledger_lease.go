package dlq

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/internal/client"
)

// A run says in the ledger that it is at work, so that a second one does not put
// an end to it: a record under a key of its own, renewed while it works and
// deleted at its end. It is courtesy: what keeps two from copying one letter is
// the transactional id that they share.
const (
	leaseRenewal = time.Second
	// leaseFor is how long a run that does not renew counts as alive. It is
	// watched for so long, by the watcher's own clock.
	leaseFor = 5 * leaseRenewal
	// leaseOld is when it is not watched any more: clocks may differ by the
	// difference.
	leaseOld = 12 * leaseFor
)

const runPrefix = "run/"

// lease is the value of such a record.
type lease struct {
	By    string    `json:"by"`
	Began time.Time `json:"began"`
	First int64     `json:"first"` // the offset of the run's first record; -1 in that record itself
}

// seen is the latest record of a run.
type seen struct {
	lease
	offset int64
	at     time.Time
	gone   bool // it was deleted
	ended  bool // it was deleted once; the run itself may have renewed it since
}

// runsSeen are the runs that have, or had, a lease.
type runsSeen struct {
	by   map[string]seen // by key
	next int64           // where the reading ended that was for them alone
}

// apply takes in a record of the ledger and reports whether it is a lease. It
// may be told twice.
func (s runsSeen) apply(r *kgo.Record, id kadm.TopicID) bool {
	if !bytes.HasPrefix(r.Key, []byte(runPrefix)) {
		return false
	}
	key := string(r.Key)
	known, there := s.by[key]
	var l lease
	switch {
	case !strings.HasPrefix(key, runPrefix+topicID(id)+"/") || there && known.offset >= r.Offset:
	case r.Value == nil:
		s.by[key] = seen{offset: r.Offset, gone: true, ended: true}
	case json.Unmarshal(r.Value, &l) == nil:
		if l.First < 0 {
			l.First = r.Offset
		}
		s.by[key] = seen{lease: l, offset: r.Offset, at: r.Timestamp, ended: known.ended}
	}
	return true
}

// ErrBusy is in the error of a run that found another one at work on the same
// dead-letter topic.
var ErrBusy = errors.New("another run is at work")

// ErrTakenOver is in the error of a run that was not heard of for five seconds,
// because it was frozen or could not reach a broker, while another one began.
// What it had not committed by then was left to the other.
var ErrTakenOver = errors.New("another run has taken over")

// lead is a run's own lease.
type lead struct {
	j     *job
	out   *kgo.Client // for its records alone
	key   string
	value lease
	stop  context.CancelFunc
	ended sync.WaitGroup
}

// take takes the lease and sees to it that no other run is at work: the later of
// two that begin at once sees the earlier.
func (j *job) take(ctx context.Context) (*lead, error) {
	out, err := client.Open(j.r.Client, j.r.Opts, client.Outlive(ctx))
	if err != nil {
		return nil, err
	}
	d := &lead{j: j, out: out, key: runPrefix + topicID(j.view.id) + "/" + j.report.Run, value: lease{By: j.by, Began: j.began}}
	if err := d.claim(ctx); err != nil {
		out.Close()
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, fmt.Errorf("the ledger %s cannot be written to, without it letters would be copied again and again: %w", LedgerTopic(j.r.Topic), err)
	}
	renewing, stop := context.WithCancel(ctx)
	d.stop = stop
	d.ended.Go(func() { d.renew(renewing) })
	if err := d.outlast(ctx); err != nil {
		d.release()
		return nil, err
	}
	return d, nil
}

// outlast returns nil when no run is at work that began before.
func (d *lead) outlast(ctx context.Context) error {
	j := d.j
	if err := j.ledger.watchRuns(ctx, j.scan, j.cl, j.view.id); err != nil {
		return err
	}
	for key, other := range j.ledger.runs.by {
		if key == d.key || other.gone || other.First > d.value.First {
			continue
		}
		if time.Since(other.at) < leaseOld {
			alive, err := j.watch(ctx, key, other)
			if err != nil {
				return err
			}
			if alive {
				return fmt.Errorf("%w, by %s since %s: wait for its end, both would copy the same letters", ErrBusy, other.By, other.Began.Format(time.RFC3339))
			}
		}
		// So that nobody waits for it any more, and it knows when it wakes up.
		if err := d.write(ctx, &kgo.Record{Topic: LedgerTopic(j.r.Topic), Key: []byte(key)}); err != nil {
			return err
		}
	}
	return nil
}

// lost reports whether another run has taken over.
func (d *lead) lost(ctx context.Context) (bool, error) {
	err := d.j.ledger.watchRuns(ctx, d.j.scan, d.j.cl, d.j.view.id)
	return d.j.ledger.runs.by[d.key].ended, err
}

// watch reports whether another run renews its lease.
func (j *job) watch(ctx context.Context, key string, other seen) (alive bool, err error) {
	j.log.WarnContext(ctx, "dlq: another run may be at work, waiting to see whether it is", "topic", j.r.Topic, "by", other.By, "began", other.Began)
	for until := time.Now().Add(leaseFor); time.Now().Before(until); {
		select {
		case <-ctx.Done():
			return false, context.Cause(ctx)
		case <-time.After(leaseRenewal / 4):
		}
		if err := j.ledger.watchRuns(ctx, j.scan, j.cl, j.view.id); err != nil {
			return false, err
		}
		switch now := j.ledger.runs.by[key]; {
		case now.gone:
			return false, nil
		case now.offset > other.offset:
			return true, nil
		}
	}
	return false, nil
}

// record returns the record of the lease, as it is now.
func (d *lead) record() (*kgo.Record, error) {
	value, err := json.Marshal(d.value)
	return &kgo.Record{Topic: LedgerTopic(d.j.r.Topic), Key: []byte(d.key), Value: value}, err
}

// claim writes the first record.
func (d *lead) claim(ctx context.Context) error {
	d.value.First = -1
	rec, err := d.record()
	if err != nil {
		return err
	}
	if err := d.write(ctx, rec); err != nil {
		return err
	}
	d.value.First = rec.Offset
	return nil
}

// write writes a record, waiting for a broker no longer than ctx says.
func (d *lead) write(ctx context.Context, rec *kgo.Record) error {
	written := make(chan error, 1)
	d.out.Produce(ctx, rec, func(_ *kgo.Record, err error) { written <- err })
	select {
	case err := <-written:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// renew renews the lease until ctx is done. A renewal that does not succeed
// leaves it to run out.
func (d *lead) renew(ctx context.Context) {
	tick := time.NewTicker(leaseRenewal)
	defer tick.Stop()
	var underway atomic.Bool
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		rec, err := d.record()
		if err != nil || underway.Swap(true) {
			continue
		}
		d.out.Produce(ctx, rec, func(*kgo.Record, error) { underway.Store(false) })
	}
}

// release ends the lease. A broker that does not answer is not waited for longer
// than grace: the lease runs out.
func (d *lead) release() {
	d.stop()
	d.ended.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	_ = d.write(ctx, &kgo.Record{Topic: LedgerTopic(d.j.r.Topic), Key: []byte(d.key)})
	d.out.Close()
}
