package retry_test

import (
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/retry"
)

const (
	ms = time.Millisecond
	s  = time.Second
)

func TestDelays_AreTheWaitsBetweenTheAttempts(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		policy retry.Policy
		want   []time.Duration
	}{
		"four attempts":                  {retry.Policy{Attempts: 4, Initial: s}, []time.Duration{1 * s, 2 * s, 4 * s}},
		"the zero policy makes three":    {retry.Policy{}, []time.Duration{1 * s, 2 * s}},
		"one attempt waits never":        {retry.Policy{Attempts: 1}, nil},
		"equal waits":                    {retry.Policy{Attempts: 4, Initial: 250 * ms, Multiplier: 1}, []time.Duration{250 * ms, 250 * ms, 250 * ms}},
		"a broken multiplier":            {retry.Policy{Attempts: 4, Initial: s, Multiplier: 1.5}, []time.Duration{1 * s, 1500 * ms, 2250 * ms}},
		"capped":                         {retry.Policy{Attempts: 6, Initial: s, Max: 3 * s}, []time.Duration{1 * s, 2 * s, 3 * s, 3 * s, 3 * s}},
		"the cap holds for the first":    {retry.Policy{Attempts: 3, Max: 300 * ms}, []time.Duration{300 * ms, 300 * ms}},
		"what is within the time":        {retry.Policy{Attempts: 9, Initial: s, Within: 7 * s}, []time.Duration{1 * s, 2 * s, 4 * s}},
		"less than the first wait":       {retry.Policy{Attempts: 9, Initial: s, Within: 999 * ms}, nil},
		"hardly any wait":                {retry.Policy{Attempts: 3, Initial: 1, Multiplier: 1}, []time.Duration{1, 1}},
		"rules are for errors, not here": {retry.Policy{Attempts: 2, Rules: []retry.Rule{{If: retry.Is(io.EOF), Attempts: 9}}}, []time.Duration{1 * s}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, tt.want, slices.Collect(tt.policy.Delays()))
		})
	}
}

func TestDelays_GrowWithoutOverflow(t *testing.T) {
	t.Parallel()
	for _, multiplier := range []float64{1, 1.0001, 1.5, 2, 10, math.MaxInt32} {
		for _, jitter := range []float64{0, 0.5, 1} {
			p := retry.Policy{Attempts: retry.Forever, Initial: time.Hour, Multiplier: multiplier, Jitter: jitter}
			n, before := 0, time.Duration(0)
			for d := range p.Delays() {
				require.GreaterOrEqual(t, d, time.Duration(0))
				if jitter == 0 {
					require.GreaterOrEqual(t, d, before)
				}
				if before, n = d, n+1; n == 300 {
					break
				}
			}
			require.Equal(t, 300, n)
		}
	}
}

func TestDelays_JitterStaysWithinItsBoundsAndBelowTheCap(t *testing.T) {
	t.Parallel()
	p := retry.Policy{Attempts: 5, Initial: 10 * s, Max: 30 * s, Jitter: 0.2}
	bounds := [][2]time.Duration{{8 * s, 12 * s}, {16 * s, 24 * s}, {24 * s, 30 * s}, {24 * s, 30 * s}}
	distinct := map[time.Duration]bool{}
	for range 1000 {
		i := 0
		for d := range p.Delays() {
			require.GreaterOrEqual(t, d, bounds[i][0])
			require.LessOrEqual(t, d, bounds[i][1])
			distinct[d] = true
			i++
		}
		require.Len(t, bounds, i)
	}
	require.Greater(t, len(distinct), 3000, "the waits are spread")
	require.NotContains(t, distinct, 30*s+1)
}

// asking is an error of another package that says when to come again.
type asking struct{ wait time.Duration }

func (e *asking) Error() string             { return "too many requests" }
func (e *asking) RetryAfter() time.Duration { return e.wait }

