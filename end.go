package wherry

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Bounds of what the end of a run waits for when brokers or the group do not
// answer. What a commit misses is done again by the next owner.
const (
	lastCommit = 3 * time.Second
	lastLeave  = 2 * time.Second
	lastClose  = time.Second
)

// shutdown drains what is in hand, commits, leaves the group and ends the
// lanes. It returns an error that names what still runs.
//
// The partitions stay the run's while they drain, so that a rebalance in
// between waits for those it takes.
func (r *run) shutdown(endCommits func()) error {
	drain := r.c.drain()
	r.mu.Lock()
	r.ending = true
	r.mu.Unlock()
	r.settle(r.owned(), drain)
	endCommits()

	ctx, cancel := context.WithTimeout(r.base, lastCommit)
	defer cancel()
	var left []*partition
	r.commit(ctx, r.owned, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		left = r.takeLocked(func(*partition) bool { return true })
		for _, p := range left {
			p.lane.Cut(errShutdown)
			if at := p.lane.State().Low; p.placed && at.Offset != p.committed {
				r.log.Warn("consumer: finished records are not committed and come again", "partition", p.String(), "committed", p.committed, "finished", at.Offset)
			}
		}
	})
	r.leave()
	if r.exact != nil {
		defer r.exact.close()
	}

	r.mu.Lock()
	left = append(left, r.cut...)
	r.mu.Unlock()
	grace := time.NewTimer(drain)
	defer grace.Stop()
	var stuck []string
	for _, p := range left {
		select {
		case <-p.lane.Exited():
			continue
		default:
		}
		select {
		case <-p.lane.Exited():
		case <-grace.C:
			grace.Reset(0)
			stuck = append(stuck, fmt.Sprintf("%v@%d", p, p.lane.State().Oldest))
		}
	}
	if len(stuck) > 0 {
		return fmt.Errorf("handlers that ignore the end of their context still run after %v, with record %s", 2*drain, strings.Join(stuck, ", "))
	}
	return nil
}

// leave leaves the group and closes the client.
func (r *run) leave() {
	ctx, cancel := context.WithTimeout(r.base, lastLeave)
	defer cancel()
	if err := r.cl.LeaveGroupContext(ctx); err != nil || ctx.Err() != nil {
		r.kill() // or it joins again when it hears that its member has left
		r.leaveAnyhow()
	}
	// kgo waits without a limit for what it has asked the group.
	limit := time.AfterFunc(lastClose, r.kill)
	r.cl.CloseAllowingRebalance()
	// Closing polls, and what it finds would hold up for ever what leaves the
	// group on a goroutine of kgo's.
	r.cl.AllowRebalance()
	limit.Stop()
	r.kill()
}

// leaveAnyhow says that this member has gone. kgo cannot while it waits to
// join, and the group would wait for the session of this member to end.
func (r *run) leaveAnyhow() {
	member, _ := r.cl.GroupMetadata()
	instance, _ := r.cl.OptValue(kgo.InstanceID).(string)
	newGroup, _ := r.cl.OptValue(kgo.ServerSideBalancer).(bool)
	if member == "" || instance != "" || newGroup {
		return
	}
	ctx, cancel := context.WithTimeout(r.base, lastLeave)
	defer cancel()
	req := kmsg.NewPtrLeaveGroupRequest()
	req.Group, req.MemberID = r.c.Group, member
	m := kmsg.NewLeaveGroupRequestMember()
	m.MemberID = member
	req.Members = append(req.Members, m)
	if _, err := req.RequestWith(ctx, r.c.Client); err != nil {
		r.log.Warn("consumer: the group was not left, it goes on when this member's session ends", "error", err)
	}
}

// settle lets what the lanes have in hand end, for as long as drain.
func (r *run) settle(all []*partition, drain time.Duration) {
	timer := time.NewTimer(drain)
	defer timer.Stop()
	var idle []<-chan struct{}
	for _, p := range all {
		idle = append(idle, p.lane.Drain())
	}
	for _, ch := range idle {
		select {
		case <-ch:
		case <-timer.C:
			return
		}
	}
}
