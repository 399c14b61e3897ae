package ratelimit

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/metric"
)

// Limiter says how much may happen, for each key by itself. All tiers must
// agree. It counts exactly: no window of a tier's length, wherever it begins,
// sees more than the tier's Limit, however many goroutines ask at once.
//
// As a [wherry.Policy] it makes records wait, see Wrap; for HTTP servers see
// [HTTP]; [Limiter.Allow], [Limiter.Take] and [Limiter.Wait] are for anything
// else. A Limiter is safe for concurrent use and must not be copied, nor its
// fields changed, after its first use. There is nothing to close.
type Limiter struct {
	// Tiers are the limits, in any order, at least one and at most [MaxTiers].
	Tiers []Tier
	// Name tells this Limiter's keys from those of others in a shared store, and
	// is in errors and metrics. "" means "default".
	Name string
	// Mode says how tiers decide. 0 means Together.
	Mode Mode
	// Store keeps what was spent. nil means a [Memory] of this Limiter alone, of a
	// million keys.
	Store Store
	// FailOpen lets events pass, uncounted, while the Store cannot decide. false
	// means closed: an error that wraps [ErrStore] (503 from [HTTP]), for going
	// on regardless should be somebody's decision.
	FailOpen bool
	// MaxEvents bounds what is kept for a key. Where more events lie within the
	// longest window, those that lie close together are counted as one, at the
	// time of the last: a tier then still never allows too much, but may refuse
	// for longer than it need, with n tiers by 2*n*n/MaxEvents of its window:
	// 0.03 % with three. 0 means 65,536; the least is 64.
	MaxEvents int

	// Key is of which key a record is, for Wrap. nil means by the record's key;
	// all records without one are of the key "".
	Key func(*kgo.Record) string
	// Cost is what a record costs, for Wrap; 0 for none that counts. nil means 1.
	Cost func(*kgo.Record) int

	// MeterProvider is for the metrics wherry.ratelimit.refused (events by
	// limiter and tier), wherry.ratelimit.throttled (seconds that events waited)
	// and wherry.ratelimit.store.errors. Events that pass at once are not
	// counted. nil means the global one.
	MeterProvider metric.MeterProvider
	// Logger is told when the Store fails and when it is back. nil means
	// slog.Default().
	Logger *slog.Logger

	once  sync.Once
	ready atomic.Pointer[ready]
	lines lines
}

// ready is a Limiter with its defaults filled in.
type ready struct {
	err     error // all that is wrong with the fields
	rules   *Rules
	least   int    // the smallest Limit
	table   *table // of a Memory, or
	store   Store
	metrics metrics
	away    atomic.Bool // the store did not answer the last time
}

func (l *Limiter) get() (*ready, error) {
	if c := l.ready.Load(); c != nil {
		return c, c.err
	}
	l.once.Do(func() {
		c := &ready{store: l.Store}
		var faults []error
		c.rules, faults = l.rules()
		if c.err = joined("ratelimit.Limiter "+c.rules.Name, faults); c.err == nil {
			c.least = c.rules.Tiers[0].Limit
			for _, t := range c.rules.Tiers {
				c.least = min(c.least, t.Limit)
			}
			m, ok := l.Store.(*Memory)
			if l.Store == nil {
				m, ok = &Memory{}, true
			}
			if ok {
				c.table = m.table(c.rules)
			}
			c.metrics = newMetrics(l.MeterProvider, c.rules)
		}
		l.ready.Store(c)
	})
	c := l.ready.Load()
	return c, c.err
}

// Check returns all that is wrong with the Limiter's fields, nil if nothing is.
// What uses the Limiter returns the same.
func (l *Limiter) Check() error {
	_, err := l.get()
	return err
}

// Allow reports whether an event of key that costs 1 may happen now, and counts
// it if so. An error comes with false.
//
// With a [Memory] it does not allocate for a key that is known, and asks
// nothing of ctx.
func (l *Limiter) Allow(ctx context.Context, key string) (bool, error) {
	var d Decision
	err := l.take(ctx, key, 1, &d)
	return d.OK, err
}

// Take is Allow for an event that costs something else, and tells what the
// tiers have left. A cost of 0 asks without counting. A cost that a tier can
// never allow is a [*CostError].
func (l *Limiter) Take(ctx context.Context, key string, cost int) (Decision, error) {
	var d Decision
	err := l.take(ctx, key, cost, &d)
	return d, err
}

func (l *Limiter) take(ctx context.Context, key string, cost int, d *Decision) error {
	c, err := l.get()
	if err != nil {
		return err
	}
	if cost < 0 || cost > c.least {
		return c.rules.tooMuch(cost)
	}
	if len(key) > maxKey {
		key = shortened(key)
	}
	if c.table != nil {
		err = c.table.take(key, uint64(cost), d)
	} else {
		*d, err = c.store.Take(ctx, c.rules, key, cost)
	}
	d.rules = c.rules
	if err != nil || c.away.Load() {
		return c.answer(ctx, l, err, d)
	}
	if !d.OK {
		c.metrics.refused(ctx, d)
	}
	return nil
}

// answer is take where the store fails or did so before.
func (c *ready) answer(ctx context.Context, l *Limiter, err error, d *Decision) error {
	log := l.Logger
	if log == nil {
		log = slog.Default()
	}
	switch {
	case err == nil:
		if c.away.CompareAndSwap(true, false) {
			log.InfoContext(ctx, "ratelimit: the store answers again", "limiter", c.rules.Name)
		}
		if !d.OK {
			c.metrics.refused(ctx, d)
		}
		return nil
	case ctx.Err() != nil: // the caller's, not the store's
		*d = Decision{}
		return context.Cause(ctx)
	}
	c.metrics.failed(ctx)
	if c.away.CompareAndSwap(false, true) {
		log.ErrorContext(ctx, "ratelimit: the store does not answer", "limiter", c.rules.Name, "fail_open", l.FailOpen, "error", err)
	}
	*d = Decision{OK: l.FailOpen}
	if l.FailOpen {
		return nil
	}
	return fmt.Errorf("ratelimit.Limiter %s: %w: %w", c.rules.Name, ErrStore, err)
}
