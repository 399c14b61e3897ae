package saga

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/reqreply"
)

// An Action is what a [Step] does or undoes, for a state S: what [Call],
// [Emit], [Await], [Local] and [Do] return.
type Action[S any] interface{ action(*S) act }

// act is an Action without its types. s is always a *S.
type act struct {
	kind    actKind
	topic   string // of what is sent: calls and emissions
	profile reqreply.Profile
	// request makes what is sent; its key is empty unless the Action says more.
	request func(s any) (*kgo.Record, error)
	// reply takes in the answer to a call.
	reply func(s any, r *kgo.Record) error
	// rejects says whether the answer to a call is a no, or else a failure.
	rejects func(*reqreply.Error) bool
	// outcomes are the events that end an emission; without any it is done when
	// it is sent.
	outcomes []outcome
	// missing are the outcomes that are nil, for the linter.
	missing int
	// do and apply are those of local steps; apply may be nil.
	do    func(ctx context.Context, s any) (any, error)
	apply func(s, result any)
	// hand knows the types, for a [Machine].
	hand types
}

type actKind uint8

const (
	actNone actKind = iota
	actCall
	actEmit // with a request of nil: only awaits
	actLocal
)

// outcome is an event that ends a step.
type outcome struct {
	topic string
	fails bool
	// id is the saga that the event is about.
	id func(r *kgo.Record) (string, error)
	// apply takes it in, and says why it is a failure.
	apply func(s any, r *kgo.Record) (reason string, err error)
	// zero is the event with a zero value, for a [Machine].
	zero func(key string) (*kgo.Record, error)
}

// Called is a [Call].
type Called[S any] struct{ act act }

func (c Called[S]) action(*S) act { return c.act }

// Rejected says which answers that are errors mean no, for good; the others are
// failures, after which the step is tried again. By default those are failures
// that a participant's policies give up with (the codes failed, exhausted,
// expired, panic and rejected) and the "Internal server error" of NestJS, and
// all else is a no; nil means that.
func (c Called[S]) Rejected(f func(*reqreply.Error) bool) Called[S] {
	if f == nil {
		f = isRejection
	}
	c.act.rejects = f
	return c
}

// Call is a request to whoever handles m. build makes the request of the state,
// and apply takes in the answer; apply may be nil. Both must be pure: build is
// called for each attempt.
//
// The record's key is the saga's id, and its headers carry the [Op]. The reply
// goes to the engine's inbox, whatever m's ReplyTopic; of m, the Topic, Codec,
// Profile and Headers count.
func Call[S, Req, Resp any](m reqreply.Method[Req, Resp], build func(S) Req, apply func(*S, Resp)) Called[S] {
	return Called[S]{act{
		kind: actCall, topic: m.Topic, profile: m.Profile, rejects: isRejection,
		request: func(s any) (*kgo.Record, error) { return m.Request(context.Background(), build(*s.(*S))) },
		reply: func(s any, r *kgo.Record) error {
			resp, err := m.Reply(r)
			if err == nil && apply != nil {
				apply(s.(*S), resp)
			}
			return err
		},
		hand: typesOfCall(m),
	}}
}

// isRejection is the default of [Called.Rejected].
func isRejection(e *reqreply.Error) bool {
	switch wherry.Cause(e.Code) {
	case wherry.CauseFailed, wherry.CauseExhausted, wherry.CauseExpired, wherry.CausePanic, wherry.CauseRejected:
		return false
	default:
	}
	return e.Code != "" || e.Message != "Internal server error"
}

// Emission is an [Emit] or an [Await].
type Emission[S any] struct{ act act }

func (e Emission[S]) action(*S) act { return e.act }

// Key gives the event another key than the saga's id. It must be pure.
func (e Emission[S]) Key(key func(S) string) Emission[S] {
	inner := e.act.request
	e.act.request = func(s any) (*kgo.Record, error) {
		r, err := inner(s)
		if err == nil {
			r.Key = []byte(key(*s.(*S)))
		}
		return r, err
	}
	return e
}

// Emit publishes an event, and is done when one of the outcomes comes; without
// any, at once. build must be pure.
func Emit[S, T any](e wherry.Event[T], build func(S) T, outcomes ...Outcome[S]) Emission[S] {
	a := Await(outcomes...).act
	a.topic, a.hand = e.Topic, typesOfEvent(e)
	a.request = func(s any) (*kgo.Record, error) { return e.Record("", build(*s.(*S))) }
	return Emission[S]{a}
}

// Await waits for one of the outcomes.
func Await[S any](outcomes ...Outcome[S]) Emission[S] {
	a := act{kind: actEmit}
	for _, o := range outcomes {
		if o == nil {
			a.missing++
			continue
		}
		a.outcomes = append(a.outcomes, o.outcome(nil))
	}
	return Emission[S]{a}
}

// An Outcome is an event that ends a step: a [Success] or a [Failure].
type Outcome[S any] interface{ outcome(*S) outcome }

