package kafkatest_test

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/kafkatest"
)

// inner is set in the environment of a process that a test below started: only
// there the tests run whose end is the end of their process, or a failure.
const inner = "KAFKATEST_INNER"

// child runs one test of this binary in a process of its own, which should fail.
func child(t *testing.T, test string) string {
	t.Helper()
	out, err := run(t, test)
	require.Error(t, err, out)
	return out
}

func run(t *testing.T, test string, flags ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], append(flags, "-test.run", "^"+test+"$", "-test.v")...)
	cmd.Env = append(os.Environ(), inner+"=1", "KAFKATEST_BROKERS=")
	out, err := cmd.CombinedOutput()
	require.NoError(t, ctx.Err(), string(out))
	return string(out), err
}

// only skips a test that is for a child process.
func only(t *testing.T) {
	t.Helper()
	if os.Getenv(inner) == "" {
		t.Skip("run by another test, in a process of its own")
	}
}

func TestInnerStopsTheClock(t *testing.T) {
	only(t)
	kafkatest.Test(t, nil, func(_ *testing.T, k *kafkatest.Cluster) {
		k.WallLimit(300 * time.Millisecond)
		var mu sync.Mutex
		mu.Lock()
		mu.Lock() // not durable: the clock waits for it
	})
}

func TestInnerWaitsForWhatNeverComes(t *testing.T) {
	only(t)
	kafkatest.Test(t, []string{"order.placed"}, func(t *testing.T, k *kafkatest.Cluster) {
		k.WallLimit(300 * time.Millisecond)
		k.Client(t, kgo.ConsumeTopics("order.placed"))
		select {} // its fetches keep the clock running
	})
}

func TestAStuckTestIsEndedFromOutside(t *testing.T) {
	t.Parallel()
	skipUntagged(t)
	out := child(t, "TestInnerStopsTheClock")
	require.Contains(t, out, "panic: kafkatest: TestInnerStopsTheClock has not ended within 300ms of real time")
	require.Contains(t, out, "something stops the clock")
	require.Contains(t, out, "Cluster.WallLimit")
	require.Contains(t, out, "sync.(*Mutex).Lock", "all stacks are there")
	require.Contains(t, out, "kafkatest_test.TestInnerStopsTheClock")

	out = child(t, "TestInnerWaitsForWhatNeverComes")
	require.Contains(t, out, "has not ended within 300ms of real time (virtual time when the last request was made: ")
	require.Regexp(t, `last request was made: \d`, out)
}

func TestInnerNoLimit(t *testing.T) {
	only(t)
	over := make(chan struct{})
	time.AfterFunc(400*time.Millisecond, func() { close(over) })
	kafkatest.Test(t, nil, func(_ *testing.T, k *kafkatest.Cluster) {
		k.WallLimit(100 * time.Millisecond)
		k.WallLimit(0)
		<-over // from outside the bubble: real time
	})
}

func TestAWallLimitOfZeroIsNone(t *testing.T) {
	t.Parallel()
	skipUntagged(t)
	out, err := run(t, "TestInnerNoLimit", "-test.timeout=0")
	require.NoError(t, err, out)
	require.Contains(t, out, "--- PASS: TestInnerNoLimit")
}

func TestInnerDeadlock(t *testing.T) {
	only(t)
	kafkatest.Test(t, nil, func(t *testing.T, _ *kafkatest.Cluster) {
		go func() { select {} }()
	})
}

func TestInnerNotClosed(t *testing.T) {
	only(t)
	kafkatest.Test(t, nil, func(t *testing.T, k *kafkatest.Cluster) {
		brokers, opts := k.Brokers(), k.Opts()
		_, err := kgo.NewClient(kgo.SeedBrokers(brokers...), opts[len(opts)-1]) // without the hook that knows of it
		require.NoError(t, err)
	})
}

func TestInnerAfterwards(t *testing.T) {
	only(t)
	t.Log("the others go on")
}

