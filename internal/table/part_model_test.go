package table_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/internal/table"
)

// model is a Part as simple as can be, with the log that its owner writes to.
type model struct {
	committed map[string]string
	pending   []*kgo.Record // in the order of Write
	log       []byte        // of each offset: 'o' a record of ours, told of; 'm' the mark of its transaction; 'x' anything else
}

func (m *model) all() map[string]string {
	all := maps.Clone(m.committed)
	for _, r := range m.pending {
		set(all, r)
	}
	return all
}

func set(to map[string]string, r *kgo.Record) {
	if r.Value == nil {
		delete(to, string(r.Key))
	} else {
		to[string(r.Key)] = string(r.Value)
	}
}

// next is behind the last record of ours below which all is known.
func (m *model) next() (next int64) {
	for offset, what := range m.log {
		switch what {
		case 'o':
			next = int64(offset) + 1
		case 'x':
			return next
		}
	}
	return next
}

// choose returns some of what is pending, of each key the oldest, and what is
// left.
func (m *model) choose(choice byte) (some, rest []*kgo.Record) {
	left := map[string]bool{}
	for i, r := range m.pending {
		if key := string(r.Key); choice>>(i%8)&1 == 0 || left[key] {
			left[key] = true
			rest = append(rest, r)
		} else {
			some = append(some, r)
		}
	}
	return some, rest
}

// produce gives rs their offsets, what another wrote among them, and a mark.
func (m *model) produce(rs []*kgo.Record, as, intrude byte) {
	if intrude%16 == 1 {
		m.log = append(m.log, 'x')
	}
	for i, r := range rs {
		if i > 0 && intrude%16 == 2 {
			m.log = append(m.log, 'x')
		}
		sent(int64(len(m.log)), r)
		m.log = append(m.log, as)
	}
	if len(rs) > 0 {
		m.log = append(m.log, 'm')
	}
}

// play plays moves of two bytes on a Part and on the model and compares them
// after each.
func play(t require.TestingT, moves []byte) {
	p, m := table.NewPart(nil), &model{committed: map[string]string{}}
	for i := 0; i+1 < len(moves); i += 2 {
		move, detail := moves[i]%8, moves[i+1]
		switch move {
		case 0, 1, 2, 3:
			r := unsent(strconv.Itoa(int(detail % 5)))
			if detail%3 > 0 {
				r.Value = strconv.AppendInt(nil, int64(i), 10)
			}
			p.Write(r)
			m.pending = append(m.pending, r)
		case 4, 5:
			rs, rest := m.choose(detail)
			m.produce(rs, 'o', moves[i]/8)
			m.pending = rest
			for _, r := range rs {
				set(m.committed, r)
			}
			given := slices.Clone(rs)
			if detail%2 == 0 {
				slices.Reverse(given)
			}
			p.Commit(given)
		case 6:
			m.pending = nil
			p.Rollback()
		case 7:
			aborted, _ := m.choose(detail)
			told := moves[i]/8%2 == 0
			if m.pending = nil; told {
				m.produce(aborted, 'o', moves[i]/8)
				p.Rollback(aborted...)
			} else {
				m.produce(aborted, 'x', moves[i]/8)
				p.Rollback()
			}
		}
		want := m.all()
		require.Equal(t, want, values(p))
		require.Equal(t, len(want), p.Len())
		require.Equal(t, len(m.pending), p.Pending())
		require.Equal(t, m.next(), p.Next(), "the log is %s", m.log)
		for key := range 5 {
			e, ok := p.Get(strconv.Itoa(key))
			value, there := want[strconv.Itoa(key)]
			require.Equal(t, there, ok)
			require.Equal(t, value, string(e.Value))
		}
	}
}

func TestPartAgreesWithAModelUnderRandomInterleavings(t *testing.T) {
	t.Parallel()
	for seed := range uint64(300) {
		random := rand.New(rand.NewPCG(seed, 0))
		moves := make([]byte, 200)
		for i := range moves {
			moves[i] = byte(random.Uint32())
		}
		play(t, moves)
	}
}

func FuzzPart(f *testing.F) {
	f.Add([]byte{0, 1, 4, 255, 1, 1, 0, 3, 12, 1, 6, 0, 7, 255, 15, 255})
	f.Fuzz(func(t *testing.T, moves []byte) { play(t, moves[:min(len(moves), 1000)]) })
}

func FuzzPartKeepsRecordsAsTheyAre(f *testing.F) {
	f.Add("key", []byte("value"), int64(7), int64(1_766_666_666_666), "header", []byte("of it"), uint8(2))
	f.Add("", []byte{}, int64(1)<<62, int64(-1), "", []byte{}, uint8(0))
	f.Fuzz(func(t *testing.T, key string, value []byte, offset, millis int64, name string, header []byte, headers uint8) {
		if value == nil {
			value = []byte{}
		}
		r := unsent(key, string(value))
		for i := range headers % 4 {
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: name[:min(int(i), len(name))], Value: slices.Clone(header)})
		}
		if headers%4 > 2 {
			r.Headers[1].Value = nil
		}
		want := table.Entry{Value: value, Headers: r.Headers, Partition: 3, Offset: offset, Millis: millis}
		p := table.NewPart(nil)
		p.Write(r)
		e, ok := p.Get(key)
		require.True(t, ok)
		require.Equal(t, table.Entry{Value: value, Headers: r.Headers, Offset: -1}, e)
		sent(offset, r)
		r.Timestamp = time.UnixMilli(millis)
		p.Commit([]*kgo.Record{r})
		e, ok = p.Get(key)
		require.True(t, ok)
		require.Equal(t, want, e)
		for k, e := range p.All() {
			require.Equal(t, key, k)
			require.Equal(t, want, e)
		}
		require.Equal(t, 1, p.Len())
	})
}

func TestPartFromManyGoroutines(t *testing.T) {
	t.Parallel()
	const writers, rounds = 4, 200
	p := table.NewPart(nil)
	var users sync.WaitGroup
	var log sync.Mutex // the transactions, one at a time
	var offset int64
	for w := range writers {
		users.Go(func() {
			key := strconv.Itoa(w)
			for i := range rounds {
				one, two := unsent(key, strconv.Itoa(i)), unsent(key, fmt.Sprint(i, "more"))
				p.Write(one)
				p.Write(two)
				log.Lock()
				p.Commit(sent(offset, one, two))
				offset += 3
				log.Unlock()
				if e, ok := p.Get(key); !ok || string(e.Value) != fmt.Sprint(i, "more") {
					t.Errorf("%s is %q, %v", key, e.Value, ok)
				}
			}
		})
		users.Go(func() {
			for range rounds {
				for _, e := range p.All() {
					e.Value = append(e.Value, '!')[:1] // it is the ranger's own
					e.Value[0] = 'x'
				}
				if n, pending := p.Len(), p.Pending(); n > writers || pending > 2*writers {
					t.Errorf("%d keys, %d pending", n, pending)
				}
				p.Next()
			}
		})
	}
	users.Wait()
	require.Equal(t, writers, p.Len())
	require.Zero(t, p.Pending())
	require.Equal(t, offset-1, p.Next())
	for key, e := range p.All() {
		require.Equal(t, fmt.Sprint(rounds-1, "more"), string(e.Value), key)
	}
}
