package dlq

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry"
)

// shutBy returns a gate that one failure has shut, and the passage of that one.
func shutBy(t *testing.T) (*breaker, *passage) {
	t.Helper()
	b := Gate{After: 1, Probe: time.Second, MaxProbe: time.Minute}.breaker()
	p := &passage{b: b}
	require.NoError(t, p.enter(t.Context()))
	held, what, _ := p.result(surroundings)
	require.True(t, held)
	require.Equal(t, nowShut, what)
	return b, p
}

// entering enters in the background.
func entering(ctx context.Context, p *passage) <-chan error {
	entered := make(chan error, 1)
	go func() { entered <- p.enter(ctx) }()
	synctest.Wait()
	return entered
}

// A record whose partition is taken away while it is the probe gives its turn to
// another one.
func TestAProbeThatIsCutShortGivesItsTurn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, first := shutBy(t)
		second := &passage{b: b}
		one, two := entering(t.Context(), first), entering(t.Context(), second)
		begun := time.Now()
		require.NoError(t, <-one)
		require.Equal(t, time.Second, time.Since(begun))
		synctest.Wait()
		require.Empty(t, two, "one at a time")
		first.leave()
		require.NoError(t, <-two)
		require.Equal(t, time.Second, time.Since(begun), "at once: the time for it has come")
		first.leave() // again is no harm
		_, what, _ := second.result(nobody)
		require.Equal(t, nowOpen, what)
	})
}

// A record that is cut short while it is held is not let anymore.
func TestARecordThatIsCutShortLeavesTheQueue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, first := shutBy(t)
		ctx, cancel := context.WithCancel(t.Context())
		one := entering(ctx, first)
		cancel()
		require.ErrorIs(t, <-one, context.Canceled)
		require.Zero(t, b.held.Len())
		time.Sleep(time.Hour)
		require.Nil(t, b.trying, "nobody is tried")

		begun := time.Now()
		require.NoError(t, <-entering(t.Context(), &passage{b: b}), "who comes after the time is tried at once")
		require.Equal(t, begun, time.Now())
	})
}

func TestRecordsThatWereNotTriedComeBeforeThoseThatFailed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, first := shutBy(t)
		first.failed = 2
		second, third := &passage{b: b, failed: 1}, &passage{b: b}
		one, two, three := entering(t.Context(), first), entering(t.Context(), second), entering(t.Context(), third)
		require.NoError(t, <-three)
		third.result(record)
		require.NoError(t, <-two)
		second.result(record)
		require.NoError(t, <-one)
	})
}

// A probe that is to blame itself tells nothing: another one follows at once.
func TestAProbeThatIsToBlameItselfCostsNoTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, first := shutBy(t)
		second := &passage{b: b}
		one, two := entering(t.Context(), first), entering(t.Context(), second)
		require.NoError(t, <-one)
		begun := time.Now()
		held, what, _ := first.result(record)
		require.False(t, held)
		require.Equal(t, unchanged, what)
		require.NoError(t, <-two)
		require.Equal(t, begun, time.Now())
	})
}

