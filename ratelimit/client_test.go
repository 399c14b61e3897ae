package ratelimit_test

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry/ratelimit"
)

func networks(all ...string) (p []netip.Prefix) {
	for _, n := range all {
		p = append(p, netip.MustParsePrefix(n))
	}
	return p
}

func request(from, name string, lines ...string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.RemoteAddr = from
	for _, l := range lines {
		r.Header.Add(name, l)
	}
	return r
}

func TestClient_XForwardedForCountsOnlyBehindTrustedProxies(t *testing.T) {
	t.Parallel()
	h := &ratelimit.HTTP{Proxies: networks("10.0.0.0/8", "fd00::/8")}
	for _, row := range []struct {
		from  string
		lines []string
		want  string
		why   string
	}{
		{"192.0.2.1:80", nil, "192.0.2.1", "nobody says anything"},
		{"192.0.2.1:80", []string{"198.51.100.7"}, "192.0.2.1", "who connected is no proxy: it may say what it likes"},
		{"10.0.0.1:80", []string{"198.51.100.7"}, "198.51.100.7", "a proxy says so"},
		{"10.0.0.1:80", []string{"6.6.6.6, 198.51.100.7"}, "198.51.100.7", "what the client wrote is on the left"},
		{"10.0.0.1:80", []string{"6.6.6.6", "198.51.100.7"}, "198.51.100.7", "in a line of its own too"},
		{"10.0.0.1:80", []string{"6.6.6.6, 198.51.100.7, 10.0.0.2", "10.0.0.3"}, "198.51.100.7", "a chain of proxies"},
		{"10.0.0.1:80", []string{"10.0.0.9, 10.0.0.2"}, "10.0.0.9", "proxies all the way"},
		{"10.0.0.1:80", []string{"6.6.6.6, nonsense"}, "10.0.0.1", "it names nobody: the proxy itself, and nothing left of it"},
		{"10.0.0.1:80", []string{"6.6.6.6, 10.0.0.2, unknown, 10.0.0.3"}, "10.0.0.3", "the last that is known"},
		{"10.0.0.1:80", []string{""}, "10.0.0.1", "empty"},
		{"10.0.0.1:80", []string{" , 198.51.100.7 ,, "}, "198.51.100.7", "empty elements"},
		{"10.0.0.1:80", []string{"198.51.100.7:4711"}, "198.51.100.7", "with a port, as some write it"},
		{"10.0.0.1:80", []string{"[2001:db8::1]:4711"}, "2001:db8::1", "so too"},
		{"10.0.0.1:80", []string{"[2001:db8::1]"}, "2001:db8::1", "brackets alone"},
		{"10.0.0.1:80", []string{"2001:db8::1"}, "2001:db8::1", "none"},
		{"10.0.0.1:80", []string{"[2001:db8::1"}, "10.0.0.1", "half a pair"},
		{"10.0.0.1:80", []string{"::ffff:198.51.100.7"}, "198.51.100.7", "IPv4 within IPv6 is IPv4"},
		{"[::ffff:10.0.0.1]:80", []string{"198.51.100.7"}, "198.51.100.7", "for the proxy too"},
		{"[fd00::1]:80", []string{"fe80::1%eth0"}, "fe80::1", "zones are left out"},
		{"10.0.0.1:80", []string{strings.Repeat("10.0.0.2,", 10_000) + "198.51.100.7"}, "198.51.100.7", "long"},
		{"10.0.0.1:80", []string{`"198.51.100.7"`}, "10.0.0.1", "no quotes there"},
	} {
		require.Equal(t, row.want, h.Client(request(row.from, "X-Forwarded-For", row.lines...)).String(), row.why)
		bare := &ratelimit.HTTP{}
		require.NotEqual(t, "198.51.100.7", bare.Client(request(row.from, "X-Forwarded-For", row.lines...)).String(), "without Proxies nobody is believed")
	}
	require.Equal(t, "10.0.0.1", h.Client(request("10.0.0.1:80", "Forwarded", "for=198.51.100.7")).String(), "the other field does not count")
	require.False(t, h.Client(request("@", "X-Forwarded-For", "198.51.100.7")).IsValid(), "a Unix socket")
}

