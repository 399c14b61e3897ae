package main

import (
	"flag"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry/examples/shop/billing"
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
}

func TestFlagsAreRead(t *testing.T) {
	t.Parallel()
	cfg, err := parse([]string{
		"-http", ":1", "-data", "d", "-brokers", "a:1, b:2", "-services", "billing,auth,billing",
		"-payments", "above=100", "-retry-initial", "10ms",
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
