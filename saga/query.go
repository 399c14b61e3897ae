package saga

import (
	"context"
	"encoding/json"
	"errors"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/reqreply"
)

// desk answers clients for the owner of their sagas, within the transaction of
// the record in hand.
type desk struct {
	name      string
	questions reqreply.Method[question, told]
	routes    map[kind]wherry.Route
	outlines  map[int][]byte // by version

	mu      sync.Mutex // never held over a call that blocks
	waits   map[string][]reqreply.Asker[told]
	waiting int
}

// maxWaits is how many may wait for the end of a saga at an owner. One more is
// told to ask again.
const maxWaits = 10_000

// maxTold bounds what is told in the transaction in which a saga ends, in bytes:
// it must not fail for them. Whom it leaves out asks again.
const maxTold = 256 << 10

func newDesk(name string, all []Outline) (*desk, error) {
	d := &desk{name: name, questions: questions(name), outlines: map[int][]byte{}, waits: map[string][]reqreply.Asker[told]{}}
	for _, o := range all {
		o.Mermaid = "" // which nobody asks an owner for
		b, err := json.Marshal(o)
		if err != nil {
			return nil, err
		}
		d.outlines[o.Version] = b
	}
	d.routes = map[kind]wherry.Route{
		kindQuery: d.questions.Handler(d.question),
		kindVerb: demands(name).Handler(func(ctx context.Context, _ demand) (verdict, error) {
			a := askedFrom(ctx)
			return a.verdict, a.failed()
		}),
	}
	return d, nil
}

// prepare is part of the Prepare of the inbox's route.
func (d *desk) prepare(setup *wherry.Setup) error {
	return errors.Join(d.routes[kindQuery].Prepare(setup), d.routes[kindVerb].Prepare(setup))
}

// asked is what an answer is made of.
type asked struct {
	fault     error // the saga cannot be read
	in        *instance
	ended     *endedInfo
	partition int32
	verdict   verdict
}

// failed is the answer where the saga cannot be read.
func (a *asked) failed() error {
	if a.fault == nil {
		return nil
	}
	return &reqreply.Error{Code: string(wherry.CauseUndecodable), Message: a.fault.Error()}
}

type askedKey struct{}

func askedFrom(ctx context.Context) *asked {
	a, _ := ctx.Value(askedKey{}).(*asked)
	if a == nil {
		a = &asked{} // its route was called by someone else
	}
	return a
}

// answer handles a record of kind query: in is the saga, nil for none, and ended
// is what is known of it where it has ended.
func (d *desk) answer(ctx context.Context, r *kgo.Record, in *instance, ended *endedInfo) error {
	ctx = context.WithValue(ctx, askedKey{}, &asked{in: in, ended: ended, partition: r.Partition})
	return d.routes[kindQuery].Handler(ctx, r)
}

// unreadable answers a query or a verb for a saga that cannot be read.
func (d *desk) unreadable(ctx context.Context, r *kgo.Record, k kind, fault error) error {
	return d.routes[k].Handler(context.WithValue(ctx, askedKey{}, &asked{fault: fault}), r)
}

// answerVerb answers a record of kind verb, refused "" where it was applied. It
// is the last thing that is staged for it.
func (d *desk) answerVerb(ctx context.Context, r *kgo.Record, refused string) error {
	ctx = context.WithValue(ctx, askedKey{}, &asked{verdict: verdict{refused}})
	return d.routes[kindVerb].Handler(ctx, r)
}

// readVerb reads a record of kind verb.
func readVerb(r *kgo.Record) (verb, error) {
	d, err := wherry.Event[demand]{Topic: r.Topic, Codec: tellCodec{}}.Decode(r)
	return verb{id: d.Once, name: d.Verb, actor: d.Actor, reason: d.Reason, step: d.Step, state: d.State}, err
}

func (d *desk) question(ctx context.Context, q question) (told, error) {
	a := askedFrom(ctx)
	switch in := a.in; {
	case a.fault != nil:
		return told{}, a.failed()
	case in != nil && in.phase != 0 && (!q.Wait || in.phase.Ended()):
		return told{encodeInstance(in), d.outlines[in.version]}, nil
	case in != nil && in.phase > Early:
		return d.wait(ctx, in.id)
	case a.ended != nil && a.ended.value != nil:
		return d.told(a.ended.value), nil
	case a.ended != nil:
		return told{}, endedAnswer(q.ID, a.ended, a.partition)
	}
	return told{}, &reqreply.Error{Code: codeNotFound, Message: ErrNotFound.Error()}
}

// told is the answer that has an encoded saga.
func (d *desk) told(b []byte) told {
	t := told{record: b}
	if in, err := decodeInstance("", b); err == nil {
		t.outline = d.outlines[in.version]
	}
	return t
}

// wait has who asks wait for the end of a saga.
func (d *desk) wait(ctx context.Context, id string) (told, error) {
	a, ok := d.questions.Asker(ctx)
	if !ok {
		return told{}, nil // nobody
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.drop(id)
	if d.waiting >= maxWaits {
		for id := range d.waits {
			d.drop(id)
		}
	}
	if d.waiting >= maxWaits {
		return told{}, nil
	}
	d.waits[id] = append(d.waits[id], a)
	d.waiting++
	return told{}, reqreply.ErrLater
}

// drop forgets those who asked for a saga and wait no more.
func (d *desk) drop(id string) {
	all := d.waits[id]
	kept := all[:0]
	for _, a := range all {
		if a.Awaits() {
			kept = append(kept, a)
		}
	}
	clear(all[len(kept):])
	d.waiting -= len(all) - len(kept)
	if d.waits[id] = kept; len(kept) == 0 {
		delete(d.waits, id)
	}
}

// settled tells those who wait that a saga has ended. It is the last thing that
// is staged for the record by which it did, and fails for nothing but an
// interruption: who is not told asks again.
func (d *desk) settled(ctx context.Context, in *instance) error {
	d.mu.Lock()
	waits := len(d.waits[in.id])
	d.mu.Unlock()
	if waits == 0 {
		return nil
	}
	return d.tell(ctx, in.id, told{encodeInstance(in), d.outlines[in.version]})
}

// tell tells those who wait for a saga; nothing tells them to ask again.
func (d *desk) tell(ctx context.Context, id string, t told) error {
	d.mu.Lock()
	all := d.waits[id]
	delete(d.waits, id)
	d.waiting -= len(all)
	d.mu.Unlock()
	size, bytes := len(t.record)+len(t.outline), 0
	for i, a := range all {
		if bytes += size; i > 0 && bytes > maxTold {
			t = told{}
		}
		if err := a.Answer(ctx, t); err != nil && ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return nil
}
