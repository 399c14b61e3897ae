package kafkatest

import (
	"context"
	"net"
	"strconv"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Disconnect takes a node away from the clients that faults hit (see Requests),
// until Remove: their connections to it break, and new ones are refused. The node
// itself goes on, so partitions that it leads are not to be reached meanwhile.
// Each broken connection and each refused one is a hit.
func (k *Cluster) Disconnect(t testing.TB, node int) *Fault {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), k.adminTimeout())
	defer cancel()
	brokers, err := kadm.NewClient(k.admin).ListBrokers(fresh(ctx))
	if err != nil {
		t.Fatalf("kafkatest: list the brokers: %v", err)
	}
	for _, b := range brokers {
		if int(b.NodeID) != node {
			continue
		}
		f := k.fault(t, &Fault{effect: leave, node: hostport(net.JoinHostPort(b.Host, strconv.Itoa(int(b.Port))))})
		for range k.network.cut(func(c *conn) bool { return hostport(c.addr) == f.node }) {
			f.hitNow()
		}
		return f
	}
	t.Fatalf("kafkatest: there is no node %d", node)
	return nil
}

// AddNode adds a node to the embedded broker and returns its number; the first
// node is 0. Partitions and groups move: their leaders and coordinators are drawn
// anew among all nodes. A real cluster has the nodes that it has, and the test is
// skipped.
func (k *Cluster) AddNode(t testing.TB) int {
	t.Helper()
	k.onlyEmbedded(t, "AddNode")
	port := 0
	if k.virtual {
		port = firstPort + len(k.embedded.ListenAddrs())
	}
	node, _, err := k.embedded.AddNode(-1, port)
	if err != nil {
		t.Fatalf("kafkatest: add a node: %v", err)
	}
	return int(node)
}

// MoveLeader makes a node the leader of a partition of the embedded broker. Its
// clients hear of it from the old leader, as they do in a real cluster. On a real
// one the test is skipped: there a node that stops moves leaders (NewApache).
func (k *Cluster) MoveLeader(t testing.TB, topic string, partition int32, node int) {
	t.Helper()
	k.onlyEmbedded(t, "MoveLeader")
	if err := k.embedded.MoveTopicPartition(topic, partition, int32(node)); err != nil {
		t.Fatalf("kafkatest: make node %d the leader of %s/%d: %v", node, topic, partition, err)
	}
}

// answerEpochs answers, in kfake's place, up to where a leader's epoch reached.
// kfake says that it never heard of the last epoch that has records, where a later
// one has none yet, and a client takes that for the loss of all records. Nothing is
// ever lost here, so every position up to the end is a good one.
func answerEpochs(fake *kfake.Cluster) {
	fake.ControlKey(int16(kmsg.OffsetForLeaderEpoch), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
		fake.KeepControl()
		req := kreq.(*kmsg.OffsetForLeaderEpochRequest)
		resp := req.ResponseKind().(*kmsg.OffsetForLeaderEpochResponse)
		for _, rt := range req.Topics {
			topic := kmsg.NewOffsetForLeaderEpochResponseTopic()
			topic.Topic = rt.Topic
			for _, rp := range rt.Partitions {
				p := kmsg.NewOffsetForLeaderEpochResponseTopicPartition()
				p.Partition = rp.Partition
				switch info := fake.PartitionInfo(rt.Topic, rp.Partition); {
				case info == nil:
					p.ErrorCode = kerr.UnknownTopicOrPartition.Code
				case info.Leader != fake.CurrentNode():
					p.ErrorCode = kerr.NotLeaderForPartition.Code
				case rp.CurrentLeaderEpoch >= 0 && rp.CurrentLeaderEpoch < info.Epoch:
					p.ErrorCode = kerr.FencedLeaderEpoch.Code
				case rp.CurrentLeaderEpoch > info.Epoch:
					p.ErrorCode = kerr.UnknownLeaderEpoch.Code
				default:
					p.LeaderEpoch, p.EndOffset = rp.LeaderEpoch, info.HighWatermark
				}
				topic.Partitions = append(topic.Partitions, p)
			}
			resp.Topics = append(resp.Topics, topic)
		}
		return resp, nil, true
	})
}

// Leader returns the number of the node that leads a partition.
func (k *Cluster) Leader(t testing.TB, topic string, partition int32) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), k.adminTimeout())
	defer cancel()
	topics, err := kadm.NewClient(k.admin).ListTopics(fresh(ctx), topic)
	if err == nil {
		err = topics.Error()
	}
	if err != nil {
		t.Fatalf("kafkatest: find the leader of %s/%d: %v", topic, partition, err)
	}
	return int(topics[topic].Partitions[partition].Leader)
}

// fresh makes kadm ask a broker where it would answer from what the client heard a
// moment ago.
func fresh(ctx context.Context) context.Context { return kadm.WithAuthorizedOps(ctx) }

// onlyEmbedded skips a test that asks a real cluster for what it cannot do.
func (k *Cluster) onlyEmbedded(t testing.TB, what string) {
	t.Helper()
	if k.embedded == nil {
		t.Skipf("kafkatest: %s is for the embedded broker only", what)
	}
}
