package reqreply

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

// How long it is believed that a group has a member for a topic, when it is
// asked again in the background, and how long it is believed to have none.
const (
	liveFor   = 3 * time.Second
	refreshAt = time.Second
	deadFor   = 100 * time.Millisecond
	askWait   = 5 * time.Second
)

// served is what is asked for: whether a group reads a topic.
type served struct{ group, topic string }

// liveness is the latest that is known of it. Guarded by line.mu, but for done.
type liveness struct {
	done  chan struct{} // closed when what is asked now is known
	busy  bool
	dead  bool
	known time.Time // zero until it was asked once
}

// responder returns ErrNoResponder where no live member of the group reads the
// topic.
func (l *line) responder(ctx context.Context, s served) error {
	for {
		l.mu.Lock()
		if l.ended {
			l.mu.Unlock()
			return ErrEnded
		}
		v := l.asked[s]
		if v == nil {
			v = &liveness{}
			l.asked[s] = v
		}
		age := time.Since(v.known)
		fresh := !v.known.IsZero() && (v.dead && age < deadFor || !v.dead && age < liveFor)
		if !v.busy && (!fresh || !v.dead && age >= refreshAt) {
			v.busy, v.done = true, make(chan struct{})
			l.asking.Go(func() { l.askGroup(s, v) })
		}
		dead, done := v.dead, v.done
		l.mu.Unlock()
		if fresh {
			if dead {
				l.noResponder.Add(1)
				return ErrNoResponder
			}
			return nil
		}
		select {
		case <-done:
		case <-l.over:
			return ErrEnded
		case <-ctx.Done():
			return whyOver(ctx)
		}
	}
}

// askGroup asks the group's coordinator. Where that fails the group counts as
// alive: a call then waits for its deadline, as without a Group.
func (l *line) askGroup(s served, v *liveness) {
	ctx, cancel := context.WithTimeout(l.life, askWait)
	defer cancel()
	live, err := reads(ctx, l.adm, s)
	if err != nil && l.life.Err() == nil {
		l.log.WarnContext(ctx, "reqreply: asking whether a group has members failed, requests are sent regardless", "group", s.group, "topic", s.topic, "error", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	v.dead, v.known, v.busy = err == nil && !live, time.Now(), false
	close(v.done)
}

// reads reports whether a live member of the group reads the topic.
func reads(ctx context.Context, adm *kadm.Client, s served) (bool, error) {
	groups, err := adm.DescribeGroups(ctx, s.group)
	if err != nil {
		return false, err
	}
	g := groups[s.group]
	switch {
	case g.Err == nil && len(g.Members) > 0:
		return classic(g, s.topic), nil
	case g.Err != nil && !errors.Is(g.Err, kerr.GroupIDNotFound):
		return false, g.Err
	}
	// No classic group with members: one of KIP-848, or none.
	next, err := adm.DescribeConsumerGroups(ctx, s.group)
	if err != nil {
		if errors.Is(err, kerr.UnsupportedVersion) {
			return false, nil // a broker without them
		}
		return false, err
	}
	n := next[s.group]
	if n.Err != nil {
		if errors.Is(n.Err, kerr.GroupIDNotFound) || errors.Is(n.Err, kerr.UnsupportedVersion) {
			return false, nil
		}
		return false, n.Err
	}
	for _, m := range n.Members {
		if slices.Contains(m.SubscribedTopics, s.topic) || m.SubscribedTopicRegex != nil && *m.SubscribedTopicRegex != "" {
			return true, nil
		}
	}
	return false, nil
}

// classic reports whether a member of g subscribes to topic. While a group
// rebalances brokers do not tell subscriptions (GroupCoordinator answers
// without the metadata of members), so any member counts.
func classic(g kadm.DescribedGroup, topic string) bool {
	for _, m := range g.Members {
		meta, ok := m.Join.AsConsumer()
		if !ok || g.State != "Stable" || len(meta.Topics) == 0 || slices.Contains(meta.Topics, topic) {
			return true
		}
	}
	return false
}
