package ratelimit_test

import (
	"fmt"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry/ratelimit"
)

func generous() []ratelimit.Tier {
	return []ratelimit.Tier{{Name: "short", Limit: 1000, Per: ms}, {Name: "medium", Limit: 5000, Per: 10 * ms}, {Name: "long", Limit: 20_000, Per: 100 * ms}}
}

// Three tiers and a key that is known: 200 ns and no allocation are aimed at.
func BenchmarkAllow(b *testing.B) {
	for name, c := range map[string]struct {
		tiers []ratelimit.Tier
		keys  int
	}{
		"mostly refused/1 key":     {tiers(), 1},
		"mostly allowed/1 key":     {generous(), 1},
		"mostly refused/1000 keys": {tiers(), 1000},
		"mostly refused/1e6 keys":  {tiers(), 1_000_000},
	} {
		b.Run(name, func(b *testing.B) {
			l := &ratelimit.Limiter{Tiers: c.tiers}
			keys := make([]string, c.keys)
			for i := range keys {
				keys[i] = "tenant-" + strconv.Itoa(i)
				_, _ = l.Allow(b.Context(), keys[i])
			}
			ctx := b.Context()
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				_, _ = l.Allow(ctx, keys[i*7919%len(keys)])
			}
		})
	}
}

func BenchmarkAllow_Parallel(b *testing.B) {
	l := &ratelimit.Limiter{Tiers: tiers()}
	var keys [1024]string
	for i := range keys {
		keys[i] = "tenant-" + strconv.Itoa(i)
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			_, _ = l.Allow(b.Context(), keys[i&1023])
		}
	})
}

// What a million keys take, by how many events each has had.
func BenchmarkMemoryOfAMillionKeys(b *testing.B) {
	for _, events := range []int{1, 3, 25} {
		b.Run(fmt.Sprint(events, " events each"), func(b *testing.B) {
			for b.Loop() {
				l := &ratelimit.Limiter{Tiers: []ratelimit.Tier{{Name: "short", Limit: 25, Per: 50 * time.Minute}, {Name: "medium", Limit: 26, Per: 55 * time.Minute}, {Name: "long", Limit: 27, Per: time.Hour}}}
				before := heap()
				for i := range 1_000_000 {
					key := "tenant-" + strconv.Itoa(i)
					for range events {
						_, _ = l.Allow(b.Context(), key)
					}
				}
				b.ReportMetric(float64(heap()-before)/1e6, "B/key")
				runtime.KeepAlive(l)
			}
		})
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func TestAllow_DoesNotAllocateForAKnownKey(t *testing.T) {
	for name, l := range map[string]*ratelimit.Limiter{"together": {Tiers: tiers()}, "NestJS": {Tiers: tiers(), Mode: ratelimit.NestJS}} {
		for range 30 {
			allow(t, l, "k")
		}
		ctx := t.Context()
		require.Zero(t, testing.AllocsPerRun(1000, func() { _, _ = l.Allow(ctx, "k") }), name)
	}
}
