package table

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/internal/client"
	"github.com/wherry-go/wherry/internal/planted"
)

// Restore brings parts, by partition of topic, up to what their logs say: it
// asks for each partition's high watermark and reads committed records until
// it is there. So it waits for every transaction that is open at the call to be
// decided, and finds what those wrote that were decided before. (The last
// stable offset would not do: a transaction may be decided, and the offsets
// that it committed be seen, before its mark is in this partition.)
//
// A Part that was given up before is restored from its Next on; not if the
// topic was made anew, the log is shorter than what was read, or tombstones may
// have been compacted away meanwhile (it is half as old as delete.retention.ms,
// or that cannot be asked for, which needs DESCRIBE_CONFIGS): then it is
// emptied and read from the start. In any case it ends as what a reader from
// the start would find. What was pending in it is dropped.
//
// It opens a client of its own from lent and opts, and closes it. Parts may not
// be used before it has returned nil. progress, unless nil, is called by its
// goroutine now and then with the offsets that are left to read, and with 0
// when none are.
//
// What passes is tried again and logged: brokers that do not answer, moved
// leaders, a topic that is unknown for less than 5s. Returned are: a missing
// partition, refused rights or credentials, batches that do not decode, and
// records that the cluster lost ([kgo.ErrDataLoss]). When ctx ends, its cause is
// returned. After an error parts keep what they took in, and another Restore
// goes on from there; where records were lost it begins at the start.
func Restore(ctx context.Context, lent *kgo.Client, opts []kgo.Opt, topic string, parts map[int32]*Part, log *slog.Logger, progress func(partition int32, left int64)) error {
	if len(parts) == 0 {
		return nil
	}
	r := &restore{topic: topic, parts: parts, log: log.With("table", topic), progress: progress}
	if progress == nil {
		r.progress = func(int32, int64) {}
	}
	began := time.Now()
	for {
		err := r.attempt(ctx, lent, opts)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err == nil:
			keys := 0
			for _, part := range parts {
				keys += part.Len()
			}
			r.log.InfoContext(ctx, "table: restored", "partitions", len(parts), "keys", keys, "in", time.Since(began).Round(time.Millisecond))
			return nil
		case !r.passes(err):
			return fmt.Errorf("restoring table %s: %w", topic, err)
		}
		r.log.WarnContext(ctx, "table: restoring was interrupted, going on", "error", err)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(250 * time.Millisecond):
		}
	}
}

// restore is one call of Restore.
type restore struct {
	topic    string
	parts    map[int32]*Part
	log      *slog.Logger
	progress func(int32, int64)
	unknown  time.Time // since when the topic or a partition is; zero if they are not
}

// patience is how long a topic may be unknown: one that was just made is, to
// some brokers.
const patience = 5 * time.Second

// errAgain is wrapped by what ends an attempt and is mended by another.
var errAgain = errors.New("looking again where the log begins and ends")

// passes reports whether an attempt that failed is to be made again.
func (r *restore) passes(err error) bool {
	if errors.Is(err, errAgain) {
		return true
	}
	if errors.Is(err, kerr.UnknownTopicOrPartition) {
		if r.unknown.IsZero() {
			r.unknown = time.Now()
		}
		return time.Since(r.unknown) < patience
	}
	return passes(err)
}

