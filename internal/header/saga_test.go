package header_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry/internal/header"
)

func TestACorrelationIDIsReadAsItWasWritten(t *testing.T) {
	t.Parallel()
	for _, o := range []header.Op{
		{ID: "o-1", Step: "pay", Attempt: 1},
		{ID: "o-1", Step: "pay", Undo: true, Attempt: 2147483647},
		{ID: "a.b/c d\x00\xff", Step: "ship and bill", Attempt: 3},
		{ID: strings.Repeat("\xff", 256), Step: strings.Repeat("s", 64), Undo: true, Attempt: 2147483647},
	} {
		id := o.CorrelationID(2147483647)
		read, partition, ok := header.ParseCorrelationID(id)
		require.True(t, ok, id)
		require.Equal(t, o, read)
		require.EqualValues(t, 2147483647, partition)
	}
	require.Equal(t, "by0x.pay.u.2.7", header.Op{ID: "o-1", Step: "pay", Undo: true, Attempt: 2}.CorrelationID(7))
}

func TestWhatIsNoCorrelationIDOfASaga(t *testing.T) {
	t.Parallel()
	for name, id := range map[string]string{
		"nothing":                     "",
		"NestJS's own":                "f3a09c81d2b74e6590a1c",
		"no id":                       ".pay.d.1.0",
		"no step":                     "by0x..d.1.0",
		"a step that cannot be":       "by0x.pa/y.d.1.0",
		"a step with a line break":    "by0x.pay\n.d.1.0",
		"a step that is too long":     "by0x." + strings.Repeat("s", 65) + ".d.1.0",
		"an id that is too long":      header.Op{ID: strings.Repeat("x", 257), Step: "pay", Attempt: 1}.CorrelationID(0),
		"megabytes":                   strings.Repeat("by0x.", 1<<20),
		"another direction":           "by0x.pay.x.1.0",
		"no direction":                "by0x.pay..1.0",
		"attempt 0":                   "by0x.pay.d.0.0",
		"a negative attempt":          "by0x.pay.d.-1.0",
		"an attempt with a plus":      "by0x.pay.d.+1.0",
		"an attempt with zeros":       "by0x.pay.d.01.0",
		"an attempt that is no int32": "by0x.pay.d.2147483648.0",
		"a negative partition":        "by0x.pay.d.1.-1",
		"a partition -0":              "by0x.pay.d.1.-0",
		"no partition":                "by0x.pay.d.1",
		"more":                        "by0x.pay.d.1.0.0",
		"padding":                     "by0xMQ==.pay.d.1.0",
		"the base64 of others":        "+/+/.pay.d.1.0",
		"a line break in the base64":  "by\n0x.pay.d.1.0",
		"bits that say nothing":       "by0xMR.pay.d.1.0",
	} {
		_, _, ok := header.ParseCorrelationID(id)
		require.False(t, ok, name)
	}
}

func TestOpOf(t *testing.T) {
	t.Parallel()
	do, undo := "by0x.pay.d.2.7", "by0x.pay.u.2.7"
	for _, test := range []struct {
		saga, direction, id string
		done, ok            bool
	}{
		{"checkout", "do", do, false, true},
		{"checkout", "undo", undo, true, true},
		{"checkout", "", undo, false, true},
		{"", "do", do, false, false},
		{"check out", "do", do, false, false},
		{strings.Repeat("c", 250), "do", do, false, false},
		{"checkout", "undo", do, false, false},
		{"checkout", "do", undo, false, false},
		{"checkout", "UNDO", undo, false, false},
		{"checkout", "do", "", false, false},
	} {
		o, ok := header.OpOf(test.saga, test.direction, test.id, test.done)
		require.Equal(t, test.ok, ok, test)
		if ok {
			require.Equal(t, header.Op{Saga: test.saga, ID: "o-1", Step: "pay", Undo: test.id == undo, Done: test.done, Attempt: 2}, o)
		}
	}
	o, _ := header.OpOf("checkout", "do", do, true)
	require.False(t, o.Done, "a do is not done before")
}

func TestTheKeyOfAnOpIsThatOfNoOther(t *testing.T) {
	t.Parallel()
	seen := map[string]header.Op{}
	for _, saga := range []string{"a", "a/b", "a%2Fb", "b"} {
		for _, id := range []string{"a", "b", "a/b", "b/a", "a%2Fb", "a/b/do", "\xff", "%FF", "ü", " "} {
			for _, step := range []string{"a", "b", "a/b", "do", "undo"} {
				for _, undo := range []bool{false, true} {
					o := header.Op{Saga: saga, ID: id, Step: step, Undo: undo, Attempt: 1}
					before, found := seen[o.Key()]
					require.False(t, found, "%+v and %+v", o, before)
					seen[o.Key()] = o
				}
			}
		}
	}
	require.Equal(t, "checkout/o%2F1/ship%20it/undo", header.Op{Saga: "checkout", ID: "o/1", Step: "ship it", Undo: true}.Key())
}

func FuzzParseCorrelationID(f *testing.F) {
	f.Add("by0x.pay.d.1.0")
	f.Add("by0x.pay.u.2147483647.2147483647")
	f.Add("..d.1.")
	f.Fuzz(func(t *testing.T, text string) {
		o, partition, ok := header.ParseCorrelationID(text)
		if !ok {
			return
		}
		if o.ID == "" || len(o.ID) > 256 || o.Step == "" || len(o.Step) > 64 || o.Attempt < 1 || partition < 0 {
			t.Fatalf("%q is %+v", text, o)
		}
		if again := o.CorrelationID(partition); again != text {
			t.Fatalf("%q is read as %q", text, again)
		}
		for _, c := range []byte((header.Op{Saga: "s", ID: o.ID, Step: o.Step}).Key()) {
			if c <= ' ' || c > '~' {
				t.Fatalf("the key of %q is not printable", text)
			}
		}
	})
}
