package lane_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/internal/lane"
)

var errRefused = errors.New("refused")

// desk is a lane whose Work hands each call to the test, which says when it
// returns.
type desk struct {
	*lane.Lane
	calls chan *call
	told  atomic.Int32 // of Finished
}

type call struct {
	*lane.Item
	ctx context.Context
	end chan func()
}

// returns makes Work call f and return.
func (c *call) returns(f func()) {
	c.end <- f
	synctest.Wait()
}

func (c *call) finishes() { c.returns(c.Finish) }

// sit starts a lane in a bubble; it is cut at the end of the test.
func sit(t *testing.T, c lane.Config) *desk {
	t.Helper()
	d := &desk{calls: make(chan *call, 1000)}
	c.Work = func(ctx context.Context, it *lane.Item) {
		call := &call{Item: it, ctx: ctx, end: make(chan func())}
		d.calls <- call
		select {
		case f := <-call.end:
			f()
		case <-ctx.Done():
		}
	}
	if c.Pool == nil {
		c.Pool = lane.NewPool(0)
	}
	c.Until, c.Finished = context.Background(), func() { d.told.Add(1) }
	if c.Room == nil {
		c.Room = func() {}
	}
	d.Lane = lane.New(context.Background(), c)
	t.Cleanup(func() {
		d.Cut(errors.New("over"))
		<-d.Exited()
	})
	return d
}

// feed feeds records "offset" or "offset key", and waits until all is at rest.
func (d *desk) feed(records ...string) {
	var fed []*kgo.Record
	for _, s := range records {
		var offset int64
		var key string
		_, _ = fmt.Sscan(s, &offset, &key)
		r := &kgo.Record{Offset: offset, Value: []byte("v")}
		if key != "" {
			r.Key = []byte(key)
		}
		fed = append(fed, r)
	}
	d.Feed(fed)
	synctest.Wait()
}

// next returns the call that has begun, or nil.
func (d *desk) next() *call {
	synctest.Wait()
	select {
	case c := <-d.calls:
		return c
	default:
		return nil
	}
}

// begun returns the offsets of the calls that have begun.
func (d *desk) begun() (offsets []int64) {
	for c := d.next(); c != nil; c = d.next() {
		offsets = append(offsets, c.Offset)
	}
	return offsets
}

func bubble(t *testing.T, f func(*testing.T)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, f)
}

func TestByKeyARefusedRecordComesBeforeAllThatWaitForIt(t *testing.T) {
	for _, order := range [][2]int{{0, 1}, {1, 0}} {
		t.Run(fmt.Sprint(order), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				d := sit(t, lane.Config{Order: lane.ByKey})
				d.feed("0 a", "1 a", "2 a", "3 a")
				c := []*call{d.next(), nil, nil}
				c[0].returns(func() {}) // its outputs are on their way
				c[1] = d.next()
				c[1].returns(func() {})
				c[2] = d.next()
				c[order[0]].Again(errRefused)
				c[order[1]].Again(errRefused)
				require.Empty(t, d.begun(), "2 is at work")
				c[2].finishes()
				for offset := range int64(2) {
					c := d.next()
					require.Equal(t, offset, c.Offset)
					require.Equal(t, errRefused, c.Refused)
					c.finishes()
				}
				c[2] = d.next()
				require.EqualValues(t, 3, c[2].Offset)
				c[2].finishes()
				require.EqualValues(t, 4, d.State().Low.Offset)
			})
		})
	}
}

// The next record of its key may begin but has no slot yet.
func TestByKeyARefusedRecordComesBeforeOneThatHasNoSlotYet(t *testing.T) {
	bubble(t, func(t *testing.T) {
		pool := lane.NewPool(1)
		other := sit(t, lane.Config{Pool: pool})
		d := sit(t, lane.Config{Order: lane.ByKey, Pool: pool})
		d.feed("0 a", "1 a")
		first := d.next()
		other.feed("0")
		first.returns(func() {})
		busy := other.next()
		require.NotNil(t, busy)
		first.Again(errRefused)
		busy.finishes()
		c := d.next()
		require.EqualValues(t, 0, c.Offset)
		c.finishes()
		c = d.next()
		require.EqualValues(t, 1, c.Offset)
		c.finishes()
		require.EqualValues(t, 2, d.State().Low.Offset)
	})
}

