package ratelimit_test

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
	"github.com/wherry-go/wherry/ratelimit"
)

// Keys are forgotten and entered again all the time, in all shards, and no window
// sees too much.
func TestAttack_ForgettingWhileOthersAsk(t *testing.T) {
	t.Parallel()
	l := &ratelimit.Limiter{Tiers: []ratelimit.Tier{{Limit: 4, Per: ms}, {Name: "b", Limit: 5, Per: 2 * ms}}}
	var other atomic.Int64
	noWindowSeesTooMuch(t, l.Tiers, 300*ms, 8, func(g int) (bool, error) {
		if g%2 == 1 { // others, that come and go
			_, err := l.Allow(context.Background(), fmt.Sprint("other", other.Add(1)%5000))
			return false, err
		}
		return l.Allow(context.Background(), "k")
	})
}

// Those who take turns in throwing each other out of a Memory for one key break
// nothing.
func TestAttack_AMemoryOfOneKey(t *testing.T) {
	t.Parallel()
	for _, mode := range []ratelimit.Mode{ratelimit.Together, ratelimit.NestJS} {
		m := &ratelimit.Memory{MaxKeys: 1}
		l := &ratelimit.Limiter{Tiers: tiers(), Store: m, Mode: mode}
		var all sync.WaitGroup
		for g := range 8 {
			all.Go(func() {
				for i := range 2000 {
					if _, err := l.Take(context.Background(), strconv.Itoa((g+i)%3), i%3); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		require.LessOrEqual(t, m.Keys(), 1+8)
	}
}

// A store is given what it cannot bear by somebody else's code.
func TestAttack_ACostThatAStoreMustNotBeGiven(t *testing.T) {
	t.Parallel()
	r := &ratelimit.Rules{Name: "r", Tiers: tiers(), MaxEvents: 64}
	for _, store := range []ratelimit.Store{&ratelimit.Memory{}, &ratelimit.Redis{}} {
		for _, cost := range []int{4, 1 << 62, -1} {
			_, err := store.Take(t.Context(), r, "k", cost)
			require.ErrorIs(t, err, wherry.ErrPermanent)
		}
	}
}

// Time stands still for as long as there are goroutines that can run: nobody who
// waits spins, and none is forgotten in a line when others give up at the same
// instant.
func TestAttack_ManyWaitAndManyGiveUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &ratelimit.Limiter{Tiers: []ratelimit.Tier{{Limit: 1, Per: 100 * ms}}}
		var passed, gaveUp atomic.Int64
		var all sync.WaitGroup
		for i := range 2000 {
			all.Go(func() {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if i%3 > 0 { // at the very instants at which there is room
					defer time.AfterFunc(time.Duration(i%50)*100*ms, cancel).Stop()
				}
				if l.Wait(ctx, "k") == nil {
					passed.Add(1)
				} else {
					gaveUp.Add(1)
				}
			})
		}
		all.Wait()
		require.EqualValues(t, 2000, passed.Load()+gaveUp.Load())
		require.GreaterOrEqual(t, passed.Load(), int64(667), "all that did not give up")
		time.Sleep(100 * ms)
		require.True(t, allow(t, l, "k"), "nothing is left that waits")
		require.NoError(t, l.Wait(t.Context(), "another"))
	})
}

// Two Consumers of one process share a limiter. The one whose record is first in
// the line stops: the other's goes on in time.
func TestAttack_TheFirstOfALineStops(t *testing.T) {
	t.Parallel()
	kafkatest.Test(t, []string{"orders:1", "others:1", "done:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		if !k.Virtual() {
			t.Skip("needs -tags synctests")
		}
		l := &ratelimit.Limiter{Tiers: []ratelimit.Tier{{Limit: 1, Per: time.Minute}}, Key: func(*kgo.Record) string { return "all" }}
		require.True(t, allow(t, l, "all"))
		send(t, k, "a", "a")
		kafkatest.SendRecord(t, k, &kgo.Record{Topic: "others", Key: []byte("b"), Value: []byte("b")})
		one, two := &worker{}, &worker{}
		stop := kafkatest.Run(t, consumer(t, k, one, l))
		k.Sleep(t, 10*s) // it is first
		c := consumer(t, k, two, l)
		c.Group, c.Handlers = "others", []wherry.Route{{Topic: "others", Handler: two.handle}}
		kafkatest.Run(t, c)
		k.Sleep(t, 10*s)
		began := time.Now()
		require.NoError(t, stop())
		k.Sleep(t, 41*s-time.Since(began))
		require.Equal(t, []string{"b"}, two.values())
		require.Empty(t, one.values())
	})
}

// A client writes header fields as long as the server takes them.
func TestAttack_LongHeadersCostLittle(t *testing.T) {
	t.Parallel()
	for _, forwarded := range []bool{false, true} {
		m := &ratelimit.Memory{}
		h := handler(t, &ratelimit.HTTP{Limiter: &ratelimit.Limiter{Tiers: tiers(), Store: m}, Proxies: networks("0.0.0.0/0", "::/0"), Forwarded: forwarded}, served)
		for _, hostile := range []string{
			strings.Repeat("1.1.1.1,", 1<<17), strings.Repeat(",", 1<<20), strings.Repeat(`"`, 1<<20), strings.Repeat(`\`, 1<<20) + `"`, strings.Repeat(`\"`, 1<<19),
			strings.Repeat(`"\`, 1<<19), strings.Repeat("for=1.1.1.1,", 1<<16), strings.Repeat("for=1.1.1.1;", 1<<16), strings.Repeat("[", 1<<20), strings.Repeat("1:", 1<<19),
		} {
			began := time.Now()
			r := get(h, "192.0.2.1:1", "/", "X-Forwarded-For: "+hostile, "Forwarded: "+hostile)
			require.Contains(t, []int{http.StatusNoContent, http.StatusTooManyRequests}, r.StatusCode)
			require.Less(t, time.Since(began), 5*s, "%.20s", hostile)
		}
		require.LessOrEqual(t, m.Keys(), 3)
	}
}

// The longest script is that which thins a key: all of Redis waits for it. Of
// 65,536 events it took over a second on a busy machine; there are no more than
// 8,192.
func TestAttack_ARedisKeyWithAsManyEventsAsThereMayBe(t *testing.T) {
	t.Parallel()
	addr, _ := startRedis(t)
	c := dial(t, addr)
	var now atomic.Int64
	now.Store(wall)
	l := &ratelimit.Limiter{Tiers: []ratelimit.Tier{{Name: "a", Limit: 1 << 30, Per: 24 * time.Hour}}, Store: clocked(c, &now)}
	// As many entries, by hand: the script once for each takes too long.
	const most = 8192
	c.must(t, "EVAL", `for i = 1, ARGV[2] do redis.call('ZADD', KEYS[1], string.format('%.0f', ARGV[1] + i), i) end`, 1, "wherry:rate:{default:k}", wall, most)
	now.Add(70_000)
	began := time.Now()
	d, err := l.Take(t.Context(), "k", 1)
	require.NoError(t, err)
	t.Log("thinned in", time.Since(began))
	require.Equal(t, 1<<30-most-1, d.Tiers[0].Remaining)
	require.Less(t, c.must(t, "ZCARD", "wherry:rate:{default:k}"), int64(most/2+3))
}