// attempt restores from one look at where the logs begin and end.
func (r *restore) attempt(ctx context.Context, lent *kgo.Client, opts []kgo.Opt) error {
	cl, err := client.Open(lent, opts,
		kgo.WithContext(ctx),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		// The position must pass the mark of the last transaction too.
		kgo.KeepControlRecords(),
		// An offset that is not in the log is for us to think about.
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
	)
	if err != nil {
		return &finalError{err}
	}
	defer cl.Close()
	seen, err := look(ctx, cl, r.topic, r.parts)
	if err != nil {
		return err
	}
	r.unknown = time.Time{}
	goals, offsets := map[int32]int64{}, map[int32]kgo.Offset{}
	keep := r.keep(ctx, cl)
	for p, part := range r.parts {
		log := seen.logs[p]
		next, anew := part.begin(p, seen.topic.ID, log, keep)
		if anew != "" {
			r.log.InfoContext(ctx, "table: reading a partition from the start", "partition", p, "because", anew)
		}
		r.progress(p, max(0, log.end-next))
		if next < log.end {
			goals[p], offsets[p] = log.end, kgo.NewOffset().At(next)
		}
	}
	if len(goals) > 0 {
		cl.AddConsumePartitions(map[string]map[int32]kgo.Offset{r.topic: offsets})
		if err := r.read(ctx, cl, seen, goals); err != nil {
			return err
		}
		// The client read whatever had the topic's name when it began.
		again, err := describe(ctx, cl, r.topic)
		if err != nil {
			return err
		}
		if again.ID != seen.topic.ID {
			return fmt.Errorf("the topic was made anew: %w", errAgain)
		}
	}
	for _, part := range r.parts {
		part.restored(seen.at)
	}
	return nil
}

// keep returns how long tombstones are kept at least, if a Part needs to know.
func (r *restore) keep(ctx context.Context, cl *kgo.Client) time.Duration {
	if !slices.ContainsFunc(slices.Collect(maps.Values(r.parts)), (*Part).warm) {
		return 0
	}
	const name = "delete.retention.ms"
	configs, err := kadm.NewClient(cl).DescribeTopicConfigs(ctx, r.topic)
	if err == nil {
		var config kadm.ResourceConfig
		if config, err = configs.On(r.topic, nil); err == nil {
			err = config.Err
		}
		for _, c := range config.Configs {
			if ms, parseErr := time.ParseDuration(c.MaybeValue() + "ms"); c.Key == name && parseErr == nil {
				return ms
			}
		}
	}
	if ctx.Err() == nil {
		r.log.InfoContext(ctx, "table: reading from the start, because the broker does not tell how long tombstones are kept", "config", name, "error", err)
	}
	return 0
}

// finalError is one that no other attempt can mend.
type finalError struct{ error }

func (e *finalError) Unwrap() error { return e.error }

// sight is what the brokers said of a topic at a time.
type sight struct {
	at    time.Time
	topic kadm.TopicDetail
	logs  map[int32]extent
}

// look asks who leads topic's partitions and where those of parts begin and end.
func look(ctx context.Context, cl *kgo.Client, topic string, parts map[int32]*Part) (sight, error) {
	s := sight{at: now(), logs: map[int32]extent{}}
	var err error
	if s.topic, err = describe(ctx, cl, topic); err != nil {
		return s, err
	}
	adm := kadm.NewClient(cl)
	starts, err := adm.ListStartOffsets(ctx, topic)
	if err != nil {
		return s, fmt.Errorf("asking for its start: %w", err)
	}
	list := adm.ListEndOffsets
	if planted.Is(planted.RestoreToLSO) {
		list = adm.ListCommittedOffsets
	}
	ends, err := list(ctx, topic)
	if err != nil {
		return s, fmt.Errorf("asking for its end: %w", err)
	}
	for p := range parts {
		start, _ := starts.Lookup(topic, p)
		end, ok := ends.Lookup(topic, p)
		switch {
		case !ok:
			return s, fmt.Errorf("partition %d is missing, the topic has %d: %w", p, len(s.topic.Partitions), kerr.UnknownTopicOrPartition)
		case start.Err != nil || end.Err != nil:
			return s, fmt.Errorf("asking for the offsets of partition %d: %w", p, errors.Join(start.Err, end.Err))
		}
		s.logs[p] = extent{start.Offset, end.Offset}
	}
	return s, nil
}

// describe asks who leads topic's partitions; a broker, not what kgo remembers.
func describe(ctx context.Context, cl *kgo.Client, topic string) (kadm.TopicDetail, error) {
	topics, err := kadm.NewClient(cl).ListTopics(kadm.WithAuthorizedOps(ctx), topic)
	if err == nil {
		err = topics.Error()
	}
	if err != nil {
		return kadm.TopicDetail{}, fmt.Errorf("asking who leads its partitions: %w", err)
	}
	return topics[topic], nil
}
