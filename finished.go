package wherry

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wherry-go/wherry/internal/lane"
)

// fetchedFrom names a partition as a broker did in its answer: by the topic's
// name, or, since version 10 of the request, by its id.
type fetchedFrom struct {
	topic     string
	id        kadm.TopicID
	partition int32
}

// offsetsFetched keeps the metadata of the group's offsets, which has the
// finished sets, for positions, which kgo calls next.
func (r *run) offsetsFetched(_ context.Context, _ *kgo.Client, resp *kmsg.OffsetFetchResponse) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.fetched)
	for _, group := range resp.Groups {
		for _, topic := range group.Topics {
			for _, p := range topic.Partitions {
				if p.Metadata != nil && *p.Metadata != "" {
					r.fetched[fetchedFrom{topic.Topic, topic.TopicID, p.Partition}] = *p.Metadata
				}
			}
		}
	}
	return nil
}

// fetchedSet returns the metadata of tp's offset. It is called under r.mu.
func (r *run) fetchedSet(tp topicPartition) string {
	for from, set := range r.fetched {
		if from.partition == tp.partition && (from.topic == tp.topic || from.topic == "" && from.id == r.topics[tp.topic]) {
			return set
		}
	}
	return ""
}

// finished reads the finished set out of the metadata of p's offset. A topic
// whose brokers give it no id may be another one of the same name.
func (p *partition) finished(metadata string) []lane.Run {
	if metadata == "" || p.id == (kadm.TopicID{}) {
		return nil
	}
	runs, _ := lane.Decode(metadata, p.id, p.committed)
	return runs
}

// learnTopics asks for the ids of topics that are not known yet.
func (r *run) learnTopics(ctx context.Context, names []string) error {
	r.mu.Lock()
	var unknown []string
	for _, name := range names {
		if _, ok := r.topics[name]; !ok {
			unknown = append(unknown, name)
		}
	}
	r.mu.Unlock()
	if len(unknown) == 0 {
		return nil
	}
	found, err := listTopics(ctx, r.adm, unknown)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, name := range unknown {
		if d := found[name]; d.Err == nil {
			r.topics[name] = d.ID
		} else {
			return d.Err
		}
	}
	return nil
}

// follow starts what policies follow and waits until it is ready.
func (r *run) follow(ctx context.Context) error {
	life, end := context.WithCancel(r.base)
	r.endFollowers = end
	failed := make(chan error, len(r.setup.followers))
	for _, f := range r.setup.followers {
		r.followers.Go(func() {
			if err := following(life, f); err != nil && life.Err() == nil {
				failed <- err
				r.fail(err)
			}
		})
	}
	for _, f := range r.setup.followers {
		select {
		case <-f.Ready():
		case err := <-failed:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// following runs f. Its panic is its error, and so is an end before it is ready,
// for which follow would wait for ever.
func following(ctx context.Context, f Follower) error {
	err := guard(func(ctx context.Context, _ *kgo.Record) error { return f.Run(ctx) })(ctx, nil)
	if err != nil {
		return fmt.Errorf("following what policies follow: %w", err)
	}
	select {
	case <-f.Ready():
		return nil
	default:
		return fmt.Errorf("following what policies follow: %T ended before it was ready", f)
	}
}

// sync waits until what policies follow is up to date.
func (r *run) sync(ctx context.Context) error {
	for _, f := range r.setup.followers {
		// Its panic would end the process, on a goroutine of kgo's.
		err := guard(func(ctx context.Context, _ *kgo.Record) error { return f.Sync(ctx) })(ctx, nil)
		if err != nil {
			return fmt.Errorf("following what policies follow: %w", err)
		}
	}
	return nil
}

// unfollow ends what follow started.
func (r *run) unfollow() {
	if r.endFollowers != nil {
		r.endFollowers()
		r.followers.Wait()
	}
}
