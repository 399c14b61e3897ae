package lane

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
)

// A game plays a random program on lanes that share a pool: records are fed,
// handled, waited with, finished, refused, in any order. After each move it
// compares the lanes with what they promise, as one would write it down
// without a thought for speed. Each game is in a bubble, where all that goes
// on by itself has come to rest after a move.
type game struct {
	t     *testing.T
	dice  func(n int) int // from 0 on, below n
	slots int
	size  int
	limit int // of the finished set's text
	pool  *Pool
	lanes []*tableau

	table  sync.Mutex // guards the cards
	ending bool       // no surprises any more
	pen    sync.Mutex
	moves  []string
}

// tableau is one lane and what is known of its records, by offset.
type tableau struct {
	*game
	*Lane
	order    Order
	cards    []*card
	narrow   bool
	halted   bool
	finished map[int64]bool // by Finish, whatever came before it
}

type place int

const (
	waiting place = iota
	atWork
	parked
	returning // its wait is over, and it has no slot yet
	cutShort  // its wait was, for want of a slot
	staying   // it has ended, and Work has not returned
	out       // Work has returned, and outputs are on their way
	gone      // finished or dropped
)

// inWork are the places of records whose Work has not returned.
var inWork = []place{atWork, parked, returning, cutShort, staying}

func (p place) String() string {
	return [...]string{"waiting", "at work", "parked", "returning", "cut short", "staying", "out", "gone"}[p]
}

// card is one record.
type card struct {
	offset  int64
	key     string
	at      place
	item    *Item
	tell    chan func() bool // of its Work: whether to go on
	runs    int
	reruns  int
	inside  int // calls of Work
	then    place
	stray   bool // a goroutine of its own takes its place back
	parking *Parking
}

func (c *card) String() string { return fmt.Sprintf("%d(%s, %v)", c.offset, c.key, c.at) }

func newGame(t *testing.T, dice func(int) int) *game {
	g := &game{t: t, dice: dice, slots: dice(4), size: 1}
	g.limit = []int{MaxText, 40, 28, 25, 0}[dice(5)]
	g.pool = NewPool(g.slots)
	bounds := []int{0, 0, 1, 2, 5, 20}[dice(6)]
	span := []int64{0, 0, 3, 30}[dice(4)]
	for range 1 + dice(2) {
		tb := &tableau{game: g, order: Order(dice(3)), finished: map[int64]bool{}}
		tb.Lane = New(context.Background(), Config{
			Work: tb.work, Order: tb.order, Pool: g.pool, Until: context.Background(),
			Finished: func() {}, Room: func() {}, MaxRecords: bounds, MaxSpan: span,
		})
		g.lanes = append(g.lanes, tb)
	}
	g.note("slots %d, set of %d, bounds %d and %d", g.slots, g.limit, bounds, span)
	return g
}

func (g *game) note(format string, args ...any) {
	g.pen.Lock()
	defer g.pen.Unlock()
	g.moves = append(g.moves, fmt.Sprintf(format, args...))
}

// work is the Work of a lane: it does what the game tells it.
func (tb *tableau) work(_ context.Context, it *Item) {
	tb.table.Lock()
	c := tb.cards[slices.IndexFunc(tb.cards, func(c *card) bool { return c.offset == it.Offset })]
	if c.at != waiting || c.inside > 0 {
		tb.t.Errorf("%v begins", c)
	}
	if tb.narrow && !tb.halted && c != tb.lowest() {
		tb.t.Errorf("%v begins though the finished set does not fit", c)
	}
	for _, o := range tb.cards {
		if tb.order == InTurn || tb.order == ByKey && c.key != "" && o.key == c.key {
			if slices.Contains(inWork, o.at) {
				tb.t.Errorf("%v begins beside %v", c, o)
			}
			if o.at == waiting && o.offset < c.offset {
				tb.t.Errorf("%v begins before %v", c, o)
			}
		}
	}
	c.at, c.item, c.tell = atWork, it, make(chan func() bool)
	c.runs++
	c.inside++
	tell := c.tell
	tb.table.Unlock()
	defer func() {
		tb.table.Lock()
		c.inside--
		tb.table.Unlock()
	}()
	for do := range tell {
		if !do() {
			return
		}
	}
}

// among returns the cards at a place.
func (tb *tableau) among(places ...place) (cards []*card) {
	for _, c := range tb.cards {
		if slices.Contains(places, c.at) {
			cards = append(cards, c)
		}
	}
	return cards
}

// hands returns the cards that the game can make a move with.
func (tb *tableau) hands() (cards []*card) {
	return slices.DeleteFunc(tb.among(atWork, parked, returning, cutShort, staying, out), func(c *card) bool {
		return c.at == returning && !c.stray
	})
}

// feed adds some records.
func (tb *tableau) feed(n int) {
	if tb.halted {
		return
	}
	var records []*kgo.Record
	next := int64(0)
	if len(tb.cards) > 0 {
		next = tb.cards[len(tb.cards)-1].offset + 1
	}
	for range n {
		next += int64(max(0, tb.dice(6)-3)) // gaps
		c := &card{offset: next, key: []string{"", "a", "b", "c"}[tb.dice(4)]}
		r := &kgo.Record{Offset: next}
		if c.key != "" {
			r.Key = []byte(c.key)
		}
		tb.cards, records = append(tb.cards, c), append(records, r)
		next++
	}
	tb.note("feed %v", tb.cards[len(tb.cards)-n:])
	tb.Feed(records)
}

