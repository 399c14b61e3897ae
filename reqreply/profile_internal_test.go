package reqreply

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
)

func TestReplyPartitionIsReadInBothForms(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		in   string
		want int32 // -1: an error
	}{
		{"text", "0", 0},
		{"text of four digits", "1234", 1234},
		{"text of many", "00012", 12},
		{"the largest text", "2147483647", 2147483647},
		{"an int32", "\x00\x00\x00\x00", 0},
		{"an int32 with a digit in it", "\x00\x00\x0032"[:4], 0x33},
		{"the largest int32", "\x7f\xff\xff\xff", 2147483647},
		{"a negative int32", "\xff\xff\xff\xff", -1},
		{"negative text", "-1", -1},
		{"negative text of four bytes is an int32", "-100", 0x2d313030},
		{"text beyond an int32", "2147483648", -1},
		{"no number", "one", -1},
		{"three bytes", "\x00\x00\x01", -1},
		{"a space", " 1", -1},
		{"a plus", "+1", -1},
		{"a long text", strings.Repeat("9", 1000), -1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, err := parsePartition([]byte(test.in))
			if test.want < 0 {
				require.Error(t, err)
				require.Less(t, len(err.Error()), 120)
				return
			}
			require.NoError(t, err)
			require.Equal(t, test.want, got)
		})
	}
}

func FuzzPartition(f *testing.F) {
	for _, seed := range []string{"0", "12", "\x00\x00\x00\x01", "-1", "", "99999999999"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		n, err := parsePartition(in)
		if err != nil {
			return
		}
		if n < 0 {
			t.Fatalf("%q is %d", in, n)
		}
		for _, binary := range []bool{false, true} {
			p := Profile{Binary: binary}
			out := p.formatPartition(n)
			again, err := parsePartition(out)
			// An int32 of four digits is text by the rule, from 808,464,432 on.
			if digits := binary && n >= 0x30303030; !digits && (err != nil || again != n) {
				t.Fatalf("%d is written as %q and read as %d, %v", n, out, again, err)
			}
		}
	})
}

// record is a request with headers in that order.
func record(pairs ...string) *kgo.Record {
	r := &kgo.Record{}
	for i := 0; i < len(pairs); i += 2 {
		h := kgo.RecordHeader{Key: pairs[i], Value: []byte(pairs[i+1])}
		if pairs[i+1] == "<null>" {
			h.Value = nil
		}
		r.Headers = append(r.Headers, h)
	}
	return r
}

func TestAddressOfARequest(t *testing.T) {
	t.Parallel()
	const id, topic, partition = "kafka_correlationId", "kafka_replyTopic", "kafka_replyPartition"
	tests := []struct {
		name    string
		profile Profile
		in      *kgo.Record
		want    address
		asks    bool
		err     string
	}{
		{
			name: "NestJS", in: record("app", "1", id, "0a1b2c", topic, "user.getUser.reply", partition, "2"),
			want: address{id: []byte("0a1b2c"), topic: "user.getUser.reply", partition: 2, stated: true}, asks: true,
		},
		{
			name: "Spring", in: record(topic, "replies", partition, "\x00\x00\x00\x07", id, "\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f"),
			want: address{id: []byte("\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f"), topic: "replies", partition: 7, stated: true}, asks: true,
		},
		{name: "no partition", in: record(id, "1", topic, "r"), want: address{id: []byte("1"), topic: "r"}, asks: true},
		{name: "a null partition is none", in: record(id, "1", topic, "r", partition, "<null>"), want: address{id: []byte("1"), topic: "r"}, asks: true},
		{
			name: "the last of several counts", in: record(id, "1", id, "2", topic, "r", topic, "s", partition, "x", partition, "3"),
			want: address{id: []byte("2"), topic: "s", partition: 3, stated: true}, asks: true,
		},
		{name: "no headers", in: record(), want: address{}},
		{name: "no correlation id", in: record(topic, "r", partition, "1"), want: address{}},
		{name: "an empty one", in: record(id, "", topic, "r"), want: address{id: []byte{}}},
		{name: "no reply topic", in: record(id, "1", partition, "nonsense"), want: address{id: []byte("1")}},
		{name: "a null reply topic", in: record(id, "1", topic, "r", topic, "<null>"), want: address{id: []byte("1")}},
		{name: "a bad partition", in: record(id, "1", topic, "r", partition, "one"), err: "no number of a partition"},
		{name: "a name that is none", in: record(id, "1", topic, strings.Repeat("r", 250)), err: "no name of a topic"},
		{name: "a long id", in: record(id, strings.Repeat("1", 2049), topic, "r"), err: "2049 bytes"},
		{name: "a long request id", in: record(id, "1", topic, "r", "wherry-request-id", strings.Repeat("1", 2049)), err: "2049 bytes"},
		{
			name: "names of one's own", profile: Profile{CorrelationID: "corr", ReplyTopic: "to", ReplyPartition: "at"},
			in: record("corr", "1", "to", "r", "at", "5", id, "2"), want: address{id: []byte("1"), topic: "r", partition: 5, stated: true}, asks: true,
		},
		{
			name: "what is ours", in: record(id, "1", topic, "r", "wherry-request-id", "o-1", "wherry-deadline", "2026-11-22T15:42:49.5Z"),
			want: address{id: []byte("1"), topic: "r", request: "o-1", deadline: time.Date(2026, 11, 22, 15, 42, 49, 5e8, time.UTC)}, asks: true,
		},
		{name: "a deadline that is none", in: record(id, "1", topic, "r", "wherry-deadline", "soon"), want: address{id: []byte("1"), topic: "r"}, asks: true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			names := test.profile.named()
			got, err := names.address(test.in)
			if test.err != "" {
				require.ErrorContains(t, err, test.err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, test.want, got)
			require.Equal(t, test.asks, got.asks())
		})
	}
}

