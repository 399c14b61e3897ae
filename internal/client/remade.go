package client

import (
	"errors"
	"sync"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Remade has a client send to topics that were deleted and made anew. kgo
// refuses what goes to one, for good, with UNKNOWN_TOPIC_ID, until it is told to
// forget the topic, which fails what waits for it then: so it is told once. The
// zero value is ready; safe for concurrent use.
type Remade struct {
	turn sync.Mutex // held while the client forgets

	mu   sync.Mutex
	gone map[string]int
}

// Seen returns how often topic was forgotten, to be asked before a record is
// produced.
func (m *Remade) Seen(topic string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.gone[topic]
}

// IsRemade reports whether err, with which a record failed, says that its topic
// was made anew.
func IsRemade(err error) bool { return errors.Is(err, kerr.UnknownTopicID) }

// Forget has cl forget a topic, unless it has since that was seen. It waits, and
// must not be called by a promise.
func (m *Remade) Forget(cl *kgo.Client, topic string, seen int) {
	m.turn.Lock()
	defer m.turn.Unlock()
	if m.Seen(topic) != seen {
		return
	}
	cl.PurgeTopicsFromProducing(topic)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.gone == nil {
		m.gone = map[string]int{}
	}
	m.gone[topic]++
}
