package saga

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// inMemory are the fields of an instance that its record does not have: the
// key is another part of the record, and raw is the state.
var inMemory = map[string]bool{"id": true, "state": true, "dirty": true}

const epoch = 1_800_000_000_000

// fill sets v and all within it to values that its kind of thing can have.
func fill(v reflect.Value, rng *rand.Rand) {
	switch v.Interface().(type) {
	case Phase:
		v.SetUint(1 + rng.Uint64N(uint64(Undone)))
		return
	case stepStatus:
		v.SetUint(rng.Uint64N(uint64(stepUndone) + 1))
		return
	case []byte:
		if n := rng.IntN(40); n > 0 { // else nil
			v.SetBytes([]byte(text(rng, n-1)))
		}
		return
	}
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(rng.IntN(2) == 0)
	case reflect.Int, reflect.Int32:
		v.SetInt(int64(int32(rng.Uint32())) >> rng.IntN(32))
	case reflect.Int64: // mostly times
		v.SetInt((epoch + rng.Int64N(1<<32)) >> (rng.IntN(2) * rng.IntN(64)))
	case reflect.Uint8, reflect.Uint64:
		v.SetUint(rng.Uint64() >> 56 << (rng.Uint64N(uint64(v.Type().Bits())) &^ 7))
	case reflect.String:
		v.SetString(text(rng, rng.IntN(300)))
	case reflect.Slice:
		if n := rng.IntN(5); n > 0 {
			v.Set(reflect.MakeSlice(v.Type(), n, n))
		}
		for i := range v.Len() {
			fill(v.Index(i), rng)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			fill(field(v, i), rng)
		}
	default:
		panic("codec_test.go has no values of kind " + v.Kind().String())
	}
}

func text(rng *rand.Rand, n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return string(b)
}

// field returns the i-th field of v, also one that has no capital.
func field(v reflect.Value, i int) reflect.Value {
	return reflect.NewAt(v.Field(i).Type(), unsafe.Pointer(v.Field(i).UnsafeAddr())).Elem()
}

// anyInstance returns one with everything in it that a record can have.
func anyInstance(rng *rand.Rand) *instance {
	in := &instance{}
	v := reflect.ValueOf(in).Elem()
	for i := range v.NumField() {
		if !inMemory[v.Type().Field(i).Name] {
			fill(field(v, i), rng)
		}
	}
	if rng.IntN(2) == 0 {
		in.trace = fmt.Sprintf("00-%016x%016x-%016x-01", rng.Uint64(), rng.Uint64(), rng.Uint64())
	}
	if len(in.raw) == 0 {
		in.raw = nil // no state is one with no bytes
	}
	return in
}

func TestCodec_WhatIsWrittenIsRead(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		in := anyInstance(rng)
		in.id = "order-1"
		b := encodeInstance(in)
		got, err := decodeInstance("order-1", b)
		require.NoError(t, err)
		require.Equal(t, in, got)
		phase, due, ended, from, events, err := peek(b)
		require.NoError(t, err)
		require.Equal(t, []any{in.phase, in.due(), in.ended, in.from, len(in.events)}, []any{phase, due, ended, from, events})
		require.True(t, strings.HasSuffix(string(b), string(in.raw)), "the state's bytes are the last and as they are")
	}
}

// A field that is added to what an instance is made of must be in its record:
// each of them alone comes back, through every struct on the way.
func TestCodec_EveryFieldIsInTheRecord(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(3, 4))
	fields := 0
	var each func(path string, root *instance, v reflect.Value)
	each = func(path string, root *instance, v reflect.Value) {
		for i := range v.NumField() {
			name := v.Type().Field(i).Name
			if path == "" && inMemory[name] {
				continue
			}
			f, at := field(v, i), path+"."+name
			before := reflect.New(f.Type()).Elem()
			before.Set(f)
			if f.Kind() == reflect.Slice && f.Type().Elem().Kind() == reflect.Struct {
				f.Set(reflect.MakeSlice(f.Type(), 1, 1))
				each(at, root, f.Index(0))
			} else {
				fields++
				for f.IsZero() || reflect.DeepEqual(f.Interface(), before.Interface()) || f.Kind() == reflect.Slice && f.Len() == 0 {
					fill(f, rng)
				}
				got, err := decodeInstance("", encodeInstance(root))
				require.NoError(t, err, at)
				require.Equal(t, root, got, "%s is not written, or not read", at)
			}
			f.Set(before)
		}
	}
	in := &instance{phase: Running}
	each("", in, reflect.ValueOf(in).Elem())
	require.Greater(t, fields, 30)
}

