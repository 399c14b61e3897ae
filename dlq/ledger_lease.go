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
)

// A run says in the ledger that it is at work, so that a second one does not
// copy the same letters meanwhile: a record under a key of its own, renewed
// while it works and deleted at its end.
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

// seen is the latest record of another run.
type seen struct {
	lease
	offset int64
	at     time.Time
}

// runsSeen are the runs that have a lease, by key.
type runsSeen map[string]seen

// apply takes in a record of the ledger and reports whether it is a lease.
func (s runsSeen) apply(r *kgo.Record, id kadm.TopicID) bool {
	if !bytes.HasPrefix(r.Key, []byte(runPrefix)) {
		return false
	}
	key := string(r.Key)
	var l lease
	switch {
	case !strings.HasPrefix(key, runPrefix+topicID(id)+"/"):
	case r.Value == nil:
		delete(s, key)
	case json.Unmarshal(r.Value, &l) == nil:
		if l.First < 0 {
			l.First = r.Offset
		}
		s[key] = seen{l, r.Offset, r.Timestamp}
	}
	return true
}

// ErrBusy is in the error of a run that found another one at work on the same
// dead-letter topic.
var ErrBusy = errors.New("another run is at work")

// lead is a run's own lease.
type lead struct {
	j     *job
	key   string
	value lease
	stop  context.CancelFunc
	ended sync.WaitGroup
}

// take takes the lease and reads the ledger, in this order, so that of two
// runs that begin at once the later one sees the earlier.
func (j *job) take(ctx context.Context) (*lead, error) {
	d := &lead{j: j, key: runPrefix + topicID(j.view.id) + "/" + j.report.Run, value: lease{By: j.by, Began: j.began}}
	if err := d.claim(ctx); err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, fmt.Errorf("the ledger %s cannot be written to, without it letters would be copied again and again: %w", LedgerTopic(j.r.Topic), err)
	}
	renewing, stop := context.WithCancel(ctx)
	d.stop = stop
	d.ended.Go(func() { d.renew(renewing) })
	if err := j.ledger.catchUp(ctx, j.scan, j.cl, j.view); err != nil {
		d.release()
		return nil, err
	}
	for key, other := range j.ledger.runs {
		if key == d.key || other.First > d.value.First {
			continue
		}
		var alive bool
		var err error
		if time.Since(other.at) < leaseOld {
			alive, err = j.watch(ctx, key, other)
		}
		if !alive && err == nil {
			d.remove(key) // so that nobody waits for it any more
			continue
		}
		d.release()
		if err == nil {
			err = fmt.Errorf("%w, by %s since %s: wait for its end, both would copy the same letters", ErrBusy, other.By, other.Began.Format(time.RFC3339))
		}
		return nil, err
	}
	return d, nil
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
		if err := j.ledger.catchUp(ctx, j.scan, j.cl, j.view); err != nil {
			return false, err
		}
		switch now, there := j.ledger.runs[key]; {
		case !there:
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
	f := newFlight(ctx, d.j.out)
	f.send(rec, nil)
	if err := f.wait()[0]; err != nil {
		return err
	}
	d.value.First = rec.Offset
	return nil
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
		d.j.out.Produce(ctx, rec, func(*kgo.Record, error) { underway.Store(false) })
	}
}

// release ends the lease. A broker that does not answer is not waited for: the
// lease runs out.
func (d *lead) release() {
	d.stop()
	d.ended.Wait()
	d.remove(d.key)
}

// remove removes a lease, if a broker answers within grace.
func (d *lead) remove(key string) {
	f := newFlight(context.Background(), d.j.out)
	until, cancel := context.WithCancel(f.ctx)
	cancel()
	f.until = until
	f.send(&kgo.Record{Topic: LedgerTopic(d.j.r.Topic), Key: []byte(key)}, nil)
	f.wait()
}
