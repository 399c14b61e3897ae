package ratelimit

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash/maphash"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Memory is a [Store] in this process. The zero Memory is ready to use and safe
// for concurrent use; each Limiter that shares one has keys of its own in it.
//
// A key is forgotten when none of its events can matter any more. There is no
// goroutine that does so: each event removes up to four such keys. Of an event a
// key keeps 16 bytes, of itself about 150 (in Mode NestJS 400, and 16 for each
// tier). Time is the process's monotonic
// clock, so that setting the wall clock changes nothing.
type Memory struct {
	// MaxKeys is how many keys there may be, for each Limiter. 0 means 1,000,000.
	MaxKeys int
	// Full says what happens to a new key when there are as many. 0 means
	// ForgetOldest.
	Full Full

	tables sync.Map // *Rules → *table
}

// Full says what a [Memory] with MaxKeys keys does with a new one. Keys whose
// events do not matter any more make room first.
type Full uint8

const (
	// ForgetOldest forgets a key whose last event is long ago (the oldest of one
	// in 64 parts of the Memory): it begins anew. Who can make up keys can make
	// the Memory forget others; keys should be something that costs an attacker,
	// such as an IPv6 network rather than an address.
	ForgetOldest Full = iota
	// RefuseNew refuses the new key, as a store that does not answer: with
	// [ErrStore] and [ErrFull], or past an uncounted event where the Limiter has
	// FailOpen.
	RefuseNew
)

// maxKey is how long a key may be. Of longer ones the SHA-256 is the key.
const maxKey = 256

func shortened(key string) string {
	sum := sha256.Sum256([]byte(key))
	return "sha256:" + hex.EncodeToString(sum[:])
}

func (m *Memory) check() (faults []error) {
	if m.MaxKeys < 0 {
		faults = append(faults, fmt.Errorf("Memory.MaxKeys is %d, and must not be negative", m.MaxKeys))
	}
	if m.Full > RefuseNew {
		faults = append(faults, fmt.Errorf("Memory.Full %d is none: use ForgetOldest or RefuseNew", m.Full))
	}
	return faults
}

// Take implements [Store].
func (m *Memory) Take(_ context.Context, r *Rules, key string, cost int) (d Decision, err error) {
	if err := r.tooMuch(cost); err != nil {
		return d, err
	}
	err = m.table(r).take(key, uint64(cost), &d)
	return d, err
}

// Keys returns how many keys there are now, with those that nobody has yet come
// by to forget.
func (m *Memory) Keys() (n int) {
	m.tables.Range(func(_, t any) bool {
		n += int(t.(*table).keys.Load())
		return true
	})
	return n
}

func (m *Memory) table(r *Rules) *table {
	if t, ok := m.tables.Load(r); ok {
		return t.(*table)
	}
	t := &table{rules: r, most: int64(m.MaxKeys), full: m.Full, life: r.life(), seed: maphash.MakeSeed(), began: time.Now()}
	if t.most == 0 {
		t.most = 1_000_000
	}
	t.shards = make([]shard, 64)
	if t.most < 64*64 {
		t.shards = t.shards[:1]
	}
	for i := range t.shards {
		t.shards[i].entries = map[string]*entry{}
	}
	stored, _ := m.tables.LoadOrStore(r, t)
	return stored.(*table)
}

// table has the keys of one Limiter.
type table struct {
	rules  *Rules
	most   int64
	full   Full
	life   time.Duration
	seed   maphash.Seed
	began  time.Time // the origin of instants
	keys   atomic.Int64
	shards []shard
}

func (t *table) take(key string, cost uint64, d *Decision) error {
	s := &t.shards[maphash.String(t.seed, key)&uint64(len(t.shards)-1)]
	now := instant(time.Since(t.began))
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[key]
	if e == nil {
		if cost == 0 { // nothing to remember
			t.fresh(now, d)
			return nil
		}
		if t.keys.Load() >= t.most {
			s.mu.Unlock()
			t.sweep(now)
			s.mu.Lock()
		}
		if e = s.entries[key]; e == nil { // nobody made it meanwhile
			if t.keys.Load() >= t.most {
				if t.full == RefuseNew {
					return ErrFull
				}
				if s.oldest != nil {
					t.forget(s, s.oldest)
				}
			}
			e = t.enter(s, now, key)
		}
	}
	before := e.touched()
	if e.throttles != nil {
		e.throttles.take(now, cost, t.rules, d)
	} else {
		e.log.take(now, cost, t.rules, d)
	}
	if e != s.newest && e.touched() != before {
		s.unlink(e)
		s.append(e)
	}
	t.expire(s, now, 2)
	if s.takes++; s.takes%64 == 0 {
		t.visit(s, now)
	}
	return nil
}

// fresh decides on an event of cost 0 of a key that is not known.
func (t *table) fresh(now instant, d *Decision) {
	if t.rules.Mode == NestJS {
		newThrottles(now, t.rules).take(now, 0, t.rules, d)
		return
	}
	new(log).take(now, 0, t.rules, d)
}

func (t *table) enter(s *shard, now instant, key string) *entry {
	e := &entry{key: strings.Clone(key)} // it may be part of something large
	if t.rules.Mode == NestJS {
		e.throttles = newThrottles(now, t.rules)
	}
	s.entries[e.key] = e
	s.peak = max(s.peak, len(s.entries))
	s.append(e)
	t.keys.Add(1)
	return e
}
