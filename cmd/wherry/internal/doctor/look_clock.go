package doctor

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// clock asks for the brokers' time. Without a write there is one answer that
// has it: that of DescribeQuorum (KIP-836), in which the controllers' leader
// gives its own time as that at which it was caught up itself. It needs
// KRaft and Kafka 3.3.
func (g *gathering) clock(ctx context.Context) {
	var best Clock
	for range samples {
		c, err := g.quorumClock(ctx)
		if err != nil {
			if !g.Probe {
				what := "clocks"
				if tooOld(err) {
					what = "clocks (-write-probe compares them by way of a topic that it makes and deletes)"
				}
				g.missed(what, "DESCRIBE on CLUSTER, or -write-probe and CREATE, WRITE and DELETE on TOPIC "+probeTopic+"*", err)
			}
			break
		}
		if best.Of == "" || c.Give < best.Give {
			best = c
		}
	}
	if best.Of != "" {
		g.facts.Clocks = append(g.facts.Clocks, best)
	}
	if g.Probe {
		g.probe(ctx)
	}
}

// samples is how often a clock is asked: the fastest answer counts.
const samples = 3

func (g *gathering) quorumClock(ctx context.Context) (Clock, error) {
	ctx, cancel := g.within(ctx)
	defer cancel()
	req := kmsg.NewPtrDescribeQuorumRequest()
	topic := kmsg.NewDescribeQuorumRequestTopic()
	topic.Topic = "__cluster_metadata"
	topic.Partitions = append(topic.Partitions, kmsg.NewDescribeQuorumRequestTopicPartition())
	req.Topics = append(req.Topics, topic)
	asked := time.Now()
	resp, err := req.RequestWith(ctx, g.anyone())
	took := time.Since(asked)
	if err == nil {
		err = kerr.ErrorForCode(resp.ErrorCode)
	}
	if err != nil {
		return Clock{}, err
	}
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return Clock{}, err
			}
			for _, v := range p.CurrentVoters {
				if v.ReplicaID == p.LeaderID && v.LastCaughtUpTimestamp > 0 {
					return compare(fmt.Sprintf("controller %d", v.ReplicaID), asked, took, v.LastCaughtUpTimestamp), nil
				}
			}
		}
	}
	return Clock{}, kerr.UnsupportedVersion
}

// compare makes a Clock of an answer that took some time, and that had the
// time in the middle of it, as far as is known.
func compare(of string, asked time.Time, took time.Duration, millis int64) Clock {
	give := took/2 + time.Millisecond
	return Clock{Of: of, Ahead: time.UnixMilli(millis).Sub(asked.Add(took / 2)), Give: give}
}
