package table_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wherry-go/wherry/internal/table"
)

// refuseConfigs is a cluster in which the client may not ask for configurations.
func (v *virtual) refuseConfigs() {
	v.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.DescribeConfigs}, Err: kerr.TopicAuthorizationFailed})
}

func TestRestoreReturnsWhatTryingAgainCannotMend(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		fault kfake.Fault
		want  error
	}{
		"no right to read":          {kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Err: kerr.TopicAuthorizationFailed}, kerr.TopicAuthorizationFailed},
		"no right to ask for ends":  {kfake.Fault{Keys: []kmsg.Key{kmsg.ListOffsets}, Err: kerr.TopicAuthorizationFailed}, kerr.TopicAuthorizationFailed},
		"no right to see the topic": {kfake.Fault{Keys: []kmsg.Key{kmsg.Metadata}, Topic: "accounts", Err: kerr.TopicAuthorizationFailed}, kerr.TopicAuthorizationFailed},
		"an error without a cure":   {kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Err: kerr.InvalidRequest}, kerr.InvalidRequest},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inBubble(t, func(t *testing.T, v *virtual) {
				write(t, v.cl, 0, "a", "1")
				v.Fault(test.fault)
				part := table.NewPart(nil)
				err := v.restore(t, part)
				require.ErrorIs(t, err, test.want)
				require.ErrorContains(t, err, "restoring table accounts: ")
			})
		})
	}
}

func TestRestoreTriesAgainWhatPasses(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]kfake.Fault{
		"another leads":               {Keys: []kmsg.Key{kmsg.Fetch}, Err: kerr.NotLeaderForPartition},
		"the topic is unknown":        {Keys: []kmsg.Key{kmsg.Metadata}, Topic: "accounts", Err: kerr.UnknownTopicOrPartition},
		"no leader to ask for ends":   {Keys: []kmsg.Key{kmsg.ListOffsets}, Err: kerr.LeaderNotAvailable},
		"ends are not known yet":      {Keys: []kmsg.Key{kmsg.ListOffsets}, Err: kerr.OffsetNotAvailable},
		"the offset is out of range":  {Keys: []kmsg.Key{kmsg.Fetch}, Err: kerr.OffsetOutOfRange},
		"an error out of the blue":    {Keys: []kmsg.Key{kmsg.Fetch}, Err: kerr.UnknownServerError},
		"the topic's id is not known": {Keys: []kmsg.Key{kmsg.Fetch}, Err: kerr.UnknownTopicID},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inBubble(t, func(t *testing.T, v *virtual) {
				write(t, v.cl, 0, "a", "1")
				cl := v.anew(t)
				fault.Count = 3
				h := v.Fault(fault)
				part := table.NewPart(nil)
				require.NoError(t, table.Restore(t.Context(), cl, nil, "accounts", map[int32]*table.Part{0: part}, quiet, nil))
				require.Equal(t, map[string]string{"a": "1"}, values(part))
				require.Equal(t, 3, h.Hits())
			})
		})
	}
}

func TestRestoreOfNoSuchPartitionOrTopic(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, v *virtual) {
		began := time.Now()
		parts := newParts(3)
		err := table.Restore(t.Context(), v.cl, nil, "accounts", parts, quiet, nil)
		require.ErrorIs(t, err, kerr.UnknownTopicOrPartition)
		require.ErrorContains(t, err, "is missing, the topic has 1")
		err = table.Restore(t.Context(), v.cl, nil, "nobody", parts, quiet, nil)
		require.ErrorIs(t, err, kerr.UnknownTopicOrPartition)
		require.ErrorContains(t, err, "restoring table nobody")
		require.Less(t, time.Since(began), time.Minute)
		require.NoError(t, table.Restore(t.Context(), v.cl, nil, "nobody", nil, quiet, nil), "no parts")
		err = table.Restore(t.Context(), v.cl, []kgo.Opt{kgo.ManualFlushing()}, "accounts", newParts(1), quiet, nil)
		require.ErrorContains(t, err, "ManualFlushing")
	})
}

// fetched has v answer fetches by f; a nil answer leaves them to the broker.
func (v *virtual) fetched(f func(req *kmsg.FetchRequest) func(*kmsg.FetchResponseTopicPartition)) {
	v.ControlKey(int16(kmsg.Fetch), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
		v.KeepControl()
		req := kreq.(*kmsg.FetchRequest)
		fill := f(req)
		if fill == nil || len(req.Topics) == 0 {
			return nil, nil, false
		}
		resp := req.ResponseKind().(*kmsg.FetchResponse)
		rt := kmsg.NewFetchResponseTopic()
		rt.Topic, rt.TopicID = req.Topics[0].Topic, req.Topics[0].TopicID
		rp := kmsg.NewFetchResponseTopicPartition()
		rp.HighWatermark, rp.LastStableOffset = 1, 1
		fill(&rp)
		rt.Partitions = append(rt.Partitions, rp)
		resp.Topics = append(resp.Topics, rt)
		return resp, nil, true
	})
}

func TestRestoreReturnsBatchesThatDoNotDecode(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, v *virtual) {
		write(t, v.cl, 0, "a", "1")
		v.fetched(func(*kmsg.FetchRequest) func(*kmsg.FetchResponseTopicPartition) {
			return func(p *kmsg.FetchResponseTopicPartition) {
				p.RecordBatches = make([]byte, 61)
				p.RecordBatches[11] = 49 // its length
				p.RecordBatches[16] = 2  // a record batch, whose checksum is wrong
			}
		})
		err := v.restore(t, table.NewPart(nil))
		require.ErrorContains(t, err, "a batch of partition 0 does not decode")
		require.ErrorContains(t, err, "crc")
	})
}

// What the cluster lost may be in the Part, and anything in its place.
func TestRestoreReturnsLostRecordsAndThenBeginsAtTheStart(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, v *virtual) {
		write(t, v.cl, 0, "a", "1")
		write(t, v.cl, 0, "lost", "1")
		tx := v.anew(t, kgo.TransactionalID("tx")) // for it, Restore waits
		require.NoError(t, tx.BeginTransaction())
		write(t, tx, 0, "a", "2")
		part, done := table.NewPart(nil), make(chan error, 1)
		fenced := v.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Err: kerr.FencedLeaderEpoch, Count: 1, When: func(kmsg.Request) bool { return part.Next() == 2 }})
		v.ControlKey(int16(kmsg.OffsetForLeaderEpoch), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
			req := kreq.(*kmsg.OffsetForLeaderEpochRequest)
			resp := req.ResponseKind().(*kmsg.OffsetForLeaderEpochResponse)
			rt := kmsg.NewOffsetForLeaderEpochResponseTopic()
			rt.Topic = "accounts"
			rp := kmsg.NewOffsetForLeaderEpochResponseTopicPartition()
			rp.LeaderEpoch, rp.EndOffset = 0, 1
			rt.Partitions = append(rt.Partitions, rp)
			resp.Topics = append(resp.Topics, rt)
			return resp, nil, true
		})
		go func() { done <- v.restore(t, part) }()
		err := <-done
		var loss *kgo.ErrDataLoss
		require.ErrorAs(t, err, &loss)
		require.Equal(t, 1, fenced.Hits())
		require.Zero(t, part.Len())
		require.Zero(t, part.Next())
		require.NoError(t, tx.EndTransaction(t.Context(), kgo.TryAbort))
		require.NoError(t, v.restore(t, part))
		require.Equal(t, map[string]string{"a": "1", "lost": "1"}, values(part))
	})
}
