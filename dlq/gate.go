package dlq

import (
	"cmp"
	"container/list"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/wherry-go/wherry"
)

// A Gate keeps a Queue from draining a topic into the dead letters while
// something that all of its records need is away: a database, a service, a
// credential. It is a circuit breaker: a Gate that is shut is a breaker that is
// open, and a probe is what it lets through while it is half open.
//
// What counts is failures in a row, across all partitions of one Consumer's
// run: handlers that failed, were tried in vain until retries were exhausted or
// time was over, or panicked. A record that was handled ends the row. Records
// that are to blame themselves (undecodable, permanent, rejected, expired
// before they were tried) neither count nor end it, and go to the dead letters
// whether the Gate is shut or not.
//
// The After-th failure shuts the Gate. Its record is held, as is what fails
// or arrives from then on: held records are parked with [wherry.Await], so
// their lanes stay shut, nothing is committed past them, and they come again
// after a restart. At each probe one of them is tried, all in turn, those that
// were not tried yet before those that failed again. The first success opens
// the Gate, and all of them are handled in the usual way.
//
// Where every record that can be tried is to blame itself, no success would
// ever come. So a record that has failed Probes probes goes to the dead
// letters, and the one behind it is tried. In an outage without end this costs
// one record in Probes times MaxProbe.
//
// A record whose handler failed and that a policy inside handed on or passed
// over counts as a failure too, but is not held: with retry.Topics an outage
// moves so many records to the first delay topic, and then one at each probe.
//
// The zero Gate is on, with the defaults.
type Gate struct {
	// After is the number of failures in a row that shuts the Gate. 0 means 50;
	// a negative number turns it off.
	After int
	// Probe is the time before the first probe. Each one that fails doubles it,
	// up to MaxProbe. 0 means 5s.
	Probe time.Duration
	// MaxProbe is the longest time between two probes. 0 means 1m, or Probe if
	// that is longer.
	MaxProbe time.Duration
	// Probes is how many probes a record may fail before it goes to the dead
	// letters after all. 0 means 10; a negative number means any number.
	Probes int
}

const (
	defaultAfter    = 50
	defaultProbe    = 5 * time.Second
	defaultMaxProbe = time.Minute
	defaultProbes   = 10
)

func (g Gate) check() (err error) {
	if g.Probe < 0 || g.MaxProbe < 0 {
		err = fmt.Errorf("Gate.Probe is %s and Gate.MaxProbe %s: they must not be negative", g.Probe, g.MaxProbe)
	}
	if g.MaxProbe > 0 && g.MaxProbe < cmp.Or(g.Probe, defaultProbe) {
		err = errors.Join(err, fmt.Errorf("Gate.MaxProbe is %s, shorter than Gate.Probe, %s", g.MaxProbe, cmp.Or(g.Probe, defaultProbe)))
	}
	return err
}

// breaker is the Gate of one run of a Consumer.
type breaker struct {
	after, probes int
	first, most   time.Duration

	mu     sync.Mutex // never held over a call that blocks
	row    int        // failures in a row
	shut   bool
	since  time.Time
	pause  time.Duration // from one probe to the next
	due    time.Time     // of the next probe
	trying *passage      // the probe that is under way
	held   list.List     // of *passage, in turn
	timer  *time.Timer   // for the next probe; set once the Gate was shut
}

func (g Gate) breaker() *breaker {
	first := cmp.Or(g.Probe, defaultProbe)
	return &breaker{
		after: cmp.Or(g.After, defaultAfter), probes: cmp.Or(g.Probes, defaultProbes),
		first: first, most: max(first, cmp.Or(g.MaxProbe, defaultMaxProbe)),
	}
}

// passage is one record's way through the gate. It belongs to one goroutine;
// at, let and failed are guarded by breaker.mu.
type passage struct {
	b      *breaker
	at     *list.Element // its place among those held
	let    chan struct{} // closed when it may go on
	failed int           // probes
}

// enter returns when the record may be tried: at once, as a probe, or when the
// gate was opened. Its error is the end of ctx.
func (p *passage) enter(ctx context.Context) error {
	b := p.b
	b.mu.Lock()
	if !b.shut {
		b.mu.Unlock()
		return nil
	}
	let := make(chan struct{})
	p.let = let
	p.at = b.hold(p)
	b.arm()
	b.mu.Unlock()
	err := wherry.Await(ctx, let)
	if err != nil {
		p.leave()
	}
	return err
}

// hold puts p in the queue: behind all that failed as few probes as it did.
func (b *breaker) hold(p *passage) *list.Element {
	for e := b.held.Back(); e != nil; e = e.Prev() {
		if e.Value.(*passage).failed <= p.failed {
			return b.held.InsertAfter(p, e)
		}
	}
	return b.held.PushFront(p)
}

// leave ends the passage of a record whose result does not count, or did
// already: another one takes its turn.
func (p *passage) leave() {
	b := p.b
	b.mu.Lock()
	defer b.mu.Unlock()
	if p.at != nil {
		b.held.Remove(p.at)
		p.at = nil
	}
	if b.trying == p {
		b.trying = nil
	}
	b.arm()
}

// arm sets the timer for the next probe, or stops it where none is to be made.
func (b *breaker) arm() {
	switch {
	case !b.shut || b.trying != nil || b.held.Len() == 0:
		if b.timer != nil {
			b.timer.Stop()
		}
	case b.timer == nil:
		b.timer = time.AfterFunc(time.Until(b.due), b.probe)
	default:
		b.timer.Reset(time.Until(b.due))
	}
}

// probe lets one of those that are held be tried.
func (b *breaker) probe() {
	b.mu.Lock()
	defer b.mu.Unlock()
	next := b.held.Front()
	if !b.shut || b.trying != nil || next == nil {
		return
	}
	if time.Now().Before(b.due) { // it was put off while the timer fired
		b.arm()
		return
	}
	b.trying = next.Value.(*passage)
	b.release(b.trying)
}

func (b *breaker) release(p *passage) {
	b.held.Remove(p.at)
	p.at = nil
	close(p.let)
}

// blame says what a result tells of the surroundings.
type blame int

const (
	nobody       blame = iota // the record was handled
	record                    // nothing: the record is to blame
	surroundings              // it may be them
)

// change is what a result did to the gate.
type change int

const (
	unchanged change = iota
	nowShut
	nowOpen
)

// result tells of a record that was tried. held says that it is to enter again
// rather than to become a dead letter. since is when the gate was shut.
func (p *passage) result(of blame) (held bool, what change, since time.Time) {
	b := p.b
	b.mu.Lock()
	defer b.mu.Unlock()
	probe := b.trying == p
	if probe {
		b.trying = nil
		defer b.arm()
	}
	switch of {
	case nobody:
		b.row = 0
		if !b.shut {
			return false, unchanged, since
		}
		b.shut = false
		for b.held.Len() > 0 {
			b.release(b.held.Front().Value.(*passage))
		}
		return false, nowOpen, b.since
	case record:
		return false, unchanged, since // another one may tell more: its time has come
	case surroundings:
	}
	if !b.shut {
		if b.row++; b.row < b.after {
			return false, unchanged, since
		}
		b.shut, b.since, b.pause, b.row = true, time.Now(), b.first, 0
		b.due = b.since.Add(b.pause)
		return true, nowShut, b.since
	}
	if probe {
		p.failed++
		b.pause = min(2*b.pause, b.most)
		b.due = time.Now().Add(b.pause)
		held = b.probes < 0 || p.failed < b.probes
		return held, unchanged, since
	}
	return true, unchanged, since // it was under way when the gate was shut
}