func TestNext_Decides(t *testing.T) {
	t.Parallel()
	var (
		errPlain  = errors.New("down")
		errClosed = errors.New("closed")
		errBusy   = errors.New("busy")
	)
	rules := []retry.Rule{
		{If: retry.Is(errClosed), GiveUp: true},
		{If: retry.As[*asking](), Attempts: 10},
		{If: retry.Is(errBusy), Attempts: 3, Initial: 100 * ms, Multiplier: 1},
		{If: retry.Is(errBusy), GiveUp: true}, // never asked
		{If: retry.Panicked, Attempts: 2},
	}
	p := retry.Policy{Attempts: 4, Initial: s, Within: time.Minute, Rules: rules}
	panicked := &wherry.RecordError{Cause: wherry.CausePanic, Err: errPlain, Stack: "stack"}
	for name, tt := range map[string]struct {
		n       int
		elapsed time.Duration
		err     error
		wait    time.Duration
		cause   wherry.Cause
	}{
		"first":                             {1, 0, errPlain, 1 * s, ""},
		"third":                             {3, 0, errPlain, 4 * s, ""},
		"the last":                          {4, 0, errPlain, 0, wherry.CauseExhausted},
		"beyond the last":                   {5, 0, errPlain, 0, wherry.CauseExhausted},
		"the wait would end in time":        {1, 59 * s, errPlain, 1 * s, ""},
		"the wait would end too late":       {1, 59*s + 1, errPlain, 0, wherry.CauseExhausted},
		"permanent":                         {1, 0, fmt.Errorf("x: %w", wherry.Permanent(errPlain)), 0, wherry.CausePermanent},
		"permanent, whatever the rules say": {1, 0, wherry.Permanent(errBusy), 0, wherry.CausePermanent},
		"undecodable":                       {1, 0, &wherry.RecordError{Cause: wherry.CauseUndecodable, Err: errPlain}, 0, wherry.CauseUndecodable},
		"rejected":                          {1, 0, &wherry.RecordError{Cause: wherry.CauseRejected, Err: errPlain}, 0, wherry.CauseRejected},
		"expired":                           {1, 0, &wherry.RecordError{Cause: wherry.CauseExpired, Err: errPlain}, 0, wherry.CauseExpired},
		"an output too large":               {1, 0, &wherry.OutputError{Err: errPlain}, 0, wherry.CausePermanent},
		"a policy inside is exhausted":      {1, 0, &wherry.RecordError{Cause: wherry.CauseExhausted, Err: errPlain}, 1 * s, ""},
		"a rule gives up":                   {1, 0, fmt.Errorf("x: %w", errClosed), 0, wherry.CausePermanent},
		"the first rule that matches":       {2, 0, errBusy, 100 * ms, ""},
		"the rule's attempts":               {3, 0, errBusy, 0, wherry.CauseExhausted},
		"a rule takes from the policy":      {5, 0, &asking{}, 0, ""},
		"asked for":                         {1, 0, &asking{30 * s}, 30 * s, ""},
		"asked for, too late":               {1, 40 * s, &asking{30 * s}, 0, wherry.CauseExhausted},
		"asked for at once":                 {3, 0, retry.After(errPlain, 0), 0, ""},
		"asked for a negative wait":         {3, 0, retry.After(errPlain, -s), 0, ""},
		"asked for, wrapped":                {3, 0, fmt.Errorf("x: %w", retry.After(errPlain, 7*s)), 7 * s, ""},
		"asked for after the last":          {4, 0, retry.After(errPlain, s), 0, wherry.CauseExhausted},
		"a panic":                           {1, 0, panicked, 1 * s, ""},
		"the rule of a panic":               {2, 0, panicked, 0, wherry.CauseExhausted},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			wait, cause := p.Next(tt.n, tt.elapsed, tt.err)
			require.Equal(t, tt.cause, cause)
			require.Equal(t, tt.wait, wait)
		})
	}
}

