package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAllThatIsWrongWithACommandLineComesAtOnce(t *testing.T) {
	t.Parallel()
	_, err := parse([]string{"-brokers", "", "-services", "stock,bank", "more"})
	for _, part := range []string{"-brokers is empty", `there is no service "bank"`, `"more" is no flag`} {
		require.ErrorContains(t, err, part)
	}
	_, err = parse([]string{"-pay", "late"})
	require.ErrorContains(t, err, `invalid value "late" for flag -pay: choose from ok, refuse, fail, flaky, timeout`)
	cfg, err := parse(nil)
	require.NoError(t, err)
	require.Equal(t, allServices, cfg.services)
}
