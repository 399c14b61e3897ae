package wherry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/internal/client"
)

// TopicSpec says how a topic must be. Fields left zero are the cluster's to
// decide, and are not checked.
type TopicSpec struct {
	// Name is the topic's name: up to 249 letters, digits, dots, underscores
	// and hyphens.
	Name string
	// Partitions is the number of partitions. 0 means the broker's
	// num.partitions, or as many as topic Like has.
	Partitions int32
	// Like names a topic that, where it exists, a new one gets its number of
	// partitions from.
	Like string
	// ReplicationFactor is the number of replicas. 0 means the broker's
	// default.replication.factor; an existing topic may have more than asked
	// for.
	ReplicationFactor int16
	// Changelog asks for a topic that a [Table] can be rebuilt from:
	// cleanup.policy=compact, and retention.ms=-1 because a broker may
	// otherwise delete the last record of a key.
	Changelog bool
	// Config has further settings by their Kafka names
	// ("max.message.bytes": "2000000").
	Config map[string]string
}

// TopicError says that a topic is not as its TopicSpec asks, or could not be
// made so.
type TopicError struct {
	Topic string
	Err   error // what is wrong, and how to mend it
}

func (e *TopicError) Error() string { return fmt.Sprintf("topic %s: %v", e.Topic, e.Err) }

// Unwrap returns what is wrong.
func (e *TopicError) Unwrap() error { return e.Err }

// EnsureTopics makes the topics that do not exist and checks those that do. It
// never changes a topic: where one differs from its spec it returns a
// [*TopicError] that says how to mend it, all of them joined. Several
// processes may ensure the same topics at once.
//
// It waits, logging to [slog.Default], until a broker answers and until every
// partition has a leader; it returns at once when credentials are refused. It
// needs the rights CREATE, DESCRIBE and DESCRIBE_CONFIGS on the topics.
func EnsureTopics(ctx context.Context, cl *kgo.Client, specs ...TopicSpec) error {
	if cl == nil {
		return errors.New("ensuring topics: the client is nil")
	}
	if err := checkSpecs(specs); err != nil {
		return err
	}
	log := slog.Default()
	for {
		if err := client.Connect(ctx, cl, log); err != nil {
			return err
		}
		err := ensure(ctx, cl, specs, log)
		if !unreachable(err) || ctx.Err() != nil {
			return err
		}
		log.WarnContext(ctx, "kafka: ensuring topics failed, trying again", "error", err)
		select {
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		case <-time.After(250 * time.Millisecond):
		}
	}
}

// unreachable reports whether err is a broker's that was there a moment ago.
func unreachable(err error) bool {
	if _, ok := errors.AsType[net.Error](err); ok {
		return true
	}
	return errors.Is(err, io.EOF)
}

func ensure(ctx context.Context, cl *kgo.Client, specs []TopicSpec, log *slog.Logger) error {
	adm := kadm.NewClient(cl)
	names := make([]string, len(specs))
	var likes []string
	for i, spec := range specs {
		names[i] = spec.Name
		if spec.Like != "" {
			likes = append(likes, spec.Like)
		}
	}
	found, err := listTopics(ctx, adm, append(likes, names...))
	if err != nil {
		return err
	}
	for _, spec := range specs {
		detail := found[spec.Name]
		switch {
		case detail.Err == nil && len(detail.Partitions) > 0:
			continue
		case detail.Err != nil && !errors.Is(detail.Err, kerr.UnknownTopicOrPartition) && !retriable(detail.Err):
			err = errors.Join(err, &TopicError{spec.Name, detail.Err})
			continue
		}
		if like := found[spec.Like]; spec.Partitions == 0 && like.Err == nil {
			spec.Partitions = int32(len(like.Partitions))
		}
		made, createErr := create(ctx, adm, spec)
		if createErr != nil {
			err = errors.Join(err, &TopicError{spec.Name, createErr})
		} else if made {
			log.InfoContext(ctx, "kafka: topic created", "topic", spec.Name)
		}
	}
	if err != nil {
		return err
	}
	if found, err = awaitLeaders(ctx, adm, names); err != nil {
		return err
	}
	return checkTopics(ctx, adm, specs, found)
}

var topicName = regexp.MustCompile(`^[a-zA-Z0-9._-]{1,249}$`)

