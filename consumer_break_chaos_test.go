package wherry_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
)

// Members come, go and are thrown out behind their backs, more of them than
// there are partitions, while records flow: each has its effect, the group's
// offset never goes back, and an assignment sees its partition in order.
func TestBreak_MembersComeGoAndAreThrownOut(t *testing.T) {
	t.Parallel()
	for name, balancer := range map[string]kgo.GroupOpt{
		"cooperative": kgo.Balancers(kgo.CooperativeStickyBalancer()), "eager": kgo.Balancers(kgo.RoundRobinBalancer()), "server": kgo.ServerSideBalancer(),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newFaulty(t, map[string]int32{"order.placed": 3, "payment.made": 2})
			c.SetGroupConfigs("g", map[string]string{"consumer.heartbeat.interval.ms": "50"})
			backwards := c.watchCommits(t, "g")
			var total atomic.Int64
			feed := make(chan struct{})
			var feeding sync.WaitGroup
			cl := c.client(t)
			feeding.Go(func() {
				for i := 0; ; i++ {
					select {
					case <-feed:
						return
					case <-time.After(time.Millisecond):
					}
					r, _ := orderPlaced.Record(ids(i%31), order{ID: ids(i), Total: i})
					if err := cl.ProduceSync(context.Background(), r).FirstErr(); err != nil {
						t.Error(err)
						return
					}
					total.Add(1)
				}
			})
			member := func(i int) *wherry.Consumer {
				return &wherry.Consumer{
					Client: c.client(t, kgo.ClientID(fmt.Sprint("m", i))), Group: "g", Drain: 200 * time.Millisecond, MaxHeld: 20,
					Opts: []kgo.Opt{balancer, kgo.HeartbeatInterval(50 * time.Millisecond)},
					Handlers: []wherry.Route{orderPlaced.Handler(func(ctx context.Context, o order) error {
						time.Sleep(time.Duration(rand.IntN(2000)) * time.Microsecond)
						return paymentMade.Publish(ctx, o.ID, payment{OrderID: o.ID})
					})},
				}
			}
			type running struct {
				end  <-chan error
				stop func()
				c    *wherry.Consumer
			}
			var members []running
			for i := range 24 {
				switch {
				case len(members) < 2 || len(members) < 5 && rand.IntN(2) == 0:
					m := running{c: member(i)}
					m.end, m.stop = background(t, m.c)
					members = append(members, m)
				case rand.IntN(2) == 0:
					m := members[0]
					members = members[1:]
					m.stop()
					require.NoError(t, receive(t, m.end, "the end"))
				default:
					if info := c.GroupInfo("g"); info != nil && len(info.Members) > 0 {
						c.forget("g", info.Members[rand.IntN(len(info.Members))].MemberID)
					}
				}
				for _, m := range members {
					m.c.Status()
					select {
					case err := <-m.end:
						require.FailNow(t, "a member stopped", err)
					default:
					}
				}
				time.Sleep(time.Duration(rand.IntN(200)) * time.Millisecond)
			}
			close(feed)
			feeding.Wait()
			n := total.Load()
			sum := func() (all int64) {
				for p := range int32(3) {
					all += max(0, c.committed("g", "order.placed", p))
				}
				return all
			}
			require.Eventually(t, func() bool { return sum() == n }, patience, 10*time.Millisecond, "not all is committed")
			for _, m := range members {
				m.stop()
				require.NoError(t, receive(t, m.end, "the end"))
			}
			got := c.outcomes(t)
			require.Len(t, got, int(n))
			require.Empty(t, backwards(), "the group's offset went back")
		})
	}
}

// hole is a network in which connections can go dead: they take what is
// written and answer nothing.
type hole struct {
	dead  atomic.Bool
	mu    sync.Mutex
	conns []net.Conn
}

func (h *hole) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.conns = append(h.conns, conn)
	return &holeConn{Conn: conn, h: h}, nil
}

type holeConn struct {
	net.Conn
	h *hole
}

