package crashlab

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/internal/lane"
)

var labTopics = Named("lab")

// goodLog is the log of a run in which nothing went wrong: n inputs, of which
// those of a key are in one of two partitions.
func goodLog(n int) Log {
	l := Log{TopicID: [16]byte{1}, Committed: map[int32]Committed{}}
	end, count := map[string]map[int32]int64{}, map[string]int{}
	add := func(to *[]*kgo.Record, topic string, p int32, key string, value []byte) {
		if end[topic] == nil {
			end[topic] = map[int32]int64{}
		}
		*to = append(*to, &kgo.Record{Topic: topic, Partition: p, Offset: end[topic][p], Key: []byte(key), Value: value})
		end[topic][p]++
	}
	var inputs []Input
	for i := range n {
		inputs = append(inputs, InputOf(3, i, 5))
	}
	for p := range int32(2) {
		for _, in := range inputs {
			if int32(in.Key[2]%2) != p {
				continue
			}
			r := in.Record(labTopics.In)
			add(&l.In, r.Topic, p, in.Key, r.Value)
			if in.Dead() {
				add(&l.Dead, labTopics.Dead, p, in.Key, r.Value)
				continue
			}
			count[in.Key] = in.Next(count[in.Key])
			m := Member{Name: "p1", Topics: labTopics}
			place, attempt := l.In[len(l.In)-1], 1
			if in.Kind == Fails {
				attempt = 2
			}
			for _, out := range m.outputs(in, place, count[in.Key], attempt) {
				to := &l.A
				if out.Topic == labTopics.B {
					to = &l.B
				}
				add(to, out.Topic, p, in.Key, out.Value)
			}
			value := m.value(in, place, count[in.Key], attempt)
			if in.Kind == Reset {
				value = nil
			}
			add(&l.Table, labTopics.Table, p, in.Key, value)
		}
		l.Committed[p] = Committed{Offset: end[labTopics.In][p]}
	}
	return l
}

// edit changes the output that a record is.
func edit(r *kgo.Record, f func(*Output)) *kgo.Record {
	var out Output
	if err := json.Unmarshal(r.Value, &out); err != nil {
		panic(err)
	}
	f(&out)
	again := *r
	again.Value, _ = json.Marshal(out)
	return &again
}

