package crashlab

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/saga"
)

// sagaWork is the workload of Sagas.
type sagaWork struct {
	reader Reader
	topics sagaTopics
	seed   uint64
	starts *saga.Engine[SagaState] // never run

	mu      sync.Mutex
	started []int
	calm    bool
	judged  int
	heads   map[int32]int64         // how far the state topic was read
	records map[string][]SagaRecord // of the state topic, by saga
}

func newSagaWork(cl *kgo.Client, run string, seed uint64) *sagaWork {
	t := sagaTopics{run}
	return &sagaWork{
		reader: Reader{Client: cl}, topics: t, seed: seed, starts: t.engine(Member{Seed: seed, Logger: slog.New(slog.DiscardHandler)}, cl, &locals{}),
		heads: map[int32]int64{}, records: map[string][]SagaRecord{},
	}
}

func (w *sagaWork) Topics() []string {
	own := []string{w.topics.orders(), w.topics.billed(), w.topics.unbilled(), w.topics.deeds(), w.topics.courier(), w.topics.answers()}
	asked := slices.Sorted(maps.Keys(w.topics.asked()))
	return slices.Concat(own, asked, []string{w.topics.inbox(), w.topics.state(), w.topics.dead()})
}

func (w *sagaWork) Table() string { return w.topics.state() }

// Open makes the topics, but those of the Engine, which makes its own.
func (w *sagaWork) Open(ctx context.Context) error {
	for _, topic := range w.Topics() {
		var config map[string]string
		switch topic {
		case w.topics.inbox(), w.topics.state(), w.topics.dead():
			continue
		case w.topics.answers():
			config = map[string]string{"cleanup.policy": "compact", "retention.ms": "-1"}
		}
		if err := createTopic(ctx, w.reader.Client, topic, Partitions, config); err != nil {
			return err
		}
	}
	return nil
}

// Send starts the n-th saga, in the way that its script says. What fails is done
// again: a second start changes nothing.
func (w *sagaWork) Send(ctx context.Context, n int, acked func(error)) {
	script := ScriptOf(w.seed, n)
	go func() {
		times := 1
		if script.Again {
			times = 2
		}
		var err error
		for range times {
			if err = w.start(ctx, script); err != nil {
				break
			}
		}
		if err == nil {
			w.mu.Lock()
			w.started = append(w.started, n)
			w.mu.Unlock()
		}
		acked(err)
	}()
}

