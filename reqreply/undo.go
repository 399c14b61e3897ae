package reqreply

import (
	"context"
	"fmt"
	"reflect"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/internal/header"
)

// Codes of requests of sagas that were not handled.
const (
	// CodeNoUndo is the code of the answer to a request that undoes, where the
	// topic has a Handler and no HandlerUndo, and to one that does where it is
	// the other way round.
	CodeNoUndo = "no-undo"
	// CodeUndone is the code of the answer to a request that comes after the one
	// that undoes it. It will never be done.
	CodeUndone = "undone"
)

// HandlerUndo returns a route for the requests of the Method's topic that take
// back what its [Method.Handler], or StreamHandler, did: those of sagas, with the
// header wherry-saga-direction: undo. It handles and answers them as Handler does
// the others, and stands before that among a Consumer's Handlers:
//
//	Handlers: []wherry.Route{Reserve.HandlerUndo(release), Reserve.Handler(reserve)}
//
// A saga sends both with its id as the key, so that they come to one partition, in
// order. It tries an undo again until it is answered without an error.
//
// The zero Resp is answered without a value: it is not encoded and not
// validated, and the saga gets a zero Resp.
//
// # As a barrier
//
// Where both routes have the same Dedupe, they know of each other's requests, by
// saga, step and direction, whatever the attempt:
//
//   - A request that comes again is not handled again: it gets the answer of the
//     first time, unless that was an error.
//   - An undo of what was not done, or failed, is not handled: there is nothing to
//     take back. It is answered with a zero Resp.
//   - A request whose undo came first is not handled: it is answered with an
//     [*Error] of [CodeUndone].
//
// What is remembered is in one transaction with the answer, since Dedupe needs
// ExactlyOnce. So it protects effects that are Kafka records (see
// [wherry.Publish]) or in owned tables: they are there once. What a handler does
// elsewhere is done again where that transaction does not come to its end: for a
// database there is saga.Barrier.
//
// It is remembered for the Method's Keep, a day unless set, in memory too (see
// [wherry.OwnedTable]). That should be longer than the attempts of a step can be
// apart. An undo that comes later is handled where the saga knows that the step
// was done, and else taken for one with nothing to take back.
//
// The Consumer's Order must be ByPartition or ByKey, and retry.Topics needs
// KeepOrder. The key of a request must be the saga's id.
func (m Method[Req, Resp]) HandlerUndo(fn func(ctx context.Context, req Req) (Resp, error)) wherry.Route {
	route := m.route(true, func(ctx context.Context, r *kgo.Record) ([]*kgo.Record, error) {
		req, err := decode[Req](m.codec(), r)
		if err != nil {
			return nil, err
		}
		resp, err := fn(ctx, req)
		if err != nil {
			return nil, err
		}
		if reflect.ValueOf(&resp).Elem().IsZero() {
			return nothing(), nil
		}
		out, err := encode(m.codec(), "", resp)
		return []*kgo.Record{out}, err
	})
	return route.When(wherry.HasHeader(header.SagaDirection, header.Undo))
}

// nothing is an answer without a value.
func nothing() []*kgo.Record {
	r := &kgo.Record{}
	header.Add(r, header.ReplyNothing, "1")
	return []*kgo.Record{r}
}

// saga is what a request says of the saga that it is of.
type saga struct {
	name, direction []byte
	done            bool
}

// op returns what a saga asks for, where it is a saga that asks.
func (a *address) op() (header.Op, bool) {
	if len(a.saga.name) == 0 || !a.asks() {
		return header.Op{}, false
	}
	return header.OpOf(string(a.saga.name), string(a.saga.direction), string(a.id), a.saga.done)
}

// misdirected returns the answer to a request that is not for s, whatever the
// routes match.
func (s *server) misdirected(a *address) *Error {
	switch direction := string(a.saga.direction); {
	case s.undo == (direction == header.Undo) && (s.undo || direction == "" || direction == header.Do):
		return nil
	case direction == header.Undo:
		return &Error{Code: CodeNoUndo, Message: fmt.Sprintf("topic %s has no HandlerUndo: nothing was undone", s.topic)}
	case s.undo:
		return &Error{Code: CodeNoUndo, Message: fmt.Sprintf("the route of topic %s only undoes: nothing was done", s.topic)}
	default:
		return &Error{Code: CodeNoUndo, Message: fmt.Sprintf("%s is %.20q, and neither do nor undo: nothing was done", header.SagaDirection, direction)}
	}
}

// facing reports what is wrong between s and those of its topic that do what it
// undoes, or undo what it does.
func (s *server) facing(other *running, order wherry.Order) error {
	for ; other != nil; other = other.before {
		switch {
		case other.undo == s.undo:
		case s.store.name() != other.store.name():
			return fmt.Errorf("method %q: Handler and HandlerUndo need the same Dedupe", s.topic)
		case s.store.table != nil && order == wherry.Unordered:
			return fmt.Errorf("method %q: HandlerUndo with Dedupe needs a Consumer whose Order is ByPartition or ByKey", s.topic)
		}
	}
	return nil
}

// pair makes a barrier of those of a topic that do and that undo.
func (s *running) pair() {
	for other := s.before; other != nil; other = other.before {
		if other.undo != s.undo && s.store.table != nil {
			other.barrier, s.barrier = true, true
		}
	}
}

// recall returns the answer to a request that is not to be handled, and what
// becomes of it so: it was handled before, or what it undoes was not, or is
// undone. nil means that it is to be handled.
func (s *running) recall(ctx context.Context, r *kgo.Record, a *address) ([]*kgo.Record, outcome, error) {
	if s.store.table == nil {
		return nil, 0, nil
	}
	op, ok := a.op()
	if !ok {
		outs, err := s.store.find(ctx, a)
		return outs, repeated, err
	}
	refuse := func(code, why string) ([]*kgo.Record, outcome, error) {
		return []*kgo.Record{s.faultRecord(&Error{Code: code, Message: why})}, fault, nil
	}
	if s.barrier && string(r.Key) != op.ID {
		return refuse(string(wherry.CausePermanent), "the key of the request is not the id of the saga: do and undo would not meet")
	}
	kept, found, err := s.store.table.Get(ctx, opPrefix+op.Key())
	switch {
	case err != nil:
		return nil, 0, err
	case kept.Undone:
		return refuse(CodeUndone, "it was undone before it was done")
	case found || !op.Undo || !s.barrier:
		return kept.records(), repeated, nil
	}
	do := op
	do.Undo = false
	if _, done, err := s.store.table.Get(ctx, opPrefix+do.Key()); err != nil || done {
		return nil, 0, err
	}
	if err := s.store.put(ctx, opPrefix+do.Key(), Answered{Undone: true}, sagaKeep); err != nil || op.Done {
		return nil, 0, err
	}
	outs := nothing()
	return outs, answered, s.store.keepAnswer(ctx, a, outs, false)
}
