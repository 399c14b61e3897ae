package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry/dlq"
)

func TestParseTime(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.Local)
	for text, want := range map[string]time.Time{
		"90m":                       now.Add(-90 * time.Minute),
		"3d":                        now.Add(-72 * time.Hour),
		"1w2d3h4m5s":                now.Add(-(9*24*time.Hour + 3*time.Hour + 4*time.Minute + 5*time.Second)),
		"0s":                        now,
		"2026-01-31":                time.Date(2026, 1, 31, 0, 0, 0, 0, time.Local),
		"2026-01-31T15:04":          time.Date(2026, 1, 31, 15, 4, 0, 0, time.Local),
		"2026-01-31 15:04:05":       time.Date(2026, 1, 31, 15, 4, 5, 0, time.Local),
		"2026-01-31T15:04:05.5Z":    time.Date(2026, 1, 31, 15, 4, 5, 5e8, time.UTC),
		"2026-01-31T15:04:05+02:00": time.Date(2026, 1, 31, 13, 4, 5, 0, time.UTC),
	} {
		got, err := parseTime(text, now)
		require.NoError(t, err, text)
		require.True(t, want.Equal(got), "%s: %v", text, got)
	}
	for _, text := range []string{"", "soon", "-1h", "1d-1h", "3", "d", "1h2d", "99999999999w", "400000w", "2026-13-01", "1.5d"} {
		_, err := parseTime(text, now)
		require.Error(t, err, text)
	}
}

func TestParseOffsets(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]dlq.Offsets{
		"3": {Partition: 3}, "3/17": {Partition: 3, From: 17, To: 18}, "0/0": {To: 1}, "3/17-20": {Partition: 3, From: 17, To: 21}, "3/17-": {Partition: 3, From: 17},
	} {
		got, err := parseOffsets(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
	}
	for _, text := range []string{"", "/", "3/", "/3", "-1", "3/-1", "3/20-17", "a/b", "3/1-2-3", "99999999999", "3/99999999999999999999"} {
		_, err := parseOffsets(text)
		require.Error(t, err, text)
	}
}

func FuzzParseTime(f *testing.F) {
	for _, seed := range []string{"90m", "1w2d3h", "2026-01-31", "2026-01-31T15:04:05Z", "106751d", "15250w", "-1h"} {
		f.Add(seed)
	}
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, text string) {
		if d, err := parseDuration(text); err == nil {
			require.GreaterOrEqual(t, d, time.Duration(0))
			again, err := parseDuration(d.String())
			require.NoError(t, err)
			require.Equal(t, d, again)
			at, err := parseTime(text, now)
			require.NoError(t, err)
			require.False(t, at.After(now))
		}
		_, _ = parseTime(text, now)
	})
}

func FuzzParseOffsets(f *testing.F) {
	for _, seed := range []string{"3", "3/17", "3/17-20", "3/17-", "2147483647/4611686018427387903"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if o, err := parseOffsets(text); err == nil {
			require.True(t, o.Partition >= 0 && o.From >= 0 && (o.To == 0 || o.To > o.From), "%+v", o)
		}
	})
}

func FuzzPrintable(f *testing.F) {
	f.Add("a\x1b[2J\xff\u202e�")
	f.Fuzz(func(t *testing.T, text string) {
		for _, r := range printable(text) {
			require.False(t, r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0, "%q", text)
		}
	})
}
