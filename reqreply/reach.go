package reqreply

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// reach knows which reply topics can be written to. A reply that the broker
// refuses fails its record, and may stop the Consumer: so whether it can be
// sent is asked before the request is handled.
type reach struct {
	adm *kadm.Client

	mu     sync.Mutex // never held over a call that blocks
	topics map[string]known
}

// known is what the brokers said of a topic.
type known struct {
	partitions int32 // 0 for none
	why        error // it cannot be written to
	at         time.Time
}

const (
	maxKnown   = 1024             // more reply topics begin anew
	knownFor   = 5 * time.Second  // a topic that can be written to
	unknownFor = time.Second      // one that cannot, or has too few partitions
	reachWait  = 10 * time.Second // an answer about it
)

func newReach(cl *kgo.Client) *reach {
	if cl == nil {
		return nil
	}
	return &reach{adm: kadm.NewClient(cl), topics: map[string]known{}}
}

// check returns why no reply can be sent to where a says, nil where it can or
// nobody knows.
func (x *reach) check(ctx context.Context, a *address) error {
	if x == nil {
		return nil
	}
	x.mu.Lock()
	k, ok := x.topics[a.topic]
	good, age := k.allows(a) == nil, time.Since(k.at)
	stale := !ok || good && age > knownFor || !good && age > unknownFor
	if ok && good && stale { // one asks, and the others go by what was known
		x.topics[a.topic] = known{partitions: k.partitions, at: time.Now()}
	}
	x.mu.Unlock()
	if stale {
		fresh, err := x.ask(ctx, a.topic)
		if err != nil {
			return nil //nolint:nilerr // no broker tells: sending the reply will show
		}
		k = fresh
	}
	return k.allows(a)
}

// forget has the topic asked for again.
func (x *reach) forget(topic string) {
	if x == nil {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.topics, topic)
}

func (k known) allows(a *address) error {
	switch {
	case k.why != nil:
		return k.why
	case a.stated && a.partition >= k.partitions:
		return fmt.Errorf("the reply topic has %d partitions", k.partitions)
	}
	return nil
}

func (x *reach) ask(ctx context.Context, topic string) (known, error) {
	ctx, cancel := context.WithTimeout(ctx, reachWait)
	defer cancel()
	found, err := x.adm.ListTopics(kadm.WithAuthorizedOps(ctx), topic)
	if err != nil {
		return known{}, err
	}
	d := found[topic]
	k := known{at: time.Now(), partitions: int32(len(d.Partitions))}
	switch {
	case d.Err != nil && kerr.IsRetriable(d.Err) && !errors.Is(d.Err, kerr.UnknownTopicOrPartition):
		return known{}, d.Err
	case d.Err != nil:
		k.why = fmt.Errorf("the reply topic: %w", d.Err)
	case len(d.Partitions) == 0:
		k.why = errors.New("the reply topic has no partitions")
	case len(d.AuthorizedOperations) > 0 && !slices.Contains(d.AuthorizedOperations, kmsg.ACLOperationWrite) && !slices.Contains(d.AuthorizedOperations, kmsg.ACLOperationAll):
		k.why = errors.New("the server may not write to the reply topic")
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.topics) >= maxKnown {
		clear(x.topics)
	}
	x.topics[topic] = k
	return k, nil
}