func FuzzAddress(f *testing.F) {
	f.Add([]byte("kafka_correlationId"), []byte("1"), []byte("kafka_replyTopic"), []byte("r"), []byte("kafka_replyPartition"), []byte("1"))
	f.Fuzz(func(t *testing.T, k1, v1, k2, v2, k3, v3 []byte) {
		r := record(string(k1), string(v1), string(k2), string(v2), string(k3), string(v3))
		names := Profile{}.named()
		a, err := names.address(r)
		if err == nil && a.asks() && (len(a.topic) > maxTopic || len(a.id) > maxCorrelation || a.partition < 0) {
			t.Fatalf("%+v", a)
		}
		names.reply(r)
	})
}

// What goes on the wire, byte for byte, as NestJS 12 and Spring Kafka 4.1 write
// it.
func TestGoldenRequestHeaders(t *testing.T) {
	t.Parallel()
	s := ids{raw: [8]byte{0x8a, 1, 2, 3, 4, 5, 6, 7}}
	copy(s.text[:], "8a01020304050607-")

	nest, r := Profile{}.named(), record("app", "1")
	nest.ask(r, s.format(41, nest.Binary), nest.replyTo("user.getUser.reply", 12))
	require.Equal(t, record("app", "1", "kafka_correlationId", "8a01020304050607-41", "kafka_replyTopic", "user.getUser.reply", "kafka_replyPartition", "12"), r)

	spring, r := Spring().named(), record()
	spring.ask(r, s.format(41, spring.Binary), spring.replyTo("replies", 12))
	require.Equal(t, record("kafka_correlationId", "\x8a\x01\x02\x03\x04\x05\x06\x07\x00\x00\x00\x00\x00\x00\x00\x29", "kafka_replyTopic", "replies", "kafka_replyPartition", "\x00\x00\x00\x0c"), r)
}

func TestCorrelationIDs(t *testing.T) {
	t.Parallel()
	a, b := newIDs(), newIDs()
	seen := map[string]bool{}
	for n := range uint64(1000) {
		for _, s := range []*ids{&a, &b} {
			for _, raw := range []bool{false, true} {
				id := s.format(n, raw)
				require.False(t, seen[string(id)], "unique")
				seen[string(id)] = true
				got, ours := s.parse(id)
				require.True(t, ours)
				require.Equal(t, n, got)
				require.NotContains(t, "{[\x00", string(id[:1]), "NestJS would decode it")
				if raw {
					require.Len(t, id, 16)
				}
			}
		}
		_, ours := a.parse(b.format(n, n%2 == 0))
		require.False(t, ours)
	}
	for _, id := range [][]byte{nil, {}, a.text[:], a.raw[:], append(a.text[:], "x"...), bytes.Repeat([]byte{'9'}, 100)} {
		_, ours := a.parse(id)
		require.False(t, ours, "%q", id)
	}
}

func TestGoldenReplies(t *testing.T) {
	t.Parallel()
	names := Profile{}.named()
	tests := []struct {
		name string
		in   *kgo.Record
		want reply
	}{
		{"the last of NestJS", record("kafka_correlationId", "1", "kafka_nest-is-disposed", "\x00"), reply{id: []byte("1"), end: true, seq: -1}},
		{"one of several of NestJS", record("kafka_correlationId", "1"), reply{id: []byte("1"), seq: -1}},
		{"an error", record("kafka_correlationId", "1", "kafka_nest-err", "no"), reply{id: []byte("1"), failed: true, fault: []byte("no"), seq: -1}},
		{"an empty error is one", record("kafka_correlationId", "1", "kafka_nest-err", ""), reply{id: []byte("1"), failed: true, fault: []byte{}, seq: -1}},
		{"a null error is one", record("kafka_correlationId", "1", "kafka_nest-err", "<null>"), reply{id: []byte("1"), failed: true, seq: -1}},
		{"ours", record("kafka_correlationId", "1", "wherry-reply-seq", "3", "wherry-reply-group", "users"), reply{id: []byte("1"), seq: 3, group: []byte("users")}},
		{"a number that is none", record("wherry-reply-seq", "-3"), reply{seq: -1}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, test.want, names.reply(test.in))
		})
	}
}
