package ratelimit

// throttle is one tier of a key in Mode NestJS: what the throttler's storage
// keeps of it. As log it is free of clocks and locks.
type throttle struct {
	log     log
	shown   instant // when what the Reset header shows is over
	blocked bool
	until   instant // when the block is over
}

// throttles are the tiers of a key.
type throttles struct {
	touched instant
	tiers   []throttle
}

func newThrottles(now instant, r *Rules) *throttles {
	t := &throttles{touched: now, tiers: make([]throttle, len(r.Tiers))}
	for i := range t.tiers {
		t.tiers[i].shown = now
	}
	return t
}

// take asks tier by tier and stops at the first that refuses.
func (t *throttles) take(now instant, cost uint64, r *Rules, d *Decision) {
	now = max(now, t.touched)
	for i := range t.tiers {
		one := &t.tiers[i]
		left := &d.Tiers[i]
		left.Asked = true
		d.OK = one.take(now, cost, r, &r.Tiers[i], left)
		if !d.OK {
			left.Refused = true
			if d.Wait = left.Reset; d.Wait == r.Tiers[i].Block { // it begins
				t.touched = now
			}
			return
		}
		if cost > 0 {
			t.touched = now
		}
	}
}

func (t *throttle) take(now instant, cost uint64, r *Rules, tier *Tier, left *Left) bool {
	if t.shown <= now {
		t.shown = now.plus(tier.Per)
	}
	switch {
	case t.blocked && now < t.until:
		*left = Left{Asked: true, Reset: now.until(t.until)}
		return false
	case t.blocked: // it is over: begin empty
		t.blocked, t.log = false, log{}
	}
	t.log.trim(now.plus(-tier.Per))
	hits := t.log.total() - t.log.base + cost
	if hits > uint64(tier.Limit) {
		t.blocked, t.until = true, now.plus(tier.Block)
		t.log = log{}
		*left = Left{Asked: true, Reset: tier.Block}
		return false
	}
	if cost > 0 {
		t.log.add(now, cost, r)
	}
	*left = Left{Asked: true, Remaining: tier.Limit - int(hits), Reset: now.until(t.shown)}
	return true
}
