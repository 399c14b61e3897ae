package saga

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/internal/client"
)

func inboxTopic(name string) string { return name + ".saga.inbox" }
func stateTopic(name string) string { return name + ".saga.state" }
func deadTopic(name string) string  { return name + ".saga.dlq" }

// TopicSpecs are the topics of the sagas of a name, for those who make topics
// ahead: [wherry.EnsureTopics] takes them. like says how many partitions and
// replicas they have and which settings besides the ones that sagas need; its
// Name is ignored. An [Engine] makes what is not there.
//
//   - <name>.saga.inbox has what happens to sagas. Nothing there may expire
//     before it was handled, so retention.ms is -1; the Engine deletes what was.
//   - <name>.saga.state has the sagas, compacted.
//   - <name>.saga.dlq has what could not be handled, as package dlq writes it.
//
// The first two must have the same number of partitions. How many they are is
// written down when an Engine first runs, in the first record of the state
// topic, and is the number for good: partitions that are added later are not
// used.
func TopicSpecs(name string, like wherry.TopicSpec) []wherry.TopicSpec {
	spec := func(topic string, config map[string]string) wherry.TopicSpec {
		s := like
		s.Name = topic
		s.Config = maps.Clone(like.Config)
		if s.Config == nil {
			s.Config = map[string]string{}
		}
		maps.Copy(s.Config, config)
		return s
	}
	state := spec(stateTopic(name), nil)
	state.Changelog = true
	return []wherry.TopicSpec{
		spec(inboxTopic(name), map[string]string{"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1"}),
		state,
		spec(deadTopic(name), nil),
	}
}

// partitionsKey is the key of the record of the state topic that says how many
// partitions count: no saga has such an id.
const partitionsKey = "\x00saga"

// ensureTopics makes the topics of a name that do not exist, checks the others,
// and returns how many partitions count.
func ensureTopics(ctx context.Context, cl *kgo.Client, name string, like wherry.TopicSpec, log *slog.Logger) (int32, error) {
	specs := TopicSpecs(name, like)
	found, err := topics(ctx, cl, name)
	if err != nil {
		return 0, err
	}
	for i := range specs {
		if len(found[specs[i].Name].Partitions) > 0 {
			specs[i].Partitions = 0 // as many as there are
		}
	}
	inbox, state := inboxTopic(name), stateTopic(name)
	// Where one of the two is there, the other gets as many.
	specs[0].Like, specs[1].Like = state, inbox
	if err := wherry.EnsureTopics(ctx, cl, specs[0]); err != nil {
		return 0, err
	}
	specs[1].Partitions = 0
	if err := wherry.EnsureTopics(ctx, cl, specs[1:]...); err != nil {
		return 0, err
	}
	err = heard(ctx, func() (err error) {
		found, err = topics(ctx, cl, name)
		if err == nil && (len(found[inbox].Partitions) == 0 || len(found[state].Partitions) == 0) {
			err = errNoTopics
		}
		return err
	})
	if err != nil {
		return 0, err
	}
	have, other := int32(len(found[inbox].Partitions)), int32(len(found[state].Partitions))
	if have != other {
		few, many, n := inbox, state, other
		if have > other {
			few, many, n = state, inbox, have
		}
		return 0, &wherry.TopicError{Topic: few, Err: fmt.Errorf("it has %d partitions and %s has %d: kafka-topics --alter --topic %s --partitions %d (those that are added are not used)", min(have, other), many, n, few, n)}
	}
	counts, err := settlePartitions(ctx, cl, name, have)
	if err != nil {
		return 0, err
	}
	switch {
	case counts > have:
		return 0, &wherry.TopicError{Topic: state, Err: fmt.Errorf("its sagas are spread over %d partitions and it has %d: it was made anew or copied with fewer", counts, have)}
	case counts < have:
		log.WarnContext(ctx, "saga: partitions were added after the topics were made, and are not used", "saga", name, "partitions", have, "used", counts)
	}
	return counts, nil
}

func topics(ctx context.Context, cl *kgo.Client, name string) (kadm.TopicDetails, error) {
	if err := client.Connect(ctx, cl, slog.Default()); err != nil {
		return nil, err
	}
	// With the authorized operations it asks a broker, and not what is cached.
	found, err := kadm.NewClient(cl).ListTopics(kadm.WithAuthorizedOps(ctx), inboxTopic(name), stateTopic(name), deadTopic(name))
	if err != nil {
		return nil, fmt.Errorf("listing topics: %w", err)
	}
	return found, nil
}

