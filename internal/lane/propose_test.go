package lane

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
)

var proposeTopic = [16]byte{1, 2, 3}

// committee plays a Consumer that commits a lane in transactions, and knows
// naively what it should find.
type committee struct {
	t     *testing.T
	rng   *rand.Rand
	order Order
	size  int
	limit int
	log   []*kgo.Record // all that is in the partition
	fed   int           // of log
	lane  *Lane

	mu       sync.Mutex
	returned []*Item // handled, and not joined
	inWork   map[int64]bool

	joined []*Item
	done   map[int64]bool // committed
	seen   uint64
	narrow bool
	low    Mark   // as committed
	set    string // as committed
}

func newCommittee(t *testing.T, seed uint64) *committee {
	c := &committee{t: t, rng: rand.New(rand.NewPCG(seed, 1)), done: map[int64]bool{}, inWork: map[int64]bool{}}
	c.order = Order(c.rng.IntN(3))
	c.size = []int{1, 1, 1, 3}[c.rng.IntN(4)]
	c.limit = []int{MaxText, MaxText, 60, 32, 28, 0}[c.rng.IntN(6)]
	offset := int64(c.rng.IntN(3))
	c.low = Mark{Offset: offset, Epoch: -1}
	for range c.rng.IntN(120) {
		if c.rng.IntN(8) == 0 {
			offset += int64(c.rng.IntN(40)) // marks of transactions, compaction
		}
		r := &kgo.Record{Offset: offset, Value: []byte("v")}
		if k := c.rng.IntN(5); k > 0 {
			r.Key = fmt.Append(nil, k)
		}
		c.log = append(c.log, r)
		offset++
	}
	c.assign()
	return c
}

func (c *committee) String() string {
	c.lane.mu.Lock()
	defer c.lane.mu.Unlock()
	var joined []int64
	for _, it := range c.joined {
		joined = append(joined, it.Offset)
	}
	return fmt.Sprintf("order %d, size %d, limit %d, low %d, set %v, joined %v, fed %d, held %d, backlog %d, narrow %v, fresh %d, late %d, lowest %d, reach %d, bounds %d and %d",
		c.order, c.size, c.limit, c.low.Offset, c.decode(c.set, c.low.Offset), joined, c.fed,
		c.lane.held, len(c.lane.backlog), c.lane.narrow, c.lane.fresh.len, len(c.lane.late), c.lane.marks.Lowest(), c.lane.reach, c.lane.MaxRecords, c.lane.MaxSpan)
}

// assign begins a lane where the group is: what is in hand is forgotten.
func (c *committee) assign() {
	if c.lane != nil {
		c.lane.Cut(errors.New("taken away"))
		for _, it := range slices.Concat(c.returned, c.joined) {
			it.Drop()
		}
		synctest.Wait()
		requireClosed(c.t, c.lane.Exited(), "exited")
	}
	c.returned, c.joined, c.seen, c.narrow = nil, nil, 0, false
	bounds := []int{0, 0, 3, 20}[c.rng.IntN(4)]
	c.lane = New(context.Background(), Config{
		Work: c.work, Order: c.order, Pool: NewPool(c.rng.IntN(4)), Until: context.Background(), Size: c.size,
		Finished: func() {}, Room: func() {}, MaxRecords: bounds, MaxBytes: []int{0, 0, 6}[c.rng.IntN(3)], MaxSpan: []int64{0, 0, 30}[c.rng.IntN(3)],
	})
	runs := c.decode(c.set, c.low.Offset)
	c.lane.Begin(c.low, runs)
	c.fed = 0
	for c.fed < len(c.log) && c.log[c.fed].Offset < c.low.Offset {
		require.True(c.t, c.done[c.log[c.fed].Offset], "offset %d is passed by", c.log[c.fed].Offset)
		c.fed++
	}
}

func (c *committee) decode(set string, low int64) []Run {
	if set == "" {
		return nil
	}
	runs, err := Decode(set, proposeTopic, low)
	require.NoError(c.t, err)
	return runs
}

func (c *committee) work(_ context.Context, it *Item) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done[it.Offset] {
		c.t.Errorf("offset %d is handled once more", it.Offset)
	}
	it.Stage(int(it.Offset % 5))
	c.returned = append(c.returned, it)
}

func (c *committee) feed(n int) {
	n = min(n, len(c.log)-c.fed)
	c.lane.Feed(c.log[c.fed : c.fed+n])
	c.fed += n
	synctest.Wait()
}