// An idle saga that has one step in hand takes at most 100 bytes beside its
// state and its id, with its trace and its history.
func TestCodec_AnIdleSagaIsSmall(t *testing.T) {
	t.Parallel()
	in := &instance{
		phase: Running, version: 1, whyStep: -1, began: epoch, from: 0xfedcba9876543210,
		steps:   []stepState{{status: stepDoing, attempt: 1, began: epoch + 3, due: epoch + 3 + 30_000}},
		history: []transition{{at: epoch, what: moveStarted, step: -1}, {at: epoch + 3, what: moveSent, attempt: 1}},
		moves:   2, trace: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
		raw: []byte(`{"order":"1"}`),
	}
	size := len(encodeInstance(in)) - len(in.raw)
	t.Logf("%d bytes", size)
	require.LessOrEqual(t, size, 100)
}

func TestCodec_PeekAllocatesNothing(t *testing.T) {
	b := encodeInstance(anyInstance(rand.New(rand.NewPCG(5, 6))))
	require.Zero(t, testing.AllocsPerRun(100, func() {
		if _, _, _, _, _, err := peek(b); err != nil {
			panic(err)
		}
	}))
}

func TestCodec_WhatItCannotReadIsSaid(t *testing.T) {
	t.Parallel()
	whole := encodeInstance(&instance{phase: Running, steps: make([]stepState, 3), history: make([]transition, 2)})
	for name, row := range map[string]struct {
		b    []byte
		says string
	}{
		"nothing":             {nil, `saga "order-1": its record in the state topic: it ends too early`},
		"a newer format":      {append([]byte{2}, whole[1:]...), "it is of format 2, and this program reads format 1: an engine of a newer wherry wrote it"},
		"JSON":                {[]byte(`{"order":"1"}`), "it is of format 123"},
		"an unknown phase":    {append([]byte{1, 9}, whole[2:]...), "it has an unknown phase, 0 before 9"},
		"an unknown flag":     {append([]byte{1, 3, 128}, whole[3:]...), "it has unknown flags, 0x80"},
		"more than there are": {append(append([]byte{}, whole[:3]...), 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 255, 255, 255, 255, 15), "it ends too early"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := decodeInstance("order-1", row.b)
			require.ErrorContains(t, err, row.says)
			_, _, _, _, _, err = peek(row.b)
			require.Error(t, err)
		})
	}
	for n := range whole { // it has no state: all that is cut is missed
		_, err := decodeInstance("", whole[:n])
		require.ErrorIs(t, err, errShort, n)
	}
}

// Not parallel: it counts what the process allocates.
func TestCodec_BadBytesAllocateLittle(t *testing.T) {
	rng := rand.New(rand.NewPCG(9, 10))
	var before, after runtime.MemStats
	for range 300 {
		b := encodeInstance(anyInstance(rng))
		for i := range 8 {
			b[rng.IntN(len(b)-3)+3] = byte(255 >> (i % 2))
		}
		runtime.ReadMemStats(&before)
		in, err := decodeInstance("id", b)
		runtime.ReadMemStats(&after)
		require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(32*len(b)+64<<10), "%v %v", in, err)
	}
}

func FuzzCodec(f *testing.F) {
	rng := rand.New(rand.NewPCG(7, 8))
	f.Add([]byte{})
	for range 20 {
		f.Add(encodeInstance(anyInstance(rng)))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		in, err := decodeInstance("id", b)
		_, _, _, _, _, peeked := peek(b)
		if err != nil {
			return
		}
		require.NoError(t, peeked)
		again, err := decodeInstance("id", encodeInstance(in))
		require.NoError(t, err)
		require.Equal(t, in, again)
	})
}
