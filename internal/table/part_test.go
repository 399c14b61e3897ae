package table_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/internal/table"
)

// unsent is a record that a handler would write; no value is a tombstone.
func unsent(key string, value ...string) *kgo.Record {
	r := &kgo.Record{Key: []byte(key)}
	if len(value) > 0 {
		r.Value = []byte(value[0])
	}
	return r
}

// sent gives records the offsets from one on, as producing does.
func sent(offset int64, rs ...*kgo.Record) []*kgo.Record {
	for i, r := range rs {
		r.Partition, r.Offset, r.Timestamp = 3, offset+int64(i), time.UnixMilli(1000*(offset+int64(i)))
	}
	return rs
}

func TestPartShowsWhatIsPendingUntilItIsDecided(t *testing.T) {
	t.Parallel()
	p := table.NewPart(nil)
	a1, b1, a2, bGone := unsent("a", "1"), unsent("b", "1"), unsent("a", "2"), unsent("b")
	for _, r := range []*kgo.Record{a1, b1, a2} {
		p.Write(r)
	}
	require.Equal(t, map[string]string{"a": "2", "b": "1"}, values(p))
	require.Equal(t, []int{2, 3}, []int{p.Len(), p.Pending()})
	e, ok := p.Get("a")
	require.True(t, ok)
	require.Equal(t, table.Entry{Value: []byte("2"), Offset: -1}, e)

	p.Commit(sent(0, a1, b1)) // a2 is of the next transaction
	require.Equal(t, map[string]string{"a": "2", "b": "1"}, values(p))
	require.Equal(t, []int{2, 1}, []int{p.Len(), p.Pending()})
	e, _ = p.Get("b")
	require.Equal(t, table.Entry{Value: []byte("1"), Partition: 3, Offset: 1, Millis: 1000}, e)

	p.Write(bGone)
	require.Equal(t, map[string]string{"a": "2"}, values(p))
	require.Equal(t, 1, p.Len())
	_, ok = p.Get("b")
	require.False(t, ok)
	p.Rollback()
	require.Equal(t, map[string]string{"a": "1", "b": "1"}, values(p))
	require.Equal(t, []int{2, 0}, []int{p.Len(), p.Pending()})

	gone := unsent("a")
	p.Write(gone)
	p.Commit(sent(3, gone))
	require.Equal(t, map[string]string{"b": "1"}, values(p))
	require.Equal(t, []int{1, 0}, []int{p.Len(), p.Pending()})
}

func TestPartCopiesWhatItShows(t *testing.T) {
	t.Parallel()
	p := table.NewPart(nil)
	r := unsent("a", "1")
	r.Headers = []kgo.RecordHeader{{Key: "h", Value: []byte("v")}}
	p.Write(r)
	e, _ := p.Get("a")
	e.Value[0], e.Headers[0].Value[0] = 'x', 'x'
	r.Value[0], r.Headers[0].Value[0] = 'y', 'y'
	e, _ = p.Get("a")
	require.Equal(t, table.Entry{Value: []byte("1"), Headers: []kgo.RecordHeader{{Key: "h", Value: []byte("v")}}, Offset: -1}, e)

	// What is committed is what was sent, with the headers that a hook of the
	// client added.
	r.Value = []byte("1")
	r.Headers = []kgo.RecordHeader{{Key: "traceparent", Value: []byte("t")}}
	p.Commit(sent(0, r))
	r.Headers[0].Value[0] = 'x'
	e, _ = p.Get("a")
	require.Equal(t, []kgo.RecordHeader{{Key: "traceparent", Value: []byte("t")}}, e.Headers)
}

func TestPartRangesOverACopy(t *testing.T) {
	t.Parallel()
	p := table.NewPart(nil)
	p.Write(unsent("a", "1"))
	p.Write(unsent("b", "1"))
	n := 0
	for range p.All() {
		p.Rollback() // waits for nothing
		n++
	}
	require.Equal(t, 2, n)
	for range p.All() {
		require.Fail(t, "all was rolled back")
	}
	p.Write(unsent("a", "1"))
	for range p.All() {
		break // a range may be left early
	}
}

// A transaction whose end was not known, and that turns out to be committed
// when its handlers have run again already.
func TestPartTakesInWhatIsNotPending(t *testing.T) {
	t.Parallel()
	p := table.NewPart(nil)
	first := unsent("a", "1")
	p.Write(first)
	p.Rollback()
	again := unsent("a", "2")
	p.Write(again)
	p.Commit(sent(0, first))
	require.Equal(t, map[string]string{"a": "2"}, values(p))
	require.Equal(t, 1, p.Pending())
	p.Rollback()
	require.Equal(t, map[string]string{"a": "1"}, values(p))
}
