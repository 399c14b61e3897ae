package wherry_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wherry-go/wherry"
)

// faulty is an embedded broker that a test can make fail.
type faulty struct{ *kfake.Cluster }

func newFaulty(t *testing.T, topics map[string]int32) faulty {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.GroupMinSessionTimeout(100*time.Millisecond), kfake.SleepOutOfOrder())
	require.NoError(t, err)
	t.Cleanup(c.Close)
	for topic, partitions := range topics {
		require.NoError(t, c.CreateTopic(topic, partitions, nil))
	}
	return faulty{c}
}

func (c faulty) client(t *testing.T, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(c.ListenAddrs()...),
		kgo.DisableClientMetrics(),
		kgo.MetadataMinAge(10 * time.Millisecond),
		kgo.RetryBackoffFn(func(int) time.Duration { return 10 * time.Millisecond }),
		kgo.FetchMaxWait(250 * time.Millisecond),
	}, opts...)...)
	require.NoError(t, err)
	t.Cleanup(cl.CloseAllowingRebalance)
	return cl
}

// fill produces n orders to each of the partitions of order.placed; their ids
// are <partition>-<offset>.
func (c faulty) fill(t *testing.T, partitions int32, n int) {
	t.Helper()
	cl := c.client(t, kgo.RecordPartitioner(wherry.Partitioner(kgo.StickyKeyPartitioner(nil))))
	defer cl.Close()
	for p := range partitions {
		var batch []*kgo.Record
		for i := range n {
			r, err := orderPlaced.Record("", order{ID: fmt.Sprintf("%d-%d", p, i)})
			require.NoError(t, err)
			wherry.ToPartition(r, p)
			batch = append(batch, r)
		}
		require.NoError(t, cl.ProduceSync(t.Context(), batch...).FirstErr())
	}
}

func (c faulty) committed(group, topic string, partition int32) int64 {
	info := c.GroupInfo(group)
	if info == nil {
		return -1
	}
	at, ok := info.Commits[topic][partition]
	if !ok {
		return -1
	}
	return at.Offset
}

// each runs f for every request of the key.
func (c faulty) each(key kmsg.Key, f func(kmsg.Request) (kmsg.Response, error, bool)) {
	c.ControlKey(int16(key), func(req kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		return f(req)
	})
}

// watchCommits notes each time that the group's offset of a partition goes
// back.
func (c faulty) watchCommits(t *testing.T, group string) (backwards func() []string) {
	t.Helper()
	var (
		mu    sync.Mutex
		notes []string
		at    = map[string]int64{}
	)
	ctx, cancel := context.WithCancel(context.Background())
	var watching sync.WaitGroup
	watching.Go(func() {
		for ctx.Err() == nil {
			if info := c.GroupInfo(group); info != nil {
				for topic, ps := range info.Commits {
					for p, commit := range ps {
						tp := fmt.Sprintf("%s/%d", topic, p)
						if before, ok := at[tp]; ok && commit.Offset < before {
							mu.Lock()
							notes = append(notes, fmt.Sprintf("%s: %d after %d", tp, commit.Offset, before))
							mu.Unlock()
						}
						at[tp] = commit.Offset
					}
				}
			}
			time.Sleep(2 * time.Millisecond)
		}
	})
	t.Cleanup(func() { cancel(); watching.Wait() })
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return append([]string(nil), notes...)
	}
}

// outcomes returns how often each payment of payment.made is there.
func (c faulty) outcomes(t *testing.T) map[string]int {
	t.Helper()
	cl := c.client(t, kgo.ConsumeTopics("payment.made"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	var left int64
	for _, p := range c.PartitionInfos("payment.made") {
		left += p.HighWatermark
	}
	got := map[string]int{}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for left > 0 {
		fetches := cl.PollFetches(ctx)
		require.NoError(t, ctx.Err(), "reading payment.made")
		fetches.EachRecord(func(r *kgo.Record) {
			left--
			p, err := paymentMade.Decode(r)
			require.NoError(t, err)
			got[p.OrderID]++
		})
	}
	return got
}

// forget removes a member of a group, behind its back.
func (c faulty) forget(group, member string) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...), kgo.DisableClientMetrics())
	if err != nil {
		return
	}
	defer cl.Close()
	leave := kmsg.NewPtrLeaveGroupRequest()
	leave.Group, leave.MemberID = group, member
	m := kmsg.NewLeaveGroupRequestMember()
	m.MemberID = member
	leave.Members = append(leave.Members, m)
	_, _ = leave.RequestWith(context.Background(), cl)
	if info := c.GroupInfo(group); info == nil || !slices.ContainsFunc(info.Members, func(m kfake.GroupMember) bool { return m.MemberID == member }) {
		return
	}
	beat := kmsg.NewPtrConsumerGroupHeartbeatRequest() // the same, of members under KIP-848
	beat.Group, beat.MemberID, beat.MemberEpoch = group, member, -1
	_, _ = beat.RequestWith(context.Background(), cl)
}
