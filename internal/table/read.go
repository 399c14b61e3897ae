package table

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/internal/client"
)

// read has the parts of goals take in what cl fetches, until each is where its
// goal says. It empties goals.
func (r *restore) read(ctx context.Context, cl *kgo.Client, seen sight, goals map[int32]int64) error {
	told := time.Now()
	heard := map[int32]time.Time{} // when a partition last moved, or was asked about
	for p := range goals {
		heard[p] = told
	}
	broken := map[int32]int{} // how often in a row its batches did not decode
	for len(goals) > 0 {
		poll, cancel := context.WithTimeout(ctx, Silence)
		fetches := cl.PollFetches(poll)
		cancel()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		before := map[int32]int64{}
		for p := range goals {
			before[p] = r.parts[p].Next()
		}
		if err := r.take(ctx, fetches, goals, broken); err != nil {
			return err
		}
		now := time.Now()
		var silent []int32
		for p := range goals {
			switch {
			case r.parts[p].Next() > before[p]:
				heard[p] = now
				delete(broken, p)
			case now.Sub(heard[p]) >= Silence:
				heard[p] = now
				silent = append(silent, p)
			}
		}
		if len(silent) > 0 {
			if err := r.ask(ctx, cl, seen, goals, silent); err != nil {
				return err
			}
		}
		tell := now.Sub(told) >= Silence/4
		if tell {
			told = now
		}
		for p, end := range goals {
			left := end - r.parts[p].Next()
			switch {
			case left <= 0:
				delete(goals, p)
				cl.PauseFetchPartitions(map[string][]int32{r.topic: {p}})
				r.progress(p, 0)
			case tell:
				r.progress(p, left)
			}
		}
	}
	return nil
}

// take has the parts of goals take in what was fetched, all at once.
func (r *restore) take(ctx context.Context, fetches kgo.Fetches, goals map[int32]int64, broken map[int32]int) error {
	var (
		takers sync.WaitGroup
		mu     sync.Mutex
		faults []error
	)
	fetches.EachPartition(func(f kgo.FetchTopicPartition) {
		if err := r.failed(ctx, f.Partition, f.Err, broken); err != nil {
			mu.Lock()
			faults = append(faults, err)
			mu.Unlock()
		}
		if _, ok := goals[f.Partition]; !ok || len(f.Records) == 0 {
			return
		}
		takers.Go(func() {
			if !r.parts[f.Partition].apply(f.LogStartOffset, f.Records) {
				mu.Lock()
				faults = append(faults, fmt.Errorf("partition %d went back to offset %d: %w", f.Partition, f.Records[0].Offset, errAgain))
				mu.Unlock()
			}
		})
	})
	takers.Wait()
	return errors.Join(faults...)
}

// failed returns what ends the attempt because of an error of a fetch.
func (r *restore) failed(ctx context.Context, p int32, err error, broken map[int32]int) error {
	if err == nil || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return nil // an error of the poll, not of a partition
	}
	loss, isLoss := errors.AsType[*kgo.ErrDataLoss](err)
	switch {
	case isLoss:
		if part := r.parts[loss.Partition]; part != nil {
			part.reset() // what it has may be lost, or others stand in its place
		}
		return fmt.Errorf("what was restored may be lost: %w", loss)
	case errors.Is(err, kerr.OffsetOutOfRange), errors.Is(err, kerr.UnknownTopicID), errors.Is(err, kerr.UnknownTopicOrPartition):
		return fmt.Errorf("reading partition %d: %w: %w", p, err, errAgain)
	case !passes(err):
		return fmt.Errorf("reading partition %d: %w", p, err)
	case undecodable(err):
		if broken[p]++; broken[p] >= 3 {
			return &finalError{fmt.Errorf("a batch of partition %d does not decode: %w", p, err)}
		}
	}
	r.log.WarnContext(ctx, "table: fetching failed, trying again", "partition", p, "error", err)
	return nil
}

// ask finds out why nothing arrives from the silent partitions, and has them
// pass what is not there. A log that is shorter than it was ends the attempt.
func (r *restore) ask(ctx context.Context, cl *kgo.Client, seen sight, goals map[int32]int64, silent []int32) error {
	limited, cancel := context.WithTimeout(ctx, 5*Silence)
	defer cancel()
	s, err := look(limited, cl, r.topic, r.parts)
	if err == nil {
		behind := map[int32]int64{}
		for _, p := range silent {
			if s.topic.ID != seen.topic.ID || s.logs[p].end < goals[p] {
				return fmt.Errorf("partition %d is another one, or shorter than it was: %w", p, errAgain)
			}
			r.parts[p].apply(s.logs[p].start, nil)
			if next := r.parts[p].Next(); next < goals[p] {
				behind[p] = next
			}
		}
		var to map[int32]int64
		to, err = skip(limited, cl, s.topic, behind, goals)
		for p, next := range to {
			r.parts[p].advance(next)
			if err == nil && next < goals[p] {
				r.log.DebugContext(ctx, "table: waiting for records, or for a transaction to be decided", "partition", p, "at", next, "end", goals[p])
			}
		}
	}
	switch {
	case err == nil, ctx.Err() != nil:
		return nil
	case !passes(err), errors.Is(err, kerr.UnknownTopicOrPartition):
		return err
	}
	r.log.WarnContext(ctx, "table: nothing arrives, and asking whether something is left failed", "error", err)
	return nil
}

// passes reports whether err may go away when it is tried again.
func passes(err error) bool {
	if _, ok := errors.AsType[*finalError](err); ok {
		return false
	}
	if _, ok := errors.AsType[*kgo.ErrDataLoss](err); ok {
		return false
	}
	if kafka, ok := errors.AsType[*kerr.Error](err); ok && !kafka.Retriable && !errors.Is(err, kerr.UnknownServerError) {
		return false
	}
	return !client.Permanent(err) && !errors.Is(err, kgo.ErrMaxDecompress) && !errors.Is(err, kgo.ErrClientClosed)
}

// undecodable reports whether err is one of kgo's about the bytes of a batch,
// which have no type: not a broker's and not the network's.
func undecodable(err error) bool {
	_, isKafka := errors.AsType[*kerr.Error](err)
	_, isNet := errors.AsType[net.Error](err)
	return !isKafka && !isNet && !errors.Is(err, io.EOF)
}
