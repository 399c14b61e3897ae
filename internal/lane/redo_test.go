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

// What is to be run again does not keep a lane from its end: it comes again with
// the partition's next owner, or, where its outputs were refused, is run in time.
func TestRedo_DrainAndCut(t *testing.T) {
	t.Parallel()
	for _, order := range []Order{InTurn, ByKey, Any} {
		for _, held := range []bool{false, true} {
			for _, refused := range []bool{false, true} {
				for _, first := range []string{"redo", "drain", "cut"} {
					t.Run(fmt.Sprint(order, " ", held, " ", refused, " ", first), func(t *testing.T) {
						t.Parallel()
						synctest.Test(t, func(t *testing.T) {
							var mu sync.Mutex
							var returned []*Item
							l := New(context.Background(), Config{
								Order: order, Pool: NewPool(2), Until: context.Background(), Finished: func() {}, Room: func() {},
								Work: func(_ context.Context, it *Item) {
									mu.Lock()
									defer mu.Unlock()
									returned = append(returned, it)
								},
							})
							l.Begin(Mark{Offset: 0, Epoch: -1}, nil)
							l.Feed([]*kgo.Record{{Offset: 0, Key: []byte("a")}, {Offset: 1, Key: []byte("a")}, {Offset: 2, Key: []byte("b")}, {Offset: 3}})
							synctest.Wait()
							require.Len(t, returned, 4)
							all := slices.Clone(returned)
							returned = nil
							redo := func() {
								for i, it := range all {
									if refused && i == 0 {
										it.Again(errors.New("refused"))
									} else {
										it.Redo()
									}
								}
								synctest.Wait()
							}
							if held {
								l.Hold()
							}
							switch first {
							case "redo":
								redo()
								l.Drain()
							case "drain":
								l.Drain()
								redo()
							case "cut":
								l.Cut(errors.New("cut"))
								redo()
							}
							synctest.Wait()
							if held {
								require.Empty(t, returned)
								l.Release()
								synctest.Wait()
							}
							mu.Lock()
							for _, it := range returned {
								if first != "cut" && it.Refused != nil {
									it.Finish() // it got its letter
								} else {
									it.Drop()
								}
							}
							again := len(returned)
							mu.Unlock()
							switch {
							case first == "cut" || first == "drain" && !refused:
								require.Zero(t, again)
							case first == "drain":
								require.Equal(t, 1, again)
							}
							synctest.Wait()
							requireClosed(t, l.Drain(), "idle")
							requireClosed(t, l.Exited(), "exited")
							l.Cut(errors.New("over"))
						})
					})
				}
			}
		}
	}
}

// Where offsets go back, what had finished of the log that was lost is not told
// of the log that is there now, and all is done in the end.
func TestPropose_OffsetsThatGoBack(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 2))
			var mu sync.Mutex
			var returned []*Item
			l := New(context.Background(), Config{
				Order: Any, Pool: NewPool(0), Until: context.Background(), Finished: func() {}, Room: func() {},
				Work: func(_ context.Context, it *Item) {
					mu.Lock()
					defer mu.Unlock()
					returned = append(returned, it)
				},
			})
			l.Begin(Mark{Offset: 0, Epoch: -1}, []Run{{3, 6}, {50, 60}})
			feed := func(from, to int64, epoch int32) {
				for at := from; at < to; at++ {
					l.Feed([]*kgo.Record{{Offset: at, LeaderEpoch: epoch, Value: []byte{byte(epoch)}}})
				}
				synctest.Wait()
			}
			feed(0, 30, 1)
			back := int64(rng.IntN(30))
			l.Forget()
			feed(back, 40, 2)
			var joined []*Item
			done := map[int64]bool{} // of the second log
			for len(returned) > 0 || len(joined) > 0 {
				rng.Shuffle(len(returned), func(i, j int) { returned[i], returned[j] = returned[j], returned[i] })
				n := min(len(returned), 1+rng.IntN(5))
				joined, returned = append(joined, returned[:n]...), returned[n:]
				p := l.Propose(proposeTopic, MaxText, joined, 0)
				for _, it := range joined[:p.Fits] {
					if it.Record.LeaderEpoch == 2 {
						done[it.Offset] = true
					}
				}
				if p.Low.Offset >= 0 && p.Set != "" {
					runs, err := Decode(p.Set, proposeTopic, p.Low.Offset)
					require.NoError(t, err)
					if p.Low.Epoch == 2 || p.Low.Offset > back {
						for _, run := range runs {
							for at := run.Begin; at < run.End; at++ {
								require.True(t, done[at] || at < back && p.Low.Epoch == 1, "seed %d: %d is told to have finished beyond %v", seed, at, p.Low)
							}
						}
					}
				}
				for _, it := range joined[:p.Fits] {
					it.Done()
				}
				joined = slices.Clone(joined[p.Fits:])
				require.False(t, len(returned) == 0 && p.Fits == 0 && len(joined) > 0, "seed %d: stuck", seed)
			}
			require.EqualValues(t, 40, l.State().Low.Offset)
			l.Cut(errors.New("over"))
		})
	}
}