func (w *sagaWork) start(ctx context.Context, s Script) (err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for {
		if s.Event {
			r := &kgo.Record{Topic: w.topics.orders(), Key: []byte(SagaID(s.N)), Value: encoded(sagaOrder{s.N, s.Skip})}
			err = w.reader.Client.ProduceSync(ctx, r).FirstErr()
		} else {
			err = w.starts.Start(ctx, SagaID(s.N), SagaState{N: s.N, Skip: s.Skip})
		}
		if err == nil || ctx.Err() != nil {
			return err
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

func (w *sagaWork) Sample(context.Context) {}

func (w *sagaWork) Sent() int { return w.judged }

func (w *sagaWork) Close() {}

// ends are how many sagas ended in each way.
func (w *sagaWork) ends() map[string]int {
	w.mu.Lock()
	defer w.mu.Unlock()
	ends := map[string]int{}
	for _, records := range w.records {
		if r := (&sagaSeen{records: records}).end(); r != nil {
			ends[r.Phase]++
		}
	}
	return ends
}

// Behind says which sagas have not ended; then which of the groups that are left
// with commands, answers and events have not come to the end of theirs.
func (w *sagaWork) Behind(ctx context.Context) (string, error) {
	if err := w.follow(ctx); err != nil {
		return "", err
	}
	w.mu.Lock()
	var open []string
	for _, n := range w.started {
		id := SagaID(n)
		records := w.records[id]
		if !slices.ContainsFunc(records, func(r SagaRecord) bool { return r.Ended }) {
			text := id + " has not begun"
			if len(records) > 0 {
				text = id + " " + (&sagaSeen{records: records}).lastText()
			}
			open = append(open, text)
		}
	}
	w.mu.Unlock()
	if n := len(open); n > 0 {
		return fmt.Sprintf("%d sagas have not ended, such as %s", n, strings.Join(open[:min(n, 3)], "; ")), nil
	}
	groups := map[string][]string{
		w.topics.run + ".saga":         {w.topics.inbox()},
		w.topics.run + ".notify":       {w.topics.commands("notify")},
		w.topics.run + ".participants": {w.topics.courier()},
	}
	for topic, s := range w.topics.asked() {
		if !s.Loose {
			groups[w.topics.run+".participants"] = append(groups[w.topics.run+".participants"], topic)
		}
	}
	for group, topics := range groups {
		if text, err := w.lag(ctx, group, topics); text != "" || err != nil {
			return text, err
		}
	}
	return "", nil
}

// lag says how far a group is behind.
func (w *sagaWork) lag(ctx context.Context, group string, topics []string) (string, error) {
	adm := kadm.NewClient(w.reader.Client)
	ends, err := w.reader.ends(ctx, adm.ListEndOffsets, topics...)
	if err != nil {
		return "", err
	}
	at, err := adm.FetchOffsets(kadm.RequireStable(ctx), group)
	if err == nil {
		err = at.Error()
	}
	if err != nil {
		return "", fmt.Errorf("the offsets of %s: %w", group, err)
	}
	for topic, partitions := range ends {
		for p, end := range partitions {
			if o, _ := at.Lookup(topic, p); o.At < end {
				return fmt.Sprintf("%s is at %d of %d in %s/%d", group, o.At, end, topic, p), nil
			}
		}
	}
	return "", nil
}

// follow reads what is new of the state topic.
func (w *sagaWork) follow(ctx context.Context) error {
	topic := w.topics.state()
	ends, err := w.reader.ends(ctx, kadm.NewClient(w.reader.Client).ListCommittedOffsets, topic)
	if err != nil {
		return err
	}
	for p, end := range ends[topic] {
		if w.heads[p] >= end {
			continue
		}
		err := readPartitionFrom(ctx, w.reader.Client.Opts(), topic, p, w.heads[p], end, func(r *kgo.Record) error {
			return w.take(r)
		})
		if err != nil {
			return err
		}
		w.heads[p] = end
	}
	return nil
}

// take takes in a record of the state topic.
func (w *sagaWork) take(r *kgo.Record) error {
	s, ok, err := saga.ReadSnapshot(w.topics.run, r)
	if err != nil {
		return err
	}
	id := string(r.Key)
	known := SagaRecord{At: place(r), ID: id}
	switch {
	case ok:
		if err := known.read(s); err != nil {
			return err
		}
	case r.Value == nil && strings.HasPrefix(id, "s-"):
		known.Deleted = true
	default:
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.records[id] = append(w.records[id], known)
	return nil
}

// read takes what is wanted of a snapshot.
func (r *SagaRecord) read(s saga.Snapshot) error {
	r.Phase, r.Ended, r.Began, r.Moves = s.Phase.String(), s.Phase.Ended(), s.Began, s.Moves
	if len(s.Raw) > 0 {
		if err := json.Unmarshal(s.Raw, &r.State); err != nil {
			return fmt.Errorf("%s: its state: %w", r.At, err)
		}
	}
	for _, m := range s.History {
		move := SagaMove{At: m.At, What: m.What, Step: m.Step, Attempt: m.Attempt, Note: m.Note}
		if text, ok := strings.CutPrefix(m.Step, "step "); ok {
			n, err := strconv.Atoi(text)
			if all := SagaSteps(); err == nil && n >= 1 && n <= len(all) {
				move.Step = all[n-1].Name
			}
		}
		r.History = append(r.History, move)
	}
	return nil
}

// Judge reads what the sagas left behind, and says what is wrong.
func (w *sagaWork) Judge(ctx context.Context) ([]Finding, error) {
	if err := w.follow(ctx); err != nil {
		return nil, err
	}
	log := SagaLog{Seed: w.seed, Calm: w.calm, Started: w.started}
	var err error
	if log.Deeds, err = w.reader.topic(ctx, w.topics.deeds()); err != nil {
		return nil, err
	}
	for topic := range w.topics.asked() {
		records, err := w.reader.topic(ctx, topic)
		if err != nil {
			return nil, err
		}
		log.Commands = append(log.Commands, records...)
	}
	for _, id := range slices.Sorted(maps.Keys(w.records)) {
		log.States = append(log.States, w.records[id]...)
	}
	w.judged = len(w.started)
	findings := CheckSagas(log)
	dead, err := w.reader.topic(ctx, w.topics.dead())
	for _, r := range dead {
		findings = append(findings, Finding{"dead", fmt.Sprintf("%s of %s: %s", place(r), r.Key, headers(r))})
	}
	return findings, err
}
