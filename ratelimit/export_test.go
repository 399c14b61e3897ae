package ratelimit

import "context"

// NewLogStore is a Store of the pure core alone, of one key, at the times that
// now says, in nanoseconds.
func NewLogStore(now func() int64) Store { return &logStore{now: now} }

type logStore struct {
	now  func() int64
	log  log
	nest *throttles
}

func (s *logStore) Take(_ context.Context, r *Rules, _ string, cost int) (d Decision, _ error) {
	now := instant(s.now())
	if r.Mode == NestJS {
		if s.nest == nil {
			s.nest = newThrottles(now, r)
		}
		s.nest.take(now, uint64(cost), r, &d)
	} else {
		s.log.take(now, uint64(cost), r, &d)
	}
	return d, nil
}