func TestCheck_FindsEachThingThatMustNotBe(t *testing.T) {
	t.Parallel()
	require.Empty(t, Check(labTopics, goodLog(200)))
	var seen []Kind
	for _, r := range goodLog(200).In {
		in, err := readInput(r.Value)
		require.NoError(t, err)
		seen = append(seen, in.Kind)
	}
	for _, kind := range []Kind{Plain, Slow, Fails, Bad, Garbled, Rejected, Reset, Quiet} {
		require.Contains(t, seen, kind, "of this kind there is no input")
	}
	last := func(rs []*kgo.Record) *kgo.Record { return rs[len(rs)-1] }
	cover := func(l *Log, offset int64, metadata string) {
		l.Samples = append(l.Samples, Sample{
			Committed: map[int32]Committed{0: {offset, metadata}},
			Before:    map[string]map[int32]int64{}, After: map[string]map[int32]int64{},
		})
	}
	for _, test := range []struct {
		name  string
		spoil func(*Log)
		want  []string // kinds of findings
	}{
		{"an output is lost", func(l *Log) { l.A = l.A[1:] }, []string{"torn", "lost"}},
		{"both outputs are lost", func(l *Log) { l.A, l.B = l.A[:len(l.A)-1], l.B[:len(l.B)-1] }, []string{"lost"}},
		{"both outputs are there twice", func(l *Log) { l.A, l.B = append(l.A, last(l.A)), append(l.B, last(l.B)) }, []string{"doubled"}},
		{"a letter is lost", func(l *Log) { l.Dead = l.Dead[1:] }, []string{"lost"}},
		{"a letter is there twice", func(l *Log) { l.Dead = append(l.Dead, l.Dead[0]) }, []string{"doubled"}},
		{"a letter of nobody", func(l *Log) { l.Dead = append(l.Dead, &kgo.Record{Value: []byte("x")}) }, []string{"foreign"}},
		{"an input is dead-lettered that should not be", func(l *Log) {
			for _, r := range l.In {
				if in, _ := readInput(r.Value); in.Kind == Plain {
					l.Dead = append(l.Dead, &kgo.Record{Topic: labTopics.Dead, Key: r.Key, Value: r.Value})
					return
				}
			}
		}, []string{"unwanted"}},
		{"a count is another", func(l *Log) { l.A[3] = edit(l.A[3], func(o *Output) { o.Count++ }) }, []string{"count"}},
		{"an output of nobody", func(l *Log) { l.B[3] = edit(l.B[3], func(o *Output) { o.From = "9/9" }) }, []string{"foreign", "torn", "lost"}},
		{"an output of an attempt that failed", func(l *Log) { l.A = append(l.A, edit(last(l.A), func(o *Output) { o.Fails = true })) }, []string{"half"}},
		{"a key out of order", func(l *Log) {
			for i := range l.A {
				j := slices.IndexFunc(l.A[i+1:], func(r *kgo.Record) bool { return string(r.Key) == string(l.A[i].Key) })
				if j >= 0 {
					l.A[i], l.A[i+1+j] = l.A[i+1+j], l.A[i]
					return
				}
			}
		}, []string{"order"}},
		{"the table has a count of another input", func(l *Log) {
			for i, r := range l.Table {
				if r.Value != nil {
					l.Table[i] = edit(r, func(o *Output) { o.Count += 100 })
					return
				}
			}
		}, []string{"table"}},
		{"the table's last record is missing", func(l *Log) { l.Table = l.Table[:len(l.Table)-1] }, []string{"table"}},
		{"the table's partition is another", func(l *Log) { l.Table[0].Partition = 1 - l.Table[0].Partition }, []string{"table"}},
		{"the table has a write of an attempt that failed", func(l *Log) {
			l.Table = append(l.Table, edit(last(l.Table), func(o *Output) { o.Fails = true }))
		}, []string{"half"}},
		{"not all is committed", func(l *Log) { l.Committed[0] = Committed{Offset: l.Committed[0].Offset - 1} }, []string{"offsets", "table"}},
		{"covered, and not there", func(l *Log) {
			cover(l, 10, "")
			l.Samples[0].After = map[string]map[int32]int64{labTopics.A: {0: 0}, labTopics.B: {0: 1000}, labTopics.Dead: {0: 1000}}
		}, []string{"torn"}},
		{"there, and not covered", func(l *Log) {
			cover(l, 10, "")
			l.Samples[0].After = map[string]map[int32]int64{labTopics.A: {0: 1000}, labTopics.B: {0: 1000}, labTopics.Dead: {0: 1000}}
			l.Samples[0].Before = map[string]map[int32]int64{labTopics.A: {0: 1000}}
		}, []string{"torn"}},
		{"a finished set that does not decode", func(l *Log) { cover(l, 0, "?") }, []string{"finished set"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			l := goodLog(200)
			test.spoil(&l)
			var kinds []string
			for _, f := range Check(labTopics, l) {
				if !slices.Contains(kinds, f.Kind) {
					kinds = append(kinds, f.Kind)
				}
			}
			require.ElementsMatch(t, test.want, kinds)
		})
	}
}

// What a finished set covers is committed, and nothing else beyond the watermark.
func TestCheck_ReadsFinishedSets(t *testing.T) {
	t.Parallel()
	set, all := lane.Encode([16]byte{1}, 3, []lane.Run{{Begin: 5, End: 7}}, 3000)
	require.True(t, all)
	l := goodLog(200)
	ends := map[string]map[int32]int64{labTopics.A: {0: 1000}, labTopics.B: {0: 1000}, labTopics.Dead: {0: 1000}}
	l.Samples = []Sample{{Committed: map[int32]Committed{0: {3, set}}, Before: ends, After: ends}}
	beyond := func(offset string) bool {
		return slices.ContainsFunc(Check(labTopics, l), func(f Finding) bool { return strings.Contains(f.Text, ") at 0/"+offset+" was visible") })
	}
	for offset, want := range map[string]bool{"2": false, "4": true, "5": false, "6": false, "7": true} {
		require.Equal(t, want, beyond(offset), offset)
	}
}

// An input that the group has not committed is late, and not lost.
func TestCheck_WhatIsNotCommittedIsNotLost(t *testing.T) {
	t.Parallel()
	l := goodLog(200)
	l.Committed[1] = Committed{}
	one := func(r *kgo.Record) bool { return r.Partition == 1 }
	l.A, l.B, l.Dead, l.Table = slices.DeleteFunc(l.A, one), slices.DeleteFunc(l.B, one), slices.DeleteFunc(l.Dead, one), slices.DeleteFunc(l.Table, one)
	for _, f := range Check(labTopics, l) {
		require.Equal(t, "offsets", f.Kind, f.Text)
	}
}