func TestARefusedRecordIsRunAgainWhileTheLaneDrains(t *testing.T) {
	for name, when := range map[string]bool{"refused before": true, "refused after": false} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				pool := lane.NewPool(1)
				other := sit(t, lane.Config{Pool: pool})
				d := sit(t, lane.Config{Order: lane.ByKey, Pool: pool})
				d.feed("0 a", "1 a", "2 a")
				first := d.next()
				other.feed("0")
				first.returns(func() {})
				if when {
					first.Again(errRefused)
				}
				idle := d.Drain()
				if !when {
					first.Again(errRefused)
				}
				other.next().finishes()
				c := d.next()
				require.NotNil(t, c, "the drain waits for what never begins")
				require.False(t, closed(idle))
				c.finishes()
				<-idle
				<-d.Exited()
				require.Empty(t, d.begun())
				require.EqualValues(t, 1, d.State().Low.Offset)
			})
		})
	}
}

// A refused record that is cut while it waits to be run again is no longer in
// hand: who waits for the drain does not wait in vain.
func TestCutDropsWhatWasToBeRunAgain(t *testing.T) {
	for _, refused := range []string{"before", "at work", "after"} {
		t.Run(refused, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				pool := lane.NewPool(1)
				other := sit(t, lane.Config{Pool: pool})
				d := sit(t, lane.Config{Order: lane.ByKey, Pool: pool})
				d.feed("0 a", "1 a")
				first := d.next()
				if refused == "at work" {
					first.Again(errRefused)
				}
				other.feed("0")
				if refused != "at work" {
					first.returns(func() {})
				}
				if refused == "before" {
					first.Again(errRefused)
				}
				idle := d.Drain()
				d.Cut(errors.New("revoked"))
				if refused == "after" {
					first.Again(errRefused)
				}
				<-idle
				<-d.Exited()
				require.Empty(t, d.begun())
				require.Zero(t, d.State().Running)
			})
		})
	}
}

// Of two lanes with long queues neither waits for the other to be done.
func TestLanesTakeTurns(t *testing.T) {
	for _, order := range []lane.Order{lane.InTurn, lane.ByKey, lane.Any} {
		t.Run(fmt.Sprint(order), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				pool := lane.NewPool(1)
				var (
					mu   sync.Mutex
					seen []int
				)
				for i := range 3 {
					var records []*kgo.Record
					for offset := range int64(30) {
						records = append(records, &kgo.Record{Offset: offset, Key: fmt.Append(nil, offset%7)})
					}
					l := lane.New(t.Context(), lane.Config{Order: order, Pool: pool, Until: t.Context(), Finished: func() {}, Room: func() {}, Work: func(_ context.Context, it *lane.Item) {
						time.Sleep(time.Millisecond)
						mu.Lock()
						seen = append(seen, i)
						mu.Unlock()
						it.Finish()
					}})
					l.Feed(records)
					defer func() { <-l.Drain(); <-l.Exited() }()
				}
				time.Sleep(time.Second)
				synctest.Wait()
				require.Len(t, seen, 90)
				for i := 4; i < 80; i++ {
					require.ElementsMatch(t, []int{0, 1, 2}, seen[i:i+3], "%v", seen)
				}
			})
		})
	}
}

// A handler that ends its goroutine (t.FailNow does) keeps neither its slot nor
// its lane.
func TestWorkThatCallsGoexitGivesItsSlotBack(t *testing.T) {
	for _, size := range []int{1, 3} {
		t.Run(strconv.Itoa(size), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				d := sit(t, lane.Config{Pool: lane.NewPool(1), Size: size})
				d.feed("0", "1", "2", "3")
				for range 4 {
					c := d.next()
					require.NotNil(t, c)
					c.returns(func() { c.Finish(); runtime.Goexit() })
				}
				require.EqualValues(t, 4, d.State().Low.Offset)
				<-d.Drain()
				<-d.Exited()
			})
		})
	}
}

