package dlq

import (
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
)

// Whatever the ledger's keys are, no two letters share one, and no two groups.
func FuzzMarkKey(f *testing.F) {
	f.Add([]byte("AAAAAAAAAAAAAAAAAAAAAA/0/17"))
	f.Add([]byte("AAAAAAAAAAAAAAAAAAAAAA/1/"))
	f.Add([]byte("AAAAAAAAAAAAAAAAAAAAAA/1/3-9/0f"))
	f.Add([]byte("AAAAAAAAAAAAAAAAAAAAAA/1/9-3/0f"))
	f.Add([]byte("run/AAAAAAAAAAAAAAAAAAAAAA/x"))
	f.Fuzz(func(t *testing.T, key []byte) {
		at, last, run, ok := parseMarkKey(key, kadm.TopicID{})
		if !ok {
			return
		}
		same := markKey(kadm.TopicID{}, at)
		if last >= 0 {
			require.Greater(t, last, at.offset)
			same = groupKey(kadm.TopicID{}, run, at, last)
		}
		at2, last2, run2, ok := parseMarkKey([]byte(same), kadm.TopicID{})
		require.True(t, ok)
		require.Equal(t, []any{at, last, run}, []any{at2, last2, run2})
		_, _, _, ok = parseMarkKey(key, kadm.TopicID{1})
		require.False(t, ok)
	})
}
