package ratelimit_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry/ratelimit"
)

// clocked makes the scripts read the time from a key instead of TIME, so that a
// test says what time it is on the server.
func clocked(c *client, now *atomic.Int64) *ratelimit.Redis {
	return &ratelimit.Redis{Timeout: 10 * time.Second, Eval: func(ctx context.Context, script string, keys []string, args ...any) (any, error) {
		us := now.Load()
		script = strings.Replace(script, "redis.call('TIME')", fmt.Sprintf("{ '%d', '%d' }", us/1e6, us%1e6), 1)
		return c.eval(ctx, script, keys, args...)
	}}
}

// wall is a usual time of a server, in µs.
const wall = 1_790_000_000_000_000

// The scripts decide as the memory does, of which the pure core's tests have
// shown that it is exact, in both modes, to the microsecond.
func TestRedis_DecidesExactlyAsTheMemoryDoes(t *testing.T) {
	t.Parallel()
	addr, _ := startRedis(t)
	for _, mode := range []ratelimit.Mode{ratelimit.Together, ratelimit.NestJS} {
		t.Run(fmt.Sprint(mode), func(t *testing.T) {
			t.Parallel()
			c := dial(t, addr)
			for seed := range uint64(12) {
				rng := rand.New(rand.NewPCG(seed, uint64(mode)))
				var some []ratelimit.Tier
				for i := range 1 + rng.IntN(4) { // the server expires keys by its own clock: not within the test
					some = append(some, ratelimit.Tier{Name: fmt.Sprint("t", i), Limit: 4 + rng.IntN(30), Per: time.Duration(1+rng.IntN(40)) * time.Minute})
				}
				var now atomic.Int64
				now.Store(wall)
				one := &ratelimit.Limiter{Name: fmt.Sprint(mode, "/", seed), Mode: mode, Tiers: some, Store: clocked(c, &now)}
				two := &ratelimit.Limiter{Mode: mode, Tiers: some, Store: ratelimit.NewLogStore(func() int64 { return now.Load() * 1000 })}
				for step := range 300 {
					now.Add(rng.Int64N(4) * rng.Int64N(4) * rng.Int64N(30e6))
					cost := rng.IntN(2) + rng.IntN(4)*rng.IntN(2)
					got, err := one.Take(t.Context(), "k", cost)
					require.NoError(t, err)
					want, err := two.Take(t.Context(), "k", cost)
					require.NoError(t, err)
					require.Equal(t, want.OK, got.OK, "seed %d, step %d, %+v", seed, step, some)
					require.Equal(t, want.Wait, got.Wait, "seed %d, step %d, %+v", seed, step, some)
					require.Equal(t, want.Tiers, got.Tiers, "seed %d, step %d, %+v", seed, step, some)
				}
			}
		})
	}
}

// Beyond MaxEvents a key has no more entries, is never allowed too much, and
// refused for no longer than Limiter.MaxEvents says.
func TestRedis_MaxEventsBoundsAKey(t *testing.T) {
	t.Parallel()
	addr, _ := startRedis(t)
	c := dial(t, addr)
	some := []ratelimit.Tier{{Name: "a", Limit: 40, Per: 4 * time.Minute}, {Name: "b", Limit: 300, Per: 40 * time.Minute}}
	var now atomic.Int64
	now.Store(wall)
	l := &ratelimit.Limiter{Tiers: some, Store: clocked(c, &now), MaxEvents: 64}
	rng := rand.New(rand.NewPCG(1, 1))
	var events []int64
	used := func(per int64) (n int) {
		for _, at := range events {
			if at > now.Load()-per {
				n++
			}
		}
		return n
	}
	wrong := 0
	for range 3000 {
		now.Add(rng.Int64N(10e6))
		room, roomLonger := true, true
		for _, tier := range some {
			room = room && used(tier.Per.Microseconds()) < tier.Limit
			roomLonger = roomLonger && used(tier.Per.Microseconds()*9/8) < tier.Limit
		}
		ok := allow(t, l, "k")
		require.False(t, ok && !room, "too much")
		require.False(t, !ok && roomLonger, "refused for longer than said")
		if ok {
			events = append(events, now.Load())
		} else if room {
			wrong++
		}
		require.LessOrEqual(t, c.must(t, "ZCARD", "wherry:rate:{default:k}"), int64(64+1))
	}
	require.Positive(t, wrong, "nothing was thinned: this shows nothing")
}

