package txn_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wherry-go/wherry/internal/txn"
	"github.com/wherry-go/wherry/kafkatest"
)

func records(topic string, n int) (rs []*kgo.Record) {
	for i := range n {
		rs = append(rs, &kgo.Record{Topic: topic, Key: fmt.Append(nil, i)})
	}
	return rs
}

func open(t *testing.T, k *kafkatest.Cluster, id string, opts ...kgo.Opt) *txn.Writer {
	t.Helper()
	w, err := txn.Open(t.Context(), k.Client(t, opts...), nil, id)
	require.NoError(t, err)
	t.Cleanup(w.Close)
	return w
}

// seen is how many committed records a topic has.
func seen(t *testing.T, k *kafkatest.Cluster, topic string) (n int) {
	t.Helper()
	cl := k.Client(t, kgo.ConsumeTopics(topic), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords())
	ends, err := kadm.NewClient(cl).ListEndOffsets(t.Context(), topic)
	require.NoError(t, err)
	left := ends[topic][0].Offset
	for at := int64(0); at < left; {
		cl.PollFetches(t.Context()).EachRecord(func(r *kgo.Record) {
			if at = r.Offset + 1; !r.Attrs.IsControl() {
				n++
			}
		})
	}
	return n
}

func offsets(t *testing.T, k *kafkatest.Cluster, at int64) *kmsg.TxnOffsetCommitRequest {
	t.Helper()
	topics, err := kadm.NewClient(k.Client(t)).ListTopics(t.Context(), "in")
	require.NoError(t, err)
	req := kmsg.NewPtrTxnOffsetCommitRequest()
	req.Group = "g"
	of := kmsg.NewTxnOffsetCommitRequestTopicPartition()
	of.Offset = at
	in := kmsg.NewTxnOffsetCommitRequestTopic()
	in.Topic, in.TopicID, in.Partitions = "in", topics["in"].ID, append(in.Partitions, of)
	req.Topics = append(req.Topics, in)
	return req
}

// committed returns the group's offset when it is stable: brokers answer the end
// of a transaction before all have written it down.
func committed(t *testing.T, k *kafkatest.Cluster) int64 {
	t.Helper()
	adm := kadm.NewClient(k.Client(t))
	for {
		all, err := adm.FetchOffsets(kadm.RequireStable(t.Context()), "g")
		if errors.Is(err, kerr.GroupIDNotFound) {
			return 0
		}
		if kerr.IsRetriable(err) { // a broker that is new makes the topic of offsets first
			k.Sleep(t, 10*time.Millisecond)
			continue
		}
		require.NoError(t, err)
		at, ok := all.Lookup("in", 0)
		if !ok {
			return 0
		}
		if errors.Is(at.Err, kerr.UnstableOffsetCommit) {
			k.Sleep(t, time.Millisecond)
			continue
		}
		require.NoError(t, at.Err)
		return max(at.At, 0)
	}
}

// Commits and aborts, in turn, are what they say: also the first of a client,
// and the first to a topic.
func TestWriter_CommitsAndAborts(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "in:1", "out0:1", "out1:1", "out2:1")
	w := open(t, k, "id")
	want := [3]int{}
	for i := range 30 {
		rs := records(fmt.Sprint("out", i%3), 1+i%4)
		require.NoError(t, w.Begin())
		require.Nil(t, w.Produce(t.Context(), rs))
		require.NoError(t, w.Offsets(t.Context(), offsets(t, k, int64(i+1))))
		if i%5 == 3 {
			require.NoError(t, w.Abort(t.Context()))
			continue
		}
		require.NoError(t, w.Commit(t.Context(), rs))
		want[i%3] += len(rs)
		require.EqualValues(t, i+1, committed(t, k))
	}
	for i := range want {
		require.Equal(t, want[i], seen(t, k, fmt.Sprint("out", i)))
	}
}

