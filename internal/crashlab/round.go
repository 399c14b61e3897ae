//go:build unix

package crashlab

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Brokers are those of a Round, which it kills and starts again. Nodes are
// numbered from 1.
type Brokers interface {
	Brokers() []string
	Kill(node int) error
	Restart(ctx context.Context, node int) error
}

// Round is one run of the workload in real processes on real brokers, with what
// goes wrong drawn from its seed.
type Round struct {
	Lab
	Inputs int
	Rate   int // inputs in a second
	Nodes  int // brokers; with fewer than 3 none is killed
	Kafka  Brokers
	Plan   int              // the number of its first death among all of them, see death
	Tell   func(say string) // what happens

	rand   *rand.Rand
	result Result
	later  []delayed
	broker sync.WaitGroup // the restart of one
	down   chan struct{}  // has room when no broker is down
	failed chan error
}

// delayed is what is to be done at a time.
type delayed struct {
	at time.Time
	do func()
}

// Result is what came of a Round.
type Result struct {
	Seed     uint64         `json:"seed"`
	Variant  Variant        `json:"variant"`
	Inputs   int            `json:"inputs"`
	Seconds  float64        `json:"seconds"`
	Deaths   map[string]int `json:"deaths"` // processes that ended themselves, by where
	Kills    int            `json:"kills"`
	Freezes  int            `json:"freezes"`
	Cuts     int            `json:"cuts"`
	Mutes    int            `json:"mutes"`
	Stops    int            `json:"stops"`
	Starts   int            `json:"starts"`
	Brokers  int            `json:"brokers"` // that were killed
	Samples  int            `json:"samples"`
	Ends     map[string]int `json:"ends,omitempty"` // of sagas, by how they ended
	Plan     int            `json:"plan"`           // the number of the next death
	Findings []string       `json:"findings"`
	Error    string         `json:"error,omitempty"` // of the laboratory itself
}

// numbers are those of the requests at which processes die.
var numbers = []int{1, 2, 3, 5, 8, 13, 21, 34}

// death returns the i-th of all deaths, which come in turn: each kind of request,
// before and after, for each number.
func death(i int) Death {
	kinds := Deadly()
	i %= 2 * len(kinds) * len(numbers)
	return Death{Key: kinds[i%len(kinds)], After: i/len(kinds)%2 == 1, N: numbers[i/(2*len(kinds))]}
}

// Play runs the round. It is over after about Inputs/Rate seconds and what the
// group then needs to come to the end, for which it has 3 minutes.
func (r *Round) Play(ctx context.Context) Result {
	began := time.Now()
	r.rand = rand.New(rand.NewPCG(r.Seed, 1))
	r.down, r.failed = make(chan struct{}, 1), make(chan error, 1)
	r.result = Result{Seed: r.Seed, Variant: r.Variant, Deaths: map[string]int{}}
	err := r.play(ctx)
	r.result.Seconds = time.Since(began).Seconds()
	r.result.Inputs = r.Fed()
	for _, p := range r.Processes {
		if p.Died() {
			r.result.Deaths[deadly(p.Death.Key, p.Death.After)]++
		}
	}
	r.result.Starts, r.result.Plan = len(r.Processes), r.Plan
	if err != nil {
		r.result.Error = err.Error()
	}
	return r.result
}

func (r *Round) play(ctx context.Context) error {
	open, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := r.Open(open); err != nil {
		return err
	}
	defer r.Close()
	defer r.broker.Wait()
	fed := make(chan error, 1)
	sampling, stop := context.WithCancel(ctx)
	defer stop()
	var sampler sync.WaitGroup
	defer sampler.Wait()
	defer stop()
	sampler.Go(func() {
		for sampling.Err() == nil {
			r.Sample(sampling)
			select {
			case <-time.After(2 * time.Second):
			case <-sampling.Done():
			}
		}
	})
	for range 2 * len(r.Subjects) {
		if _, err := r.Start(Death{}); err != nil {
			return err
		}
	}
	go func() { fed <- r.Feed(ctx, 0, r.Inputs, r.Rate) }()
	for feeding := true; feeding; {
		select {
		case err := <-fed:
			if err != nil {
				return fmt.Errorf("feeding: %w", err)
			}
			feeding = false
		case err := <-r.failed:
			return err
		case <-time.After(r.between(500*time.Millisecond, 4*time.Second)):
			r.due(false)
			if err := r.disturb(ctx); err != nil {
				return err
			}
		}
	}
	return r.end(ctx, stop, &sampler)
}

