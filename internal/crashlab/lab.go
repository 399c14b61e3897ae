//go:build unix

package crashlab

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Lab is one run of the workload in real processes, on brokers that are there.
// Its methods may not be called at the same time, but for those of Process.
type Lab struct {
	Brokers  []string
	Program  string   // calls RunChild; usually os.Executable
	Subjects []string // each has processes of its own
	Dir      string   // for the processes' logs
	Run      string   // names topics and group
	Seed     uint64
	Variant  Variant
	Session  time.Duration
	Plant    string

	Processes []*Process // all that were started

	client *kgo.Client
	work   Workload
	fed    atomic.Int64
}

// Open makes the topics of the run.
func (l *Lab) Open(ctx context.Context) error {
	cl, err := kgo.NewClient(
		kgo.SeedBrokers(l.Brokers...), kgo.ClientID("crashlab"), kgo.DisableClientMetrics(),
		kgo.ProducerLinger(0), kgo.MetadataMinAge(50*time.Millisecond),
	)
	if err != nil {
		return err
	}
	l.client, l.work = cl, NewWorkload(l.Variant, cl, l.Run, l.Seed)
	return l.work.Open(ctx)
}

// Close ends all processes that are left and closes the client.
func (l *Lab) Close() {
	for _, p := range l.Processes {
		if !p.Gone() {
			p.Kill()
		}
	}
	l.work.Close()
	l.client.Close()
}

// Delete deletes the topics of the run.
func (l *Lab) Delete(ctx context.Context) error {
	_, err := kadm.NewClient(l.client).DeleteTopics(ctx, l.work.Topics()...)
	return err
}

// Start starts a process, of the subject that has fewest.
func (l *Lab) Start(d Death) (*Process, error) {
	subject, _ := l.fewest()
	return l.StartOf(subject, d)
}

// StartOf starts a process of a subject.
func (l *Lab) StartOf(subject string, d Death) (*Process, error) {
	p, err := StartProcess(l.Program, l.Dir, Child{
		Subject: subject, Brokers: l.Brokers, Run: l.Run, Name: fmt.Sprintf("p%d", len(l.Processes)+1),
		Variant: l.Variant, Seed: l.Seed, Session: l.Session, Death: d, Plant: l.Plant,
	})
	if err == nil {
		l.Processes = append(l.Processes, p)
	}
	return p, err
}

// fewest returns the subject of which fewest processes are alive, and how many.
func (l *Lab) fewest() (subject string, n int) {
	alive := map[string]int{}
	for _, p := range l.Alive() {
		alive[p.Subject]++
	}
	subject = l.Subjects[0]
	for _, other := range l.Subjects[1:] {
		if alive[other] < alive[subject] {
			subject = other
		}
	}
	return subject, alive[subject]
}

// Alive returns the processes that have not ended and are not frozen.
func (l *Lab) Alive() (alive []*Process) {
	for _, p := range l.Processes {
		if !p.Gone() && !p.Frozen() {
			alive = append(alive, p)
		}
	}
	return alive
}

// Fed is how many inputs are acknowledged.
func (l *Lab) Fed() int { return int(l.fed.Load()) }

// Feed sends inputs n…n+count-1, at most rate in a second, and returns when all
// are acknowledged.
func (l *Lab) Feed(ctx context.Context, n, count, rate int) error {
	var (
		all   sync.WaitGroup
		mu    sync.Mutex
		fault error
	)
	tick := time.NewTicker(time.Second / time.Duration(rate))
	defer tick.Stop()
	for i := range count {
		all.Add(1)
		l.work.Send(ctx, n+i, func(err error) {
			defer all.Done()
			if err != nil {
				mu.Lock()
				defer mu.Unlock()
				fault = errors.Join(fault, err)
				return
			}
			l.fed.Add(1)
		})
		select {
		case <-tick.C:
		case <-ctx.Done():
			all.Wait()
			return context.Cause(ctx)
		}
	}
	all.Wait()
	return fault
}

// Sample looks at the run now. It takes no notice of brokers that do not answer.
func (l *Lab) Sample(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	l.work.Sample(ctx)
}

// Settle waits until all inputs are handled. It returns what is
// missing when ctx ends.
func (l *Lab) Settle(ctx context.Context) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		ask, cancel := context.WithTimeout(ctx, 10*time.Second)
		behind, err := l.work.Behind(ask)
		cancel()
		if err == nil && behind == "" {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("it is behind: %s", behind), err)
		}
	}
}

// Judge asks all processes to end, and says what is wrong with what they left
// behind. The error is the laboratory's own.
func (l *Lab) Judge(ctx context.Context) ([]Finding, error) {
	var findings []Finding
	for _, p := range l.Processes {
		if p.Frozen() {
			p.Thaw()
		}
	}
	for _, p := range l.Processes {
		if err := p.Err(); err != nil {
			findings = append(findings, Finding{"ended", err.Error()})
		}
		p.Stop()
	}
	for _, p := range l.Processes {
		select {
		case <-p.Exited():
		case <-time.After(45 * time.Second):
			findings = append(findings, Finding{"ended", fmt.Sprintf("process %s did not end within 45 s of SIGTERM", p.Name)})
			p.Kill()
		}
	}
	l.Sample(ctx)
	found, err := l.work.Judge(ctx)
	if err == nil && l.work.Sent() != l.Fed() {
		err = fmt.Errorf("%d inputs are acknowledged, and there are %d", l.Fed(), l.work.Sent())
	}
	return append(findings, found...), err
}