func (c *holeConn) Write(b []byte) (int, error) {
	if c.h.dead.Load() {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

// A broker that accepts and never answers: a stop is still a stop, in bounded
// time, whatever the Consumer is about, and nothing that is not done counts.
func TestBreak_StopBeforeABrokerThatNeverAnswers(t *testing.T) {
	t.Parallel()
	for _, phase := range []string{"connecting", "joining", "idle", "publishing", "committing"} {
		t.Run(phase, func(t *testing.T) {
			t.Parallel()
			c := newFaulty(t, map[string]int32{"order.placed": 1, "payment.made": 1})
			c.fill(t, 1, 1)
			var h hole
			h.dead.Store(phase == "connecting")
			began, goOn := make(chan string, 1), make(chan struct{})
			consumer := &wherry.Consumer{Client: c.client(t, kgo.Dialer(h.dial)), Group: "g", Opts: []kgo.Opt{kgo.HeartbeatInterval(100 * time.Millisecond)}, Handlers: []wherry.Route{orderPlaced.Handler(func(ctx context.Context, o order) error {
				began <- o.ID
				select {
				case <-goOn:
				case <-ctx.Done(): // it has joined before the broker fell silent
					return ctx.Err()
				}
				if phase == "publishing" {
					return paymentMade.Publish(ctx, "", payment{OrderID: "out"})
				}
				return nil
			})}}
			end, stop := background(t, consumer)
			switch phase {
			case "connecting":
				time.Sleep(200 * time.Millisecond)
			case "joining":
				require.Eventually(t, func() bool { return c.GroupInfo("g") != nil }, patience, 100*time.Microsecond)
				h.dead.Store(true)
			case "idle":
				close(goOn)
				require.Eventually(t, func() bool { return c.committed("g", "order.placed", 0) == 1 }, patience, time.Millisecond)
				h.dead.Store(true)
				time.Sleep(200 * time.Millisecond)
			default:
				receive(t, began, "the record")
				h.dead.Store(true)
				close(goOn)
				time.Sleep(200 * time.Millisecond)
			}
			stopped := time.Now()
			stop()
			select {
			case err := <-end:
				require.NoError(t, err)
			case <-time.After(patience):
				require.FailNow(t, "Run does not return")
			}
			took := time.Since(stopped)
			t.Logf("%s: Run returned after %v", phase, took)
			require.Less(t, took, patience/2) // the bounds of end.go add up to 10 s; a busy machine adds its own
		})
	}
}

// A broker that is gone for longer than the session timeout, in the middle of
// the work, and back.
func TestBreak_TheBrokerIsGoneForLongerThanTheSession(t *testing.T) {
	t.Parallel()
	for name, balancer := range map[string]kgo.GroupOpt{
		"cooperative": kgo.Balancers(kgo.CooperativeStickyBalancer()), "eager": kgo.Balancers(kgo.RangeBalancer()),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newFaulty(t, map[string]int32{"order.placed": 2, "payment.made": 1})
			c.fill(t, 2, 200)
			backwards := c.watchCommits(t, "g")
			var gone atomic.Bool
			var mu sync.Mutex
			var conns []net.Conn
			dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
				if gone.Load() {
					return nil, &net.OpError{Op: "dial", Err: errors.New("refused")}
				}
				conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
				if err == nil {
					mu.Lock()
					conns = append(conns, conn)
					mu.Unlock()
				}
				return conn, err
			}
			opts := []kgo.Opt{balancer, kgo.HeartbeatInterval(50 * time.Millisecond), kgo.SessionTimeout(500 * time.Millisecond)}
			consumer := &wherry.Consumer{Client: c.client(t, kgo.Dialer(dial)), Group: "g", Opts: opts, Handlers: []wherry.Route{orderPlaced.Handler(func(ctx context.Context, o order) error {
				time.Sleep(2 * time.Millisecond)
				return paymentMade.Publish(ctx, o.ID, payment{OrderID: o.ID})
			})}}
			end, stop := background(t, consumer)
			for range 3 {
				before := c.committed("g", "order.placed", 0)
				require.Eventually(t, func() bool { return c.committed("g", "order.placed", 0) > before+10 }, patience, time.Millisecond)
				gone.Store(true)
				mu.Lock()
				for _, conn := range conns {
					_ = conn.Close()
				}
				mu.Unlock()
				time.Sleep(1200 * time.Millisecond)
				gone.Store(false)
			}
			require.Eventually(t, func() bool {
				return c.committed("g", "order.placed", 0) == 200 && c.committed("g", "order.placed", 1) == 200
			}, 20*time.Second, 5*time.Millisecond)
			stop()
			require.NoError(t, receive(t, end, "the end"))
			require.Len(t, c.outcomes(t), 400)
			require.Empty(t, backwards())
		})
	}
}
