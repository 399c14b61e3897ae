package client_test

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/internal/client"
)

// lend returns a client that no broker answers.
func lend(t *testing.T, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(slices.Concat([]kgo.Opt{kgo.SeedBrokers("127.0.0.1:1"), kgo.DisableClientMetrics()}, opts)...)
	require.NoError(t, err)
	t.Cleanup(cl.CloseAllowingRebalance)
	return cl
}

func TestCheckRefusesWhatCannotBeLentAndNamesTheOption(t *testing.T) {
	t.Parallel()
	at := kgo.NewOffset().AtStart()
	tests := []struct {
		name string
		opts []kgo.Opt
		want []string // parts of the error; none means that it may be lent
	}{
		{name: "a plain client"},
		{name: "a producer with its own settings", opts: []kgo.Opt{kgo.ProducerLinger(time.Second), kgo.DisableIdempotentWrite(), kgo.DefaultProduceTopic("orders"), kgo.RecordPartitioner(kgo.RoundRobinPartitioner())}},
		{name: "a group", opts: []kgo.Opt{kgo.ConsumerGroup("billing"), kgo.ConsumeTopics("orders")}, want: []string{"ConsumerGroup", "ConsumeTopics"}},
		{name: "topics", opts: []kgo.Opt{kgo.ConsumeTopics("orders")}, want: []string{"ConsumeTopics or ConsumePartitions"}},
		{name: "partitions", opts: []kgo.Opt{kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{"orders": {0: at}})}, want: []string{"ConsumeTopics or ConsumePartitions"}},
		{name: "a pattern of topics", opts: []kgo.Opt{kgo.ConsumeRegex(), kgo.ConsumeTopics("orders.*")}, want: []string{"ConsumeRegex"}},
		{name: "a pattern without topics", opts: []kgo.Opt{kgo.ConsumeRegex()}, want: []string{"ConsumeRegex"}},
		{name: "a share group", opts: []kgo.Opt{kgo.ShareGroup("billing"), kgo.ConsumeTopics("orders")}, want: []string{"ShareGroup"}},
		{name: "an instance id", opts: []kgo.Opt{kgo.ConsumerGroup("billing"), kgo.ConsumeTopics("orders"), kgo.InstanceID("a")}, want: []string{"InstanceID", "in Opts"}},
		{name: "a transactional id", opts: []kgo.Opt{kgo.TransactionalID("a")}, want: []string{"TransactionalID"}},
		{name: "manual flushing", opts: []kgo.Opt{kgo.ManualFlushing()}, want: []string{"ManualFlushing"}},
		{
			name: "all at once",
			opts: []kgo.Opt{kgo.ConsumerGroup("billing"), kgo.ConsumeTopics("orders.*"), kgo.ConsumeRegex(), kgo.InstanceID("a"), kgo.TransactionalID("a"), kgo.ManualFlushing()},
			want: []string{"ConsumerGroup", "ConsumeRegex", "InstanceID", "TransactionalID", "ManualFlushing"},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			err := client.Check(lend(t, test.opts...))
			if len(test.want) == 0 {
				require.NoError(t, err)
				return
			}
			require.Error(t, err)
			for _, part := range test.want {
				require.ErrorContains(t, err, part)
			}
		})
	}
}

func TestCheckRefusesATopicThatWasAddedLater(t *testing.T) {
	t.Parallel()
	cl := lend(t)
	cl.AddConsumeTopics("orders")
	require.ErrorContains(t, client.Check(cl), "ConsumeTopics")
}

func TestCheckRefusesNil(t *testing.T) {
	t.Parallel()
	require.ErrorContains(t, client.Check(nil), "set Client")
}

func TestOpenWeighsDefaultsLentOptsAndMusts(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		lent  []kgo.Opt
		opts  []kgo.Opt
		musts []kgo.Opt
		want  time.Duration
	}{
		{name: "the default is not kgo's own", want: 0},
		{name: "the lent client over the default", lent: []kgo.Opt{kgo.ProducerLinger(1)}, want: 1},
		{name: "opts over the lent client", lent: []kgo.Opt{kgo.ProducerLinger(1)}, opts: []kgo.Opt{kgo.ProducerLinger(2)}, want: 2},
		{name: "musts over opts", lent: []kgo.Opt{kgo.ProducerLinger(1)}, opts: []kgo.Opt{kgo.ProducerLinger(2)}, musts: []kgo.Opt{kgo.ProducerLinger(3)}, want: 3},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			cl, err := client.Open(lend(t, test.lent...), test.opts, test.musts...)
			require.NoError(t, err)
			defer cl.Close()
			require.Equal(t, test.want, cl.OptValue(kgo.ProducerLinger))
			require.Equal(t, []string{"127.0.0.1:1"}, cl.OptValue(kgo.SeedBrokers))
		})
	}
}

