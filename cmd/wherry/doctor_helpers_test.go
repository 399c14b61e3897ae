package main_test

import (
	"context"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wherry-go/wherry/kafkatest"
)

// diagnosis is what "wherry doctor -json" writes.
type diagnosis struct {
	code    int
	Cluster string
	Brokers []struct {
		ID      int32
		Version string
		Down    bool
	}
	Groups []struct {
		Name, State, Protocol    string
		Members, Lag, Partitions int
	}
	Topics           []string
	Errors, Warnings int
	Notes            int
	Findings         []struct {
		Check, Severity, What, Why, Mend string
		Commands, Where                  []string
	}
	NotChecked []struct {
		What, Why string
		Named     bool
	}
}

// all are the findings, as "severity check: what".
func (d diagnosis) all() (all []string) {
	for _, f := range d.Findings {
		all = append(all, f.Severity+" "+f.Check+": "+f.What+" "+strings.Join(f.Where, "; ")+" "+strings.Join(f.Commands, "; "))
	}
	return all
}

// has reports whether there is such a finding, with these words in it.
func (d diagnosis) has(finding string, words ...string) bool {
	return slices.ContainsFunc(d.all(), func(f string) bool {
		if !strings.HasPrefix(f, finding+": ") {
			return false
		}
		for _, w := range words {
			if !strings.Contains(f, w) {
				return false
			}
		}
		return true
	})
}

func (d diagnosis) missed() (all []string) {
	for _, m := range d.NotChecked {
		all = append(all, m.What+": "+m.Why)
	}
	return all
}

// doctor runs the command against brokers.
func doctor(t *testing.T, brokers []string, args ...string) diagnosis {
	t.Helper()
	d, stderr := doctorWith(t, brokers, nil, args...)
	require.Empty(t, stderr)
	return d
}

func doctorWith(t *testing.T, brokers, env []string, args ...string) (d diagnosis, stderr string) {
	t.Helper()
	code, stdout, stderr := callWith(t, append(env, "WHERRY_BROKERS="+strings.Join(brokers, ",")), append([]string{"doctor", "-json"}, args...)...)
	require.NoError(t, json.Unmarshal([]byte(stdout), &d), "%s%s", stdout, stderr)
	d.code = code
	require.Equal(t, len(d.Findings), d.Errors+d.Warnings+d.Notes)
	return d, stderr
}

// onBoth runs a test on the embedded broker and on an Apache Kafka.
func onBoth(t *testing.T, topics []string, test func(t *testing.T, k *kafkatest.Cluster)) {
	t.Parallel()
	t.Run("embedded", func(t *testing.T) {
		t.Parallel()
		if os.Getenv("KAFKATEST_BROKERS") != "" {
			t.Skip("a borrowed broker has what others do in it; the other test has one of its own")
		}
		test(t, kafkatest.NewCluster(t, topics...))
	})
	t.Run("Apache", func(t *testing.T) {
		t.Parallel()
		test(t, kafkatest.NewApache(t, kafkatest.ApacheConfig{Topics: topics}).Cluster)
	})
}

// produce writes a record to a topic's first partition.
func produce(t *testing.T, cl *kgo.Client, topic string) {
	t.Helper()
	require.NoError(t, cl.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Value: []byte("v")}).FirstErr())
}

func commit(t *testing.T, cl *kgo.Client, group, topic string, offset int64, metadata string) {
	t.Helper()
	var o kadm.Offsets
	o.Add(kadm.Offset{Topic: topic, At: offset, LeaderEpoch: -1, Metadata: metadata})
	require.NoError(t, kadm.NewClient(cl).CommitAllOffsets(t.Context(), group, o))
}

// await asks until what is asked for is so, and then looks closer.
func await(t *testing.T, ask func() (diagnosis, bool), then func(diagnosis)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*limit)
	defer cancel()
	for {
		d, ok := ask()
		if ok {
			then(d)
			return
		}
		require.NoError(t, ctx.Err(), "%v %+v", d.all(), d.Groups)
	}
}

// hold opens a transaction with a record and an offset of a group in it, and
// leaves it.
func hold(t *testing.T, k *kafkatest.Cluster, id, group, topic string) *kgo.Client {
	t.Helper()
	cl := k.Client(t, kgo.TransactionalID(id), kgo.RequestRetries(5))
	require.NoError(t, cl.BeginTransaction())
	produce(t, cl, topic)
	producer, epoch, err := cl.ProducerID(t.Context())
	require.NoError(t, err)
	add := kmsg.NewPtrAddOffsetsToTxnRequest()
	add.TransactionalID, add.ProducerID, add.ProducerEpoch, add.Group = id, producer, epoch, group
	added, err := add.RequestWith(t.Context(), cl)
	require.NoError(t, err)
	require.NoError(t, kerr.ErrorForCode(added.ErrorCode))
	req := kmsg.NewPtrTxnOffsetCommitRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Group, req.Generation = id, producer, epoch, group, -1
	rt, rp := kmsg.NewTxnOffsetCommitRequestTopic(), kmsg.NewTxnOffsetCommitRequestTopicPartition()
	topics, err := kadm.NewClient(cl).ListTopics(t.Context(), topic)
	require.NoError(t, err)
	rp.Offset, rt.Topic, rt.TopicID = 1, topic, topics[topic].ID
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	resp, err := req.RequestWith(t.Context(), cl)
	require.NoError(t, err)
	require.NoError(t, kerr.ErrorForCode(resp.Topics[0].Partitions[0].ErrorCode))
	return cl
}