// A clock that is put back moves events with it: the key is not blocked for as
// long, and gets no more than it should.
func TestRedis_AClockThatIsPutBackBlocksNobody(t *testing.T) {
	t.Parallel()
	addr, _ := startRedis(t)
	for _, mode := range []ratelimit.Mode{ratelimit.Together, ratelimit.NestJS} {
		var now atomic.Int64
		now.Store(wall)
		l := &ratelimit.Limiter{Name: fmt.Sprint(mode), Mode: mode, Tiers: tiers(), Store: clocked(dial(t, addr), &now)}
		for i := range 5 {
			require.Equal(t, i < 3, allow(t, l, "k"))
		}
		now.Add(-24 * 3600 * 1e6)
		d, err := l.Take(t.Context(), "k", 1)
		require.NoError(t, err)
		require.False(t, d.OK)
		require.LessOrEqual(t, d.Wait, 5*s)
		now.Add(5 * 1e6)
		require.True(t, allow(t, l, "k"))
	}
}

func TestRedis_KeysExpireAndStandInOneSlot(t *testing.T) {
	t.Parallel()
	addr, _ := startRedis(t, "--cluster-enabled", "yes")
	c := dial(t, addr)
	c.must(t, "CLUSTER", "ADDSLOTSRANGE", 0, 16383)
	for !strings.Contains(fmt.Sprint(c.must(t, "CLUSTER", "INFO")), "cluster_state:ok") {
		require.NoError(t, t.Context().Err())
	}
	for _, key := range []string{"tenant", "", "}", "{", "{}", "a}b{c", "}{x}", "%7D", "\r\n\x00", "1:2", strings.Repeat("x", 1000)} {
		for _, mode := range []ratelimit.Mode{ratelimit.Together, ratelimit.NestJS} {
			l := &ratelimit.Limiter{Mode: mode, Name: "a{pi}", Tiers: []ratelimit.Tier{{Name: "{x}", Limit: 1, Per: 3 * s}, {Name: "b", Limit: 2, Per: 3*s + 1}}, Store: redisStore(c)}
			require.True(t, allow(t, l, key), "%q", key)
			require.False(t, allow(t, l, key), "%q", key)
		}
	}
	for len(c.must(t, "KEYS", "*").([]any)) > 0 {
		require.NoError(t, t.Context().Err())
	}
}

// One round trip for all tiers, whatever the mode.
func TestRedis_OneRoundTrip(t *testing.T) {
	t.Parallel()
	addr, _ := startRedis(t)
	c := dial(t, addr)
	for _, mode := range []ratelimit.Mode{ratelimit.Together, ratelimit.NestJS} {
		trips := 0
		l := &ratelimit.Limiter{Mode: mode, Tiers: tiers(), Store: &ratelimit.Redis{Eval: func(ctx context.Context, script string, keys []string, args ...any) (any, error) {
			trips++
			return c.eval(ctx, script, keys, args...)
		}}}
		for range 10 {
			allow(t, l, "k")
		}
		require.Equal(t, 10, trips)
	}
}

// Two limiters of one name, on connections of their own, are one limit.
func TestRedis_ManyLimitersAreExactTogether(t *testing.T) {
	t.Parallel()
	addr, _ := startRedis(t)
	some := []ratelimit.Tier{{Name: "a", Limit: 10, Per: 50 * ms}, {Name: "b", Limit: 60, Per: 400 * ms}}
	var limiters []*ratelimit.Limiter
	for range 4 {
		limiters = append(limiters, &ratelimit.Limiter{Tiers: some, Store: redisStore(dial(t, addr))})
	}
	noWindowSeesTooMuch(t, some, 1500*ms, 4, func(g int) (bool, error) { return limiters[g].Allow(context.Background(), "k") })

	long := []ratelimit.Tier{{Name: "a", Limit: 100, Per: time.Hour}}
	var allowed atomic.Int64
	var all sync.WaitGroup
	for range 4 {
		l := &ratelimit.Limiter{Name: "hour", Tiers: long, Store: redisStore(dial(t, addr))}
		all.Go(func() {
			for range 100 {
				if ok, err := l.Allow(context.Background(), "k"); ok && err == nil {
					allowed.Add(1)
				}
			}
		})
	}
	all.Wait()
	require.EqualValues(t, 100, allowed.Load(), "neither more nor less")
}