func TestNext_AWaitThatWasAskedForIsNeverShortened(t *testing.T) {
	t.Parallel()
	p := retry.Policy{Max: s, Jitter: 0.5}
	for range 1000 {
		wait, cause := p.Next(1, 0, retry.After(io.EOF, 10*s))
		require.Empty(t, cause)
		require.GreaterOrEqual(t, wait, 10*s)
		require.LessOrEqual(t, wait, 15*s)
	}
	wait, cause := p.Next(1, 0, retry.After(io.EOF, math.MaxInt64))
	require.Empty(t, cause)
	require.Greater(t, wait, 100*365*24*time.Hour)
}

func TestNext_ALargeNumberOfAttemptsCostsNoTime(t *testing.T) {
	t.Parallel()
	for _, multiplier := range []float64{1, 2} {
		p := retry.Policy{Attempts: retry.Forever, Max: time.Minute, Multiplier: multiplier}
		wait, cause := p.Next(math.MaxInt-1, 0, io.EOF)
		require.Empty(t, cause)
		require.Positive(t, wait)
	}
}

func TestAfter_KeepsTheError(t *testing.T) {
	t.Parallel()
	require.NoError(t, retry.After(nil, s))
	err := retry.After(io.EOF, s)
	require.ErrorIs(t, err, io.EOF)
	require.Equal(t, "EOF", err.Error())
}

func TestPrepare_ReportsAllFaultsAtOnce(t *testing.T) {
	t.Parallel()
	nan := math.NaN()
	for name, tt := range map[string]struct {
		policy retry.Policy
		want   []string
	}{
		"negative numbers": {retry.Policy{Attempts: -1, Initial: -1, Multiplier: -2, Jitter: -1}, []string{"Attempts is -1", "must not be negative", "Multiplier is -2", "Jitter is -1"}},
		"no numbers":       {retry.Policy{Multiplier: nan, Jitter: nan}, []string{"Multiplier is NaN", "Jitter is NaN"}},
		"shrinking waits":  {retry.Policy{Multiplier: 0.5}, []string{"at least 1"}},
		"cap below":        {retry.Policy{Initial: time.Minute, Max: s}, []string{"Initial is 1m0s and Max is 1s"}},
		"a wait that is too long": {
			retry.Policy{Attempts: 12, Initial: s},
			[]string{"waits 8m32s after attempt 10", "MaxWait is 5m0s", "retry.Topics"},
		},
		"too long with jitter": {retry.Policy{Initial: 200 * s, Jitter: 0.6, Multiplier: 1}, []string{"waits 5m20s after attempt 1"}},
		"without an end":       {retry.Policy{Attempts: retry.Forever}, []string{"set Max"}},
		"a rule that cannot be": {
			retry.Policy{Max: 4 * s, Rules: []retry.Rule{{If: retry.Is(io.EOF), Initial: 13 * s}}},
			[]string{"rule 0: a wait of 13s would be cut to the Max of 4s"},
		},
		"rules": {
			retry.Policy{Rules: []retry.Rule{{}, {If: retry.Is(io.EOF), GiveUp: true, Attempts: 2}, {If: retry.Is(io.EOF), Initial: time.Hour}, {If: retry.Is(io.EOF), Max: -1}}},
			[]string{"rule 0: no If", "rule 1: it gives up", "rule 2 waits 1h0m0s", "rule 3: numbers"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := tt.policy.Prepare(&wherry.Setup{MaxWait: 5 * time.Minute})
			require.Error(t, err)
			for _, want := range tt.want {
				require.ErrorContains(t, err, want)
			}
		})
	}
	for _, p := range []retry.Policy{
		{},
		{Attempts: retry.Forever, Max: 5 * time.Minute, Jitter: 1},
		{Attempts: retry.Forever, Within: 5 * time.Minute},
		{Attempts: 1, Initial: time.Hour},
		{Rules: []retry.Rule{{If: retry.Is(io.EOF), GiveUp: true}, {If: retry.Panicked, Attempts: 1}}},
	} {
		require.NoError(t, p.Prepare(&wherry.Setup{MaxWait: 5 * time.Minute}))
	}
}

var _ wherry.Preparer = retry.Policy{}

// unread is a record as a handler sees it, without a Consumer.
var unread = &kgo.Record{Topic: "t", Partition: 1, Offset: 2}
