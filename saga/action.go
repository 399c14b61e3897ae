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
	// missing are the outcomes that are nil, and lacks is the function that is,
	// for the linter.
	missing int
	lacks   string
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

// Rejected says which answers that are errors are rejections, a no for good; the
// others are failures, after which the step is tried again. By default, and with
// nil, every error is a rejection but two kinds: those with which a participant's
// policies give up (the codes failed, exhausted, expired, panic and rejected), and
// NestJS's "Internal server error".
func (c Called[S]) Rejected(f func(*reqreply.Error) bool) Called[S] {
	if f == nil {
		f = isRejection
	}
	c.act.rejects = f
	return c
}

// Call is a request to whoever handles m. build makes the request from the state,
// and apply puts the answer into the state; apply may be nil, build may not. Both
// must be pure: build is called for each attempt.
//
// The record's key is the saga's id, and its headers carry the [Op]: in an Undo
// they send it to m's [reqreply.Method.HandlerUndo]. The reply goes to the engine's
// inbox, whatever m's ReplyTopic. Of m, only Topic, Codec, Profile and Headers
// count: how long an answer may take is the Step's Timeout, not m's.
func Call[S, Req, Resp any](m reqreply.Method[Req, Resp], build func(S) Req, apply func(*S, Resp)) Called[S] {
	return Called[S]{act{
		lacks: lacks("build", build == nil),
		kind:  actCall, topic: m.Topic, profile: m.Profile, rejects: isRejection,
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
// any, at once. build makes the event from the state and must be pure. The record's
// key is the saga's id, unless [Emission.Key] says otherwise.
func Emit[S, T any](e wherry.Event[T], build func(S) T, outcomes ...Outcome[S]) Emission[S] {
	a := Await(outcomes...).act
	a.topic, a.hand, a.lacks = e.Topic, typesOfEvent(e), lacks("build", build == nil)
	a.request = func(s any) (*kgo.Record, error) { return e.Record("", build(*s.(*S))) }
	return Emission[S]{a}
}

// Await publishes nothing, and waits for one of the outcomes. The Timeout of its
// step limits the wait.
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

// Success is the event that says that the step is done. apply puts it into the state.
// It may be nil; the compiler then needs the state's type: Success[Order](e, nil).
func Success[S, T any](e wherry.Event[T], apply func(*S, T)) Match[S, T] {
	return Match[S, T]{event: e, apply: apply}
}

// Failure is the event that says no, for good: the step is rejected. apply is as for
// [Success].
func Failure[S, T any](e wherry.Event[T], apply func(*S, T)) Match[S, T] {
	return Match[S, T]{event: e, apply: apply, fails: true}
}

// By returns the id of the saga that an event is about. It must be pure. Without By,
// the id is the record's key.
func (m Match[S, T]) By(id func(T) string) Match[S, T] {
	m.by = id
	return m
}

// Because returns why the step was rejected, for people. It must be pure. Without it,
// the reason is the event's topic.
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

// Local calls a function in the engine's own process: do does the work, and apply
// puts what it returned into the state; apply may be nil. do must tolerate being
// called again under the same [Op], which it gets from [OpFrom]: after a crash, steps
// whose end was not committed yet are done again. An error that is permanent (see
// [wherry.Permanent], [reqreply.Error]) is a rejection, an error after the step's
// Timeout is an unknown outcome, and any other is a failure. A panic quarantines the
// saga.
//
// Only apply changes the state; it is called by one goroutine and must be pure.
func Local[S, R any](do func(ctx context.Context, s S) (R, error), apply func(*S, R)) Action[S] {
	a := act{
		lacks: lacks("do", do == nil),
		kind:  actLocal,
		do:    func(ctx context.Context, s any) (any, error) { return do(ctx, *s.(*S)) },
		hand:  types{fits: fits[R]},
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
	if do == nil {
		return Local[S, struct{}](nil, nil)
	}
	return Local[S](func(ctx context.Context, s S) (struct{}, error) { return struct{}{}, do(ctx, s) }, nil)
}

// lacks names a function that is nil.
func lacks(name string, is bool) string {
	if is {
		return name
	}
	return ""
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
	lacks string                           // the function that is nil
}

// Started is a [Trigger] of events of type T.
type Started[S, T any] struct {
	event wherry.Event[T]
	first func(T) S
	by    func(T) string
	from  wherry.Position
}

// On starts a saga for each event of a topic, from those that come after an Engine
// first ran. first makes the saga's state from the event and must be pure. Two events
// of the same id start one saga.
func On[S, T any](e wherry.Event[T], first func(T) S) Started[S, T] {
	return Started[S, T]{event: e, first: first, from: wherry.Latest}
}

// By returns the id of the saga. It must be pure. Without By, the id is the record's
// key.
func (t Started[S, T]) By(id func(T) string) Started[S, T] {
	t.by = id
	return t
}

// From says where the topic is read from when an Engine first runs. Without it that is
// [wherry.Latest].
func (t Started[S, T]) From(p wherry.Position) Started[S, T] {
	t.from = p
	return t
}

func (t Started[S, T]) trigger(*S) trigger {
	return trigger{
		topic: t.event.Topic, from: t.from, id: correlation(t.event, t.by), by: t.by != nil, lacks: lacks("first", t.first == nil),
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
