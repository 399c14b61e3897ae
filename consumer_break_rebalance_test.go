package wherry_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
)

// Guarantee "rebalance", during a drain: what a Consumer that stops still has
// in hand is not begun by another member before it has ended and is committed.
func TestBreak_RebalanceDuringDrainWaitsForWhatIsInHand(t *testing.T) {
	t.Parallel()
	for name, balancer := range map[string]kgo.GroupOpt{
		"cooperative": kgo.Balancers(kgo.CooperativeStickyBalancer()), "eager": kgo.Balancers(kgo.RangeBalancer()), "server": kgo.ServerSideBalancer(),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newFaulty(t, map[string]int32{"order.placed": 2})
			c.SetGroupConfigs("g", map[string]string{"consumer.heartbeat.interval.ms": "50"})
			c.fill(t, 2, 5)
			backwards := c.watchCommits(t, "g")
			opts := []kgo.Opt{balancer, kgo.HeartbeatInterval(50 * time.Millisecond)}

			began, goOn := make(chan string, 10), make(chan struct{})
			end, stop := background(t, &wherry.Consumer{
				Client: c.client(t), Group: "g", Opts: opts, Drain: patience,
				Handlers: []wherry.Route{orderPlaced.Handler(func(_ context.Context, o order) error { began <- o.ID; <-goOn; return nil })},
			})
			receive(t, began, "the first partition")
			receive(t, began, "the second partition")
			stop()

			seen := newRecorder()
			background(t, &wherry.Consumer{Client: c.client(t), Group: "g", Opts: opts, Handlers: []wherry.Route{orderPlaced.Handler(seen.handle)}})
			time.Sleep(2 * time.Second)
			early := seen.all()
			close(goOn)
			require.NoError(t, receive(t, end, "the end"))
			require.Eventually(t, func() bool {
				return len(backwards()) > 0 || c.committed("g", "order.placed", 0) == 5 && c.committed("g", "order.placed", 1) == 5
			}, patience, 10*time.Millisecond)
			require.Empty(t, backwards(), "the group's offset went back")
			require.Empty(t, early, "another member began what was still in hand")
		})
	}
}

// A member that was thrown out of its group without knowing it (a pause longer
// than the session timeout) must not commit over its successor.
func TestBreak_AMemberThatWasThrownOutDoesNotCommitOverItsSuccessor(t *testing.T) {
	t.Parallel()
	for name, balancer := range map[string]kgo.GroupBalancer{
		"cooperative": kgo.CooperativeStickyBalancer(), "eager": kgo.RangeBalancer(),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newFaulty(t, map[string]int32{"order.placed": 2, "payment.made": 1})
			c.fill(t, 2, 5)
			backwards := c.watchCommits(t, "g")

			began, goOn := make(chan string, 10), make(chan struct{})
			background(t, &wherry.Consumer{
				Client: c.client(t, kgo.ClientID("zombie")), Group: "g", Opts: []kgo.Opt{kgo.Balancers(balancer), kgo.HeartbeatInterval(20 * time.Second)},
				Drain: 50 * time.Millisecond,
				Handlers: []wherry.Route{orderPlaced.Handler(func(ctx context.Context, o order) error {
					began <- o.ID
					if strings.HasSuffix(o.ID, "-0") {
						<-goOn
					} else {
						<-ctx.Done()
					}
					return nil
				})},
			})
			receive(t, began, "the first partition")
			receive(t, began, "the second partition")
			throwOut(t, c, "g")

			seen := newRecorder()
			background(t, &wherry.Consumer{
				Client: c.client(t), Group: "g", Opts: []kgo.Opt{kgo.Balancers(balancer), kgo.HeartbeatInterval(50 * time.Millisecond)},
				Handlers: []wherry.Route{orderPlaced.Handler(seen.handle)},
			})
			for range 10 {
				receive(t, seen.ch, "the successor")
			}
			require.Eventually(t, func() bool {
				return c.committed("g", "order.placed", 0) == 5 && c.committed("g", "order.placed", 1) == 5
			}, patience, 10*time.Millisecond)

			close(goOn)
			// Both are members in the end, and nothing is left to be done.
			require.Eventually(t, func() bool {
				info := c.GroupInfo("g")
				return info.State == "Stable" && len(info.Members) == 2 && info.Members[0].NumAssigned() == 1 && info.Members[1].NumAssigned() == 1
			}, patience, 10*time.Millisecond)
			time.Sleep(300 * time.Millisecond)
			require.Empty(t, backwards(), "the group's offset went back")
		})
	}
}