// What a handler left behind in a wait has no slot to give or to take.
func TestAWaitThatOutlivesItsWorkTakesNoSlot(t *testing.T) {
	bubble(t, func(t *testing.T) {
		pool := lane.NewPool(1)
		d := sit(t, lane.Config{Pool: pool, Order: lane.Any})
		d.feed("0", "1", "2", "3", "4")
		first := d.next()
		parking := first.Park(time.Time{})
		second := d.next()
		require.EqualValues(t, 1, second.Offset)
		ended := make(chan bool, 1)
		go func() { ended <- parking.End() }() // it waits for the slot
		first.finishes()
		second.finishes()
		third := d.next()
		require.Empty(t, d.begun(), "two slots came of one")
		late := third.Item
		third.finishes()
		late.Park(time.Time{}).End()
		fourth := d.next()
		require.EqualValues(t, 3, fourth.Offset)
		require.Empty(t, d.begun(), "two slots came of one")
		fourth.finishes()
		d.next().finishes()
		require.True(t, <-ended)
		d.feed("5")
		require.NotNil(t, d.next(), "the slot is gone")
		s := d.State()
		require.Equal(t, 1, s.Running)
		require.Zero(t, s.Waiting)
	})
}

func TestAWaitThatIsOverInADrainingLaneIsCutShortWithoutASlot(t *testing.T) {
	bubble(t, func(t *testing.T) {
		pool := lane.NewPool(1)
		other := sit(t, lane.Config{Pool: pool})
		d := sit(t, lane.Config{Pool: pool})
		d.feed("0")
		c := d.next()
		parking := c.Park(time.Time{})
		other.feed("0")
		busy := other.next()
		got := make(chan bool, 1)
		go func() { got <- parking.End() }()
		synctest.Wait()
		require.Empty(t, got)
		d.Drain()
		require.False(t, <-got)
		c.returns(c.Drop)
		<-d.Exited()
		busy.finishes()
		other.feed("1")
		require.NotNil(t, other.next())
	})
}

// Records that are done are let go of, also while a neighbour waits: else all
// that a busy key ever had would stay.
func TestALongLineThatIsDoneIsNotKept(t *testing.T) {
	t.Parallel()
	waits := make(chan *lane.Item, 1)
	var pending *lane.Item
	var weaks []weak.Pointer[lane.Item]
	done := make(chan struct{})
	const records = 2000
	l := lane.New(t.Context(), lane.Config{Order: lane.ByKey, Pool: lane.NewPool(0), Until: t.Context(), Finished: func() {}, Room: func() {}, Work: func(_ context.Context, it *lane.Item) {
		if it.Offset == 0 {
			waits <- it
			return
		}
		weaks = append(weaks, weak.Make(it))
		if pending != nil {
			pending.Finish() // when the next has begun
		}
		if pending = it; it.Offset == records {
			it.Finish()
			pending = nil
			close(done)
		}
	}})
	for offset := range int64(records + 1) {
		key := []byte("busy")
		if offset == 0 {
			key = []byte("waits")
		}
		l.Feed([]*kgo.Record{{Offset: offset, Key: key}})
	}
	<-done
	waiting := <-waits
	require.Eventually(t, func() bool {
		runtime.GC()
		kept := 0
		for _, w := range weaks {
			if w.Value() != nil {
				kept++
			}
		}
		return kept <= 2*16 // its neighbours in memory
	}, 10*time.Second, time.Millisecond)
	waiting.Finish()
	<-l.Drain()
	<-l.Exited()
}

