package main

import (
	"flag"
	"testing"

	"github.com/stretchr/testify/require"
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
}

func TestFlagsAreRead(t *testing.T) {
	t.Parallel()
	cfg, err := parse([]string{
		"-http", ":1", "-data", "d", "-brokers", "a:1, b:2", "-services", "billing,auth,billing",
		"-payments", "ok", "-retry-initial", "1s",
	}, func(string) string { return "" })
	require.NoError(t, err)
	require.Equal(t, ":1", cfg.http)
	require.Equal(t, "d", cfg.data)
	require.Equal(t, []string{"a:1", "b:2"}, cfg.brokers)
	require.Equal(t, []string{"billing", "auth"}, cfg.services)
}

func TestFlagsThatAreRefused(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"-services", "orders,shipping"}, `-services: there is no service "shipping": choose from orders, billing, auth, notifications`},
		{[]string{"-services", ","}, `-services is empty: choose from orders, billing, auth, notifications`},
		{[]string{"-payments", "fail"}, `-payments fail: payments that fail are not there yet, so it can only be ok`},
		{[]string{"-payments", "flaky"}, `-payments flaky: payments that fail are not there yet, so it can only be ok`},
		{[]string{"-payments", "above=100"}, `-payments above=100: payments that fail are not there yet, so it can only be ok`},
		{[]string{"-payments", "above=lots"}, `-payments "above=lots": choose from ok, fail, flaky, above=N (N a whole number)`},
		{[]string{"-payments", "100"}, `-payments "100": choose from ok, fail, flaky, above=N (N a whole number)`},
		{[]string{"-payments", ""}, `-payments "": choose from ok, fail, flaky, above=N (N a whole number)`},
		{[]string{"-retry-initial", "2s"}, `-retry-initial: nothing is retried yet, so it can only be 1s`},
		{[]string{"-brokers", ""}, `-brokers is empty: give host:port, or leave it out to have a broker in this process`},
		{[]string{"-brokers", "a,b:0,:1"}, "-brokers: \"a\" is not host:port\n-brokers: \"b:0\" is not host:port\n-brokers: \":1\" is not host:port"},
		{[]string{"orders"}, `"orders" is no flag: a flag begins with -`},
		{[]string{"-nope"}, `flag provided but not defined: -nope`},
		{
			[]string{"-services", "x", "-payments", "y", "-retry-initial", "0s"},
			"-services: there is no service \"x\": choose from orders, billing, auth, notifications\n" +
				"-payments \"y\": choose from ok, fail, flaky, above=N (N a whole number)\n" +
				"-retry-initial: nothing is retried yet, so it can only be 1s",
		},
	} {
		_, err := parse(test.args, func(string) string { return "" })
		require.EqualError(t, err, test.want)
		require.NotErrorIs(t, err, flag.ErrHelp)
	}
}
