package ratelimit

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// item is one of a List of RFC 9651, as these fields have them: a String with
// Integers as parameters.
type item struct {
	name   string
	params map[string]int64
}

// parseList reads such a List after section 4.2 of RFC 9651, strictly.
func parseList(t *testing.T, text string) (list []item) {
	t.Helper()
	for {
		require.True(t, strings.HasPrefix(text, `"`), "a String: %s", text)
		var name strings.Builder
		i := 1
		for ; text[i] != '"'; i++ {
			require.True(t, text[i] >= ' ' && text[i] <= '~')
			if text[i] == '\\' {
				i++
				require.Contains(t, `"\`, string(text[i]), "nothing else may be escaped")
			}
			name.WriteByte(text[i])
		}
		one := item{name.String(), map[string]int64{}}
		for text = text[i+1:]; strings.HasPrefix(text, ";"); {
			key, rest, ok := strings.Cut(text[1:], "=")
			require.True(t, ok)
			digits := 0
			for digits < len(rest) && rest[digits] >= '0' && rest[digits] <= '9' {
				digits++
			}
			require.LessOrEqual(t, digits, 15, "Integers have 15 digits at most")
			n, err := strconv.ParseInt(rest[:digits], 10, 64)
			require.NoError(t, err)
			one.params[key], text = n, rest[digits:]
		}
		list = append(list, one)
		if text == "" {
			return list
		}
		require.True(t, strings.HasPrefix(text, ", "), "%s", text)
		text = text[2:]
	}
}

func TestHeaders_AreStructuredFieldsWhateverTheNames(t *testing.T) {
	t.Parallel()
	names := []string{`a"b`, `back\slash`, `",x;q=1`, " ", "~!", strings.Repeat("n", 500)}
	l := &Limiter{}
	for i, n := range names {
		l.Tiers = append(l.Tiers, Tier{Name: n, Limit: maxLimit - i, Per: time.Duration(i+1)*1500*time.Millisecond - time.Millisecond})
	}
	l.Tiers[len(names)-1].Per = maxPer
	require.NoError(t, l.Check())
	d, err := l.Take(t.Context(), "k", 1)
	require.NoError(t, err)
	to := http.Header{}
	(&HTTP{}).headers(to, policies(d.rules), &d)
	list := parseList(t, to.Get("RateLimit-Policy"))
	require.Len(t, list, len(names))
	for i, n := range names {
		require.Equal(t, n, list[i].name)
		require.EqualValues(t, maxLimit-i, list[i].params["q"])
		require.GreaterOrEqual(t, time.Duration(list[i].params["w"])*time.Second, l.Tiers[i].Per, "rounded up, and never 0")
	}
	least := parseList(t, to.Get("RateLimit"))
	require.Equal(t, []item{{names[5], map[string]int64{"r": maxLimit - 6, "t": int64(maxPer / time.Second)}}}, least)
}

func FuzzHeaders(f *testing.F) {
	f.Add("short", uint16(3), uint32(5000))
	f.Add("a\"\\\r\nSet-Cookie: x", uint16(1), uint32(1))
	f.Fuzz(func(t *testing.T, name string, limit uint16, per uint32) {
		l := &Limiter{Tiers: []Tier{{Name: name, Limit: int(limit), Per: time.Duration(per) * time.Millisecond}}}
		if l.Check() != nil {
			return
		}
		d, err := l.Take(t.Context(), "k", 1)
		require.NoError(t, err)
		to := http.Header{}
		(&HTTP{}).headers(to, policies(d.rules), &d)
		if name == "" {
			name = "default"
		}
		require.Equal(t, name, parseList(t, to.Get("RateLimit-Policy"))[0].name)
		require.Equal(t, name, parseList(t, to.Get("RateLimit"))[0].name)
		if token(name) {
			throttler(to, &d)
			require.Equal(t, strconv.Itoa(int(limit)), to.Get("X-RateLimit-Limit"+strings.TrimSuffix("-"+name, "-default")))
		}
	})
}

func TestSeconds_AreRoundedUp(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{0: "0", 1: "1", time.Second: "1", time.Second + 1: "2", 1500 * time.Millisecond: "2", 1<<63 - 1: "9223372037"} {
		require.Equal(t, want, seconds(d))
	}
}