func checkSpecs(specs []TopicSpec) (err error) {
	seen := map[string]bool{}
	for _, s := range specs {
		switch {
		case !topicName.MatchString(s.Name) || s.Name == "." || s.Name == "..":
			err = errors.Join(err, &TopicError{s.Name, errors.New("the name must be 1 to 249 letters, digits, '.', '_' or '-'")})
		case seen[s.Name]:
			err = errors.Join(err, &TopicError{s.Name, errors.New("specified twice")})
		case s.Changelog && contradicts(s.Config, changelogConfig):
			err = errors.Join(err, &TopicError{s.Name, errors.New("a Changelog has cleanup.policy=compact and retention.ms=-1, Config asks for something else")})
		case s.Partitions < 0 || s.ReplicationFactor < 0:
			err = errors.Join(err, &TopicError{s.Name, errors.New("the numbers of partitions and replicas must not be negative")})
		}
		seen[s.Name] = true
	}
	return err
}

// required are the settings that a topic must have, by name.
func (s TopicSpec) required() map[string]string {
	all := maps.Clone(s.Config)
	if s.Changelog {
		if all == nil {
			all = map[string]string{}
		}
		maps.Copy(all, changelogConfig)
	}
	return all
}

// changelogConfig is what makes a topic a changelog.
var changelogConfig = map[string]string{"cleanup.policy": "compact", "retention.ms": "-1"}

// contradicts reports whether config has a setting of must with another value.
func contradicts(config, must map[string]string) bool {
	for k, v := range must {
		if has, ok := config[k]; ok && !sameSetting(has, v) {
			return true
		}
	}
	return false
}

// changelogAdvice keeps a changelog short, so that it is read back fast. It is
// set where the broker knows the settings, and never checked.
var changelogAdvice = map[string]string{
	"min.cleanable.dirty.ratio": "0.1",
	"segment.ms":                "3600000",
}

// create makes the topic and reports whether it did: another process may have
// been faster.
func create(ctx context.Context, adm *kadm.Client, s TopicSpec) (made bool, err error) {
	required := s.required()
	configs := pointers(required)
	if s.Changelog {
		for k, v := range changelogAdvice {
			if _, set := configs[k]; !set {
				configs[k] = kadm.StringPtr(v)
			}
		}
	}
	partitions, replicas := cmp.Or(s.Partitions, -1), cmp.Or(s.ReplicationFactor, -1)
	resp, err := adm.CreateTopic(ctx, partitions, replicas, configs, s.Name)
	if s.Changelog && errors.Is(err, kerr.InvalidConfig) {
		resp, err = adm.CreateTopic(ctx, partitions, replicas, pointers(required), s.Name)
	}
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, kerr.TopicAlreadyExists):
		return false, nil
	case errors.Is(err, kerr.TopicAuthorizationFailed), errors.Is(err, kerr.ClusterAuthorizationFailed):
		return false, fmt.Errorf("it does not exist and may not be created: grant CREATE on it, or have it made: %w", err)
	case resp.ErrMessage != "":
		return false, fmt.Errorf("creating it: %w: %s", err, resp.ErrMessage)
	}
	return false, fmt.Errorf("creating it: %w", err)
}

func pointers(m map[string]string) map[string]*string {
	all := make(map[string]*string, len(m))
	for k, v := range m {
		all[k] = kadm.StringPtr(v)
	}
	return all
}

// listTopics asks a broker. kadm would answer from what the client heard within
// its MetadataMinAge, 5 s unless set, were it not asked for the authorized
// operations as well.
func listTopics(ctx context.Context, adm *kadm.Client, names []string) (kadm.TopicDetails, error) {
	found, err := adm.ListTopics(kadm.WithAuthorizedOps(ctx), names...)
	if err != nil {
		return nil, fmt.Errorf("listing topics: %w", err)
	}
	return found, nil
}

