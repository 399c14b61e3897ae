package kafkatest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// conn is a client's connection to a broker, on which each request can be seen
// before it leaves, and each answer before it arrives. Like any connection it
// takes one writer and one reader at a time.
type conn struct {
	net.Conn
	process *process
	addr    string

	unsent []byte // of the writer: the beginning of a request

	mu      sync.Mutex
	pending []*request // those that wait for an answer, in order
	later   chan sending
	closing sync.Once
	closed  chan struct{}

	// Of the reader.
	head  []byte   // what was read of the size and correlation id of an answer
	whole []byte   // what was read of an answer that is wanted whole
	of    *request // whose answer that is
	ready []byte   // what Read returns next
	pass  int      // bytes to pass on as they come, after ready
}

// sending is a request that was delayed, or stands behind one that was.
type sending struct {
	frame []byte
	due   time.Time
}

// Write sends what is complete of the requests written. kgo writes a whole one at
// a time.
func (c *conn) Write(p []byte) (int, error) {
	c.process.net.tick()
	rest := p
	if len(c.unsent) > 0 {
		rest = slices.Concat(c.unsent, p)
	}
	for len(rest) >= 4 && len(rest)-4 >= int(binary.BigEndian.Uint32(rest)) {
		size := 4 + int(binary.BigEndian.Uint32(rest))
		if err := c.send(rest[:size]); err != nil {
			return 0, err
		}
		rest = rest[size:]
	}
	c.unsent = bytes.Clone(rest)
	return len(p), nil
}

// send sends one request, or does to it what a fault says.
func (c *conn) send(frame []byte) error {
	r, err := readRequest(frame[4:])
	if err != nil {
		_, err := c.Conn.Write(frame) // an exchange of SASL's own
		return err
	}
	f := c.process.net.fault(r)
	var delay time.Duration
	switch {
	case f == nil:
	case f.after:
		r.after = f
	case f.effect == drop:
		_ = c.Close()
		f.hitNow()
		return errReset("write")
	case f.effect == crash:
		c.process.crash()
		f.hitNow()
		return errReset("write")
	case f.effect == hold:
		f.hitNow()
		delay = f.delay
	case f.effect == refuse:
		r.answer = refusal(r, f.err)
		f.hitNow()
	}
	if !r.silent() {
		r.body, r.parsed = nil, nil // the writer's, after we return
		c.mu.Lock()
		c.pending = append(c.pending, r)
		c.mu.Unlock()
	}
	switch {
	case r.answer != nil:
		return nil
	case delay > 0 || c.later != nil:
		return c.sendLater(sending{bytes.Clone(frame), time.Now().Add(delay)})
	}
	_, err = c.Conn.Write(frame)
	return err
}

// sendLater has a request sent when it is due and all before it were. To the
// writer it is sent, as what waits in the buffers of a slow network is.
func (c *conn) sendLater(s sending) error {
	if c.later == nil {
		c.later = make(chan sending, 1000)
		go func() {
			for {
				select {
				case s := <-c.later:
					timer := time.NewTimer(time.Until(s.due))
					select {
					case <-timer.C:
					case <-c.closed:
						timer.Stop()
						return
					}
					// A deadline that was set meanwhile was meant for another request.
					_ = c.SetWriteDeadline(time.Time{})
					if _, err := c.Conn.Write(s.frame); err != nil {
						_ = c.Close()
						return
					}
				case <-c.closed:
					return
				}
			}
		}()
	}
	select {
	case c.later <- s:
		return nil
	case <-c.closed:
		return errReset("write")
	}
}

// Read returns what brokers answered, and what faults answered in their place.
func (c *conn) Read(p []byte) (int, error) {
	for {
		if len(c.ready) > 0 {
			n := copy(p, c.ready)
			c.ready = c.ready[n:]
			return n, nil
		}
		if c.pass > 0 {
			n, err := c.Conn.Read(p[:min(len(p), c.pass)])
			c.pass -= n
			return n, c.broken(err)
		}
		if c.answered() {
			continue
		}
		if err := c.broken(c.readAnswer()); err != nil {
			return 0, err
		}
	}
}

// answered takes the answer that a fault gave, if it is the next one's turn.
func (c *conn) answered() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.of != nil || len(c.head) > 0 || len(c.pending) == 0 || c.pending[0].answer == nil {
		return false
	}
	c.ready = c.pending[0].answer
	c.pending = c.pending[1:]
	return true
}

// readAnswer reads the head of the broker's next answer, and the rest of it where
// somebody wants to see it. What was read is kept when a deadline ends it early.
func (c *conn) readAnswer() error {
	if c.of == nil {
		var err error
		if c.head, err = fill(c.Conn, c.head, 8); err != nil {
			return err
		}
		r := c.take(int32(binary.BigEndian.Uint32(c.head[4:])))
		if r == nil || r.after == nil && r.key != kmsg.Metadata {
			c.pass = int(binary.BigEndian.Uint32(c.head)) - 4
			c.ready, c.head = c.head, nil
			return nil
		}
		c.of = r
	}
	var err error
	if c.whole, err = fill(c.Conn, c.whole, int(binary.BigEndian.Uint32(c.head))-4); err != nil {
		return err
	}
	r := c.of
	if r.key == kmsg.Metadata {
		c.process.net.learn(topicNames(r.version, c.whole))
	}
	if f := r.after; f != nil {
		c.of = nil
		if f.effect == crash {
			c.process.crash()
		}
		_ = c.Close()
		f.hitNow()
		return errReset("read")
	}
	c.ready = slices.Concat(c.head, c.whole)
	c.head, c.whole, c.of = nil, nil, nil
	return nil
}

// fill reads until buf has n bytes.
func fill(r io.Reader, buf []byte, n int) ([]byte, error) {
	have := len(buf)
	buf = append(buf, make([]byte, n-have)...)
	read, err := io.ReadFull(r, buf[have:])
	return buf[:have+read], err
}

// take removes and returns the request that an answer is for.
func (c *conn) take(corr int32) *request {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, r := range c.pending {
		if r.corr == corr {
			c.pending = append(c.pending[:i:i], c.pending[i+1:]...)
			return r
		}
	}
	return nil
}

// broken is err, or what a client sees of a connection that a fault cut.
func (c *conn) broken(err error) error {
	if err == nil {
		return nil
	}
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		return err
	}
	select {
	case <-c.closed:
		return errReset("read")
	default:
		return err
	}
}

// Close closes the connection.
func (c *conn) Close() error {
	err := net.ErrClosed
	c.closing.Do(func() {
		close(c.closed)
		err = c.Conn.Close()
		c.process.net.forget(c)
		c.mu.Lock()
		pending := c.pending
		c.pending = nil
		c.mu.Unlock()
		for _, r := range pending {
			if r.after != nil {
				r.after.giveBack()
			}
		}
	})
	return err
}