// end finishes a record, or has it run again.
func (tb *tableau) end(c *card, again bool) {
	tb.table.Lock()
	defer tb.table.Unlock()
	if again && c.reruns < 2 {
		tb.note("again %v", c)
		c.reruns++
		c.at = waiting
		c.item.Again(errors.New("refused"))
		return
	}
	tb.note("finish %v", c)
	c.at = gone
	tb.finished[c.offset] = true
	c.item.Finish()
}

// play makes one move with a card.
func (tb *tableau) play(c *card) {
	switch c.at {
	case atWork:
		how := tb.dice(10)
		if tb.ending {
			how = 1
		}
		switch how {
		case 8, 9: // and Work returns later
			tb.note("early")
			c.tell <- func() bool {
				tb.end(c, how == 9)
				tb.table.Lock()
				defer tb.table.Unlock()
				c.then, c.at = c.at, staying
				return true
			}
		case 0, 1, 2: // done when it returns
			c.tell <- func() bool { tb.end(c, how == 0); return false }
		case 3, 4: // with outputs
			tb.note("out %v", c)
			c.at = out
			c.tell <- func() bool { return false }
		case 5: // a goroutine that waits is left behind
			tb.note("left behind by %v", c)
			c.tell <- func() bool {
				p := c.item.Park(time.Time{})
				go func() {
					time.Sleep(time.Second)
					p.End()
				}()
				tb.end(c, false)
				return false
			}
		case 6: // Goexit
			tb.note("goexit %v", c)
			c.tell <- func() bool { tb.end(c, false); runtime.Goexit(); return false }
		default:
			tb.note("park %v", c)
			c.at = parked
			c.tell <- func() bool { c.parking = c.item.Park(time.Time{}); return true }
		}
	case staying:
		tb.note("return of %v", c)
		c.tell <- func() bool {
			tb.table.Lock()
			defer tb.table.Unlock()
			c.at = c.then
			return false
		}
	case returning: // what takes its place back is left behind
		tb.note("left returning by %v", c)
		c.tell <- func() bool { tb.end(c, false); return false }
	case parked:
		tb.note("unpark %v", c)
		c.at, c.stray = returning, tb.dice(2) == 0
		unpark := func() bool {
			got := c.parking.End()
			tb.table.Lock()
			defer tb.table.Unlock()
			if c.at != returning {
				return true
			}
			if c.at = atWork; !got {
				c.at = cutShort
			}
			if !got && !tb.halted {
				tb.t.Errorf("%v has got no slot", c)
			}
			return true
		}
		if c.stray {
			go unpark()
		} else {
			c.tell <- unpark
		}
	case cutShort:
		tb.note("drop %v", c)
		c.tell <- func() bool {
			tb.table.Lock()
			c.at = gone
			tb.table.Unlock()
			c.item.Drop()
			return false
		}
	case out:
		tb.end(c, !tb.ending && tb.dice(3) == 0)
	default:
	}
}

// mayBegin returns what must begin if there is a slot.
func (tb *tableau) mayBegin() (may []*card) {
	if tb.cut || tb.MaxRecords > 0 || tb.MaxSpan > 0 {
		return nil // that depends on what is held; the end of the game shows
	}
	busy := map[string]bool{}
	working := false
	for _, c := range tb.among(inWork...) {
		busy[c.key], working = true, true
	}
	lowest := tb.lowest()
	for _, c := range tb.cards {
		switch {
		case c.at != waiting, tb.halted && c.reruns == 0:
			continue
		case tb.narrow && !tb.halted && c != lowest:
			continue
		case tb.order == InTurn && working, tb.order == ByKey && c.key != "" && busy[c.key]:
			continue
		}
		working, busy[c.key] = true, true
		may = append(may, c)
	}
	return may
}

// lowest is the oldest record that has not finished.
func (tb *tableau) lowest() *card {
	for _, c := range tb.cards {
		if !tb.done(c) {
			return c
		}
	}
	return nil
}

// done reports whether a record counts as finished: in order of its key.
func (tb *tableau) done(c *card) bool {
	if !tb.finished[c.offset] {
		return false
	}
	for _, o := range tb.cards {
		if tb.order == ByKey && c.key != "" && o.key == c.key && o.offset < c.offset && !tb.finished[o.offset] {
			return false
		}
	}
	return true
}