func TestABatchWaitsForMoreUpToLinger(t *testing.T) {
	bubble(t, func(t *testing.T) {
		d := sit(t, lane.Config{Size: 3, Linger: time.Minute})
		d.feed("0")
		time.Sleep(40 * time.Second)
		d.feed("1")
		require.Empty(t, d.begun())
		time.Sleep(19 * time.Second)
		require.Empty(t, d.begun())
		time.Sleep(time.Second)
		a, b := d.next(), d.next()
		require.Empty(t, d.begun())
		a.finishes()
		b.finishes()
	})
}

// The linger of a batch that was full is over with it: it does not make a later
// one smaller.
func TestALingerIsThatOfItsOwnBatch(t *testing.T) {
	bubble(t, func(t *testing.T) {
		for _, order := range []lane.Order{lane.InTurn, lane.ByKey, lane.Any} {
			d := sit(t, lane.Config{Size: 3, Linger: time.Minute, Order: order})
			d.feed("0 a")
			d.feed("1 b", "2 c")
			for range 3 {
				c := d.next()
				require.NotNil(t, c, "a full batch waits")
				defer c.finishes()
			}
			time.Sleep(2 * time.Minute)
			for _, c := range []string{"3 d", "4 e"} {
				d.feed(c)
			}
			require.Empty(t, d.begun())
			time.Sleep(59 * time.Second)
			require.Empty(t, d.begun(), "the batch began too early")
		}
	})
}

func TestADrainDoesNotBeginWhatLingers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		d := sit(t, lane.Config{Size: 3, Linger: time.Minute})
		d.feed("0", "1")
		<-d.Drain()
		<-d.Exited()
		time.Sleep(time.Hour)
		require.Empty(t, d.begun())
		require.Zero(t, d.State().Low.Offset)
	})
}

func TestDelayedRecordsBeginWhenDueInOrder(t *testing.T) {
	bubble(t, func(t *testing.T) {
		begin := time.Now()
		due := map[int64]time.Time{
			0: {}, 1: begin.Add(time.Minute), 2: begin, 3: {}, 4: begin.Add(time.Hour),
			5: time.Unix(1<<40, 0), // overflows in nanoseconds
			6: {},
		}
		d := sit(t, lane.Config{Order: lane.Any, Due: func(r *kgo.Record) time.Time { return due[r.Offset] }})
		d.feed("0", "1", "2")
		d.feed("3", "4", "5", "6")
		require.Equal(t, []int64{0}, d.begun())
		require.Equal(t, 6, d.State().Waiting)
		time.Sleep(time.Minute - 1)
		require.Empty(t, d.begun(), "early")
		time.Sleep(time.Nanosecond)
		require.ElementsMatch(t, []int64{1, 2, 3}, d.begun())
		time.Sleep(time.Hour)
		require.Equal(t, []int64{4}, d.begun())
		time.Sleep(200 * 365 * 24 * time.Hour)
		require.Empty(t, d.begun(), "early")
		d.Drain()
		require.Zero(t, d.State().Waiting)
	})
}

func TestWhatHadFinishedIsPassedBy(t *testing.T) {
	bubble(t, func(t *testing.T) {
		d := sit(t, lane.Config{Order: lane.Any})
		d.Begin(lane.Mark{Offset: 10, Epoch: -1}, []lane.Run{{Begin: 11, End: 13}, {Begin: 20, End: 30}})
		d.feed("10", "11", "12", "13", "25", "29", "31")
		require.ElementsMatch(t, []int64{10, 13, 31}, d.begun())
		low, set, _ := d.Position([16]byte{1}, lane.MaxText, 0)
		require.EqualValues(t, 10, low.Offset)
		runs, err := lane.Decode(set, [16]byte{1}, 10)
		require.NoError(t, err)
		require.Equal(t, []lane.Run{{Begin: 11, End: 13}, {Begin: 25, End: 30}}, runs)
		require.Positive(t, d.told.Load())
	})
}