func TestWhatCountsAsAFailure(t *testing.T) {
	t.Parallel()
	of := func(cause wherry.Cause, attempts int) error {
		return fmt.Errorf("wrapped: %w", &wherry.RecordError{Cause: cause, Attempts: attempts, Err: errors.New("no")})
	}
	at := source{"orders", 1, 7}
	elsewhere := &wherry.RecordError{Cause: wherry.CauseUndecodable, Topic: "users", Partition: 1, Offset: 7, Err: errors.New("no")}
	here := &wherry.RecordError{Cause: wherry.CauseUndecodable, Topic: "orders", Partition: 1, Offset: 7, Err: errors.New("no")}
	tests := []struct {
		name  string
		t     tried
		want  blame
		cause wherry.Cause
	}{
		{"failed", tried{err: errors.New("no")}, surroundings, wherry.CauseFailed},
		{"exhausted", tried{err: of(wherry.CauseExhausted, 4)}, surroundings, wherry.CauseExhausted},
		{"panicked", tried{err: of(wherry.CausePanic, 1)}, surroundings, wherry.CausePanic},
		{"tried until its time was over", tried{err: of(wherry.CauseExpired, 1)}, surroundings, wherry.CauseExpired},
		{"over before it was tried", tried{err: of(wherry.CauseExpired, 0)}, record, wherry.CauseExpired},
		{"over on its way", tried{err: of(wherry.CauseExpired, 3), hop: true}, record, wherry.CauseExpired},
		{"undecodable", tried{err: of(wherry.CauseUndecodable, 1)}, record, wherry.CauseUndecodable},
		{"permanent", tried{err: wherry.Permanent(errors.New("no"))}, record, wherry.CausePermanent},
		{"permanent, says a policy", tried{err: of(wherry.CausePermanent, 2)}, record, wherry.CausePermanent},
		{"rejected", tried{err: of(wherry.CauseRejected, 1)}, record, wherry.CauseRejected},
		{"refused by Publish", tried{err: &wherry.OutputError{Err: errors.New("no")}}, record, wherry.CauseRejected},
		{"no cause", tried{err: of("", 1)}, surroundings, wherry.CauseFailed},
		{"this record's", tried{err: here, at: at}, record, wherry.CauseUndecodable},
		{"another record's", tried{err: elsewhere, at: at}, surroundings, wherry.CauseFailed},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, test.want, test.t.blame())
			require.Equal(t, test.cause, test.t.cause())
		})
	}
	require.Equal(t, nobody, (&tried{}).blame())
}

// A record that was under way when the gate was shut is held if it failed, and
// opens the gate if it did not.
func TestRecordsUnderWayWhenTheGateIsShut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := Gate{After: 1}.breaker()
		var p [3]*passage
		for i := range p {
			p[i] = &passage{b: b}
			require.NoError(t, p[i].enter(t.Context()))
		}
		_, what, _ := p[0].result(surroundings)
		require.Equal(t, nowShut, what)
		held, what, _ := p[1].result(surroundings)
		require.True(t, held)
		require.Equal(t, unchanged, what)
		_, what, since := p[2].result(nobody)
		require.Equal(t, nowOpen, what)
		require.Equal(t, time.Now(), since)
		require.NoError(t, p[0].enter(t.Context()), "all go on")
	})
}

// Whatever happens to whom in which order: one probe at a time, and when
// everything works again all records come through.
func TestNoRecordIsForgotten(t *testing.T) {
	t.Parallel()
	for seed := range uint64(50) {
		synctest.Test(t, func(t *testing.T) {
			b := Gate{After: 3, Probes: 4}.breaker()
			mended := time.Now().Add(time.Hour)
			done := make(chan struct{})
			const records = 40
			for i := range records {
				go func() {
					defer func() { done <- struct{}{} }()
					rnd := rand.New(rand.NewPCG(seed, uint64(i)))
					for {
						p := &passage{b: b}
						ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rnd.IntN(1000))*time.Second)
						for held := true; held; {
							if p.enter(ctx) != nil {
								break
							}
							time.Sleep(time.Duration(rnd.IntN(3000)) * time.Millisecond)
							if rnd.IntN(10) == 0 {
								break // cut short while it is tried
							}
							of := surroundings
							if rnd.IntN(20) == 0 {
								of = record
							}
							if time.Now().After(mended) {
								of = nobody
							}
							held, _, _ = p.result(of)
						}
						p.leave()
						cancel()
						if time.Now().After(mended) {
							return
						}
					}
				}()
			}
			for range records {
				<-done
			}
			b.mu.Lock()
			defer b.mu.Unlock()
			require.Zero(t, b.held.Len())
			require.Nil(t, b.trying)
		})
	}
}