func TestOpenTwiceDoesNotMixTheOptionsOfTheTwo(t *testing.T) {
	t.Parallel()
	// Many options, so that the lent client's own slice is likely to have room
	// behind its end, where two appends would meet.
	for n := range 20 {
		var opts []kgo.Opt
		for range n {
			opts = append(opts, kgo.ClientID("lent"))
		}
		lent := lend(t, opts...)
		mine := make([]kgo.Opt, 1, 8)
		mine[0] = kgo.ClientID("first")
		first, err := client.Open(lent, mine, kgo.ConsumeTopics("first"))
		require.NoError(t, err)
		second, err := client.Open(lent, []kgo.Opt{kgo.ClientID("second")}, kgo.ConsumeTopics("second"))
		require.NoError(t, err)
		// What was opened hands its options on to others (a Consumer's client
		// to a Caller's): they must still be its own.
		again, err := kgo.NewClient(first.Opts()...)
		require.NoError(t, err)
		require.Equal(t, "first", again.OptValue(kgo.ClientID))
		require.Equal(t, []string{"first"}, again.GetConsumeTopics())
		require.Empty(t, lent.GetConsumeTopics())
		require.Nil(t, mine[:2][1], "the caller's slice was written to")
		for _, cl := range []*kgo.Client{first, second, again} {
			cl.Close()
		}
	}
}

// once is a hook that registers itself once, as kprom's does.
type once struct{ registered atomic.Bool }

func (o *once) OnNewClient(*kgo.Client) {
	if o.registered.Swap(true) {
		panic("duplicate metrics collector registration attempted")
	}
}

func TestAHookThatServesOneClientOnlyIsANamedError(t *testing.T) {
	t.Parallel()
	lent := lend(t, kgo.WithHooks(&once{}))
	cl, err := client.Open(lent, nil)
	require.ErrorContains(t, err, "hook")
	require.ErrorContains(t, err, "in Opts")
	require.ErrorContains(t, err, "duplicate metrics collector")
	require.Nil(t, cl)

	cl, err = client.Open(lend(t), []kgo.Opt{kgo.WithHooks(&once{})})
	require.NoError(t, err, "where it belongs to one")
	cl.Close()
}

func TestOpenRefusesManualFlushingAndBadOptions(t *testing.T) {
	t.Parallel()
	_, err := client.Open(lend(t), []kgo.Opt{kgo.ManualFlushing()})
	require.ErrorContains(t, err, "ManualFlushing in the options of the client or in Opts")
	_, err = client.Open(lend(t), []kgo.Opt{kgo.RequiredAcks(kgo.LeaderAck())})
	require.ErrorContains(t, err, "opening a client")
}

type valueKey struct{}

func TestOutliveHasTheValuesOfTheContextAndNotItsEnd(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(context.WithValue(context.Background(), valueKey{}, "a"))
	cancel()
	ended, end := context.WithCancel(context.Background())
	end()
	cl, err := client.Open(lend(t, kgo.WithContext(ended)), nil, client.Outlive(ctx))
	require.NoError(t, err)
	defer cl.Close()
	require.NoError(t, cl.Context().Err())
	require.Equal(t, "a", cl.Context().Value(valueKey{}))
}

// broker starts an embedded broker.
func broker(t *testing.T, opts ...kfake.Opt) *kfake.Cluster {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1)}, opts...)...)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

// The race detector has to find nothing: kgo.NewClient writes to the codecs that
// it is given, and these are the lent client's.
func TestClientsOfOneAreOpenedSideBySide(t *testing.T) {
	t.Parallel()
	lent := lend(t, kgo.ProducerBatchCompression(kgo.GzipCompression(), kgo.NoCompression()))
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			cl, err := client.Open(lent, nil)
			if assert.NoError(t, err) {
				cl.Close()
			}
		})
	}
	all.Wait()
}
