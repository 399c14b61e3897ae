package saga

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/internal/client"
)

// Run runs sagas until ctx is done, and then returns nil; nothing of it is left
// running. It can be called once.
//
// At first it checks the configuration, and returns all its faults at once. It
// waits, logging, for a broker to answer, and makes and checks the topics (see
// [TopicSpecs]).
//
// When ctx is done, no further input begins, and those in hand get 1 s; then
// their sagas are as they were before them, and go on where an Engine runs. A
// Local step should end when its context does.
func (e *Engine[S]) Run(ctx context.Context) error {
	s, err := e.shell()
	if err != nil {
		return fmt.Errorf("saga engine: %w", err)
	}
	if e.run.started.Swap(true) {
		return errors.New("this Engine has run already: make another one")
	}
	if err := s.serve(ctx, func() { close(e.run.ready) }); err != nil && ctx.Err() == nil {
		return fmt.Errorf("saga engine %q: %w", s.name, err)
	}
	return nil
}

// serve runs all that an Engine consists of.
func (s *shell) serve(ctx context.Context, ready func()) error {
	probe, err := client.Probe(ctx, s.client, s.log)
	if err != nil {
		return err
	}
	defer probe.Close()
	for _, text := range s.warnings {
		s.log.WarnContext(ctx, "saga: a definition may surprise", "what", text)
	}
	var n int32
	err = patiently(ctx, s.log, func() (err error) {
		n, err = ensureTopics(ctx, probe, s.name, s.spec, s.log)
		return err
	})
	if err != nil {
		return err
	}
	s.places.known.Store(n)
	cl, back, err := s.lender.borrow()
	if err != nil {
		return err
	}
	defer s.lender.close()
	defer back()
	unregister, err := s.in.observe(s)
	if err != nil {
		return err
	}
	defer unregister()
	s.publishOutlines(ctx)
	_, release, err := s.inspector.hold(ctx)
	if err != nil {
		return err
	}
	defer release()
	s.clock.send = s.sender(ctx, cl)
	s.root = context.WithoutCancel(ctx)

	inbox := s.inboxConsumer()
	s.consumer.Store(inbox)
	defer s.consumer.Store(nil)
	all := append([]*wherry.Consumer{inbox}, s.routers()...)

	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var parts sync.WaitGroup
	var mu sync.Mutex
	var faults error
	for _, c := range all {
		parts.Go(func() {
			if err := c.Run(ctx); err != nil {
				mu.Lock()
				faults = errors.Join(faults, err)
				mu.Unlock()
				stop(err)
			}
		})
	}
	parts.Go(func() { s.clock.run(ctx) })
	parts.Go(func() { s.clock.asker.run(ctx, kadm.NewClient(probe), s.inbox) })
	parts.Go(func() { s.sweeps(ctx) })
	parts.Go(func() { s.housekeep(ctx, kadm.NewClient(probe), inbox) })
	for _, c := range all {
		select {
		case <-c.Ready():
			continue
		case <-ctx.Done():
		}
		break
	}
	if ctx.Err() == nil {
		s.log.InfoContext(ctx, "saga: engine is ready", "partitions", n)
		ready()
	}
	<-ctx.Done()
	parts.Wait()
	return faults
}

// inboxConsumer is what handles the inbox.
func (s *shell) inboxConsumer() *wherry.Consumer {
	return &wherry.Consumer{
		Client: s.client, Group: groupOf(s.name),
		Handlers: []wherry.Route{{Topic: s.inbox, Handler: s.handle, Key: lineOf(s.profiles), Prepare: s.desk.prepare}},
		Policies: []wherry.Policy{s.dead(), wherry.Middleware(s.refusing)},
		Order:    wherry.ByKey, Delivery: wherry.ExactlyOnce, Tables: []wherry.Owned{s.table},
		Concurrency: s.concurrency, Opts: append(s.fetchLess(), s.opts...), Logger: s.log,
	}
}

// fetchLess are options with which a Consumer of an Engine takes less memory
// than kgo would (50 MiB in flight from each broker), unless the client says
// otherwise.
func (s *shell) fetchLess() (opts []kgo.Opt) {
	if n, _ := s.client.OptValue(kgo.FetchMaxBytes).(int32); n == kgoFetchMaxBytes {
		opts = append(opts, kgo.FetchMaxBytes(fetchMaxBytes))
	}
	return opts
}

const (
	kgoFetchMaxBytes = 50 << 20
	fetchMaxBytes    = 4 << 20
)

// sender returns what puts a record of the clock's into the inbox. It waits while
// many are on their way: starts need room in the client's buffer too. One that
// fails is sent again when nothing came of it.
func (s *shell) sender(ctx context.Context, cl *kgo.Client) func(*kgo.Record) {
	most := 1000
	if n, ok := cl.OptValue(kgo.MaxBufferedRecords).(int64); ok {
		most = int(min(int64(most), (n+1)/2))
	}
	places := make(chan struct{}, most)
	working := ctx
	ctx = context.WithoutCancel(ctx)
	var last time.Time
	var mu sync.Mutex
	return func(r *kgo.Record) {
		select {
		case places <- struct{}{}:
		case <-working.Done():
			return
		}
		cl.TryProduce(ctx, r, func(_ *kgo.Record, err error) {
			<-places
			if err == nil || errors.Is(err, kgo.ErrClientClosed) {
				return
			}
			mu.Lock()
			tell := time.Since(last) > 10*time.Second
			if tell {
				last = time.Now()
			}
			mu.Unlock()
			if tell {
				s.log.WarnContext(ctx, "saga: a timer's record was not produced, it is sent again", "partition", r.Partition, "error", err)
			}
		})
	}
}

// tidyEvery is how often the inbox is cut at its front.
const tidyEvery = time.Minute

// housekeep deletes what was handled from the inbox, now and then: a log that
// never expires would grow for ever.
func (s *shell) housekeep(ctx context.Context, adm *kadm.Client, c *wherry.Consumer) {
	tick := time.NewTicker(tidyEvery)
	defer tick.Stop()
	done := map[int32]int64{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		s.tidy(ctx, adm, c.Status(), done)
	}
}

// tidy deletes below the offsets that are committed. What stands beyond them
// and is finished stays: the offset is that of the oldest that is not.
func (s *shell) tidy(ctx context.Context, adm *kadm.Client, st wherry.Status, done map[int32]int64) {
	before := kadm.Offsets{}
	for _, p := range st.Partitions {
		if p.Topic == s.inbox && p.Committed > done[p.Partition] {
			before.Add(kadm.Offset{Topic: p.Topic, Partition: p.Partition, At: p.Committed})
		}
	}
	if len(before) == 0 {
		return
	}
	all, err := adm.DeleteRecords(ctx, before)
	if err != nil {
		s.log.WarnContext(ctx, "saga: what was handled is not deleted from the inbox, which grows", "error", err)
		return
	}
	for _, r := range all.Sorted() {
		if r.Err != nil {
			s.log.WarnContext(ctx, "saga: what was handled is not deleted from the inbox, which grows: grant DELETE on it", "partition", r.Partition, "error", r.Err)
			continue
		}
		at, _ := before.Lookup(r.Topic, r.Partition)
		done[r.Partition] = at.At
	}
}
