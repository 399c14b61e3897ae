package dlq

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/internal/client"
)

// parking is the topic that letters are parked in.
func (r *Replayer) parking() string { return cmp.Or(r.Parking, r.Topic+".parked") }

// check reports all faults of the configuration.
func (r *Replayer) check() error {
	faults := []error{client.Check(r.Client)}
	refuse := func(bad bool, format string, args ...any) {
		if bad {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	refuse(r.Topic == "", "no topic: set Topic to the dead-letter topic")
	replays := r.Action == "" || r.Action == Replay
	refuse(!replays && r.Action != Park && r.Action != Discard, "there is no Action %q", r.Action)
	refuse(!replays && r.To != "", "To is for replays: what is parked goes to Parking")
	refuse(!replays && r.Group != "", "Group is for replays")
	refuse(r.Action == Discard && r.Parking != "", "Parking is set, and discarding parks nothing")
	refuse(r.Rate < 0 || r.Rate != r.Rate, "Rate is %v: 0 means no limit", r.Rate)
	for _, to := range []struct{ field, topic string }{{"To", r.To}, {"Parking", r.parking()}} {
		refuse(r.Topic != "" && to.topic == r.Topic, "%s is %s, the dead-letter topic itself", to.field, to.topic)
		refuse(r.Topic != "" && to.topic == LedgerTopic(r.Topic), "%s is %s, the ledger", to.field, to.topic)
	}
	faults = append(faults, r.Select.check())
	return errors.Join(faults...)
}

// whoami is the user and the host.
func whoami() string {
	name := "unknown"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	if host, err := os.Hostname(); err == nil {
		name += "@" + host
	}
	return name
}

// maxTargets is how many topics are remembered to be there, or not.
const maxTargets = 1000

// target returns nil if copies may go to a topic. Each is asked for once in a
// run.
func (j *job) target(ctx context.Context, topic string) error {
	err, known := j.targets[topic]
	if known {
		return err
	}
	err = j.askTarget(ctx, topic)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if len(j.targets) >= maxTargets {
		clear(j.targets)
	}
	j.targets[topic] = err
	return err
}

func (j *job) askTarget(ctx context.Context, topic string) error {
	switch topic {
	case "":
		return errors.New("it does not say which topic its record failed in: say where the copy is to go with To")
	case j.r.Topic:
		return errors.New("its record failed in the dead-letter topic itself: say where the copy is to go with To")
	case LedgerTopic(j.r.Topic):
		return errors.New("its record failed in the ledger: say where the copy is to go with To")
	}
	topics, err := kadm.NewClient(j.cl).ListTopics(kadm.WithAuthorizedOps(ctx), topic)
	if err != nil {
		return err
	}
	switch detail := topics[topic]; {
	case errors.Is(detail.Err, kerr.UnknownTopicOrPartition):
		if topic == j.r.parking() {
			return j.makeParking(ctx)
		}
		return fmt.Errorf("topic %s does not exist: make it, or say where the copy is to go with To: %w", topic, kerr.UnknownTopicOrPartition)
	case detail.Err != nil && !kerr.IsRetriable(detail.Err):
		return fmt.Errorf("topic %s: %w", topic, detail.Err)
	case detail.IsInternal:
		return fmt.Errorf("topic %s is one of Kafka's own", topic)
	}
	return nil
}

// makeParking makes the parking topic. What waits there for a person must not
// run out, so it has no end of retention; one that exists is taken as it is.
func (j *job) makeParking(ctx context.Context) error {
	if j.r.DryRun {
		return nil
	}
	return wherry.EnsureTopics(ctx, j.cl, wherry.TopicSpec{
		Name: j.r.parking(), Like: j.r.Topic, Config: map[string]string{"retention.ms": "-1"},
	})
}
