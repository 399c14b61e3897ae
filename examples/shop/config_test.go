package main

import (
	"flag"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry/examples/shop/billing"
	"github.com/wherry-go/wherry/ratelimit"
)

func TestFlagsThatAreLeftOutHaveTheirDefaults(t *testing.T) {
	t.Parallel()
	cfg, err := parse(nil, func(string) string { return "" })
	require.NoError(t, err)
	require.Equal(t, "127.0.0.1:3000", cfg.http)
	require.Equal(t, ".wherry-shop", cfg.data)
	require.Equal(t, "127.0.0.1:9092", cfg.embedded)
	require.Nil(t, cfg.brokers)
	require.Equal(t, []string{"orders", "billing", "auth", "notifications"}, cfg.services)
	require.Equal(t, billing.Payments{}, cfg.payments)
	require.Equal(t, time.Second, cfg.retry)
	require.Equal(t, []ratelimit.Tier{
		{Name: "short", Limit: 3, Per: 5 * time.Second},
		{Name: "medium", Limit: 10, Per: 20 * time.Second},
		{Name: "long", Limit: 25, Per: 90 * time.Second},
	}, cfg.limits)
	require.Empty(t, cfg.proxies)
	require.Empty(t, cfg.redis)
}

func TestFlagsAreRead(t *testing.T) {
	t.Parallel()
	cfg, err := parse([]string{
		"-http", ":1", "-data", "d", "-brokers", "a:1, b:2", "-services", "billing,auth,billing",
		"-payments", "above=100", "-retry-initial", "10ms",
		"-limits", "100/1m, 5000/24h", "-trusted-proxies", "10.1.2.3/8,::1, 192.0.2.1", "-redis", "localhost:6379",
	}, func(string) string { return "" })
	require.NoError(t, err)
	require.Equal(t, ":1", cfg.http)
	require.Equal(t, "d", cfg.data)
	require.Equal(t, []string{"a:1", "b:2"}, cfg.brokers)
	require.Equal(t, []string{"billing", "auth"}, cfg.services)
	above, err := billing.ParsePayments("above=100")
	require.NoError(t, err)
	require.Equal(t, above, cfg.payments)
	require.Equal(t, 10*time.Millisecond, cfg.retry)
	require.Equal(t, []ratelimit.Tier{{Name: "1m", Limit: 100, Per: time.Minute}, {Name: "24h", Limit: 5000, Per: 24 * time.Hour}}, cfg.limits)
	require.Equal(t, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("::1/128"), netip.MustParsePrefix("192.0.2.1/32")}, cfg.proxies)
	require.Equal(t, "localhost:6379", cfg.redis)

	cfg, err = parse([]string{"-limits", "off"}, func(string) string { return "" })
	require.NoError(t, err)
	require.Nil(t, cfg.limits)
}

func TestFlagsThatAreRefused(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"-services", "orders,shipping"}, `-services: there is no service "shipping": choose from orders, billing, auth, notifications`},
		{[]string{"-services", ","}, `-services is empty: choose from orders, billing, auth, notifications`},
		{[]string{"-payments", "above=lots"}, `-payments "above=lots": choose from ok, fail, flaky, above=N (N a whole number)`},
		{[]string{"-payments", "100"}, `-payments "100": choose from ok, fail, flaky, above=N (N a whole number)`},
		{[]string{"-payments", ""}, `-payments "": choose from ok, fail, flaky, above=N (N a whole number)`},
		{[]string{"-retry-initial", "2m"}, `-retry-initial 2m0s: choose from 1ms to 1m`},
		{[]string{"-brokers", ""}, `-brokers is empty: give host:port, or leave it out to have a broker in this process`},
		{[]string{"-brokers", "a,b:0,:1"}, "-brokers: \"a\" is not host:port\n-brokers: \"b:0\" is not host:port\n-brokers: \":1\" is not host:port"},
		{[]string{"-limits", ""}, "-limits \"\": ratelimit.Limiter default: has 0 Tiers, and needs 1 to 8"},
		{[]string{"-limits", "3"}, `-limits: "3" is no limit: give requests/time, such as 3/5s, or off`},
		{[]string{"-limits", "3/5"}, `-limits: "3/5" is no limit: give requests/time, such as 3/5s, or off`},
		{[]string{"-limits", "0/5s"}, "-limits \"0/5s\": ratelimit.Limiter default: tier \"5s\": Limit is 0, and must be 1 to 2^40"},
		{[]string{"-trusted-proxies", "proxy, 10.0.0.0/99"}, "-trusted-proxies: \"proxy\" is no network: give addresses or networks, such as 10.0.0.0/8 or ::1\n-trusted-proxies: \"10.0.0.0/99\" is no network: give addresses or networks, such as 10.0.0.0/8 or ::1"},
		{[]string{"-redis", "localhost"}, `-redis: "localhost" is not host:port`},
		{[]string{"orders"}, `"orders" is no flag: a flag begins with -`},
		{[]string{"-nope"}, `flag provided but not defined: -nope`},
		{
			[]string{"-services", "x", "-payments", "y", "-retry-initial", "0s"},
			"-services: there is no service \"x\": choose from orders, billing, auth, notifications\n" +
				"-payments \"y\": choose from ok, fail, flaky, above=N (N a whole number)\n" +
				"-retry-initial 0s: choose from 1ms to 1m",
		},
	} {
		_, err := parse(test.args, func(string) string { return "" })
		require.EqualError(t, err, test.want)
		require.NotErrorIs(t, err, flag.ErrHelp)
	}
}
