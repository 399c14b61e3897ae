package ratelimit

import "sync"

// shard is a part of a table: its keys, in the order of when they last took
// something, which is the order in which they can be forgotten.
type shard struct {
	mu             sync.Mutex
	entries        map[string]*entry
	oldest, newest *entry
	peak           int      // how many entries the map was made for
	takes          int      // how often something was taken
	_              [64]byte // no two shards' locks in one cache line
}

// entry is what is known of a key.
type entry struct {
	key          string
	older, newer *entry
	log          log
	throttles    *throttles // instead of the log, in Mode NestJS
}

// touched is when the key last took something.
func (e *entry) touched() instant {
	if e.throttles != nil {
		return e.throttles.touched
	}
	return e.log.last(-1 << 62)
}

func (s *shard) append(e *entry) {
	if e.older = s.newest; e.older != nil {
		e.older.newer = e
	} else {
		s.oldest = e
	}
	s.newest = e
}

func (s *shard) unlink(e *entry) {
	if e.older != nil {
		e.older.newer = e.newer
	} else {
		s.oldest = e.newer
	}
	if e.newer != nil {
		e.newer.older = e.older
	} else {
		s.newest = e.older
	}
	e.older, e.newer = nil, nil
}

// expire forgets up to most keys whose events do not matter any more.
func (t *table) expire(s *shard, now instant, most int) {
	for ; most > 0 && s.oldest != nil && s.oldest.touched().until(now) >= t.life; most-- {
		t.forget(s, s.oldest)
	}
}

// visit expires keys of another shard, which may have no events of its own: from
// every 64th event of s, 128 keys of the next one in turn.
func (t *table) visit(s *shard, now instant) {
	other := &t.shards[s.takes/64%len(t.shards)]
	if other != s && other.mu.TryLock() {
		t.expire(other, now, 128)
		other.mu.Unlock()
	}
}

// sweep expires all there is, when there is no room for a new key.
func (t *table) sweep(now instant) {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		t.expire(s, now, int(t.most)+len(t.shards))
		s.mu.Unlock()
	}
}

func (t *table) forget(s *shard, e *entry) {
	s.unlink(e)
	delete(s.entries, e.key)
	t.keys.Add(-1)
	if s.peak > 256 && len(s.entries) < s.peak/4 { // maps do not shrink
		smaller := make(map[string]*entry, len(s.entries))
		for k, e := range s.entries {
			smaller[k] = e
		}
		s.entries, s.peak = smaller, len(smaller)
	}
}
