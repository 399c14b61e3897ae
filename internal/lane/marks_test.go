package lane

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// model is Marks as one would write it without a thought for speed.
type model struct {
	marks []Mark
	done  []bool
	low   Mark
}

func (m *model) Add(offset int64, epoch int32) uint64 {
	m.marks, m.done = append(m.marks, Mark{offset + 1, epoch}), append(m.done, false)
	return uint64(len(m.marks) - 1)
}

func (m *model) Done(seq uint64) {
	m.done[seq] = true
	for i, done := range m.done {
		if !done {
			return
		}
		m.low = m.marks[i]
	}
}

// finished are the runs beyond low, none while what is open has offsets that
// go back.
func (m *model) finished() (runs []Run) {
	first := slices.Index(m.done, false)
	for i := max(first, 0); first >= 0 && i < len(m.done); i++ {
		end, before := m.marks[i].Offset, int64(0)
		if i > 0 {
			before = m.marks[i-1].Offset
		}
		if end <= before {
			return nil
		}
		switch n := len(runs); {
		case !m.done[i]:
		case n > 0 && m.done[i-1]:
			runs[n-1].End = end
		default:
			runs = append(runs, Run{end - 1, end})
		}
	}
	return runs
}

func (m *model) Open() int {
	if i := slices.Index(m.done, false); i >= 0 {
		return len(m.done) - i
	}
	return 0
}

// play runs a program on Marks and on the model. Of each byte the lowest bit
// says whether a record is added, the rest by how much the offset moves or
// which open record is done.
func play(t *testing.T, program []byte) {
	var (
		got    Marks
		naive  model
		open   []uint64
		offset int64
	)
	for i, b := range program {
		if b&1 == 0 || len(open) == 0 {
			offset += int64(int8(b)>>1) / 4 // most often forward or back by some; 0 too
			seq := got.Add(offset, int32(i))
			require.Equal(t, naive.Add(offset, int32(i)), seq)
			open = append(open, seq)
		} else {
			at := int(b>>1) % len(open)
			got.Done(open[at])
			naive.Done(open[at])
			open = slices.Delete(open, at, at+1)
		}
		require.Equal(t, naive.low, got.Low(), "step %d", i)
		require.Equal(t, naive.finished(), got.Finished(MaxRuns), "step %d", i)
		require.Equal(t, naive.Open(), got.Open(), "step %d", i)
	}
}

func FuzzMarks(f *testing.F) {
	f.Add([]byte{0, 1})
	f.Add([]byte{0, 0, 0, 5, 3, 1})
	f.Add(slices.Repeat([]byte{8}, 40))
	f.Add(slices.Concat(slices.Repeat([]byte{8}, 17), slices.Repeat([]byte{3}, 17)))
	f.Fuzz(func(t *testing.T, program []byte) { play(t, program[:min(len(program), 1000)]) })
}

func TestMarksAgreeWithANaiveModelOnRandomPrograms(t *testing.T) {
	t.Parallel()
	for seed := range uint64(100) {
		random := rand.New(rand.NewPCG(seed, 0))
		program := make([]byte, 600)
		bias := random.IntN(10) // of adding: queues stay short in some programs and grow in others
		for i := range program {
			program[i] = byte(random.Uint32()) | 1
			if random.IntN(10) < bias {
				program[i] &^= 1
			}
		}
		play(t, program)
	}
}

func TestMarks(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		offsets []int64
		done    []int
		low     int64 // -1 while it has not moved
		open    int
	}{
		{name: "nothing was added", low: -1},
		{name: "nothing has finished", offsets: []int64{5, 6}, low: -1, open: 2},
		{name: "the first has finished", offsets: []int64{5, 6}, done: []int{0}, low: 6, open: 1},
		{name: "the last has finished and the first has not", offsets: []int64{5, 6}, done: []int{1}, low: -1, open: 2},
		{name: "all have finished backwards", offsets: []int64{5, 6, 7}, done: []int{2, 1, 0}, low: 8},
		{name: "a gap counts to the record before it alone", offsets: []int64{5, 900}, done: []int{0}, low: 6, open: 1},
		{name: "a gap is passed with the record behind it", offsets: []int64{5, 900}, done: []int{1, 0}, low: 901},
		{name: "offset 0", offsets: []int64{0}, done: []int{0}, low: 1},
		{name: "offsets that go back move it back", offsets: []int64{50, 3}, done: []int{0, 1}, low: 4},
		{name: "an offset that comes twice", offsets: []int64{7, 7}, done: []int{0}, low: 8, open: 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var m Marks
			m.Begin(Mark{Offset: -1})
			for i, offset := range test.offsets {
				m.Add(offset, int32(10+i))
			}
			for _, seq := range test.done {
				m.Done(uint64(seq))
			}
			require.Equal(t, test.low, m.Low().Offset)
			require.Equal(t, test.open, m.Open())
		})
	}
}

func TestMarksLowHasTheEpochOfTheRecordBeforeIt(t *testing.T) {
	t.Parallel()
	var m Marks
	for i := range int64(3) {
		m.Add(i, int32(i)*10)
	}
	m.Done(1)
	m.Done(0)
	require.Equal(t, Mark{Offset: 2, Epoch: 10}, m.Low())
}

func TestMarksGrowInTheMiddleOfARingAndKeepWhatIsOpen(t *testing.T) {
	t.Parallel()
	var m Marks
	for i := range int64(16) {
		m.Add(i, 0)
	}
	for i := range uint64(10) { // the ring now begins in its middle
		m.Done(i)
	}
	for i := range int64(1000) {
		m.Add(16+i, 0)
	}
	m.Done(11)
	for i := uint64(12); i < 1016; i++ {
		m.Done(i)
	}
	require.EqualValues(t, 10, m.Low().Offset)
	m.Done(10)
	require.EqualValues(t, 1016, m.Low().Offset)
	require.Zero(t, m.Open())
}

func TestMarksDoNotGrowWhileFewAreOpen(t *testing.T) {
	t.Parallel()
	var m Marks
	for i := range int64(100_000) {
		m.Done(m.Add(i, 0))
	}
	require.Len(t, m.ring, 16)
}
