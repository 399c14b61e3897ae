package retry

import (
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
)

// bench is a queue and shorthands for what happens to it.
type bench struct {
	t *testing.T
	q *queue
}

var testLine = line{3, "k"}

// home is the lane that stages and asks, where the test does not say another.
const home = "home"

func at(offset int64) place { return place{3, offset} }

func row(offset int64, value []byte) *kgo.Record {
	return &kgo.Record{Key: []byte(at(offset).String()), Value: value, Timestamp: time.Now()}
}

// arrives is a ticket that comes from the keys topic.
func (b bench) arrives(offset int64) {
	value, err := json.Marshal(ticket{Key: "k"})
	require.NoError(b.t, err)
	b.q.OnFetchRecordUnbuffered(row(offset, value), true)
}

func (b bench) ends(offset int64) { b.q.OnFetchRecordUnbuffered(row(offset, nil), true) }

func (b bench) stage(offset int64, waits bool) (cut *bool) {
	cut = new(bool)
	b.q.note(at(offset), testLine, note{waits: waits, lane: home, void: func() bool { return *cut }})
	return cut
}

func (b bench) free(offset int64) {
	b.t.Helper()
	_, waits := b.q.ahead(testLine, offset, home)
	require.False(b.t, waits)
}

func (b bench) held(offset int64) {
	b.t.Helper()
	_, waits := b.q.ahead(testLine, offset, home)
	require.True(b.t, waits)
}

func TestQueue(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]func(b bench){
		"nobody waits": func(b bench) { b.free(9) },
		"only those before hold up": func(b bench) {
			b.arrives(5)
			b.free(5)
			b.free(4)
			b.held(6)
		},
		"other keys and partitions do not": func(b bench) {
			b.arrives(5)
			_, waits := b.q.ahead(line{3, "other"}, 9, home)
			require.False(b.t, waits)
			_, waits = b.q.ahead(line{4, "k"}, 9, home)
			require.False(b.t, waits)
		},
		"what was staged counts at once": func(b bench) {
			b.stage(5, true)
			b.held(6)
			b.stage(5, false)
			b.free(6)
		},
		"an end counts for its own lane, and for others when it arrives": func(b bench) {
			b.arrives(5)
			b.stage(5, false)
			b.free(6)
			due, waits := b.q.ahead(testLine, 6, "another")
			require.True(b.t, waits)
			require.Zero(b.t, due)
			b.ends(5)
			_, waits = b.q.ahead(testLine, 6, "another")
			require.False(b.t, waits)
		},
		"an end whose work was cut short counts for none": func(b bench) {
			b.q.note(at(5), testLine, note{waits: true, due: time.Unix(5, 0), void: func() bool { return false }})
			cut := b.stage(5, false)
			*cut = true
			for _, lane := range []string{home, "another"} {
				due, waits := b.q.ahead(testLine, 6, lane)
				require.True(b.t, waits, "it is handled again")
				require.Equal(b.t, time.Unix(5, 0), due)
			}
		},
		"an end counts though an older ticket arrives after it": func(b bench) {
			b.stage(5, true)
			b.stage(5, false)
			b.arrives(5)
			b.free(6)
			b.ends(5)
			b.free(6)
		},
		"a ticket that arrives after its end is ended again": func(b bench) {
			b.ends(5)
			b.arrives(5)
			b.free(6)
			require.Empty(b.t, b.q.takeLate(2, nil))
			cut := false
			void := func() bool { return cut }
			require.Equal(b.t, []place{at(5)}, b.q.takeLate(3, void))
			require.Empty(b.t, b.q.takeLate(3, void), "once")
			cut = true
			require.Equal(b.t, []place{at(5)}, b.q.takeLate(3, func() bool { return false }), "unless that was cut short")
			b.ends(5)
			require.Empty(b.t, b.q.late)
		},
		"work that was cut short holds up nobody": func(b bench) {
			cut := b.stage(5, true)
			*cut = true
			b.free(6)
		},
		"what arrived holds up, though its work was cut short afterwards": func(b bench) {
			cut := b.stage(5, true)
			b.arrives(5)
			*cut = true
			b.held(6)
		},
		"an end whose work was cut short does not count": func(b bench) {
			b.arrives(5)
			cut := b.stage(5, false)
			b.free(6)
			*cut = true
			b.held(6)
		},
		"the work of one lane is cut short, that of another is not": func(b bench) {
			b.stage(5, true)
			cut := b.stage(5, true)
			*cut = true
			b.held(6)
		},
		"a ticket of this process that is slower than the end of another one": func(b bench) {
			b.stage(5, true)
			b.ends(5)
			b.held(6)
			b.arrives(5)
			b.free(6)
			require.Len(b.t, b.q.takeLate(3, nil), 1)
		},
		"the end of another process": func(b bench) {
			b.arrives(5)
			b.arrives(6)
			b.ends(5)
			b.free(6)
			b.held(7)
		},
		"what is dropped, and not polled, is nothing": func(b bench) {
			value, _ := json.Marshal(ticket{Key: "k"})
			b.q.OnFetchRecordUnbuffered(row(5, value), false)
			b.free(6)
		},
		"what is not ours is nothing": func(b bench) {
			for _, key := range []string{"", "5", "a/5", "3/x", "3/", "/5", "99999999999/5"} {
				b.q.apply(&kgo.Record{Key: []byte(key), Value: []byte(`{"key":"k"}`)})
			}
			require.True(b.t, b.q.empty())
		},
		"a value that does not decode ends the ticket": func(b bench) {
			b.arrives(5)
			b.q.apply(row(5, []byte("?")))
			b.free(6)
		},
		"a ticket that has outlived its record is void": func(b bench) {
			b.arrives(5)
			time.Sleep(time.Hour)
			b.held(6)
			time.Sleep(time.Nanosecond)
			b.free(6)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := bench{t, newQueue(time.Hour + 1)}
				f(b)
				for offset := range int64(10) {
					b.stage(offset, false)
					b.ends(offset)
				}
				require.True(t, b.q.empty(), "nothing is kept of what has ended")
				require.Empty(t, b.q.lineOf)
			})
		})
	}
}

func TestQueue_RemembersTheLatestEnds(t *testing.T) {
	t.Parallel()
	b := bench{t, newQueue(0)}
	for offset := range int64(5 * maxEnded / 2) {
		b.ends(offset)
	}
	require.LessOrEqual(t, len(b.q.ended)+len(b.q.endedBefore), 2*maxEnded)
	b.arrives(5*maxEnded/2 - 1)
	b.arrives(3 * maxEnded / 2)
	b.free(5 * maxEnded)
	require.Len(t, b.q.late, 2)
}

func TestQueue_TheFirstOfTheLineSaysHowLong(t *testing.T) {
	t.Parallel()
	q, due := newQueue(0), time.Unix(1, 0)
	for offset := int64(9); offset > 4; offset-- {
		q.note(at(offset), testLine, note{waits: true, due: due.Add(time.Duration(offset)), void: func() bool { return false }})
	}
	got, waits := q.ahead(testLine, 8, home)
	require.True(t, waits)
	require.Equal(t, due.Add(5), got)
}
