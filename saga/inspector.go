package saga

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/internal/client"
	"github.com/wherry-go/wherry/reqreply"
)

// An Inspector looks at the sagas of a name, and acts on them, without their Go code;
// the command "wherry saga" is built on it. An [Engine] has the same methods, with
// states of its type.
//
// Queries and verbs are requests to the Engine that owns the saga. They take their
// turn in its inbox, after what was acknowledged before, and are answered in the
// transaction of their record, so an answer is never stale. They need a running
// Engine of the name, and fail at once with [reqreply.ErrNoResponder] without one.
// The reply topic, <name>.saga.reply, is made if it does not exist.
//
// Its fields must not be changed once a method was called; its methods are safe
// for concurrent use.
type Inspector struct {
	// Client says how to reach the cluster; see [wherry.Consumer].Client. Required.
	Client *kgo.Client
	// Name is the Definitions' name. Required.
	Name string
	// Caller makes the requests. nil means one that is opened for a call, which
	// takes some milliseconds, and is shared by those that are made meanwhile.
	Caller *reqreply.Caller
	// Topics says more of the reply topic that is made: partitions, replicas.
	Topics wherry.TopicSpec
	// Logger logs what an operator should know. nil means [slog.Default].
	Logger *slog.Logger

	known  []Outline // those that need not be asked for
	faults error     // of the Engine that it is of

	there atomic.Bool // the topics exist
	mu    sync.Mutex
	line  *line
}

// lineFetch is how long a broker may hold a request for answers; one that comes is
// sent at once.
const lineFetch = 5 * time.Second

// line is a Caller that runs as long as somebody holds it.
type line struct {
	caller *reqreply.Caller
	holds  int // guarded by Inspector.mu
	stop   context.CancelFunc
	ended  chan struct{}
	err    error // of Run; read after ended
}

// hold returns a Caller that runs until release is called.
func (i *Inspector) hold(ctx context.Context) (caller *reqreply.Caller, release func(), err error) {
	if err := i.check(); err != nil {
		return nil, nil, err
	}
	if i.Caller != nil {
		return i.Caller, func() {}, nil
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.line != nil && i.line.over() {
		i.line = nil // the next one tries again
	}
	if i.line == nil {
		topics := i.Topics
		topics.Name, topics.Like, topics.Changelog, topics.Config = "", "", false, nil
		life, stop := context.WithCancel(context.WithoutCancel(ctx))
		l := &line{stop: stop, ended: make(chan struct{}), caller: &reqreply.Caller{
			Client: i.Client, Topics: topics, Logger: i.Logger, Opts: []kgo.Opt{kgo.FetchMaxWait(lineFetch)},
		}}
		i.line = l
		go func() {
			defer close(l.ended)
			l.err = l.caller.Run(life)
		}()
	}
	l := i.line
	l.holds++
	return l.caller, func() { i.release(l) }, nil
}

func (i *Inspector) release(l *line) {
	i.mu.Lock()
	l.holds--
	last := l.holds == 0
	if last && i.line == l {
		i.line = nil
	}
	i.mu.Unlock()
	if last {
		l.stop()
		<-l.ended
	}
}

func (l *line) over() bool {
	select {
	case <-l.ended:
		return true
	default:
		return false
	}
}

func (i *Inspector) check() error {
	if i.faults != nil {
		return i.faults
	}
	var faults []error
	if i.Client == nil {
		faults = append(faults, errors.New("no client: set Client"))
	}
	if i.Name == "" {
		faults = append(faults, errors.New("no name: set Name"))
	}
	return errors.Join(faults...)
}

func (i *Inspector) log() *slog.Logger { return cmp.Or(i.Logger, slog.Default()) }

// ask makes a request about a saga.
func ask[Req, Resp any](ctx context.Context, i *Inspector, m reqreply.Method[Req, Resp], id string, req Req) (resp Resp, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("saga %s: %q: %w", i.Name, id, err)
		}
	}()
	if err := checkID(id); err != nil {
		return resp, err
	}
	if err := i.exists(ctx); err != nil {
		return resp, err
	}
	caller, release, err := i.hold(ctx)
	if err != nil {
		return resp, err
	}
	defer release()
	resp, err = m.Call(ctx, caller, req)
	if e, ok := errors.AsType[*reqreply.Error](err); ok && e.Code == codeNotFound {
		return resp, ErrNotFound
	}
	if errors.Is(err, reqreply.ErrEnded) && i.Caller == nil {
		if l := i.current(caller); l != nil && l.over() && l.err != nil {
			return resp, l.err
		}
	}
	return resp, err
}

// exists reports whether there are sagas of the name, before a reply topic is made
// for one that is misspelt.
func (i *Inspector) exists(ctx context.Context) error {
	if i.there.Load() {
		return nil
	}
	if err := i.check(); err != nil {
		return err
	}
	topic := stateTopic(i.Name)
	// With the authorized operations it asks a broker, and not what is cached.
	found, err := kadm.NewClient(i.Client).ListTopics(kadm.WithAuthorizedOps(ctx), topic)
	switch d := found[topic]; {
	case err != nil:
		return fmt.Errorf("looking for %s: %w", topic, err)
	case errors.Is(d.Err, kerr.UnknownTopicOrPartition):
		return fmt.Errorf("%w: %s", errNoTopics, topic)
	}
	i.there.Store(true) // or what is wrong with it is told by those who read it
	return nil
}