// end lets the group come to its end, and judges.
func (r *Round) end(ctx context.Context, stop func(), sampler *sync.WaitGroup) error {
	r.due(true)
	r.broker.Wait()
	select {
	case err := <-r.failed:
		return err
	default:
	}
	for _, subject := range r.Subjects { // which outlives those that are still to die
		if _, err := r.StartOf(subject, Death{}); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	settled := r.Settle(ctx)
	stop()
	sampler.Wait()
	if settled != nil {
		if ctx.Err() == nil || !errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
			return settled
		}
		r.result.Findings = append(r.result.Findings, "stuck: after 3 minutes without a fault "+settled.Error())
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
	}
	findings, err := r.Judge(ctx)
	for _, f := range findings {
		r.result.Findings = append(r.result.Findings, f.String())
	}
	switch w := r.work.(type) {
	case *counters:
		r.result.Samples = len(w.samples)
	case *sagaWork:
		r.result.Ends = w.ends()
	}
	if err != nil {
		return err
	}
	return r.Delete(ctx)
}

// due does what is due, or all that is left.
func (r *Round) due(all bool) {
	r.later = slices.DeleteFunc(r.later, func(d delayed) bool {
		if !all && time.Now().Before(d.at) {
			return false
		}
		d.do()
		return true
	})
}

func (r *Round) between(from, to time.Duration) time.Duration {
	return from + time.Duration(r.rand.Int64N(int64(to-from)))
}

// disturb makes one thing go wrong.
func (r *Round) disturb(ctx context.Context) error {
	alive := r.Alive()
	if _, n := r.fewest(); n < 2 || n < 3 && r.rand.IntN(2) == 0 {
		return r.replace()
	}
	p := alive[r.rand.IntN(len(alive))]
	if p.Death.N > 0 && r.rand.IntN(4) > 0 {
		return nil // something is to happen to it already
	}
	switch what := r.rand.IntN(100); {
	case what < 30:
		r.result.Kills++
		r.Tell("kill " + p.Name)
		p.Kill()
	case what < 55:
		d := r.between(11*time.Second, 16*time.Second)
		r.result.Freezes++
		r.Tell(fmt.Sprintf("freeze %s for %v", p.Name, d.Round(time.Millisecond)))
		p.Freeze()
		r.later = append(r.later, delayed{time.Now().Add(d), p.Thaw})
	case what < 70:
		r.result.Stops++
		r.Tell("stop " + p.Name)
		p.Stop()
	case r.Nodes >= 3:
		r.crashBroker(ctx)
	}
	return nil
}

// replace starts a process that dies, or loses the network, or neither.
func (r *Round) replace() error {
	var d Death
	switch what := r.rand.IntN(10); {
	case what < 7:
		d = death(r.Plan)
		r.Plan++
	case what < 8:
		r.result.Mutes++
		d = Death{Key: kmsg.Heartbeat, N: 1 + r.rand.IntN(10), Mute: r.between(12*time.Second, 20*time.Second)}
	case what < 9:
		r.result.Cuts++
		d = Death{Key: Deadly()[r.rand.IntN(3)], N: 1 + r.rand.IntN(40), After: r.rand.IntN(2) == 0, Cut: r.between(2*time.Second, 20*time.Second)}
	}
	p, err := r.Start(d)
	if err == nil {
		say := "start " + p.Name
		if d.N > 0 {
			say += ", which " + d.String()
		}
		r.Tell(say)
	}
	return err
}

// crashBroker kills a broker, if all are up, and starts it again after a while.
func (r *Round) crashBroker(ctx context.Context) {
	select {
	case r.down <- struct{}{}:
	default:
		return // one is down
	}
	node, d := 1+r.rand.IntN(r.Nodes), r.between(time.Second, 8*time.Second)
	r.result.Brokers++
	r.Tell(fmt.Sprintf("kill broker %d for %v", node, d.Round(time.Millisecond)))
	r.broker.Go(func() {
		defer func() { <-r.down }()
		err := r.Kafka.Kill(node)
		if err == nil {
			select {
			case <-time.After(d):
			case <-ctx.Done():
			}
			again, cancel := context.WithTimeout(ctx, 2*time.Minute)
			defer cancel()
			err = r.Kafka.Restart(again, node)
		}
		if err != nil {
			select {
			case r.failed <- fmt.Errorf("broker %d: %w", node, err):
			default:
			}
		}
	})
}

// Total is what rounds came to together.
func Total(rounds []Result) (all Result) {
	all.Deaths, all.Ends = map[string]int{}, map[string]int{}
	for _, r := range rounds {
		if r.Variant != Sagas {
			all.Inputs += r.Inputs
		}
		for end, n := range r.Ends {
			all.Ends[end] += n
		}
		all.Seconds += r.Seconds
		for _, where := range slices.Sorted(maps.Keys(r.Deaths)) {
			all.Deaths[where] += r.Deaths[where]
		}
		all.Kills += r.Kills
		all.Freezes += r.Freezes
		all.Cuts += r.Cuts
		all.Mutes += r.Mutes
		all.Stops += r.Stops
		all.Starts += r.Starts
		all.Brokers += r.Brokers
		all.Samples += r.Samples
		all.Findings = append(all.Findings, r.Findings...)
	}
	return all
}

// deadly tells the name of a kind of request as reports have it.
func deadly(key kmsg.Key, after bool) string {
	if after {
		return "after " + key.Name()
	}
	return "before " + key.Name()
}
