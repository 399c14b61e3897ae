package wherry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/internal/client"
	"github.com/wherry-go/wherry/internal/table"
)

// goal waits for the topic and returns the end of each of its partitions.
func (t *Table[V]) goal(ctx context.Context, log *slog.Logger) (map[int32]int64, error) {
	for told := false; ; told = true {
		starts, err := t.adm.ListStartOffsets(ctx, t.Topic)
		if err == nil {
			err = starts.Error()
		}
		var ends kadm.ListedOffsets
		if err == nil {
			ends, err = t.adm.ListEndOffsets(ctx, t.Topic)
		}
		if err == nil {
			err = ends.Error()
		}
		switch {
		case err == nil && len(starts[t.Topic]) > 0:
			starts.Each(func(o kadm.ListedOffset) { t.store.Advance(o.Partition, o.Offset) })
			goal := map[int32]int64{}
			ends.Each(func(o kadm.ListedOffset) { goal[o.Partition] = o.Offset })
			return goal, nil
		case err != nil && !kerr.IsRetriable(err) && !errors.Is(err, kerr.UnknownTopicOrPartition) && !unreachable(err):
			return nil, fmt.Errorf("listing its offsets: %w", err)
		case !told:
			log.WarnContext(ctx, "table: the topic does not exist yet, waiting for it")
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(250 * time.Millisecond):
		}
	}
}

func (t *Table[V]) follow(ctx context.Context, cl *kgo.Client, goal map[int32]int64, log *slog.Logger) (err error) {
	began := time.Now()
	restoring := true
	ends := maps.Clone(goal)
	var still stillness
	for {
		var lag int64
		for p, end := range ends {
			next, _ := t.store.Position(p)
			lag += max(0, end-next)
		}
		t.lag.Store(lag)
		if restoring && t.reached(goal) {
			restoring = false
			close(t.ready)
			log.InfoContext(ctx, "table: restored", "keys", t.store.Len(), "in", time.Since(began).Round(time.Millisecond))
		}
		poll, cancel := ctx, func() {}
		if restoring {
			poll, cancel = context.WithTimeout(ctx, silence)
		}
		fetches := cl.PollFetches(poll)
		silent := poll.Err() != nil
		cancel()
		if ctx.Err() != nil {
			return nil
		}
		fetches.EachPartition(func(f kgo.FetchTopicPartition) {
			if silent && errors.Is(f.Err, context.DeadlineExceeded) {
				return // of the poll, not of a partition
			}
			t.store.Apply(f.Partition, f.Records)
			if len(f.Records) > 0 {
				ends[f.Partition] = f.HighWatermark
			}
			kafka, isKafka := errors.AsType[*kerr.Error](f.Err)
			loss, isLoss := errors.AsType[*kgo.ErrDataLoss](f.Err)
			switch {
			case f.Err == nil:
			case isLoss:
				err = fmt.Errorf("the map is wrong now, run another Table: %w", loss)
			case isKafka && !kafka.Retriable && !errors.Is(f.Err, kerr.UnknownServerError), client.Permanent(f.Err), errors.Is(f.Err, kgo.ErrMaxDecompress):
				err = fmt.Errorf("reading partition %d: %w", f.Partition, f.Err)
			default:
				log.WarnContext(ctx, "table: fetching failed, trying again", "partition", f.Partition, "error", f.Err)
			}
		})
		if err != nil {
			return err
		}
		if restoring && still.of(t.store, goal) {
			if err := t.skip(ctx, goal); err != nil && ctx.Err() == nil {
				log.WarnContext(ctx, "table: nothing arrives, and asking whether something is left failed", "error", err)
			}
		}
	}
}

// stillness tells when a partition stands still.
type stillness struct {
	asked time.Time
	at    map[int32]int64
}

// of reports, once in a while, whether any partition that is behind its goal is
// where it was, whatever arrives from others.
func (s *stillness) of(store *table.Store, goal map[int32]int64) (still bool) {
	if time.Since(s.asked) < silence {
		return false
	}
	before := s.at
	s.asked, s.at = time.Now(), map[int32]int64{}
	for p, end := range goal {
		if next, _ := store.Position(p); next < end {
			s.at[p] = next
			if was, ok := before[p]; ok && was == next {
				still = true
			}
		}
	}
	return still
}

// silence is how long nothing may arrive before the brokers are asked whether
// anything is left to arrive.
const silence = time.Second

// reached reports whether every partition was read to the end it had.
func (t *Table[V]) reached(goal map[int32]int64) bool {
	for p, end := range goal {
		if next, _ := t.store.Position(p); next < end {
			return false
		}
	}
	return true
}