// current returns the line of a Caller, nil where it was let go.
func (i *Inspector) current(caller *reqreply.Caller) *line {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.line == nil || i.line.caller != caller {
		return nil
	}
	return i.line
}

// Get returns a saga as it is now, or as it ended, up to the Engine's Retention ago.
// An error is [ErrNotFound], an [*EndedError], or why there was no answer within 30 s
// or the deadline of ctx.
func (i *Inspector) Get(ctx context.Context, id string) (Snapshot, error) {
	return i.get(ctx, question{ID: id})
}

// get asks. With Wait it may return a Snapshot of phase 0: ask again.
func (i *Inspector) get(ctx context.Context, q question) (Snapshot, error) {
	t, err := ask(ctx, i, questions(i.Name), q.ID, q)
	if e, ok := errors.AsType[*reqreply.Error](err); ok && e.Code == codeEnded {
		return i.ended(ctx, q.ID, e)
	}
	if err != nil || len(t.record) == 0 {
		return Snapshot{}, err
	}
	return i.read(q.ID, t.record, readOutline(t.outline))
}

// read makes a record readable.
func (i *Inspector) read(id string, record []byte, o *Outline) (Snapshot, error) {
	in, err := decodeInstance(id, record)
	if err != nil {
		return Snapshot{Saga: i.Name, ID: id, Offset: -1}, err
	}
	return snapshot(i.Name, in, cmp.Or(o, i.outline(in.version))), nil
}

// outline returns that of a version, nil where nobody knows it.
func (i *Inspector) outline(version int) *Outline {
	for n := range i.known {
		if i.known[n].Version == version {
			return &i.known[n]
		}
	}
	return nil
}

// Why returns what a saga waits for. It is Get, and [Snapshot.Reason].
func (i *Inspector) Why(ctx context.Context, id string) (Reason, error) {
	s, err := i.Get(ctx, id)
	return s.Reason(), err
}

// ended returns a saga that is in the state topic alone, as an owner's answer
// says.
func (i *Inspector) ended(ctx context.Context, id string, answer *reqreply.Error) (Snapshot, error) {
	var body endedBody
	if err := json.Unmarshal(answer.Body, &body); err != nil {
		return Snapshot{}, fmt.Errorf("saga %s: %q: the answer: %w", i.Name, id, err)
	}
	r, err := i.find(ctx, id, body)
	if err != nil {
		s := Snapshot{Saga: i.Name, ID: id, Phase: body.Outcome, Ended: at(body.At), Offset: -1}
		return s, &EndedError{Saga: i.Name, ID: id, Outcome: body.Outcome, At: at(body.At), Err: err}
	}
	s, err := i.read(id, r.Value, nil)
	s.Partition, s.Offset = r.Partition, r.Offset
	return s, err
}

// How a last record is looked for: from a while before the saga ended, as clocks
// differ, and until so long nothing came.
const (
	findBefore  = time.Minute
	findSilence = 5 * time.Second
)

var errCompacted = errors.New("its last record is no longer in the state topic")

// find reads the last record of a saga in the state topic.
func (i *Inspector) find(ctx context.Context, id string, end endedBody) (*kgo.Record, error) {
	topic := stateTopic(i.Name)
	adm := kadm.NewClient(i.Client)
	from, err := adm.ListOffsetsAfterMilli(ctx, end.At-findBefore.Milliseconds(), topic)
	if err != nil {
		return nil, err
	}
	ends, err := adm.ListCommittedOffsets(ctx, topic)
	if err != nil {
		return nil, err
	}
	start, _ := from.Lookup(topic, end.Partition)
	stop, ok := ends.Lookup(topic, end.Partition)
	if err := cmp.Or(start.Err, stop.Err); err != nil || !ok {
		return nil, cmp.Or(err, error(kerr.UnknownTopicOrPartition))
	}
	cl, err := client.Open(i.Client, nil, client.Outlive(ctx),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {end.Partition: kgo.NewOffset().At(start.Offset)}}),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords())
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	for next := start.Offset; next < stop.Offset; {
		poll, cancel := context.WithTimeout(ctx, findSilence)
		fetches := cl.PollFetches(poll)
		silent := poll.Err() != nil
		cancel()
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		for r := range fetches.RecordsAll() {
			next = r.Offset + 1
			if string(r.Key) != id || r.Attrs.IsControl() || r.Value == nil {
				continue
			}
			if phase, _, ended, _, _, err := peek(r.Value); err == nil && phase.Ended() && ended == end.At {
				return r, nil
			}
		}
		if err := fetches.Err0(); silent || err != nil && client.Permanent(err) {
			return nil, cmp.Or(err, errCompacted)
		}
	}
	return nil, errCompacted
}