// Another producer of the same id, or a Fence of it, ends what is open: the
// first one can neither add to it nor commit it, and its offsets do not count.
func TestWriter_AFormerProducerIsFenced(t *testing.T) {
	t.Parallel()
	for name, fence := range map[string]func(*testing.T, *kafkatest.Cluster){
		"another": func(t *testing.T, k *kafkatest.Cluster) { open(t, k, "id") },
		"fence": func(t *testing.T, k *kafkatest.Cluster) {
			require.NoError(t, txn.Fence(t.Context(), k.Client(t), []string{"id", "of nobody"}))
		},
	} {
		for step := range 3 {
			t.Run(fmt.Sprint(name, " ", step), func(t *testing.T) {
				t.Parallel()
				k := kafkatest.NewCluster(t, "in:1", "out:1")
				w := open(t, k, "id")
				rs := records("out", 3)
				require.NoError(t, w.Begin())
				var err error
				for at := range 3 {
					if at == step {
						fence(t, k)
					}
					if err != nil {
						break
					}
					switch at {
					case 0:
						if errs := w.Produce(t.Context(), rs); errs != nil {
							err = errs[0]
						}
					case 1:
						err = w.Offsets(t.Context(), offsets(t, k, 3))
					case 2:
						err = w.Commit(t.Context(), rs)
					}
				}
				require.Error(t, err)
				require.Zero(t, seen(t, k, "out"))
				require.Zero(t, committed(t, k))
			})
		}
	}
}

// What a topic refuses is told of that record, and the Writer goes on after an
// abort.
func TestWriter_RefusedRecords(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "in:1", "out:1")
	k.Create(t, kafkatest.Topic{Name: "small", Partitions: 1, Config: map[string]string{"max.message.bytes": "1000"}})
	w := open(t, k, "id")
	require.NoError(t, w.Begin())
	large := make([]byte, 2000)
	_, _ = rand.Read(large)
	rs := append(records("out", 2), &kgo.Record{Topic: "small", Value: large})
	errs := w.Produce(t.Context(), rs)
	require.Len(t, errs, 3)
	require.NoError(t, errs[0])
	require.NoError(t, errs[1])
	require.ErrorIs(t, errs[2], kerr.MessageTooLarge)
	require.NoError(t, w.Abort(t.Context()))
	require.NoError(t, w.Begin())
	require.Nil(t, w.Produce(t.Context(), rs[:2]))
	require.NoError(t, w.Commit(t.Context(), rs[:2]))
	require.Equal(t, 2, seen(t, k, "out"))
}

// A broker that does not answer holds nothing up beyond the context, and lets go
// of the records.
func TestWriter_ABrokerThatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	for _, key := range []kmsg.Key{kmsg.InitProducerID, kmsg.Produce, kmsg.TxnOffsetCommit, kmsg.EndTxn} {
		t.Run(key.Name(), func(t *testing.T) {
			t.Parallel()
			kafkatest.Test(t, []string{"in:1", "out:1"}, func(t *testing.T, k *kafkatest.Cluster) {
				k.Delay(t, kafkatest.Requests{Keys: []kmsg.Key{key}, Client: "late", Count: -1}, time.Hour)
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
				defer cancel()
				began := time.Now()
				w, err := txn.Open(ctx, k.Client(t, kgo.ClientID("late")), nil, "id")
				if err == nil {
					defer w.Close()
					rs := records("out", 3)
					require.NoError(t, w.Begin())
					if errs := w.Produce(ctx, rs); errs != nil {
						err = errs[0]
					} else if err = w.Offsets(ctx, offsets(t, k, 3)); err == nil {
						err = w.Commit(ctx, rs)
					}
				}
				require.Error(t, err)
				require.Less(t, time.Since(began), 4*time.Second)
				k.Sleep(t, time.Minute)
				require.Zero(t, seen(t, k, "out"))
				require.Zero(t, committed(t, k))
			})
		})
	}
}
