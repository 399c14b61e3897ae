package retry

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/wherry-go/wherry"
)

const day = 24 * time.Hour

// keep is how long records of a delay topic are kept beyond their delay: as
// long as nobody may read them without losing any.
const keep = 7 * day

var topicName = regexp.MustCompile(`^[a-zA-Z0-9._-]{1,249}$`)

// Prepare has the Consumer make the delay topics and read them.
func (t Topics) Prepare(s *wherry.Setup) error {
	faults := t.check(s)
	tiers, err := t.Policy.tiers()
	if err != nil {
		faults = append(faults, err)
	}
	read := slices.Clone(tiers)
	for _, d := range t.Former {
		if d <= 0 {
			faults = append(faults, fmt.Errorf("a delay of %v in Former", d))
			continue
		}
		read = insert(read, d)
	}
	run := &run{hops: map[string]hop{}, queues: map[string]*queue{}, stay: s.Tables}
	for _, topic := range s.Topics {
		for _, to := range read {
			h := hop{tier: to, name: t.name(topic, s.Group, to.label), as: topic, group: s.Group, rightful: t.name}
			if err := t.add(s, run, h); err != nil {
				faults = append(faults, err)
			}
		}
		if t.KeepOrder && len(tiers) > 0 {
			if err := t.addQueue(s, run, topic, tiers); err != nil {
				faults = append(faults, err)
			}
		}
	}
	s.WithValue(runKey{}, run)
	s.WithValue(loggerKey{}, s.Logger)
	if err := errors.Join(faults...); err != nil {
		return fmt.Errorf("retry.Topics: %w", err)
	}
	return nil
}

// check returns what is wrong with the fields, beside the topics.
func (t Topics) check(s *wherry.Setup) []error {
	faults := t.Policy.check()
	if t.Policy.Jitter != 0 {
		faults = append(faults, fmt.Errorf("the Policy has a Jitter of %v: records of a delay topic are to be due one after the other", t.Policy.Jitter))
	}
	if t.KeepOrder && s.Order == wherry.Unordered {
		faults = append(faults, errors.New("KeepOrder, and the Consumer is Unordered: set its Order to ByKey or ByPartition"))
	}
	if t.KeepOrder && t.Spec.Partitions != 0 {
		faults = append(faults, errors.New("KeepOrder, and Spec has Partitions: the delay topics need as many as the topic itself"))
	}
	if s.Tables && t.Spec.Partitions != 0 {
		faults = append(faults, errors.New("the Consumer has Tables, and Spec has Partitions: the delay topics need as many as the topic itself"))
	}
	if s.Tables && !t.KeepOrder && s.Order != wherry.Unordered {
		faults = append(faults, errors.New("the Consumer has Tables and an Order, and KeepOrder is not set: a record that comes back would be handled beside others of its key, and write over what they wrote"))
	}
	if t.Spec.Name != "" || t.Spec.Like != "" || t.Spec.Changelog {
		faults = append(faults, errors.New("a Name, Like or Changelog in Spec: these are for the policy to set (see Topics.Name)"))
	}
	return faults
}

// add subscribes to a delay topic and asks for it.
func (t Topics) add(s *wherry.Setup, run *run, h hop) error {
	if err := checkName(h.name); err != nil {
		return err
	}
	if other, ok := run.hops[h.name]; ok {
		return fmt.Errorf("the delay topics %s of %s and %s of %s have one name, %s", other.label, other.as, h.label, h.as, h.name)
	}
	config, err := t.config(h.delay)
	if err != nil {
		return fmt.Errorf("topic %s: %w", h.name, err)
	}
	run.hops[h.name] = h
	s.Subscribe(wherry.Hop{Topic: h.name, As: h.as, Origin: h.origin, Due: h.due})
	spec := t.Spec
	spec.Name, spec.Like, spec.Config = h.name, h.as, config
	s.Need(spec)
	return nil
}

func checkName(name string) error {
	if topicName.MatchString(name) && name != "." && name != ".." {
		return nil
	}
	return fmt.Errorf("the topic would be %.300q, %d characters long; a name has 1 to 249 letters, digits, '.', '_' or '-': set Topics.Name", name, len(name))
}

// config returns the settings of a delay topic. Nothing may go away there that
// was not read.
func (t Topics) config(delay time.Duration) (map[string]string, error) {
	config := map[string]string{"retention.ms": strconv.FormatInt(retention(delay).Milliseconds(), 10)}
	maps.Copy(config, t.Spec.Config)
	for key, must := range map[string]string{"cleanup.policy": "delete", "retention.bytes": "-1"} {
		if has, ok := config[key]; ok && has != must {
			return nil, fmt.Errorf("Spec.Config has %s=%s, which loses records that wait: it must be %s", key, has, must)
		}
		config[key] = must
	}
	kept, err := strconv.ParseInt(config["retention.ms"], 10, 64)
	if err != nil || kept < -1 {
		return nil, fmt.Errorf("Spec.Config has retention.ms=%s: it must be a number of milliseconds, or -1", config["retention.ms"])
	}
	if kept >= 0 && kept <= delay.Milliseconds() {
		return nil, fmt.Errorf("Spec.Config has retention.ms=%d, and records wait %v: they would be gone before", kept, delay)
	}
	return config, nil
}

// retention is Kafka's own default of 7 days where that is well beyond the
// delay.
func retention(delay time.Duration) time.Duration {
	if delay <= day {
		return keep
	}
	return add(delay, keep)
}
