package planted_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry/internal/planted"
)

func TestFaultsAreSetOneAtATimeAndByName(t *testing.T) {
	defer planted.Set(planted.None)
	require.True(t, planted.Is(planted.None))
	for _, f := range planted.Faults() {
		require.NoError(t, planted.FromEnv(func(key string) string {
			require.Equal(t, "WHERRY_PLANT", key)
			return f.String()
		}))
		for _, g := range append(planted.Faults(), planted.None) {
			require.Equal(t, f == g, planted.Is(g), "%v while %v is set", g, f)
		}
	}
	require.NoError(t, planted.FromEnv(func(string) string { return "" }), "an empty variable changes nothing")
	require.True(t, planted.Is(planted.AttemptInKey))
	require.ErrorContains(t, planted.FromEnv(func(string) string { return "NoSuch" }), "no such fault")
}

func TestTheEnvironmentAloneDoesNothing(t *testing.T) {
	t.Setenv(planted.Env, "NoFencing")
	require.False(t, planted.Is(planted.NoFencing))
}