// settlePartitions returns how many partitions count, and writes it down where
// nobody has. Several may do so at once: the first record counts.
func settlePartitions(ctx context.Context, cl *kgo.Client, name string, have int32) (int32, error) {
	var n int32
	read := func() (err error) {
		n, err = readPartitions(ctx, cl, name)
		return err
	}
	if err := heard(ctx, read); n > 0 || err != nil {
		return n, err
	}
	writer, err := client.Open(cl, nil, kgo.WithContext(ctx), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		return 0, err
	}
	defer writer.Close()
	r := &kgo.Record{Topic: stateTopic(name), Key: []byte(partitionsKey), Value: strconv.AppendInt(nil, int64(have), 10)}
	if err := writer.ProduceSync(ctx, r).FirstErr(); err != nil {
		return 0, fmt.Errorf("writing to %s how many partitions it has: %w", r.Topic, err)
	}
	err = heard(ctx, read)
	if n == 0 && err == nil {
		err = fmt.Errorf("what was written to %s is not there", r.Topic)
	}
	return n, err
}

// heard tries again for a while what fails because a broker that was asked has
// not heard yet of topics that are there.
func heard(ctx context.Context, try func() error) error {
	left := 100
	return again(ctx, 100*time.Millisecond, try, func(err error) bool {
		left--
		return errors.Is(err, errNoTopics) && left > 0
	})
}

// patiently tries again until ctx ends what fails because brokers are away, and
// logs it.
func patiently(ctx context.Context, log *slog.Logger, try func() error) error {
	told := false
	return again(ctx, 250*time.Millisecond, try, func(err error) bool {
		if _, wrong := errors.AsType[*wherry.TopicError](err); wrong || errors.Is(err, errNoTopics) || client.Permanent(err) || errors.Is(err, kgo.ErrClientClosed) {
			return false
		}
		if kafka, ok := errors.AsType[*kerr.Error](err); ok && !kafka.Retriable {
			return false
		}
		if !told {
			log.WarnContext(ctx, "saga: brokers do not answer, trying again", "error", err)
		}
		told = true
		return true
	})
}

func again(ctx context.Context, wait time.Duration, try func() error, passes func(error) bool) error {
	for {
		err := try()
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case !passes(err):
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(wait):
		}
	}
}

var errNoTopics = errors.New("the topics of the saga do not exist")

// readPartitions returns how many partitions count, 0 if nobody has said so yet.
func readPartitions(ctx context.Context, cl *kgo.Client, name string) (int32, error) {
	topic := stateTopic(name)
	end, start, err := bounds(ctx, cl, topic, 0)
	if err != nil || start >= end {
		return 0, err
	}
	reader, err := client.Open(cl, nil, kgo.WithContext(ctx),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().At(start)}}),
		// The record is of no transaction, and open ones are not waited for.
		kgo.FetchIsolationLevel(kgo.ReadUncommitted()), kgo.KeepControlRecords(), kgo.FetchMaxBytes(1<<20))
	if err != nil {
		return 0, err
	}
	defer reader.Close()
	for {
		fetches := reader.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			return 0, context.Cause(ctx)
		}
		last := int64(-1)
		for r := range fetches.RecordsAll() {
			last = r.Offset
			if string(r.Key) != partitionsKey || r.Attrs.IsControl() {
				continue
			}
			n, ok := number(string(r.Value))
			if !ok || n < 1 {
				return 0, &wherry.TopicError{Topic: topic, Err: fmt.Errorf("its record of how many partitions count, %s/0@%d, says %.20q", topic, r.Offset, r.Value)}
			}
			return n, nil
		}
		if last >= end-1 {
			return 0, nil
		}
		for _, e := range fetches.Errors() {
			if client.Permanent(e.Err) {
				return 0, fmt.Errorf("reading %s: %w", topic, e.Err)
			}
		}
	}
}

// bounds are the offsets of a partition: after its last record and of its first.
func bounds(ctx context.Context, cl *kgo.Client, topic string, partition int32) (end, start int64, err error) {
	adm := kadm.NewClient(cl)
	ends, err := adm.ListEndOffsets(ctx, topic)
	if err != nil {
		return 0, 0, fmt.Errorf("asking for the end of %s: %w", topic, err)
	}
	starts, err := adm.ListStartOffsets(ctx, topic)
	if err != nil {
		return 0, 0, fmt.Errorf("asking for the start of %s: %w", topic, err)
	}
	e, ok := ends.Lookup(topic, partition)
	s, ok2 := starts.Lookup(topic, partition)
	switch err := cmp.Or(e.Err, s.Err); {
	case !ok || !ok2 || errors.Is(err, kerr.UnknownTopicOrPartition):
		return 0, 0, fmt.Errorf("%w: %s", errNoTopics, topic)
	case err != nil:
		return 0, 0, fmt.Errorf("asking for the bounds of %s: %w", topic, err)
	}
	return e.Offset, s.Offset, nil
}
