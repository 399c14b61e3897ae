package crashlab

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Death says at which of its requests a process ends, or loses the network. The
// zero value is none.
type Death struct {
	Key   kmsg.Key      `json:"key"`
	N     int           `json:"n"`     // the first is 1; 0 is none
	After bool          `json:"after"` // when the broker's answer has come; else before it is sent
	Cut   time.Duration `json:"cut"`   // it lives, and has no network for so long; 0: it ends
	Mute  time.Duration `json:"mute"`  // it lives, and its requests of this kind are held back for so long, with their connection
}

func (d Death) String() string {
	if d.N == 0 {
		return "none"
	}
	what, when := "ends", "before"
	if d.Cut > 0 {
		what = fmt.Sprintf("is cut off for %v", d.Cut.Round(time.Millisecond))
	}
	if d.Mute > 0 {
		what = fmt.Sprintf("is not heard for %v", d.Mute.Round(time.Millisecond))
	}
	if d.After {
		when = "after"
	}
	return fmt.Sprintf("%s %s %s %d", what, when, d.Key.Name(), d.N)
}

// Deadly are the kinds of request at which processes end.
func Deadly() []kmsg.Key {
	return []kmsg.Key{kmsg.Produce, kmsg.TxnOffsetCommit, kmsg.EndTxn, kmsg.Heartbeat, kmsg.InitProducerID, kmsg.OffsetFetch, kmsg.JoinGroup}
}

// Wire is what all clients of a process dial through. It counts requests by kind
// and calls Die at the one that is meant. All clients of the process count
// together.
type Wire struct {
	DialFunc func(ctx context.Context, network, addr string) (net.Conn, error)
	Death    Death
	Die      func()

	mu     sync.Mutex
	counts map[kmsg.Key]int
	conns  map[*wired]bool // the open ones
	until  time.Time       // there is no network
	muted  time.Time       // until when requests of Death.Key are held back
}

// mute returns until when a request of this kind is held back, if it is.
func (w *Wire) mute(key kmsg.Key) time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.Death.Mute == 0 || key != w.Death.Key || w.counts[key] < w.Death.N {
		return time.Time{}
	}
	if w.muted.IsZero() {
		w.muted = time.Now().Add(w.Death.Mute)
	}
	return w.muted
}

// errCut is what a process sees that has no network.
var errCut = errors.New("crashlab: the network is cut")

// Dial is for kgo.Dialer.
func (w *Wire) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	w.mu.Lock()
	cut := time.Now().Before(w.until)
	w.mu.Unlock()
	if cut {
		return nil, &net.OpError{Op: "dial", Net: network, Err: errCut}
	}
	c, err := w.DialFunc(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	wc := &wired{Conn: c, wire: w}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.conns == nil {
		w.conns = map[*wired]bool{}
	}
	w.conns[wc] = true
	return wc, nil
}

// end is the death of the process, or the loss of its network.
func (w *Wire) end() {
	if w.Death.Cut == 0 {
		w.Die()
		return
	}
	w.mu.Lock()
	w.until = time.Now().Add(w.Death.Cut)
	conns := w.conns
	w.conns = nil
	w.mu.Unlock()
	for c := range conns {
		_ = c.Conn.Close()
	}
}

// Counts returns how many requests there were of the kinds of Deadly.
func (w *Wire) Counts() map[string]int {
	w.mu.Lock()
	defer w.mu.Unlock()
	counts := map[string]int{}
	for _, key := range Deadly() {
		counts[key.Name()] = w.counts[key]
	}
	return counts
}

// request counts one, and tells whether the process ends when its answer comes.
func (w *Wire) request(key kmsg.Key) (after bool) {
	w.mu.Lock()
	if w.counts == nil {
		w.counts = map[kmsg.Key]int{}
	}
	w.counts[key]++
	hit := w.Death.N > 0 && w.Death.Mute == 0 && w.Death.Key == key && w.Death.N == w.counts[key]
	w.mu.Unlock()
	if hit && !w.Death.After {
		w.end()
	}
	return hit
}

// wired is one connection. It has one writer and one reader, as kgo's have.
type wired struct {
	net.Conn
	wire *Wire

	unsent []byte      // of the writer: the beginning of a request
	held   chan []byte // of the writer: what is held back, once something was
	head   []byte      // of the reader: the beginning of an answer
	skip   int         // bytes of an answer that are still to pass

	mu    sync.Mutex
	fatal []int32 // correlation ids of requests whose answer is the end
}

// Write passes on requests that are complete: what is before one of them has
// been sent when the process ends.
func (c *wired) Write(p []byte) (int, error) {
	rest := p
	if len(c.unsent) > 0 {
		rest = slices.Concat(c.unsent, p)
	}
	for len(rest) >= 4 && len(rest)-4 >= int(binary.BigEndian.Uint32(rest)) {
		size := 4 + int(binary.BigEndian.Uint32(rest))
		if size >= 12 && c.wire.request(kmsg.Key(binary.BigEndian.Uint16(rest[4:]))) {
			c.mu.Lock() // if we still live, the connection is closed, or the answer is
			c.fatal = append(c.fatal, int32(binary.BigEndian.Uint32(rest[8:])))
			c.mu.Unlock()
		}
		if err := c.send(rest[:size]); err != nil {
			return 0, err
		}
		rest = rest[size:]
	}
	c.unsent = bytes.Clone(rest)
	return len(p), nil
}

// send sends one request, or holds it back, and all that come after it: brokers
// answer in order.
func (c *wired) send(frame []byte) error {
	if c.held == nil {
		until := c.wire.mute(kmsg.Key(binary.BigEndian.Uint16(frame[4:])))
		if !time.Now().Before(until) {
			_, err := c.Conn.Write(frame)
			return err
		}
		c.held = make(chan []byte, 1000)
		time.AfterFunc(time.Until(until), func() {
			for frame := range c.held {
				if _, err := c.Conn.Write(frame); err != nil {
					return // whoever reads hears of it
				}
			}
		})
	}
	select {
	case c.held <- bytes.Clone(frame):
		return nil
	default:
		return errCut
	}
}

// Read passes on answers, and looks at the head of each.
func (c *wired) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	for seen := p[:n]; len(seen) > 0; {
		if c.skip > 0 {
			most := min(c.skip, len(seen))
			c.skip, seen = c.skip-most, seen[most:]
			continue
		}
		most := min(8-len(c.head), len(seen))
		c.head, seen = append(c.head, seen[:most]...), seen[most:]
		if len(c.head) < 8 {
			continue
		}
		if c.answer(int32(binary.BigEndian.Uint32(c.head[4:]))) {
			return 0, errCut // the answer is lost, if we still live
		}
		c.skip, c.head = int(binary.BigEndian.Uint32(c.head))-4, c.head[:0]
	}
	return n, err
}

// answer ends the process if the answer with this correlation id is the end.
func (c *wired) answer(corr int32) (fatal bool) {
	c.mu.Lock()
	fatal = slices.Contains(c.fatal, corr)
	c.mu.Unlock()
	if fatal {
		c.wire.end()
	}
	return fatal
}

// Close closes the connection.
func (c *wired) Close() error {
	c.wire.mu.Lock()
	delete(c.wire.conns, c)
	c.wire.mu.Unlock()
	return c.Conn.Close()
}
