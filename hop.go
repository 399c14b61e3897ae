package wherry

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// A Hop is a topic that stands in for another one on a record's way, such as
// a delay topic. A [Preparer] has its Consumer read it with [Setup.Subscribe].
type Hop struct {
	// Topic is the topic to read.
	Topic string
	// As is the topic whose routes handle its records.
	As string
	// Origin returns the record as it was read from As: policies and handlers
	// see that one, and the record of the hop with [HopFrom]. It must not
	// change its argument. Its error is the record's failure, of cause
	// [CauseUndecodable] unless it says otherwise. nil, or a function that
	// returns nil, leaves the record as it is. It must be pure and safe for concurrent use.
	Origin func(r *kgo.Record) (*kgo.Record, error)
	// Due says when a record may be handled, by this process's clock; the
	// zero time means at once. Records wait for it in the order of their
	// partition, however long, and a partition that has many of them pauses.
	// nil means always at once. It must be pure and safe for concurrent use.
	Due func(r *kgo.Record) time.Time
}

// HopFrom returns the record of the hop by which the record in hand came, nil
// when it was read from its own topic.
func HopFrom(ctx context.Context) *kgo.Record {
	if d := deliveryFrom(ctx); d != nil {
		return d.hop
	}
	return nil
}
