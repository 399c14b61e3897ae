package retry

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/internal/header"
)

// These tests are of pure functions that nobody outside can call.

func TestLabel_IsShort(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		time.Millisecond:           "1ms",
		500 * time.Millisecond:     "500ms",
		1500 * time.Millisecond:    "1500ms",
		time.Second:                "1s",
		90 * time.Second:           "1m30s",
		time.Minute:                "1m",
		2 * time.Hour:              "2h",
		time.Hour + time.Second:    "1h1s",
		48*time.Hour + 90*60*1e9:   "49h30m",
		7*24*time.Hour + 1_000_000: "604800001ms",
	} {
		require.Equal(t, want, label(d))
	}
}

func TestRoundUp_IsNeverShorter(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]time.Duration{
		1: 1e6, 999_999: 1e6, 1e6: 1e6, 1e6 + 1: 2e6, time.Hour: time.Hour, longest - 1: longest.Truncate(1e6) + 1e6,
	} {
		require.Equal(t, want, roundUp(d))
	}
}

func TestPick_IsTheLongestThatIsHardlyLonger(t *testing.T) {
	t.Parallel()
	tiers := []tier{tierOf(time.Second), tierOf(10 * time.Second), tierOf(time.Minute)}
	for wait, want := range map[time.Duration]string{
		math.MinInt64: "1s", -time.Hour: "1s", 0: "1s", time.Second: "1s", 9 * time.Second: "1s", 9100 * time.Millisecond: "10s", 10 * time.Second: "10s", 50 * time.Second: "10s", time.Minute - 1: "1m", time.Minute: "1m", math.MaxInt64: "1m",
	} {
		require.Equal(t, want, pick(tiers, wait).label)
	}
}

func TestCut_EndsAtACharacter(t *testing.T) {
	t.Parallel()
	require.Equal(t, "abc", cut("abc", 3))
	require.Equal(t, "ab", cut("abc", 2))
	require.Equal(t, "é", cut("ééé", 3))
	require.Equal(t, "a\uFFFDb", cut("a\xffb", 10))
}

func TestTrip_SurvivesItsHeaders(t *testing.T) {
	t.Parallel()
	at := time.Unix(1_700_000_000, 123_456_789).UTC()
	for name, want := range map[string]trip{
		"after a failure":         {topic: "orders", partition: 3, offset: 1 << 40, timestamp: time.UnixMilli(5), group: "billing", attempts: 8, round: 2, first: at, due: at.Add(1), until: at.Add(2), deadline: at.Add(3), err: "down"},
		"waiting for another one": {topic: "orders", timestamp: time.UnixMilli(-1), group: "billing", due: at},
		"without a limit of time": {topic: "orders", timestamp: time.UnixMilli(0), group: "ü", attempts: 1, round: 1, first: at, due: at},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := &kgo.Record{Headers: []kgo.RecordHeader{{Key: "app"}, {Key: "wherry-retry-x"}}}
			shared := r.Headers
			want.write(r)
			want.write(r)
			require.Equal(t, []kgo.RecordHeader{{Key: "app"}, {Key: "wherry-retry-x"}}, shared, "others see the same headers")
			got, err := read(r)
			require.NoError(t, err)
			require.Equal(t, want, got)
			require.Equal(t, []kgo.RecordHeader{{Key: "app"}}, got.restore(r).Headers)
		})
	}
}

// FuzzRead has no panic, and what it accepts is written as it was read.
func FuzzRead(f *testing.F) {
	f.Add("orders", "3", "7", "5", "billing", "2", "1", "2026-01-02T03:04:05.000000006Z", "2026-01-02T03:04:05Z", "", "", "down")
	f.Add("orders", "-3", "x", "", "", "999999999999", "1", "now", "", "0000-00-00T00:00:00Z", "9999-12-31T23:59:59Z", "\xff")
	f.Add("orders", "0", "0", "0", "g", "0", "0", "9999-12-31T23:59:59.999999999Z", "", "", "0000-01-01T00:00:00Z", strings.Repeat("e", 2000))
	f.Fuzz(func(t *testing.T, topic, partition, offset, timestamp, group, attempts, round, due, first, until, deadline, text string) {
		r := &kgo.Record{Key: []byte("k"), Value: []byte("v"), Timestamp: time.Unix(1, 0)}
		for key, value := range map[string]string{
			header.RetryTopic: topic, header.RetryPartition: partition, header.RetryOffset: offset, header.RetryTimestamp: timestamp,
			header.RetryGroup: group, header.RetryAttempts: attempts, header.RetryRound: round, header.RetryDue: due, header.RetryFirst: first,
			header.RetryUntil: until, header.RetryDeadline: deadline, header.RetryError: text,
		} {
			if value != "" {
				header.Add(r, key, value)
			}
		}
		h := hop{tier: tierOf(time.Minute), name: "hop", as: "orders", group: "billing", rightful: func(a, b, c string) string { return a + b + c }}
		due1 := h.due(r)
		if o, err := h.origin(r); err != nil {
			require.Zero(t, due1, "what is garbled waits for nothing")
		} else {
			require.Equal(t, r.Value, o.Value)
			require.Empty(t, o.Headers)
			require.False(t, due1.After(r.Timestamp.Add(time.Minute+maxAhead)))
		}
		got, err := read(r)
		if err != nil {
			return
		}
		again := &kgo.Record{}
		got.write(again)
		size := 0
		for _, h := range again.Headers {
			size += len(h.Key) + len(h.Value)
			if h.Key == header.RetryError {
				require.True(t, utf8.Valid(h.Value))
			}
		}
		require.LessOrEqual(t, size, len(topic)+len(group)+maxErrorHeader+1024, "headers are bounded")
		same, err := read(again)
		require.NoError(t, err)
		same.err, got.err = "", ""
		require.Equal(t, fmt.Sprint(got), fmt.Sprint(same))
	})
}