// Match is an [Outcome] of events of type T.
type Match[S, T any] struct {
	event   wherry.Event[T]
	fails   bool
	apply   func(*S, T)
	by      func(T) string
	because func(T) string
}

// Success is the event that says that the step is done. apply takes it in; it
// may be nil.
func Success[S, T any](e wherry.Event[T], apply func(*S, T)) Match[S, T] {
	return Match[S, T]{event: e, apply: apply}
}

// Failure is the event that says no, for good: the step is rejected.
func Failure[S, T any](e wherry.Event[T], apply func(*S, T)) Match[S, T] {
	return Match[S, T]{event: e, apply: apply, fails: true}
}

// By says which saga an event is about, by its id. Without it, it is the
// record's key.
func (m Match[S, T]) By(id func(T) string) Match[S, T] {
	m.by = id
	return m
}

// Because says why the step was rejected, for people. Without it, the event's
// topic is named.
func (m Match[S, T]) Because(reason func(T) string) Match[S, T] {
	m.because = reason
	return m
}

func (m Match[S, T]) outcome(*S) outcome {
	return outcome{
		topic: m.event.Topic, fails: m.fails, id: correlation(m.event, m.by),
		zero: func(key string) (*kgo.Record, error) { return m.event.Record(key, *new(T)) },
		apply: func(s any, r *kgo.Record) (reason string, err error) {
			v, err := m.event.Decode(r)
			if err != nil {
				return "", err
			}
			if m.apply != nil {
				m.apply(s.(*S), v)
			}
			if m.because != nil {
				return m.because(v), nil
			}
			return m.event.Topic, nil
		},
	}
}

// correlation returns which saga a record is about.
func correlation[T any](e wherry.Event[T], by func(T) string) func(r *kgo.Record) (string, error) {
	return func(r *kgo.Record) (string, error) {
		if by == nil {
			return string(r.Key), nil
		}
		v, err := e.Decode(r)
		if err != nil {
			return "", err
		}
		return by(v), nil
	}
}

// Local is done in the engine's own process: do does it, and apply takes in
// what it returned; apply may be nil. do must bear to be called again under the
// same [Op], which it finds with [OpFrom]: after a crash, steps whose end was
// not yet committed are done again. An error that is permanent (see
// [wherry.Permanent], [reqreply.Error]) is a rejection, one that comes when the
// step's Timeout is over is an unknown outcome, any other is a failure.
//
// Only apply changes the state; it is called by one goroutine and must be pure.
func Local[S, R any](do func(ctx context.Context, s S) (R, error), apply func(*S, R)) Action[S] {
	a := act{
		kind: actLocal,
		do:   func(ctx context.Context, s any) (any, error) { return do(ctx, *s.(*S)) },
		hand: types{fits: fits[R]},
	}
	if apply != nil {
		a.apply = func(s, result any) {
			r, _ := result.(R) // a nil interface is no R
			apply(s.(*S), r)
		}
	}
	return local[S]{a}
}

// Do is a [Local] without a result.
func Do[S any](do func(ctx context.Context, s S) error) Action[S] {
	return Local[S](func(ctx context.Context, s S) (struct{}, error) { return struct{}{}, do(ctx, s) }, nil)
}

type local[S any] struct{ act act }

func (l local[S]) action(*S) act { return l.act }

// A Trigger is an event that starts a saga: what [On] returns.
type Trigger[S any] interface{ trigger(*S) trigger }

type trigger struct {
	topic string
	from  wherry.Position
	id    func(r *kgo.Record) (string, error)
	first func(r *kgo.Record) (any, error) // a *S
	by    bool                             // whether the id is taken from the value
}

// Started is a [Trigger] of events of type T.
type Started[S, T any] struct {
	event wherry.Event[T]
	first func(T) S
	by    func(T) string
	from  wherry.Position
}

// On starts a saga with each event of a topic, from what comes after the engine
// was first started. first makes its state of the event; it must be pure. Two
// events of one id start one saga.
func On[S, T any](e wherry.Event[T], first func(T) S) Started[S, T] {
	return Started[S, T]{event: e, first: first, from: wherry.Latest}
}

// By says what the id of the saga is. Without it, it is the record's key.
func (t Started[S, T]) By(id func(T) string) Started[S, T] {
	t.by = id
	return t
}

// From says where the topic is read from when the engine is first started.
func (t Started[S, T]) From(p wherry.Position) Started[S, T] {
	t.from = p
	return t
}

func (t Started[S, T]) trigger(*S) trigger {
	return trigger{
		topic: t.event.Topic, from: t.from, id: correlation(t.event, t.by), by: t.by != nil,
		first: func(r *kgo.Record) (any, error) {
			v, err := t.event.Decode(r)
			if err != nil {
				return nil, fmt.Errorf("saga: starting: %w", err)
			}
			s := t.first(v)
			return &s, nil
		},
	}
}
