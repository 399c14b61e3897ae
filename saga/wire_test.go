package saga

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	hdr "github.com/wherry-go/wherry/internal/header"
	"github.com/wherry-go/wherry/reqreply"
)

func TestS3_PartitionsAreKafkasOwn(t *testing.T) {
	t.Parallel()
	// org.apache.kafka.common.utils.Utils.murmur2, toPositive, of its own test
	// (UtilsTest.testMurmur2).
	for key, hash := range map[string]int64{"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536} {
		for _, p := range []int32{1, 4, 7, 1000} {
			require.Equal(t, int32((hash&0x7fffffff)%int64(p)), partitionOf(key, p), key)
		}
	}
}

func TestInboxRecordsAreUnderstood(t *testing.T) {
	t.Parallel()
	event := &kgo.Record{
		Topic: "paid", Partition: 3, Offset: 42, Key: []byte("other"), Value: []byte("{}"), Timestamp: time.UnixMilli(5),
		Headers: []kgo.RecordHeader{
			{Key: "tenant", Value: []byte("a")},
			{Key: hdr.Only, Value: []byte("x.saga.router")},
			{Key: hdr.SagaKind, Value: []byte("start")},
			{Key: hdr.CorrelationID, Value: []byte("hers")},
		},
	}
	reply := &kgo.Record{Topic: "in", Key: []byte("foreign")}
	reqreply.Profile{}.Address(reply, hdr.Op{ID: "o-1", Step: "pay", Attempt: 2}.CorrelationID(1), "in", 1)
	custom := reqreply.Profile{CorrelationID: "my-id"}
	foreign := &kgo.Record{Topic: "in"}
	custom.Address(foreign, hdr.Op{ID: "o-2", Step: "pay", Undo: true, Attempt: 1}.CorrelationID(1), "in", 1)
	profiles := []reqreply.Profile{{}, custom}

	tests := []struct {
		name string
		r    *kgo.Record
		want message
		line string
	}{
		{"a start", startRecord("in", 1, "o-1", []byte("{}"), 2, "00-x"), message{kind: kindStart, id: "o-1", version: 2}, "o-1"},
		{"a tick", inboxRecord("in", 1, "o-1", kindTick), message{kind: kindTick, id: "o-1"}, "o-1"},
		{"a sweep", sweepRecord("in", 1, []swept{{"a", 1}, {"", -2}, {"b\x00", 1e15}}), message{kind: kindSweep, swept: []swept{{"a", 1}, {"", -2}, {"b\x00", 1e15}}}, ""},
		{"a reply", reply, message{id: "o-1", op: Op{ID: "o-1", Step: "pay", Attempt: 2}}, "o-1"},
		{"a reply of another profile", foreign, message{id: "o-2", op: Op{ID: "o-2", Step: "pay", Undo: true, Attempt: 1}}, "o-2"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, err := readMessage(test.r, profiles)
			require.NoError(t, err)
			require.Same(t, test.r, got.record)
			got.record = nil
			require.Equal(t, test.want, got)
			require.Equal(t, test.line, string(lineOf(profiles)(test.r)))
		})
	}
	t.Run("an event", func(t *testing.T) {
		t.Parallel()
		for _, key := range [][]byte{nil, {}, []byte("other")} {
			event := *event
			event.Key = key
			r := eventRecord("in", 1, "o-1", &event)
			r.Timestamp = event.Timestamp
			got, err := readMessage(r, profiles)
			require.NoError(t, err)
			require.Equal(t, "o-1", got.id)
			require.Equal(t, kindEvent, got.kind)
			want := event
			want.Headers = []kgo.RecordHeader{event.Headers[0], event.Headers[3]}
			require.Equal(t, &want, got.record)
			require.Equal(t, "o-1", string(lineOf(profiles)(r)))
			again, err := originalEvent(eventRecord("in", 1, "o-1", got.record))
			require.NoError(t, err)
			again.Timestamp = want.Timestamp
			require.Equal(t, &want, again)
		}
	})
}

func TestS26_WhatIsNoInboxRecordIsAnError(t *testing.T) {
	t.Parallel()
	with := func(r *kgo.Record, key, value string) *kgo.Record { hdr.Add(r, key, value); return r }
	tests := map[string]*kgo.Record{
		"neither of a kind":    {Key: []byte("o-1"), Value: []byte("{}")},
		"of no step of a saga": with(&kgo.Record{Key: []byte("o-1")}, hdr.CorrelationID, "0123456789abcdef"),
		"does not know":        inboxRecord("in", 0, "o-1", "later"),
		"the id is empty":      inboxRecord("in", 0, "", kindTick),
		"the id has 257 bytes": inboxRecord("in", 0, strings.Repeat("x", 257), kindTick),
		"begin with a zero":    inboxRecord("in", 0, partitionsKey, kindTick),
		"without a state":      inboxRecord("in", 0, "o-1", kindStart),
		"a start of version":   with(startRecord("in", 0, "o-1", []byte{}, 1, ""), hdr.SagaVersion, "new"),
		"an event of no topic": inboxRecord("in", 0, "o-1", kindEvent),
		"without partition":    with(inboxRecord("in", 0, "o-1", kindEvent), hdr.SagaTopic, "paid"),
		"it ends too early":    {Headers: []kgo.RecordHeader{{Key: hdr.SagaKind, Value: []byte(kindSweep)}}, Value: []byte{9, 'a'}},
	}
	for want, r := range tests {
		_, err := readMessage(r, []reqreply.Profile{{}})
		require.ErrorContains(t, err, want)
	}
}

func FuzzInboxRecords(f *testing.F) {
	f.Add([]byte("o-1"), []byte("{}"), hdr.SagaKind, []byte("sweep"), hdr.SagaTopic, []byte("t"))
	f.Add([]byte("o-1"), []byte("{}"), hdr.SagaKind, []byte("event"), hdr.SagaTopic, []byte("t"))
	f.Add([]byte("o-1"), []byte("{}"), hdr.CorrelationID, []byte("by0x.pay.d.1.3"), "", []byte(nil))
	f.Fuzz(func(t *testing.T, key, value []byte, k1 string, v1 []byte, k2 string, v2 []byte) {
		r := &kgo.Record{Key: key, Value: value, Headers: []kgo.RecordHeader{{Key: k1, Value: v1}, {Key: k2, Value: v2}}}
		profiles := []reqreply.Profile{{}}
		line := lineOf(profiles)(r)
		m, err := readMessage(r, profiles)
		if err == nil && m.kind != kindSweep {
			require.NoError(t, checkID(m.id))
			require.Equal(t, m.id, string(line), "the line is that of its saga")
		}
	})
}

// A Start that gives up while it asks how many partitions count does not make
// those forget it who know it: inputs would have nowhere to go.
func TestS3_AStartThatGivesUpForgetsNothing(t *testing.T) {
	t.Parallel()
	cl, err := kgo.NewClient(kgo.SeedBrokers("127.0.0.1:1"))
	require.NoError(t, err)
	defer cl.Close()
	e := &Engine[order]{Client: cl, Definitions: []Definition[order]{both()}}
	s, err := e.shell()
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- e.Start(ctx, "o-1", order{}) }()
	for {
		s.places.mu.Lock()
		asks := s.places.busy != nil
		s.places.mu.Unlock()
		if asks {
			break
		}
		time.Sleep(time.Millisecond)
	}
	s.places.known.Store(3) // Run has asked meanwhile
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
	require.EqualValues(t, 3, s.places.known.Load())
}