// The same member finds itself alone in the group again: it goes on where its
// successor, which has left, ended.
func TestBreak_AMemberThatWasThrownOutGoesOnWhereItsSuccessorEnded(t *testing.T) {
	t.Parallel()
	for name, balancer := range map[string]kgo.GroupBalancer{
		"cooperative": kgo.CooperativeStickyBalancer(), "eager": kgo.RangeBalancer(),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newFaulty(t, map[string]int32{"order.placed": 1})
			c.fill(t, 1, 5)
			backwards := c.watchCommits(t, "g")
			began, goOn := make(chan string, 10), make(chan struct{}, 10)
			zombie := &wherry.Consumer{
				Client: c.client(t), Group: "g", Opts: []kgo.Opt{kgo.Balancers(balancer), kgo.HeartbeatInterval(20 * time.Second)},
				Handlers: []wherry.Route{orderPlaced.Handler(func(_ context.Context, o order) error { began <- o.ID; <-goOn; return nil })},
			}
			background(t, zombie)
			receive(t, began, "the first record")
			throwOut(t, c, "g")
			seen := newRecorder()
			end, stop := background(t, &wherry.Consumer{Client: c.client(t), Group: "g", Opts: []kgo.Opt{kgo.Balancers(balancer)}, Handlers: []wherry.Route{orderPlaced.Handler(seen.handle)}})
			for range 5 {
				receive(t, seen.ch, "the successor")
			}
			stop()
			require.NoError(t, receive(t, end, "the end of the successor"))
			require.EqualValues(t, 5, c.committed("g", "order.placed", 0))

			goOn <- struct{}{} // its commit tells it what happened
			require.Eventually(t, func() bool { info := c.GroupInfo("g"); return len(info.Members) == 1 && info.State == "Stable" }, patience, time.Millisecond)
			goOn <- struct{}{}
			time.Sleep(500 * time.Millisecond)
			close(goOn)
			time.Sleep(500 * time.Millisecond)
			require.Empty(t, backwards(), "the group's offset went back")
			c.fill(t, 1, 1)
			require.Eventually(t, func() bool { return c.committed("g", "order.placed", 0) == 6 }, patience, time.Millisecond)
		})
	}
}

// What a member finished while it was out of its group, unknowingly, is
// committed when it is back, also when no other record comes.
func TestBreak_WhatWasFinishedWhileThrownOutIsCommitted(t *testing.T) {
	t.Parallel()
	for name, balancer := range map[string]kgo.GroupBalancer{
		"cooperative": kgo.CooperativeStickyBalancer(), "eager": kgo.RangeBalancer(),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newFaulty(t, map[string]int32{"order.placed": 1})
			consumer := &wherry.Consumer{
				Client: c.client(t), Group: "g", Opts: []kgo.Opt{kgo.Balancers(balancer), kgo.HeartbeatInterval(20 * time.Second)},
				Handlers: []wherry.Route{orderPlaced.Handler(newRecorder().handle)},
			}
			background(t, consumer)
			receive(t, consumer.Ready(), "ready")
			throwOut(t, c, "g")
			c.fill(t, 1, 1)
			require.Eventually(t, func() bool { return c.committed("g", "order.placed", 0) == 1 }, patience, time.Millisecond, "handled, and never committed")
		})
	}
}

// throwOut removes all members of the group, behind their backs.
func throwOut(t *testing.T, c faulty, group string) {
	t.Helper()
	for _, m := range c.GroupInfo(group).Members {
		c.forget(group, m.MemberID)
	}
	require.Empty(t, c.GroupInfo(group).Members)
}