func TestWhatIsLeftOverFailsItsTestAlone(t *testing.T) {
	t.Parallel()
	skipUntagged(t)
	out := child(t, "TestInner(Deadlock|NotClosed|Afterwards)")
	require.Contains(t, out, "--- FAIL: TestInnerDeadlock")
	require.Contains(t, out, "--- FAIL: TestInnerNotClosed")
	require.Contains(t, out, "--- PASS: TestInnerAfterwards")
	require.Contains(t, out, "close every client and end every goroutine")
	require.Contains(t, out, "kafkatest_test.TestInnerDeadlock.func1.1")
	require.Contains(t, out, "updateMetadataLoop")
	require.NotContains(t, out, "panic:")
	require.NotContains(t, out, "TestAnHourPasses", "the stacks of other tests are not of interest")
}

func TestInnerUntagged(t *testing.T) {
	only(t)
	for name, f := range map[string]func(t *testing.T, k *kafkatest.Cluster){
		"None": func(t *testing.T, k *kafkatest.Cluster) {
			kafkatest.None(t, k, orderPlaced, 50*time.Millisecond)
			kafkatest.None(t, k, orderPlaced, time.Hour)
		},
		"Sleep": func(t *testing.T, k *kafkatest.Cluster) {
			k.Sleep(t, 50*time.Millisecond)
			k.Sleep(t, time.Hour)
		},
		"Next": func(t *testing.T, k *kafkatest.Cluster) {
			require.False(t, k.Virtual())
			require.True(t, k.Embedded())
			kafkatest.Send(t, k, orderPlaced, "o-1", order{ID: "o-1"})
			kafkatest.Next(t, k, orderPlaced)
			k.Timeout = 200 * time.Millisecond
			kafkatest.Next(t, k, orderPlaced)
		},
	} {
		t.Run(name, func(t *testing.T) { kafkatest.Test(t, []string{"order.placed"}, f) })
	}
	t.Run("watchdog", func(t *testing.T) {
		kafkatest.Test(t, nil, func(_ *testing.T, k *kafkatest.Cluster) {
			k.WallLimit(300 * time.Millisecond)
			time.Sleep(time.Hour)
		})
	})
}

func TestWithoutTheTagLongWaitsAreRefusedAndTheFlagIsNamed(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("builds this package again: not with -short")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "test", "-tags=", "-run", "^TestInnerUntagged$", "-v", ".")
	cmd.Env = append(os.Environ(), inner+"=1")
	cmd.WaitDelay = 10 * time.Second
	raw, err := cmd.CombinedOutput()
	out := string(raw)
	require.Error(t, err, out)
	for _, test := range []string{"None", "Sleep", "Next"} {
		_, text, _ := strings.Cut(out, "=== RUN   TestInnerUntagged/"+test)
		text, _, _ = strings.Cut(text, "=== RUN")
		require.Contains(t, text, "run go test -tags synctests", test)
		if test != "Next" {
			require.Contains(t, text, "kafkatest: "+test+" of 1h0m0s: ", "the short wait was granted")
		}
	}
	require.Contains(t, out, `no record on topic "order.placed" within 200ms`)
	require.Regexp(t, `panic: kafkatest: TestInnerUntagged/watchdog has not ended within 300ms of real time: .* run go test -tags synctests`, out)
}

func TestSleepInRealTimeIsShort(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t)
	k.Sleep(t, time.Millisecond)
	rec := record(t, func(t testing.TB) { k.Sleep(t, time.Hour) })
	require.Contains(t, rec.text, "Sleep of 1h0m0s in real time: use kafkatest.Test")
	k.WallLimit(time.Nanosecond) // does nothing
}

func TestABubbleHasNoSocketsAndNoBubble(t *testing.T) {
	t.Parallel()
	skipUntagged(t)
	out := child(t, "TestInnerOtherClusters")
	require.Contains(t, out, "NewCluster inside a synctest bubble, where its sockets stop the clock: use kafkatest.Test")
	require.Contains(t, out, "Test inside a synctest bubble")
}

func TestInnerOtherClusters(t *testing.T) {
	only(t)
	kafkatest.Test(t, nil, func(t *testing.T, _ *kafkatest.Cluster) {
		defer kafkatest.Test(t, nil, func(*testing.T, *kafkatest.Cluster) {})
		kafkatest.NewCluster(t)
	})
}
