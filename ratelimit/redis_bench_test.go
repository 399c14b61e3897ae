package ratelimit_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry/ratelimit"
)

// One connection, one decision at a time, redis-server on the same machine.
func BenchmarkRedis(b *testing.B) {
	addr, _ := startRedis(b)
	for name, some := range map[string][]ratelimit.Tier{"mostly refused": tiers(), "mostly allowed": generous()} {
		for mode, of := range map[ratelimit.Mode]string{ratelimit.Together: "Together", ratelimit.NestJS: "NestJS"} {
			b.Run(of+"/"+name, func(b *testing.B) {
				l := &ratelimit.Limiter{Name: of + name, Mode: mode, Tiers: some, Store: redisStore(dial(b, addr))}
				for b.Loop() {
					_, err := l.Allow(b.Context(), "k")
					require.NoError(b, err)
				}
			})
		}
	}
}
