package reqreply

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
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

	partition int32
	err       error
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
			return nil, fmt.Errorf("waiting to read replies from %s: %w", topic, context.Cause(ctx))
		}
	}
	if h.err != nil {
		return nil, h.err
	}
	if binary := names.Binary; h.names != names {
		// The form in which a request is written is its own.
		own := *h
		own.names.Binary = binary
		if own.names != names {
			return nil, fmt.Errorf("replies from %s are read with the headers of another Profile: give one of the methods a ReplyTopic of its own", topic)
		}
		return &own, nil
	}
	return h, nil
}

// open begins to read a partition of h.topic.
func (l *line) open(h *hearing) {
	ctx, cancel := context.WithTimeout(l.life, openWait)
	defer cancel()
	defer close(h.done)
	p, end, err := l.choose(ctx, h.topic)
	if err != nil {
		h.err = fmt.Errorf("reading replies from %s: %w", h.topic, l.endedOr(err))
		l.mu.Lock()
		delete(l.hears, h.topic) // the next call tries again
		l.mu.Unlock()
		return
	}
	h.partition = p
	// From an offset that is known, so that a reply cannot be missed, however
	// late the first fetch.
	l.cl.AddConsumePartitions(map[string]map[int32]kgo.Offset{h.topic: {p: kgo.NewOffset().At(end)}})
}

// choose returns a partition of topic by chance, and its end. It makes the
// topic where it does not exist.
func (l *line) choose(ctx context.Context, topic string) (p int32, end int64, err error) {
	for tried := false; ; tried = true {
		found, err := l.adm.ListTopics(kadm.WithAuthorizedOps(ctx), topic)
		if err != nil {
			return 0, 0, err
		}
		d := found[topic]
		switch {
		case len(d.Partitions) > 0 && d.Err == nil:
		case tried || d.Err != nil && !errors.Is(d.Err, kerr.UnknownTopicOrPartition):
			return 0, 0, fmt.Errorf("the topic cannot be found: %w", d.Err)
		default:
			if err := wherry.EnsureTopics(ctx, l.cl, l.spec(topic)); err != nil {
				return 0, 0, err
			}
			continue
		}
		ends, err := l.adm.ListEndOffsets(ctx, topic)
		if err != nil {
			return 0, 0, err
		}
		var led []int32
		for p, o := range ends[topic] {
			if o.Err == nil {
				led = append(led, p)
			} else {
				err = o.Err
			}
		}
		if len(led) == 0 {
			return 0, 0, fmt.Errorf("no partition has a leader: %w", err)
		}
		p := led[rand.IntN(len(led))] //nolint:gosec // which one does not matter
		return p, ends[topic][p].Offset, nil
	}
}

// spec is that of a reply topic that is made. What is in it is worthless soon.
func (l *line) spec(topic string) wherry.TopicSpec {
	spec := l.c.Topics
	spec.Name = topic
	if _, set := spec.Config["retention.ms"]; !set {
		spec.Config = maps.Clone(spec.Config)
		if spec.Config == nil {
			spec.Config = map[string]string{}
		}
		spec.Config["retention.ms"] = "3600000"
	}
	return spec
}
