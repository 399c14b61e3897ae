package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/wherry-go/wherry/ratelimit"
)

// seedLimits are the seed's.
const seedLimits = "3/5s,10/20s,25/90s"

// parseLimits reads "off", which is nil, or limits such as seedLimits.
func parseLimits(list string) ([]ratelimit.Tier, error) {
	if list == "off" {
		return nil, nil
	}
	var tiers []ratelimit.Tier
	for _, text := range split(list) {
		limit, per, _ := strings.Cut(text, "/")
		n, err := strconv.Atoi(limit)
		d, perErr := time.ParseDuration(per)
		if err != nil || perErr != nil {
			return nil, fmt.Errorf("-limits: %q is no limit: give requests/time, such as 3/5s, or off", text)
		}
		tiers = append(tiers, ratelimit.Tier{Name: per, Limit: n, Per: d})
	}
	if len(tiers) == 3 {
		tiers[0].Name, tiers[1].Name, tiers[2].Name = "short", "medium", "long" // as the seed calls them
	}
	if err := (&ratelimit.Limiter{Tiers: tiers}).Check(); err != nil {
		return nil, fmt.Errorf("-limits %q: %w", list, err)
	}
	return tiers, nil
}

// parseProxies reads a list of addresses and networks.
func parseProxies(list string) (proxies []netip.Prefix, err error) {
	var faults []error
	for _, text := range split(list) {
		p, err := netip.ParsePrefix(text)
		if addr, addrErr := netip.ParseAddr(text); addrErr == nil {
			p, err = netip.PrefixFrom(addr, addr.BitLen()), nil
		}
		if err != nil || p.Addr().Is4In6() || p.Addr().Zone() != "" {
			faults = append(faults, fmt.Errorf("-trusted-proxies: %q is no network: give addresses or networks, such as 10.0.0.0/8 or ::1", text))
			continue
		}
		proxies = append(proxies, p.Masked())
	}
	return proxies, errors.Join(faults...)
}

// newLimiter is what cfg says, nil for no limits, and what to close after it.
func newLimiter(cfg config) (limits *ratelimit.Limiter, stop func()) {
	if cfg.limits == nil {
		return nil, func() {}
	}
	limits = &ratelimit.Limiter{Name: "http", Tiers: cfg.limits, Logger: cfg.log}
	if cfg.redis == "" {
		return limits, func() {}
	}
	client := redis.NewClient(&redis.Options{Addr: cfg.redis})
	limits.Store = &ratelimit.Redis{Eval: func(ctx context.Context, script string, keys []string, args ...any) (any, error) {
		return redis.NewScript(script).Run(ctx, client, keys, args...).Result()
	}}
	limits.FailOpen = true // who wants to buy should not have to wait for a Redis
	return limits, func() { _ = client.Close() }
}
