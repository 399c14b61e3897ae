package retry

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/internal/client"
)

// How the order of a key is kept.
//
// A record that fails, and one that must wait for it, gets a ticket: a record
// of the keys topic <topic>.<group>.retry.keys, by its partition and offset.
// It is staged with each hop and deleted when the record is done or given up, by
// a tombstone that is sent when the outputs are acknowledged. A record waits
// while a ticket of its key, of its partition and of a smaller offset is known.
//
// Everybody who decides knows all such tickets:
//
//   - The partition that a record is first read from. What came before it there
//     was decided by the same lane, which has notes of it, or by an owner before,
//     whose tickets were acknowledged before the offset was committed, and are in
//     the table, which is synchronized at each assignment.
//   - The home: the delay topic of the shortest delay. Whoever leaves the topic
//     goes there first, in the partition of the same number, so in the same
//     order (the outputs of a lane are produced in the order of its records). So
//     the lane of the home's partition has seen each record before those that
//     wait for it, or an owner before it has, as above.
//
// Nobody else decides: a record that has failed is the first of its line and
// waits for none, and one that waits for another and went by way of a longer
// delay comes home before it is decided.
//
// That a record is done is known at once to the lane that has handled it, which
// keeps the order of its key by itself. All others, of this process too, learn it
// from the tombstone: before, its outputs may not have been sent, or be rolled
// back. To hear late costs one more round.

// lineUp finds the record's place in the queue, if the order of its key is kept.
func (v *visit) lineUp(ctx context.Context, q *queue) {
	if q == nil {
		return
	}
	if v.key = wherry.KeyFrom(ctx); v.key == nil {
		return
	}
	v.queue, v.at = q, place{v.trip.partition, v.trip.offset}
	if v.hop != nil || !q.empty() {
		v.line = line{v.at.partition, hashKey(v.key)}
	}
}

// wait stages a record that may not be handled yet because one before it waits,
// and reports whether it did.
func (v *visit) wait(ctx context.Context) (waits bool, err error) {
	if v.queue == nil {
		return false, nil
	}
	void := func() bool { return wherry.Interrupted(ctx) }
	for _, at := range v.queue.takeLate(v.at.partition, void) {
		if err := wherry.Publish(ctx, &kgo.Record{Topic: v.keys(), Key: []byte(at.String())}); err != nil {
			return true, err
		}
	}
	if v.trip.round > 0 || v.line.key == "" {
		return false, nil
	}
	home := v.tiers[0]
	if v.hop != nil && v.hop.label != home.label {
		return true, v.stage(ctx, home, v.trip, v.began, time.Time{})
	}
	due, waits := v.queue.ahead(v.line, v.at.offset, v.lane())
	if !waits {
		return false, nil
	}
	to := home
	if v.hop != nil {
		to = pick(v.tiers, due.Sub(v.began))
	}
	v.trip.err = "a record of its key that came before it waits"
	return true, v.stage(ctx, to, v.trip, v.began.Add(to.delay), time.Time{})
}

// publish stages the copy of the record for a delay topic, with its ticket.
func (v *visit) publish(ctx context.Context, out *kgo.Record, t trip) error {
	wherry.ToPartition(out, t.partition)
	if _, stored := v.queue.known(v.at); stored && t.round == 0 {
		return wherry.Publish(ctx, out)
	}
	if v.line.key == "" {
		v.line = line{v.at.partition, hashKey(v.key)}
	}
	content := ticket{Key: v.line.key}
	if t.round > 0 {
		if content.Due = t.due; t.until.After(t.due) {
			content.Due = t.until
		}
	}
	value, err := json.Marshal(content)
	if err != nil {
		return fmt.Errorf("encoding the ticket of the record: %w", err)
	}
	if err := wherry.Publish(ctx, out, &kgo.Record{Topic: v.keys(), Key: []byte(v.at.String()), Value: value}); err != nil {
		return err
	}
	v.queue.note(v.at, v.line, note{waits: true, due: content.Due, lane: v.lane(), void: func() bool { return wherry.Interrupted(ctx) }})
	return nil
}

// leave ends the record's ticket, if it has one.
func (v *visit) leave(ctx context.Context) error {
	if v.queue == nil {
		return nil
	}
	if known, _ := v.queue.known(v.at); !known && v.hop == nil {
		return nil
	}
	end := &kgo.Record{Topic: v.keys(), Key: []byte(v.at.String())}
	client.Last(end) // others may be in another process, and go on when they read it
	if err := wherry.Publish(ctx, end); err != nil {
		return err
	}
	v.queue.note(v.at, v.line, note{lane: v.lane(), void: func() bool { return wherry.Interrupted(ctx) }})
	return nil
}

// lane names the lane of the record, among those of its partition's number: the
// delay topic that it came by, "" for its own topic.
func (v *visit) lane() string {
	if v.hop == nil {
		return ""
	}
	return v.hop.name
}

func (v *visit) keys() string { return v.name(v.trip.topic, v.trip.group, "keys") }

// addQueue makes the queue of a topic and has it followed.
func (t Topics) addQueue(s *wherry.Setup, run *run, topic string, tiers []tier) error {
	name := t.name(topic, s.Group, "keys")
	if err := checkName(name); err != nil {
		return err
	}
	if other, ok := run.hops[name]; ok {
		return fmt.Errorf("the delay topic %s of %s and the topic of its keys have one name, %s", other.label, other.as, name)
	}
	expiry := time.Duration(0)
	var names []string
	for _, to := range tiers {
		config, err := t.config(to.delay)
		if err != nil {
			return nil //nolint:nilerr // it was reported with the delay topic
		}
		names = append(names, t.name(topic, s.Group, to.label))
		kept, _ := strconv.ParseInt(config["retention.ms"], 10, 64)
		if expiry = max(expiry, time.Duration(kept)*time.Millisecond); kept < 0 {
			expiry = 0
			break
		}
	}
	q := newQueue(expiry)
	run.queues[topic] = q
	s.Need(wherry.TopicSpec{Name: name, Like: topic, ReplicationFactor: t.Spec.ReplicationFactor, Changelog: true})
	s.Follow(&follower{
		Table:  &wherry.Table[ticket]{Client: s.Client, Topic: name, Logger: s.Logger, Opts: []kgo.Opt{kgo.WithHooks(q)}},
		origin: topic, delays: names,
	})
	return nil
}

// follower keeps a queue up to date, and sees to it that each delay topic has
// the partitions that it needs.
type follower struct {
	*wherry.Table[ticket]
	origin string
	delays []string
}

func (f *follower) Run(ctx context.Context) error {
	// A context with this asks a broker; kadm answers others from what the
	// client has heard.
	fresh := kadm.WithAuthorizedOps(ctx)
	found, err := kadm.NewClient(f.Client).ListTopics(fresh, append(f.delays, f.origin)...)
	if err != nil {
		return fmt.Errorf("retry.Topics: asking for the partitions: %w", err)
	}
	for _, name := range f.delays {
		if have, need := len(found[name].Partitions), len(found[f.origin].Partitions); have < need {
			return fmt.Errorf("retry.Topics: KeepOrder, and %s has %d partitions where %s has %d: kafka-topics --alter --topic %s --partitions %d", name, have, f.origin, need, name, need)
		}
	}
	return f.Table.Run(ctx)
}