const secondProcess = "WHERRY_RATELIMIT_TEST_REDIS"

// second is what this program does as a process of TestRedis_TwoProcesses.
func second() int {
	c := &client{addr: os.Getenv(secondProcess)}
	l := &ratelimit.Limiter{Name: "processes", Tiers: []ratelimit.Tier{{Limit: 500, Per: time.Hour}}, Store: redisStore(c)}
	fmt.Println("ready")
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
	n := 0
	for range 400 {
		ok, err := l.Allow(context.Background(), "k")
		if err != nil {
			fmt.Println(err)
			return 1
		}
		if ok {
			n++
		}
	}
	fmt.Println(n)
	return 0
}

func TestRedis_TwoProcesses(t *testing.T) {
	t.Parallel()
	addr, _ := startRedis(t)
	var begin []io.WriteCloser
	var answers []*bufio.Reader
	for range 2 {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), secondProcess+"="+addr)
		in, err := cmd.StdinPipe()
		require.NoError(t, err)
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		t.Cleanup(func() { _ = cmd.Wait() })
		answer := bufio.NewReader(out)
		line, err := answer.ReadString('\n')
		require.NoError(t, err)
		require.Equal(t, "ready\n", line)
		begin, answers = append(begin, in), append(answers, answer)
	}
	for _, in := range begin {
		_, err := io.WriteString(in, "go\n")
		require.NoError(t, err)
	}
	sum := 0
	for _, answer := range answers {
		line, err := answer.ReadString('\n')
		require.NoError(t, err)
		n, err := strconv.Atoi(strings.TrimSpace(line))
		require.NoError(t, err, line)
		require.Positive(t, n)
		sum += n
	}
	require.Equal(t, 500, sum, "of 800 asked by both")
}

func TestRedis_Away(t *testing.T) {
	t.Parallel()
	addr, stop := startRedis(t)
	closed := &ratelimit.Limiter{Name: "c", Tiers: tiers(), Store: redisStore(dial(t, addr))}
	open := &ratelimit.Limiter{Name: "o", Tiers: tiers(), Store: redisStore(dial(t, addr)), FailOpen: true}
	for _, l := range []*ratelimit.Limiter{closed, open} {
		require.True(t, allow(t, l, "k"))
	}
	stop()
	ok, err := closed.Allow(t.Context(), "k")
	require.False(t, ok)
	require.ErrorIs(t, err, ratelimit.ErrStore)
	for range 10 {
		require.True(t, allow(t, open, "k"))
	}
}

// A server that takes the connection and says nothing holds nobody up for longer
// than Timeout.
func TestRedis_OneThatHangsIsAway(t *testing.T) {
	t.Parallel()
	hangs, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer hangs.Close()
	l := &ratelimit.Limiter{Tiers: tiers(), Store: &ratelimit.Redis{Eval: dial(t, hangs.Addr().String()).eval, Timeout: 20 * ms}}
	_, err = l.Allow(t.Context(), "k")
	require.ErrorIs(t, err, ratelimit.ErrStore)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = l.Allow(ctx, "k")
	require.Equal(t, context.Canceled, err, "the caller's own")
}

func TestRedis_AnAnswerThatIsNotTheScriptsIsAnError(t *testing.T) {
	t.Parallel()
	for _, answer := range []any{nil, int64(1), []any{int64(1)}, "", "1", "1 0", "1 0 0 1", "1 0 0 x 0", "1 0 0 -1 0", "1 0 0 1 0 0 1 0 0 1 0 0 1 0", "OK", []byte("1 0 0")} {
		l := &ratelimit.Limiter{Tiers: tiers(), Store: &ratelimit.Redis{Eval: func(context.Context, string, []string, ...any) (any, error) { return answer, nil }}}
		_, err := l.Allow(t.Context(), "k")
		require.ErrorIs(t, err, ratelimit.ErrStore, "%v", answer)
	}
	l := &ratelimit.Limiter{Tiers: tiers()[:1], Store: &ratelimit.Redis{Eval: func(context.Context, string, []string, ...any) (any, error) { return []byte("1 0 0 2 5000000"), nil }}}
	d, err := l.Take(t.Context(), "k", 1)
	require.NoError(t, err)
	require.Equal(t, ratelimit.Left{Asked: true, Remaining: 2, Reset: 5 * s}, d.Tiers[0])
}
