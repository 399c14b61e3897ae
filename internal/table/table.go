// Package table keeps a compacted topic in memory as a map.
package table

import (
	"maps"
	"slices"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Store is the map of one topic. A record with a value sets its key, one
// without deletes it. It is safe for concurrent use.
type Store struct {
	mu      sync.RWMutex // never held over a call that blocks
	entries map[string]Entry
	next    map[int32]int64 // the offset to be read next, by partition
	moved   chan struct{}   // closed and replaced when next moves
}

// Entry is the last record of a key, without the key.
type Entry struct {
	Value     []byte
	Headers   []kgo.RecordHeader
	Partition int32
	Offset    int64
	Millis    int64 // the record's timestamp
}

// New returns an empty Store.
func New() *Store {
	return &Store{entries: map[string]Entry{}, next: map[int32]int64{}, moved: make(chan struct{})}
}

// Apply takes in records that were read from one partition, in its order. The
// records' bytes are copied: they are parts of a fetch that would be kept
// whole otherwise. Control records (the marks of transactions) only move the
// position.
func (s *Store) Apply(partition int32, records []*kgo.Record) {
	if len(records) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range records {
		switch {
		case r.Attrs.IsControl():
		case r.Value == nil:
			delete(s.entries, string(r.Key))
		default:
			s.entries[string(r.Key)] = Entry{
				Value:     slices.Clone(r.Value),
				Headers:   CloneHeaders(r.Headers),
				Partition: partition,
				Offset:    r.Offset,
				Millis:    r.Timestamp.UnixMilli(),
			}
		}
	}
	s.advance(partition, records[len(records)-1].Offset+1)
}

// Advance moves the position of a partition, if that is forward.
func (s *Store) Advance(partition int32, next int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.advance(partition, next)
}

func (s *Store) advance(partition int32, next int64) {
	if next <= s.next[partition] {
		return
	}
	s.next[partition] = next
	close(s.moved)
	s.moved = make(chan struct{})
}

// Position returns the offset to be read next of a partition, and a channel
// that is closed when a position moves.
func (s *Store) Position(partition int32) (next int64, moved <-chan struct{}) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.next[partition], s.moved
}

// Get returns the entry of a key.
func (s *Store) Get(key string) (Entry, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	e, ok := s.entries[key]
	return e, ok
}

// All returns a copy of the map as it is now.
func (s *Store) All() map[string]Entry {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return maps.Clone(s.entries)
}

// Len is the number of keys.
func (s *Store) Len() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.entries)
}

// CloneHeaders copies headers with their values.
func CloneHeaders(hs []kgo.RecordHeader) []kgo.RecordHeader {
	if len(hs) == 0 {
		return nil
	}
	c := make([]kgo.RecordHeader, len(hs))
	for i, h := range hs {
		c[i] = kgo.RecordHeader{Key: h.Key, Value: slices.Clone(h.Value)}
	}
	return c
}
