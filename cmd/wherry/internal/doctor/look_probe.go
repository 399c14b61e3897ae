package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const probeTopic = "wherry-doctor-"

// probe makes a topic with a partition on each broker and has the brokers say
// when they append to it. The topic is deleted, whatever comes between.
func (g *gathering) probe(ctx context.Context) {
	name := fmt.Sprintf("%s%d", probeTopic, time.Now().UnixNano())
	needs := "CREATE, WRITE and DELETE on TOPIC " + probeTopic + "*"
	if err := g.makeProbe(ctx, name); err != nil {
		g.missed("the brokers' clocks, by -write-probe", needs, err)
		return
	}
	defer func() {
		// Also when the call is ended: the topic is ours to clear away.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), g.Timeout)
		defer cancel()
		if _, err := g.adm.DeleteTopic(ctx, name); err != nil {
			g.missed("the probe's topic "+name+" is left: delete it", "DELETE on TOPIC "+name, err)
		}
	}()
	clocks, err := g.readProbe(ctx, name)
	if err != nil {
		g.missed("the brokers' clocks, by -write-probe", needs, err)
	}
	g.facts.Clocks = append(g.facts.Clocks, clocks...)
}

// makeProbe makes the topic and waits until its partitions have leaders.
func (g *gathering) makeProbe(ctx context.Context, name string) error {
	ctx, cancel := g.within(ctx)
	defer cancel()
	req := kmsg.NewPtrCreateTopicsRequest()
	t := kmsg.NewCreateTopicsRequestTopic()
	t.Topic, t.NumPartitions, t.ReplicationFactor = name, -1, -1
	partition := int32(0)
	for _, b := range g.facts.Brokers {
		if b.Down {
			continue
		}
		a := kmsg.NewCreateTopicsRequestTopicReplicaAssignment()
		a.Partition, a.Replicas = partition, []int32{b.ID}
		t.ReplicaAssignment = append(t.ReplicaAssignment, a)
		partition++
	}
	for key, value := range map[string]string{"message.timestamp.type": "LogAppendTime", "min.insync.replicas": "1"} {
		c := kmsg.NewCreateTopicsRequestTopicConfig()
		c.Name, c.Value = key, kmsg.StringPtr(value)
		t.Configs = append(t.Configs, c)
	}
	req.Topics = append(req.Topics, t)
	resp, err := req.RequestWith(ctx, g.Client)
	if err != nil {
		return err
	}
	if len(resp.Topics) == 0 {
		return errors.New("there was no answer")
	}
	if err := kerr.ErrorForCode(resp.Topics[0].ErrorCode); err != nil {
		return err
	}
	return nil
}

// readProbe asks each broker for its time, by a write.
func (g *gathering) readProbe(ctx context.Context, name string) (clocks []Clock, err error) {
	cl, err := kgo.NewClient(slices.Concat(g.Client.Opts(), []kgo.Opt{
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0), kgo.DisableIdempotentWrite(),
		kgo.UnknownTopicRetries(-1), kgo.MetadataMinAge(50 * time.Millisecond),
	})...)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	alive := slices.DeleteFunc(slices.Clone(g.facts.Brokers), func(b Broker) bool { return b.Down })
	for partition, b := range alive {
		var best Clock
		for range samples + 1 { // the first one waits for the topic to be known
			c, e := g.appendTime(ctx, cl, name, int32(partition), b.ID)
			if e != nil {
				err = errors.Join(err, e)
				break
			}
			if best.Of == "" || c.Give < best.Give {
				best = c
			}
		}
		if best.Of != "" {
			clocks = append(clocks, best)
		}
	}
	return clocks, err
}

// appendTime has a broker append a record, and asks when that was.
func (g *gathering) appendTime(ctx context.Context, cl *kgo.Client, topic string, partition, broker int32) (Clock, error) {
	ctx, cancel := g.within(ctx)
	defer cancel()
	asked := time.Now()
	if err := cl.ProduceSync(ctx, &kgo.Record{Topic: topic, Partition: partition}).FirstErr(); err != nil {
		return Clock{}, err
	}
	took := time.Since(asked)
	listed, err := g.adm.ListMaxTimestampOffsets(ctx, topic)
	if err != nil {
		return Clock{}, err
	}
	o, _ := listed.Lookup(topic, partition)
	switch {
	case o.Err != nil:
		return Clock{}, o.Err
	case o.Timestamp <= 0:
		return Clock{}, kerr.UnsupportedVersion
	}
	return compare(fmt.Sprintf("broker %d", broker), asked, took, o.Timestamp), nil
}