// A log that has lost records has others at their offsets: neither what had
// finished before nor what has finished of the lost ones says anything of them.
func TestOffsetsThatGoBackAreHandledAnew(t *testing.T) {
	for _, how := range []string{"seen in the offsets", "told"} {
		t.Run(how, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				d := sit(t, lane.Config{Order: lane.Any})
				d.Begin(lane.Mark{Offset: 100}, []lane.Run{{Begin: 150, End: 160}})
				d.feed("110", "120", "121")
				first := d.next()
				d.next().finishes()
				d.next().finishes()
				if how == "told" {
					d.Forget()
				} else {
					d.feed("115")
					require.Equal(t, []int64{115}, d.begun())
					_, set, _ := d.Position([16]byte{1}, lane.MaxText, 0)
					require.Empty(t, set, "121 may be another record now")
				}
				d.feed("155")
				require.Equal(t, []int64{155}, d.begun())
				first.finishes()
			})
		})
	}
}

func TestPositionOfWhatHasNotChangedSaysNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		d := sit(t, lane.Config{Order: lane.Any})
		d.feed("0", "1", "2")
		d.next()
		d.next().finishes()
		_, set, changes := d.Position([16]byte{}, lane.MaxText, 0)
		require.NotEmpty(t, set)
		_, set, _ = d.Position([16]byte{}, lane.MaxText, changes)
		require.Empty(t, set)
		_, set, _ = d.Position([16]byte{}, 0, 0)
		require.Empty(t, set)
	})
}

// Batches whose records arrive, wait, fail and end at random: one call at a
// time for each of them, none more than there are slots, and each ends.
func TestRecordsOfABatchMeet(t *testing.T) {
	t.Parallel()
	for seed := range uint64(100) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 2))
			var dice sync.Mutex
			roll := func(n int) int {
				dice.Lock()
				defer dice.Unlock()
				return random.IntN(n)
			}
			slots, strays := 1+roll(3), roll(2) == 0 // a wait that is left behind keeps the place away
			pool := lane.NewPool(slots)
			var running, most, handled atomic.Int32
			var lanes []*lane.Lane
			const records = 40
			for range 2 {
				l := lane.New(t.Context(), lane.Config{
					Order: lane.Order(roll(3)), Pool: pool, Until: t.Context(), Finished: func() {}, Room: func() {},
					Size: 1 + roll(5), Linger: time.Duration(roll(2)) * time.Second,
					Work: func(_ context.Context, it *lane.Item) {
						for range 1 + roll(3) {
							if roll(4) == 0 {
								break // it does not decode
							}
							it.Arrive(func(items []*lane.Item) {
								most.Store(max(most.Load(), running.Add(1)))
								if !slices.IsSortedFunc(items, func(a, b *lane.Item) int { return int(a.Offset - b.Offset) }) {
									t.Error("not in order")
								}
								time.Sleep(time.Duration(roll(1000)) * time.Millisecond)
								switch roll(8) {
								case 0:
									running.Add(-1)
									p := items[0].Park(time.Now())
									time.Sleep(time.Minute)
									p.End()
									running.Add(1)
								case 1:
									if strays {
										items[0].Park(time.Now())
									}
								case 2:
									running.Add(-1)
									runtime.Goexit()
								}
								running.Add(-1)
							})
							if roll(2) == 0 {
								wait := []time.Duration{time.Millisecond, time.Second, time.Hour}[roll(3)]
								p := it.Park(time.Now().Add(wait))
								time.Sleep(wait)
								p.End()
							}
						}
						handled.Add(1)
						it.Finish()
					},
				})
				lanes = append(lanes, l)
				for offset := range int64(records) {
					l.Feed([]*kgo.Record{{Offset: offset, Key: fmt.Append(nil, roll(4))}})
				}
			}
			time.Sleep(1000 * time.Hour)
			require.EqualValues(t, 2*records, handled.Load(), "seed %d", seed)
			for _, l := range lanes {
				s := l.State()
				require.EqualValues(t, records, s.Low.Offset)
				require.Zero(t, s.Running+s.Waiting)
				<-l.Drain()
				<-l.Exited()
			}
			if !strays {
				require.LessOrEqual(t, int(most.Load()), slots, "seed %d", seed)
			}
		})
	}
}