// join takes in some of what was handled, in any order.
func (c *committee) join(all bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.order != InTurn { // in turn they join in turn
		c.rng.Shuffle(len(c.returned), func(i, j int) { c.returned[i], c.returned[j] = c.returned[j], c.returned[i] })
	}
	n := c.rng.IntN(len(c.returned) + 1)
	if all {
		n = len(c.returned)
	}
	c.joined = append(c.joined, c.returned[:n]...)
	c.returned = slices.Clone(c.returned[n:])
}

// again has some of what joined handled once more.
func (c *committee) again() {
	if len(c.joined) == 0 {
		return
	}
	i := c.rng.IntN(len(c.joined))
	redo := slices.Clone(c.joined[i:])
	c.joined = c.joined[:i]
	if c.rng.IntN(2) == 0 {
		redo[0].Again(errors.New("refused"))
		redo = redo[1:]
	}
	c.lane.Hold()
	for _, it := range redo {
		it.Redo()
	}
	synctest.Wait()
	c.lane.Release()
	synctest.Wait()
}

// commit commits what fits, unless the transaction fails or the process dies.
func (c *committee) commit(surely bool) {
	p := c.lane.Propose(proposeTopic, c.limit, c.joined, c.seen)
	if p.Low.Offset < 0 {
		require.Zero(c.t, p.Fits)
		c.setNarrow(len(c.joined) > 0)
		return
	}
	runs := c.decode(p.Set, p.Low.Offset)
	require.LessOrEqual(c.t, len(p.Set), c.limit)
	will := map[int64]bool{}
	for _, it := range c.joined[:p.Fits] {
		will[it.Offset] = true
	}
	for _, r := range c.log {
		covered := r.Offset < p.Low.Offset || slices.ContainsFunc(runs, func(run Run) bool { return run.Begin <= r.Offset && r.Offset < run.End })
		require.Equal(c.t, c.done[r.Offset] || will[r.Offset], covered, "offset %d of %d with %v and %v", r.Offset, p.Low.Offset, runs, will)
	}
	if !surely && c.rng.IntN(4) == 0 {
		return // aborted: what joined is in the next
	}
	for _, it := range c.joined[:p.Fits] {
		c.done[it.Offset] = true
	}
	c.low, c.set, c.seen = p.Low, p.Set, p.Changes
	if !surely && c.rng.IntN(20) == 0 {
		c.assign() // committed, and nobody knows
		return
	}
	finished := slices.Clone(c.joined[:p.Fits])
	c.joined = slices.Clone(c.joined[p.Fits:])
	backlog := c.lane.Backlog()
	for _, it := range finished {
		it.Done()
	}
	c.setNarrow(len(c.joined) > 0)
	synctest.Wait()
	if len(c.joined) == 0 && backlog == 0 {
		again := c.lane.Propose(proposeTopic, c.limit, nil, c.seen)
		require.Negative(c.t, again.Low.Offset, "nothing has changed")
	}
}

func (c *committee) setNarrow(narrow bool) {
	c.narrow = narrow
	c.lane.Narrow(narrow)
	synctest.Wait()
}

// Whatever is committed, a successor handles exactly what is not done, and in
// the end all is done, whatever the limit of the set.
func TestPropose_AgainstTheNaiveModel(t *testing.T) {
	t.Parallel()
	for seed := range uint64(400) {
		synctest.Test(t, func(t *testing.T) {
			defer func() {
				if t.Failed() {
					t.Logf("seed %d", seed)
				}
			}()
			c := newCommittee(t, seed)
			for range 80 {
				switch c.rng.IntN(9) {
				case 0, 1:
					c.feed(1 + c.rng.IntN(12))
				case 2, 3, 4:
					c.join(false)
				case 5:
					c.again()
				case 6, 7:
					c.commit(false)
				case 8:
					switch c.rng.IntN(8) {
					case 0, 1:
						c.assign()
					case 2: // brokers take less than was thought
						c.limit /= 2
					}
				}
			}
			for round := 0; len(c.done) < len(c.log); round++ {
				require.Less(t, round, 2000, "stuck with %d of %d done: %v", len(c.done), len(c.log), c)
				c.feed(5)
				c.join(true)
				c.commit(true)
			}
			c.lane.mu.Lock()
			require.Empty(t, c.lane.lines, "lines of keys are kept")
			require.Zero(t, c.lane.staged)
			c.lane.mu.Unlock()
			c.lane.Cut(errors.New("over"))
			synctest.Wait()
			requireClosed(t, c.lane.Exited(), "exited")
		})
	}
}

func requireClosed(t *testing.T, ch <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-ch:
	default:
		require.Fail(t, what+" is not closed")
	}
}
