package kafkatest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Partitions is how many partitions a topic has unless its name says otherwise:
// enough that order across keys cannot be relied upon by chance.
const Partitions = 4

// Topic describes a topic to make. A topic that needs no Config is shorter as a
// name given to NewCluster: "orders", or "orders:1".
type Topic struct {
	Name       string
	Partitions int               // 0 means the constant Partitions
	Config     map[string]string // such as cleanup.policy=compact; the embedded broker refuses names that it does not know
}

// Create makes topics, with the broker's default replication, and returns when
// every broker knows them and each partition has a leader.
func (k *Cluster) Create(t testing.TB, topics ...Topic) {
	t.Helper()
	if len(topics) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), k.adminTimeout())
	defer cancel()
	if err := k.create(ctx, topics); err != nil {
		t.Fatalf("kafkatest: %v", err)
	}
}

// create is Create for those who have something else to do about an error. All
// topics are made by one request, and all that are refused are named.
func (k *Cluster) create(ctx context.Context, topics []Topic) error {
	req := kmsg.NewPtrCreateTopicsRequest()
	req.TimeoutMillis = int32(k.adminTimeout().Milliseconds())
	want := make(map[string]wanted, len(topics))
	for _, topic := range topics {
		rt := kmsg.NewCreateTopicsRequestTopic()
		rt.Topic, rt.NumPartitions, rt.ReplicationFactor = topic.Name, int32(topic.Partitions), -1
		if topic.Partitions == 0 {
			rt.NumPartitions = Partitions
		}
		for name, value := range topic.Config {
			c := kmsg.NewCreateTopicsRequestTopicConfig()
			c.Name, c.Value = name, &value
			rt.Configs = append(rt.Configs, c)
		}
		req.Topics = append(req.Topics, rt)
		want[topic.Name] = wanted{partitions: int(rt.NumPartitions)}
	}
	resp, err := req.RequestWith(ctx, k.admin)
	if err != nil {
		return fmt.Errorf("create topics: %w", err)
	}
	var errs []error
	for _, rt := range resp.Topics {
		if err := kerr.ErrorForCode(rt.ErrorCode); err != nil {
			why := ""
			if rt.ErrorMessage != nil {
				why = " (" + *rt.ErrorMessage + ")"
			}
			errs = append(errs, fmt.Errorf("create topic %q: %w%s", rt.Topic, err, why))
		}
		want[rt.Topic] = wanted{partitions: want[rt.Topic].partitions, id: rt.TopicID}
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	return k.await(ctx, want)
}

// wanted is what a broker should say of a topic. The id tells a topic from one
// of the same name that was deleted a moment ago.
type wanted struct {
	partitions int // 0: the topic is gone
	id         [16]byte
}

// await returns when every broker serves the topics as wanted. A broker answers the request that made or
// deleted a topic before all brokers, itself included, have heard of it.
func (k *Cluster) await(ctx context.Context, want map[string]wanted) error {
	names := make([]string, 0, len(want))
	for name := range want {
		names = append(names, name)
	}
	adm := kadm.NewClient(k.admin)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		brokers, err := adm.ListBrokers(fresh(ctx))
		if err != nil {
			return fmt.Errorf("list the brokers: %w", err)
		}
		missing := ""
		for _, b := range brokers.NodeIDs() {
			if missing = k.missing(ctx, b, want, names); missing != "" {
				break
			}
		}
		if missing == "" {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("await topics: %s: %w", missing, ctx.Err())
		}
	}
}

// missing asks one broker for the topics and says what is not yet as wanted.
func (k *Cluster) missing(ctx context.Context, broker int32, want map[string]wanted, names []string) string {
	req := kmsg.NewPtrMetadataRequest()
	for _, name := range names {
		rt := kmsg.NewMetadataRequestTopic()
		rt.Topic = kmsg.StringPtr(name)
		req.Topics = append(req.Topics, rt)
	}
	resp, err := req.RequestWith(ctx, k.admin.Broker(int(broker)))
	if err != nil {
		return fmt.Sprintf("broker %d: %v", broker, err)
	}
	for _, rt := range resp.Topics {
		name, err := *rt.Topic, kerr.ErrorForCode(rt.ErrorCode)
		w := want[name]
		switch {
		case w.partitions == 0 && errors.Is(err, kerr.UnknownTopicOrPartition):
		case w.partitions == 0:
			return fmt.Sprintf("broker %d still has topic %q", broker, name)
		case err != nil || len(rt.Partitions) != w.partitions || rt.TopicID != w.id:
			return fmt.Sprintf("broker %d does not have the new topic %q yet (%v)", broker, name, err)
		}
		for _, p := range rt.Partitions {
			if p.ErrorCode != 0 || p.Leader < 0 {
				return fmt.Sprintf("%s/%d has no leader (%v)", name, p.Partition, kerr.ErrorForCode(p.ErrorCode))
			}
		}
	}
	return ""
}

// adminTimeout bounds one administrative step, so that a test with a dead
// broker ends with a reason.
func (k *Cluster) adminTimeout() time.Duration {
	return min(max(k.Timeout, 10*time.Second), time.Minute)
}

// parseTopics reads names of the forms "orders" and "orders:1". A colon cannot
// be part of a topic's name in Kafka, so the form is unambiguous.
func parseTopics(t testing.TB, names []string) []Topic {
	t.Helper()
	topics := make([]Topic, 0, len(names))
	for _, name := range names {
		topic := Topic{Name: name}
		if before, n, ok := strings.Cut(name, ":"); ok {
			parts, err := strconv.Atoi(n)
			if err != nil || parts < 1 {
				t.Fatalf("kafkatest: topic %q: write a number of partitions after the colon, such as %q", name, before+":1")
			}
			topic.Name, topic.Partitions = before, parts
		}
		topics = append(topics, topic)
	}
	return topics
}
