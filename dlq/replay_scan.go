package dlq

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/internal/client"
)

const (
	// silence is how long nothing may arrive before the brokers are asked
	// whether anything is left to arrive.
	silence = 500 * time.Millisecond
	// pollRecords is how many records are taken from the client at once.
	pollRecords = 500
)

// view is a topic as it was when it was looked at.
type view struct {
	id     kadm.TopicID
	starts map[int32]int64
	ends   map[int32]int64
}

// extent says which ends of a topic are asked for: the last stable offsets, or
// the ends of all that is there, also of transactions that are still open.
type extent struct{ whole bool }

// errNoTopic is in the error of look when there is no such topic.
var errNoTopic = errors.New("it does not exist")

// look asks for the extent of a topic. It waits, logging, while partitions
// have no leader.
func look(ctx context.Context, cl *kgo.Client, topic string, how extent, log *slog.Logger) (v view, err error) {
	for told := false; ; told = true {
		v, err = lookOnce(ctx, kadm.NewClient(cl), topic, how)
		switch {
		case err == nil:
			return v, nil
		case ctx.Err() != nil:
			return v, context.Cause(ctx)
		case errors.Is(err, errNoTopic) || !kerr.IsRetriable(err) && errors.As(err, new(*kerr.Error)), client.Permanent(err):
			return v, fmt.Errorf("topic %s: %w", topic, err)
		case !told:
			log.WarnContext(ctx, "dlq: asking for the extent of a topic failed, trying again", "topic", topic, "error", err)
		}
		select {
		case <-ctx.Done():
			return v, context.Cause(ctx)
		case <-time.After(250 * time.Millisecond):
		}
	}
}

func lookOnce(ctx context.Context, adm *kadm.Client, topic string, how extent) (v view, err error) {
	// kadm would answer from what the client heard a while ago, were it not
	// asked for the authorized operations as well.
	topics, err := adm.ListTopics(kadm.WithAuthorizedOps(ctx), topic)
	if err != nil {
		return v, err
	}
	detail := topics[topic]
	switch {
	case errors.Is(detail.Err, kerr.UnknownTopicOrPartition):
		return v, errNoTopic
	case detail.Err != nil:
		return v, detail.Err
	case len(detail.Partitions) == 0:
		return v, kerr.LeaderNotAvailable
	}
	starts, err := adm.ListStartOffsets(ctx, topic)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return v, err
	}
	list := adm.ListCommittedOffsets
	if how.whole {
		list = adm.ListEndOffsets
	}
	ends, err := list(ctx, topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return v, err
	}
	v = view{id: detail.ID, starts: map[int32]int64{}, ends: map[int32]int64{}}
	starts.Each(func(o kadm.ListedOffset) { v.starts[o.Partition] = o.Offset })
	ends.Each(func(o kadm.ListedOffset) { v.ends[o.Partition] = o.Offset })
	return v, nil
}

// scan reads a part of a topic once.
type scan struct {
	lent     *kgo.Client
	opts     []kgo.Opt
	topic    string
	id       kadm.TopicID
	from, to map[int32]int64 // by partition; others are not read
	log      *slog.Logger

	uncommitted bool         // read also what is not committed
	idle        func() error // called while nothing arrives; an error ends the scan; nil is none
}

// records returns what is there, and committed, between from and to, those of a partition
// in its order. It ends after an error. What is in memory is what the client
// has fetched ahead, some MiB for each broker.
func (s scan) records(ctx context.Context) iter.Seq2[*kgo.Record, error] {
	return func(yield func(*kgo.Record, error) bool) {
		if err := s.read(ctx, func(r *kgo.Record) bool { return yield(r, nil) }); err != nil {
			yield(nil, fmt.Errorf("reading topic %s: %w", s.topic, err))
		}
	}
}

func (s scan) read(ctx context.Context, yield func(*kgo.Record) bool) error {
	next := map[int32]int64{} // of the partitions that are not at their end
	begin := map[int32]kgo.Offset{}
	for p, to := range s.to {
		if from, ok := s.from[p]; ok && from < to {
			next[p], begin[p] = from, kgo.NewOffset().At(from)
		}
	}
	if len(next) == 0 {
		return nil
	}
	level := kgo.ReadCommitted()
	if s.uncommitted {
		level = kgo.ReadUncommitted()
	}
	bounded := []kgo.Opt{kgo.FetchMaxBytes(8 << 20), kgo.FetchMaxPartitionBytes(1 << 20)}
	cl, err := client.Open(s.lent, append(bounded, s.opts...),
		kgo.WithContext(ctx),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{s.topic: begin}),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), // what was to be read next is deleted
		kgo.FetchIsolationLevel(level),
		// The position must pass the mark of the last transaction too.
		kgo.KeepControlRecords(),
	)
	if err != nil {
		return err
	}
	defer cl.Close()
	for len(next) > 0 {
		poll, cancel := context.WithTimeout(ctx, silence)
		fetches := cl.PollRecords(poll, pollRecords)
		silent := poll.Err() != nil
		cancel()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		for p := range fetches.RecordsAll() {
			at, reading := next[p.Partition]
			if !reading || p.Offset < at || p.Offset >= s.to[p.Partition] {
				if reading && p.Offset >= at {
					next[p.Partition] = p.Offset // nothing is left before it
				}
				continue
			}
			next[p.Partition] = p.Offset + 1
			if !p.Attrs.IsControl() && !yield(p) {
				return nil
			}
		}
		fetches.EachError(func(_ string, p int32, fault error) {
			if !silent || !errors.Is(fault, context.DeadlineExceeded) { // of the poll, not of a partition
				err = errors.Join(err, s.fault(ctx, p, fault))
			}
		})
		if silent && err == nil {
			err = s.pass(ctx, cl, next)
		}
		if silent && err == nil && s.idle != nil {
			err = s.idle()
		}
		if err != nil {
			return err
		}
		for p, at := range next {
			if at >= s.to[p] {
				delete(next, p)
				cl.PauseFetchPartitions(map[string][]int32{s.topic: {p}})
			}
		}
	}
	return nil
}

// fault returns the error of a fetch if waiting cannot mend it, and logs it
// otherwise.
func (s scan) fault(ctx context.Context, p int32, err error) error {
	kafka, isKafka := errors.AsType[*kerr.Error](err)
	if isKafka && !kafka.Retriable || client.Permanent(err) || errors.Is(err, kgo.ErrMaxDecompress) {
		return fmt.Errorf("partition %d: %w", p, err)
	}
	s.log.WarnContext(ctx, "dlq: fetching failed, trying again", "topic", s.topic, "partition", p, "error", err)
	return nil
}