// awaitLeaders waits until the brokers agree that each topic exists and each
// of its partitions has a leader.
func awaitLeaders(ctx context.Context, adm *kadm.Client, names []string) (kadm.TopicDetails, error) {
	told := time.Now()
	for {
		found, err := listTopics(ctx, adm, names)
		if err != nil {
			return nil, err
		}
		var missing []string
		for _, name := range names {
			detail := found[name]
			if detail.Err != nil && !errors.Is(detail.Err, kerr.UnknownTopicOrPartition) && !retriable(detail.Err) {
				return nil, &TopicError{name, detail.Err}
			}
			led := detail.Err == nil && len(detail.Partitions) > 0
			for _, p := range detail.Partitions {
				led = led && p.Err == nil && p.Leader >= 0
			}
			if !led {
				missing = append(missing, name)
			}
		}
		if len(missing) == 0 {
			return found, nil
		}
		if time.Since(told) > 5*time.Second {
			told = time.Now()
			slog.WarnContext(ctx, "kafka: waiting for partitions to have leaders", "topics", missing)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for leaders of %s: %w", strings.Join(missing, ", "), context.Cause(ctx))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// sameSetting compares settings as a broker reads them: it reports numbers,
// booleans and lists in a form of its own.
func sameSetting(a, b string) bool {
	if x, err := strconv.ParseFloat(strings.TrimSpace(a), 64); err == nil {
		y, err := strconv.ParseFloat(strings.TrimSpace(b), 64)
		return err == nil && x == y
	}
	list := func(s string) []string {
		parts := strings.Split(strings.ToLower(s), ",")
		for i := range parts {
			parts[i] = strings.TrimSpace(parts[i])
		}
		return parts
	}
	return slices.Equal(list(a), list(b))
}

func retriable(err error) bool { return kerr.IsRetriable(err) }

// checkTopics compares what exists with what is asked for.
func checkTopics(ctx context.Context, adm *kadm.Client, specs []TopicSpec, found kadm.TopicDetails) (faults error) {
	differs := func(topic, format string, args ...any) {
		faults = errors.Join(faults, &TopicError{topic, fmt.Errorf(format, args...)})
	}
	var configured []string
	for _, s := range specs {
		d := found[s.Name]
		if have := int32(len(d.Partitions)); s.Partitions > 0 && have != s.Partitions {
			remedy := fmt.Sprintf("kafka-topics --alter --topic %s --partitions %d (keys move to other partitions)", s.Name, s.Partitions)
			if have > s.Partitions {
				remedy = "partitions cannot be removed: ask for as many as there are, or make the topic anew"
			}
			differs(s.Name, "it has %d partitions, %d are asked for: %s", have, s.Partitions, remedy)
		}
		if have := d.Partitions.NumReplicas(); s.ReplicationFactor > 0 && have < int(s.ReplicationFactor) {
			differs(s.Name, "it has %d replicas, %d are asked for: kafka-reassign-partitions", have, s.ReplicationFactor)
		}
		if len(s.required()) > 0 {
			configured = append(configured, s.Name)
		}
	}
	if len(configured) == 0 {
		return faults
	}
	all, err := describeConfigs(ctx, adm, configured)
	if err != nil {
		return errors.Join(faults, fmt.Errorf("reading the topics' settings: %w", err))
	}
	for _, s := range specs {
		required := s.required()
		if len(required) == 0 {
			continue
		}
		rc, err := all.On(s.Name, nil)
		if err = errors.Join(err, rc.Err); err != nil {
			differs(s.Name, "its settings cannot be checked, DESCRIBE_CONFIGS is needed: %w", err)
			continue
		}
		have := map[string]string{}
		for _, c := range rc.Configs {
			have[c.Key] = c.MaybeValue()
		}
		for _, k := range slices.Sorted(maps.Keys(required)) {
			if !sameSetting(have[k], required[k]) {
				differs(s.Name, "%s is %q, %q is asked for: kafka-configs --alter --entity-type topics --entity-name %s --add-config %s=%s",
					k, have[k], required[k], s.Name, k, required[k])
			}
		}
	}
	return faults
}

// describeConfigs asks for the settings of topics that exist: a broker that has
// not heard yet of one that was just made is asked again.
func describeConfigs(ctx context.Context, adm *kadm.Client, topics []string) (kadm.ResourceConfigs, error) {
	const tries = 50
	for try := 1; ; try++ {
		all, err := adm.DescribeTopicConfigs(ctx, topics...)
		unheard := slices.ContainsFunc(all, func(rc kadm.ResourceConfig) bool { return errors.Is(rc.Err, kerr.UnknownTopicOrPartition) })
		if err != nil || !unheard || try == tries {
			return all, err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(100 * time.Millisecond):
		}
	}
}
