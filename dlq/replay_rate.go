package dlq

import "time"

// pacer spreads calls evenly over time.
type pacer struct {
	every time.Duration // 0 means at once
	next  time.Time
}

// slack is by how much late calls may be made up for, so that timers that fire
// late do not lower the rate.
const slack = 10 * time.Millisecond

// wait returns how long the next call has to wait.
func (p *pacer) wait(now time.Time) time.Duration {
	if p.every == 0 {
		return 0
	}
	switch earliest := now.Add(-slack); {
	case p.next.IsZero():
		p.next = now
	case p.next.Before(earliest):
		p.next = earliest
	}
	at := p.next
	p.next = at.Add(p.every)
	return at.Sub(now)
}
