package lane

import (
	"encoding/base64"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var topicID = [16]byte{1, 2, 3, 250, 0, 255}

// runsOf returns runs, apart from each other, of the lengths given: so many
// offsets that have not finished, so many that have, and so on.
func runsOf(base int64, lengths ...int64) (runs []Run) {
	for at, i := base, 0; i+1 < len(lengths); i += 2 {
		at += lengths[i]
		runs = append(runs, Run{at, at + lengths[i+1]})
		at += lengths[i+1]
	}
	return runs
}

// checkSet encodes runs and compares what is decoded with them: it is the
// whole, or as much from the begin on as fits.
func checkSet(t *testing.T, base int64, runs []Run, limit int) (text string, all bool) {
	t.Helper()
	given := slices.Clone(runs)
	text, all = Encode(topicID, base, runs, limit)
	require.Equal(t, given, runs, "Encode changed its argument")
	require.LessOrEqual(t, len(text), min(limit, MaxText))
	require.Empty(t, strings.Trim(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"), "not base64url")
	if text == "" {
		require.True(t, len(runs) == 0 || !all)
		return text, all
	}
	got, err := Decode(text, topicID, base)
	require.NoError(t, err)
	if all {
		require.Equal(t, runs, got)
		return text, all
	}
	require.LessOrEqual(t, len(got), len(runs))
	for i, r := range got {
		if i < len(got)-1 {
			require.Equal(t, runs[i], r)
		} else {
			require.Equal(t, runs[i].Begin, r.Begin)
			require.LessOrEqual(t, r.End, runs[i].End, "it says that something has finished which has not")
		}
	}
	return text, all
}

func TestSetComesBackAsItWas(t *testing.T) {
	t.Parallel()
	alternate := slices.Repeat([]int64{1, 1}, 5000)
	tests := []struct {
		name    string
		base    int64
		lengths []int64
		most    int // characters
	}{
		{name: "nothing", base: 5},
		{name: "one record behind one that waits", base: 0, lengths: []int64{1, 1}, most: 26},
		{name: "a run that begins at the base", base: 7, lengths: []int64{0, 3}, most: 26},
		{name: "far away", base: 1 << 40, lengths: []int64{1 << 39, 1, 2, 1 << 38}, most: 60},
		{name: "every other offset", base: 1000, lengths: alternate, most: 1740},
		{name: "dense, then a long run, then dense", base: 3, lengths: slices.Concat(alternate[:200], []int64{1, 1_000_000}, alternate[:200]), most: 120},
		{name: "a run across the end of a chunk of bits", base: 0, lengths: slices.Concat(alternate[:62], []int64{1, 500, 1, 1}), most: 60},
		{name: "clusters far apart", base: 0, lengths: slices.Repeat(slices.Concat([]int64{10_000}, alternate[:39], []int64{1}), 10), most: 240},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			text, all := checkSet(t, test.base, runsOf(test.base, test.lengths...), MaxText)
			require.True(t, all)
			require.LessOrEqual(t, len(text), test.most)
		})
	}
}

// What the doc comment of Consumer.MaxSpan says.
func TestSetHoldsElevenHundredThatWaitAmongAMillion(t *testing.T) {
	t.Parallel()
	for _, seed := range []uint64{1, 2, 3} {
		random := rand.New(rand.NewPCG(seed, 0))
		waits := map[int64]bool{0: true}
		for len(waits) < 1100 {
			waits[random.Int64N(1_000_000)] = true
		}
		var runs []Run
		for at := int64(0); at < 1_000_000; at++ {
			switch n := len(runs); {
			case waits[at]:
			case n > 0 && runs[n-1].End == at:
				runs[n-1].End++
			default:
				runs = append(runs, Run{at, at + 1})
			}
		}
		_, all := checkSet(t, 0, runs, MaxText)
		require.True(t, all, "seed %d", seed)
	}
}

func TestSetHoldsAnyPatternWithinSeventeenThousand(t *testing.T) {
	t.Parallel()
	for _, odds := range []int{2, 3, 5, 9} {
		random := rand.New(rand.NewPCG(uint64(odds), 0))
		var runs []Run
		for at := int64(1); at < 17_000; at++ {
			switch n := len(runs); {
			case random.IntN(odds) > 0:
			case n > 0 && runs[n-1].End == at:
				runs[n-1].End++
			default:
				runs = append(runs, Run{at, at + 1})
			}
		}
		_, all := checkSet(t, 0, runs, MaxText)
		require.True(t, all, "one of %d", odds)
	}
}

func TestSetThatDoesNotFitLeavesOutTheLast(t *testing.T) {
	t.Parallel()
	runs := runsOf(0, slices.Repeat([]int64{100, 100}, 5000)...)
	text, all := checkSet(t, 0, runs, MaxText)
	require.False(t, all)
	require.Greater(t, len(text), MaxText-10)
	for limit := range 100 {
		_, all := checkSet(t, 0, runs, limit)
		require.False(t, all)
	}
	_, all = checkSet(t, 0, runsOf(0, slices.Repeat([]int64{1, 1}, MaxRuns)...), MaxText)
	require.False(t, all, "MaxRuns runs fit")
}

func TestSetIsIgnoredUnlessTopicBaseAndFormAreRight(t *testing.T) {
	t.Parallel()
	text, _ := Encode(topicID, 10, []Run{{11, 20}}, MaxText)
	raw, err := base64.RawURLEncoding.DecodeString(text)
	require.NoError(t, err)
	again := func(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
	with := func(tail ...byte) string { return again(append(slices.Clone(raw[:18]), tail...)) }
	other := slices.Clone(raw)
	other[0] = setVersion + 1
	for name, garbled := range map[string]string{
		"empty":              "",
		"of another tool":    "committed by ops, 2026-11-22",
		"another version":    again(other),
		"cut in the header":  again(raw[:9]),
		"cut in the base":    again(append(slices.Clone(raw[:17]), 0x80)),
		"cut in a piece":     with(0x80),
		"empty gap":          with(0),
		"empty run":          with(1),
		"empty bits":         with(2),
		"fewer bits":         with(5<<2|2, 1),
		"longer than varint": with(255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255),
		"a run without end":  with(0xfd, 255, 255, 255, 255, 255, 255, 255, 255, 1),
		"with padding":       text + "=",
		"in standard base64": "++//" + text,
		"too long":           text + strings.Repeat("A", MaxText),
	} {
		_, err := Decode(garbled, topicID, 10)
		require.Error(t, err, name)
	}
	_, err = Decode(text, [16]byte{}, 10)
	require.Error(t, err, "another topic")
	_, err = Decode(text, topicID, 9)
	require.Error(t, err, "another base")
	runs, err := Decode(text, topicID, 10)
	require.NoError(t, err)
	require.Equal(t, []Run{{11, 20}}, runs)
	for _, base := range []int64{-1, math.MinInt64, math.MaxInt64, math.MaxInt64 - 1} {
		text, _ := Encode(topicID, base, []Run{{base, base + 1}}, MaxText)
		_, err := Decode(text, topicID, base)
		require.Error(t, err, "base %d", base)
	}
}

// A text of 3,000 characters that somebody made to hurt takes no more memory
// than one of ours.
func TestSetOfAHostileTextIsBounded(t *testing.T) {
	t.Parallel()
	head := append([]byte{setVersion}, topicID[:]...)
	head = append(head, 0)
	for name, piece := range map[string][]byte{
		"bits":       nil,
		"runs":       {1 << 2, 1<<2 | 1},
		"holes":      {1<<2 | 3},
		"long runs":  {0xfd, 255, 255, 255, 63},
		"long holes": {0xff, 255, 255, 255, 63},
	} {
		b := slices.Clone(head)
		for piece != nil && len(b)+len(piece) < 2250 {
			b = append(b, piece...)
		}
		if piece == nil {
			b = append(binary.AppendUvarint(b, 2200<<2|pieceBits), slices.Repeat([]byte{0x55}, 2200)...)
		}
		text := base64.RawURLEncoding.EncodeToString(b)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		runs, err := Decode(text, topicID, 0)
		runtime.ReadMemStats(&after)
		t.Logf("%s: %d runs, %v, %d bytes", name, len(runs), err, after.TotalAlloc-before.TotalAlloc)
		require.LessOrEqual(t, len(runs), MaxRuns)
		require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(64<<20), "all that runs beside it is in the figure")
	}
}

func FuzzSetDecode(f *testing.F) {
	text, _ := Encode(topicID, 10, runsOf(10, 1, 1, 1, 1, 1, 7, 1000, 1), MaxText)
	f.Add(text, int64(10))
	f.Add("", int64(0))
	f.Add("AQ", int64(-1))
	f.Fuzz(func(t *testing.T, text string, base int64) {
		raw, _ := base64.RawURLEncoding.DecodeString(text)
		topic := topicID
		if len(raw) >= headerBytes && base%2 == 0 {
			topic = [16]byte(raw[1:]) // or hardly any text would get beyond it
		}
		runs, err := Decode(text, topic, base)
		if err != nil {
			return
		}
		require.LessOrEqual(t, len(text), MaxText)
		require.LessOrEqual(t, len(runs), MaxRuns)
		end := base - 1
		for _, r := range runs {
			require.Less(t, r.Begin, r.End)
			require.Greater(t, r.Begin, end, "runs touch, or go back")
			end = r.End
		}
		again, _ := Encode(topic, base, runs, MaxText)
		if got, err := Decode(again, topic, base); len(runs) > 0 && len(again) < MaxText-100 {
			require.NoError(t, err)
			require.Equal(t, runs, got)
		}
	})
}

func FuzzSetRoundTrip(f *testing.F) {
	f.Add([]byte{1, 1, 5, 200, 1, 1}, int64(0), 3000)
	f.Add(slices.Repeat([]byte{1, 1}, 500), int64(1<<50), 100)
	f.Fuzz(func(t *testing.T, steps []byte, base int64, limit int) {
		if base < 0 || base > 1<<60 {
			return
		}
		var lengths []int64
		for i, b := range steps {
			n := int64(b)
			if b > 200 {
				n = int64(b-200) << (b % 30)
			}
			if i > 0 {
				n = max(n, 1)
			}
			lengths = append(lengths, n)
		}
		checkSet(t, base, runsOf(base, lengths...), max(0, min(limit, 2*MaxText)))
	})
}
