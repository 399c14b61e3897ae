package billing

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry"
)

func TestPaymentsGoAsToldAttemptByAttempt(t *testing.T) {
	t.Parallel()
	const ok, declined, silent = "", "declined", "did not answer"
	for _, test := range []struct {
		payments, amount string
		attempts         []string // what the first four say
	}{
		{"ok", "99.99", []string{ok, ok, ok, ok}},
		{"fail", "0.01", []string{declined, declined, declined, declined}},
		{"flaky", "99.99", []string{silent, silent, ok, ok}},
		{"above=100", "99.99", []string{ok, ok, ok, ok}},
		{"above=100", "100", []string{ok, ok, ok, ok}},
		{"above=100", "+100.00", []string{ok, ok, ok, ok}},
		{"above=100", "100.01", []string{declined, declined, declined, declined}},
		{"above=8", "010", []string{declined, declined, declined, declined}}, // not octal
		{"above=0", ".5", []string{declined, declined, declined, declined}},
		{"above=999999999999999999", "99999999999999999999999999999999", []string{declined, declined, declined, declined}},
	} {
		p, err := ParsePayments(test.payments)
		require.NoError(t, err)
		for i, want := range test.attempts {
			err := p.charge(t.Context(), i+1, test.amount)
			if want == ok {
				require.NoError(t, err, "%s, %s, attempt %d", test.payments, test.amount, i+1)
				continue
			}
			require.ErrorContains(t, err, want)
			require.NotErrorIs(t, err, wherry.ErrPermanent)
		}
	}
	require.NoError(t, Payments{}.charge(t.Context(), 1, "1"))
}

func TestAmountThatIsNoneIsNotTriedAgain(t *testing.T) {
	t.Parallel()
	for _, amount := range []string{"", "lots", "-1", "1e999999999", "1/2", "0x10", "1_000", "1."} {
		err := Payments{}.charge(t.Context(), 1, amount)
		require.ErrorIs(t, err, wherry.ErrPermanent, "%q", amount)
		require.ErrorContains(t, err, "is no amount")
	}
}

func TestPaymentsThatCannotBeRead(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "OK", "above", "above=", "above=lots", "above=-1", "above=1.5", "above=1e3", "100", "flaky=2"} {
		_, err := ParsePayments(text)
		require.EqualError(t, err, "choose from ok, fail, flaky, above=N (N a whole number)", "%q", text)
	}
}
