package saga

// reserve takes a place among the active for a saga that begins, and reports
// whether there is one. A place that was reserved counts until the saga's record
// is committed, so that what is in hand does not go over the limit. Those that
// have waited come before those that start now.
func (x *index) reserve(id string, limit int, waited bool) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if _, has := x.reserved[id]; has {
		return true
	}
	if x.active+len(x.reserved) >= limit || x.queued > 0 && !waited {
		return false
	}
	if x.active+len(x.reserved)+mostInHand >= limit {
		x.reserved[id] = struct{}{}
	}
	return true
}

// release gives a reserved place back: the saga did not begin.
func (x *index) release(id string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.unreserve(id)
}

// unreserve has a place count no more that was reserved: those who wait are to
// be looked after, for it may be free. x.mu is held.
func (x *index) unreserve(id string) {
	if _, has := x.reserved[id]; !has {
		return
	}
	delete(x.reserved, id)
	if x.queued > 0 && x.owned {
		x.wake()
	}
}

// mostInHand bounds how many records of a partition are in hand: so far from the
// limit nobody needs to count them.
const mostInHand = 100_000

// admits returns the ids of queued sagas that may begin now, and marks them; and
// when to look again whether those that are out have come, 0 never.
func (x *index) admits(limit int, now int64) (ids []string, again int64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for len(x.queue) > 0 && x.queue[0].phase != Queued {
		x.queue[0], x.queue = nil, x.queue[1:]
	}
	if !x.owned {
		return nil, 0
	}
	free := limit - x.active - len(x.reserved)
	for _, e := range x.queue {
		if free <= 0 || len(ids) == mostTicks {
			break
		}
		if e.phase != Queued {
			continue
		}
		free--
		if at := e.admitted + tickAgain.Milliseconds(); e.admitted != 0 && at > now {
			again = earlier(again, at)
			continue
		}
		if e.admitted == 0 {
			x.admitted++
		}
		e.admitted = now
		again = earlier(again, now+tickAgain.Milliseconds())
		ids = append(ids, e.id)
	}
	return ids, again
}

// earlier is the earlier one of two times, of which 0 is never.
func earlier(a, b int64) int64 {
	if a == 0 || b > 0 && b < a {
		return b
	}
	return a
}