// check compares the lanes with what they promise. All is at rest.
func (g *game) check() {
	running, returns, may := 0, 0, 0
	for _, tb := range g.lanes {
		running += len(tb.among(atWork, staying))
		returns += len(tb.among(returning))
		may += len(tb.mayBegin())
		s := tb.State()
		var low int64
		for _, c := range tb.cards {
			if !tb.done(c) {
				break
			}
			low = c.offset + 1
		}
		require.Equal(g.t, low, s.Low.Offset, "low")
		if tb.halted {
			continue
		}
		held := 0
		for _, c := range tb.cards {
			if !tb.done(c) {
				held++
			}
		}
		require.Equal(g.t, held, s.Held+s.Backlog, "held")
		require.Equal(g.t, len(tb.among(parked, returning)), s.Waiting, "waiting")
	}
	if g.slots > 0 {
		require.LessOrEqual(g.t, running, g.slots, "more at work than there are slots")
	}
	if g.slots == 0 || running < g.slots {
		require.Zero(g.t, returns, "there is a slot for what comes back")
		require.Zero(g.t, may, "there is a slot for what may begin")
	}
}

// position commits a lane: what it says has finished has, and all of it where
// it fits.
func (tb *tableau) position() {
	topic := [16]byte{1}
	_, all := Encode(topic, tb.marks.Low().Offset, tb.marks.Finished(MaxRuns), tb.limit)
	tb.narrow = !all && tb.limit > 0 && tb.order != InTurn
	low, set, _ := tb.Position(topic, tb.limit, 1<<60)
	require.LessOrEqual(tb.t, len(set), tb.limit)
	if tb.order == InTurn {
		require.Empty(tb.t, set)
	}
	tb.note("position %d, narrow %v", low.Offset, tb.narrow)
	if set == "" {
		return
	}
	runs, err := Decode(set, topic, low.Offset)
	require.NoError(tb.t, err)
	said := func(offset int64) bool {
		return slices.ContainsFunc(runs, func(r Run) bool { return r.Begin <= offset && offset < r.End })
	}
	for _, c := range tb.cards {
		if c.offset >= low.Offset && (said(c.offset) && !tb.done(c) || all && !said(c.offset) && tb.done(c)) {
			require.Fail(tb.t, "the finished set is wrong", "%v of %v", c, runs)
		}
	}
}

// run plays a whole game: moves at random, and then all to its end.
func (g *game) run(moves int) {
	defer func() {
		if g.t.Failed() {
			g.t.Log(g.moves)
		}
	}()
	for range moves {
		tb := g.lanes[g.dice(len(g.lanes))]
		switch hands := tb.hands(); {
		case g.dice(6) == 0, len(hands) == 0:
			tb.feed(1 + g.dice(4))
		case g.dice(5) == 0:
			tb.position()
		default:
			tb.play(hands[g.dice(len(hands))])
		}
		synctest.Wait()
		g.check()
	}
	drain := g.dice(3) == 0
	for _, tb := range g.lanes {
		if drain {
			g.note("drain")
			tb.halted = true
			tb.Drain()
		}
	}
	synctest.Wait()
	for step := 0; ; step++ {
		require.Less(g.t, step, 10_000, "it goes round and round")
		g.ending = step > 100
		g.check()
		moved := false
		for _, tb := range g.lanes {
			if hands := tb.hands(); len(hands) > 0 {
				tb.play(hands[g.dice(len(hands))])
				moved = true
			}
			synctest.Wait()
			tb.position()
			synctest.Wait()
		}
		if !moved {
			break
		}
	}
	time.Sleep(time.Minute) // for what was left behind
	synctest.Wait()
	for _, tb := range g.lanes {
		for _, c := range tb.cards {
			if forgotten := c.at != gone; forgotten && (!tb.halted || c.at != waiting || c.reruns > 0) {
				require.Fail(g.t, "a record was forgotten", "%v", c)
			}
			require.LessOrEqual(g.t, c.runs, 1+c.reruns)
		}
		s := tb.State()
		if !tb.halted {
			require.Zero(g.t, s.Held+s.Backlog)
			require.Empty(g.t, tb.lines)
		}
		require.Zero(g.t, s.Running+s.Waiting)
		<-tb.Drain()
		<-tb.Exited()
		require.Zero(g.t, tb.begun)
	}
	if g.slots > 0 {
		require.Equal(g.t, g.slots, g.pool.free, "slots got lost or were made")
	}
	require.Empty(g.t, g.pool.back)
	for _, tb := range g.lanes {
		tb.Cut(errors.New("over"))
	}
}

// Nothing is handled twice, out of order, beside what it must wait for or in
// one slot too many; nothing is forgotten; and the finished set is true.
func TestLanesKeepWhatTheyPromiseInAnyGame(t *testing.T) {
	t.Parallel()
	games := 80
	if testing.Short() {
		games = 20
	}
	for seed := range uint64(games) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 1))
			newGame(t, random.IntN).run(150)
		})
		require.False(t, t.Failed(), "seed %d", seed)
	}
}

func FuzzLane(f *testing.F) {
	f.Add([]byte{1, 0, 0, 0, 1, 5, 0, 0, 7, 0, 3, 0, 2})
	f.Fuzz(func(t *testing.T, program []byte) {
		at := 0
		defer time.AfterFunc(30*time.Second, func() { panic("stuck") }).Stop()
		synctest.Test(t, func(t *testing.T) {
			newGame(t, func(n int) int {
				if at++; at > len(program) {
					return at * 7 % n
				}
				return int(program[at-1]) % n
			}).run(min(len(program)/2, 200))
		})
	})
}
