package reqreply

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
)

// openWait is how long it may take to find out about a reply topic.
const openWait = 30 * time.Second

// hearing is the partition of a reply topic that is read. The fields after done
// are set before it is closed.
type hearing struct {
	topic string
	names Profile
	done  chan struct{}

	id        kadm.TopicID
	partition int32
	replyTo   [2]kgo.RecordHeader // of requests: the topic, and the partition
	err       error

	doubted time.Time // when it was last looked whether the topic is there; guarded by line.mu
}

func (h *hearing) opened() bool {
	select {
	case <-h.done:
		return true
	default:
		return false
	}
}

// hearing returns the partition of topic that is read, nil for none.
func (l *line) hearing(topic string) *hearing {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.hears[topic]
}

// listen returns the partition of topic that is read, from now on at the
// latest. names has its defaults.
func (l *line) listen(ctx context.Context, topic string, names Profile) (*hearing, error) {
	l.mu.Lock()
	h := l.hears[topic]
	if h == nil {
		if l.ended {
			l.mu.Unlock()
			return nil, ErrEnded
		}
		h = &hearing{topic: topic, names: names, done: make(chan struct{})}
		l.hears[topic] = h
		l.asking.Go(func() { l.open(h) })
	}
	l.mu.Unlock()
	if !h.opened() {
		select {
		case <-h.done:
		case <-l.over:
			return nil, ErrEnded
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting to read replies from %s: %w", topic, whyOver(ctx))
		}
	}
	if h.err != nil {
		return nil, h.err
	}
	if h.names == names {
		return h, nil
	}
	if !h.names.reads(names) {
		return nil, fmt.Errorf("replies from %s are read with the headers of another Profile: give one of the methods a ReplyTopic of its own", topic)
	}
	own := *h // the form in which a request is written is its own
	own.names, own.replyTo = names, names.replyTo(h.topic, h.partition)
	return &own, nil
}

// open begins to read a partition of h.topic.
func (l *line) open(h *hearing) {
	ctx, cancel := context.WithTimeout(l.life, openWait)
	defer cancel()
	defer close(h.done)
	id, p, end, err := l.choose(ctx, h.topic)
	if err != nil {
		h.err = fmt.Errorf("reading replies from %s: %w", h.topic, l.endedOr(err))
		l.mu.Lock()
		delete(l.hears, h.topic) // the next call tries again
		l.mu.Unlock()
		return
	}
	h.id, h.partition, h.replyTo = id, p, h.names.replyTo(h.topic, p)
	// From an offset that is known, so that a reply cannot be missed, however
	// late the first fetch.
	l.cl.AddConsumePartitions(map[string]map[int32]kgo.Offset{h.topic: {p: kgo.NewOffset().At(end)}})
}

// doubt looks whether a reply topic is still the one that is read, because replies
// did not come in time; once a second at most. An error of fetching tells of that
// too, but not always: of a topic that is one of several kgo may take it for one
// that passes.
func (l *line) doubt(topic string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.hears[topic]
	if h == nil || l.ended || !h.opened() || time.Since(h.doubted) < time.Second {
		return
	}
	h.doubted = time.Now()
	l.asking.Go(func() {
		ctx, cancel := context.WithTimeout(l.life, openWait)
		defer cancel()
		found, err := l.adm.ListTopics(ctx, topic)
		d := found[topic]
		if err != nil || d.Err == nil && d.ID == h.id || d.Err != nil && !errors.Is(d.Err, kerr.UnknownTopicOrPartition) {
			return
		}
		l.log.WarnContext(ctx, "reqreply: the topic of replies was deleted", "topic", topic)
		l.forget(h, kerr.UnknownTopicOrPartition)
	})
}

// choose returns a partition of topic by chance, and its end. It makes the
// topic where it does not exist.
func (l *line) choose(ctx context.Context, topic string) (id kadm.TopicID, p int32, end int64, err error) {
	spec := l.c.Topics
	spec.Name = topic
	id, ends, err := endsOf(ctx, l.cl, spec)
	if len(ends) == 0 {
		return id, 0, 0, err
	}
	led := slices.Collect(maps.Keys(ends))
	p = led[rand.IntN(len(led))] //nolint:gosec // which one does not matter
	return id, p, ends[p], nil
}

// endsOf returns a topic's id and the ends of its partitions, as far as they have
// leaders: the error says why one has not. It makes the topic where it does not
// exist, for values that are worthless soon.
func endsOf(ctx context.Context, cl *kgo.Client, spec wherry.TopicSpec) (id kadm.TopicID, ends map[int32]int64, err error) {
	adm := kadm.NewClient(cl)
	for tried := false; ; tried = true {
		found, err := adm.ListTopics(kadm.WithAuthorizedOps(ctx), spec.Name)
		if err != nil {
			return id, nil, err
		}
		d := found[spec.Name]
		if len(d.Partitions) > 0 && d.Err == nil {
			id = d.ID
			break
		}
		if tried || d.Err != nil && !errors.Is(d.Err, kerr.UnknownTopicOrPartition) {
			return id, nil, fmt.Errorf("the topic cannot be found: %w", d.Err)
		}
		if _, set := spec.Config["retention.ms"]; !set {
			spec.Config = maps.Clone(spec.Config)
			if spec.Config == nil {
				spec.Config = map[string]string{}
			}
			spec.Config["retention.ms"] = "3600000"
		}
		if err := wherry.EnsureTopics(ctx, cl, spec); err != nil {
			return id, nil, err
		}
	}
	listed, err := adm.ListEndOffsets(ctx, spec.Name)
	if err != nil {
		return id, nil, err
	}
	ends = map[int32]int64{}
	for p, o := range listed[spec.Name] {
		if o.Err != nil {
			err = fmt.Errorf("partition %d has no leader: %w", p, o.Err)
			continue
		}
		ends[p] = o.Offset
	}
	return id, ends, err
}