func TestClient_ForwardedAsRFC7239SaysIt(t *testing.T) {
	t.Parallel()
	h := &ratelimit.HTTP{Proxies: networks("10.0.0.0/8"), Forwarded: true}
	for _, row := range []struct {
		lines []string
		want  string
		why   string
	}{
		{[]string{`for=192.0.2.43`}, "192.0.2.43", "section 4"},
		{[]string{`For="[2001:db8:cafe::17]:4711"`}, "2001:db8:cafe::17", "section 4: names in any case, IPv6 in quotes"},
		{[]string{`for=192.0.2.60;proto=http;by=203.0.113.43`}, "192.0.2.60", "section 4"},
		{[]string{`for=6.6.6.6, for=198.51.100.17`}, "198.51.100.17", "the nearest one is on the right"},
		{[]string{`for=6.6.6.6`, `proto=https ; for=198.51.100.17 , for=10.0.0.2`}, "198.51.100.17", "lines and spaces"},
		{[]string{`for="_gazonk"`}, "10.0.0.1", "section 6.3: hidden"},
		{[]string{`for=unknown`}, "10.0.0.1", "section 6.2"},
		{[]string{`for=6.6.6.6, by=10.0.0.2;proto=http`}, "10.0.0.1", "it says nothing of a client"},
		{[]string{`for=6.6.6.6;for=7.7.7.7`}, "10.0.0.1", "two"},
		{[]string{`for=6.6.6.6, secret="a,b;for=7.7.7.7";for=198.51.100.17`}, "198.51.100.17", "commas and semicolons in quotes"},
		{[]string{`for=6.6.6.6, secret="a\",for=7.7.7.7,\"";for=198.51.100.17`}, "198.51.100.17", "quotes in quotes"},
		{[]string{`for="6.6.6.6, for=198.51.100.17`}, "198.51.100.17", "the client wrote a quote that does not end"},
		{[]string{`for="6.6.6.6`, `for=198.51.100.17`}, "198.51.100.17", "in a line of its own too"},
		{[]string{`for="198.51.100.17`}, "10.0.0.1", "the proxy wrote nonsense"},
		{[]string{`198.51.100.17`}, "10.0.0.1", "no pair"},
		{[]string{`for=`}, "10.0.0.1", "nothing"},
	} {
		require.Equal(t, row.want, h.Client(request("10.0.0.1:80", "Forwarded", row.lines...)).String(), row.why)
		require.Equal(t, "192.0.2.9", h.Client(request("192.0.2.9:80", "Forwarded", row.lines...)).String(), "who is no proxy is not believed")
	}
	require.Equal(t, "10.0.0.1", h.Client(request("10.0.0.1:80", "X-Forwarded-For", "198.51.100.7")).String(), "the other field does not count")
}

func TestNetwork_IPv6IsCut(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		h    ratelimit.HTTP
		from string
		want string
	}{
		{ratelimit.HTTP{}, "192.0.2.77:1", "192.0.2.77"},
		{ratelimit.HTTP{}, "[2001:db8:1:2:3:4:5:6]:1", "2001:db8:1:2::/64"},
		{ratelimit.HTTP{}, "[2001:db8:1:2:ffff::]:1", "2001:db8:1:2::/64"},
		{ratelimit.HTTP{}, "[2001:db8:1:3::]:1", "2001:db8:1:3::/64"},
		{ratelimit.HTTP{}, "[::ffff:192.0.2.77]:1", "192.0.2.77"},
		{ratelimit.HTTP{IPv6: 56, IPv4: 24}, "[2001:db8:1:2ff::]:1", "2001:db8:1:200::/56"},
		{ratelimit.HTTP{IPv6: 56, IPv4: 24}, "192.0.2.77:1", "192.0.2.0/24"},
		{ratelimit.HTTP{IPv6: 128}, "[2001:db8::1%eth0]:1", "2001:db8::1"},
		{ratelimit.HTTP{}, "@", "@"},
	} {
		require.Equal(t, row.want, row.h.Network(request(row.from, "X")), row.from)
	}
	_, err := (&ratelimit.HTTP{Limiter: &ratelimit.Limiter{Tiers: tiers()}, Proxies: []netip.Prefix{{}, netip.MustParsePrefix("::ffff:10.0.0.0/104")}}).Handler(served)
	require.ErrorContains(t, err, "invalid Prefix in Proxies is no network")
	require.ErrorContains(t, err, "::ffff:10.0.0.0/104 in Proxies: write it as an IPv4 network")
}

// Whatever a client writes before what the proxy adds, the client is who the
// proxy says.
func FuzzClient(f *testing.F) {
	f.Add("for=6.6.6.6", "6.6.6.6")
	f.Add(`for="6.6.6.6`, "6.6.6.6,")
	f.Add(`for="\`, `"`)
	f.Add(`for="a\\", x="`, "10.0.0.1, 10.0.0.2")
	f.Fuzz(func(t *testing.T, forwarded, xff string) {
		h := &ratelimit.HTTP{Proxies: networks("10.0.0.0/8")}
		require.Equal(t, "198.51.100.7", h.Client(request("10.0.0.1:80", "X-Forwarded-For", xff+", 198.51.100.7")).String())
		require.Equal(t, "198.51.100.7", h.Client(request("10.0.0.1:80", "X-Forwarded-For", xff, "198.51.100.7")).String())
		h.Forwarded = true
		require.Equal(t, "198.51.100.7", h.Client(request("10.0.0.1:80", "Forwarded", forwarded+", for=198.51.100.7;proto=https")).String())
		require.Equal(t, "198.51.100.7", h.Client(request("10.0.0.1:80", "Forwarded", forwarded, `proto=https;for="198.51.100.7:80"`)).String())
		h.Client(request("10.0.0.1:80", "Forwarded", forwarded)) // does not panic
	})
}
