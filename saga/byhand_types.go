package saga

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	hdr "github.com/wherry-go/wherry/internal/header"
	"github.com/wherry-go/wherry/reqreply"
)

// types are those of an action, for a [Machine]: an Engine has no use for them.
type types struct {
	// sent decodes what is sent.
	sent func(r *kgo.Record) (any, error)
	// answer makes the reply to a call, nil being the zero value.
	answer func(v any) (*kgo.Record, error)
	// fits returns the result of a local step, nil being the zero value.
	fits func(v any) (any, error)
}

func typesOfCall[Req, Resp any](m reqreply.Method[Req, Resp]) types {
	back := reqreply.Method[Resp, Req]{Topic: m.Topic, Codec: m.Codec, Profile: m.Profile} // which encodes answers, and decodes requests
	return types{
		sent: func(r *kgo.Record) (any, error) {
			bare := *r
			bare.Headers = slices.DeleteFunc(slices.Clone(r.Headers), func(h kgo.RecordHeader) bool {
				return h.Key == cmp.Or(m.Profile.Error, hdr.ReplyError)
			})
			return back.Reply(&bare)
		},
		answer: func(v any) (*kgo.Record, error) {
			if fault, ok := v.(error); ok {
				return refusal(m.Profile, fault)
			}
			if v == nil {
				return &kgo.Record{Headers: []kgo.RecordHeader{{Key: hdr.ReplyNothing, Value: []byte("1")}}}, nil
			}
			resp, err := as[Resp](v)
			if err != nil {
				return nil, fmt.Errorf("the answer of %s: %w", m.Topic, err)
			}
			return back.Request(context.Background(), resp)
		},
	}
}

func typesOfEvent[T any](e wherry.Event[T]) types {
	return types{sent: func(r *kgo.Record) (any, error) { return e.Decode(r) }}
}

func fits[T any](v any) (any, error) { return as[T](v) }

// as returns v as a T, the zero one of nil.
func as[T any](v any) (t T, err error) {
	t, ok := v.(T)
	if !ok && v != nil {
		err = fmt.Errorf("want %v, and this is %T", reflect.TypeFor[T](), v)
	}
	return t, err
}

// refusal is the reply that is an error.
func refusal(p reqreply.Profile, fault error) (*kgo.Record, error) {
	e, ok := errors.AsType[*reqreply.Error](fault)
	if !ok {
		return nil, fmt.Errorf("the error of a reply is a *reqreply.Error, and this is %T: %w", fault, fault)
	}
	text := e.Body
	if len(text) == 0 {
		var err error
		if text, err = json.Marshal(map[string]string{"status": "error", "code": e.Code, "message": e.Message}); err != nil {
			return nil, err
		}
	}
	return &kgo.Record{Headers: []kgo.RecordHeader{{Key: cmp.Or(p.Error, hdr.ReplyError), Value: text}}}, nil
}

type byHandKey struct{}

// byHand has the local steps of a plan made as the Machine at hand says.
func (p *plan) byHand() {
	for i := range p.steps {
		for _, a := range []*act{&p.steps[i].do, &p.steps[i].undo} {
			if a.kind == actLocal {
				*a = a.byHand()
			}
		}
	}
}

func (a act) byHand() act {
	do, fits := a.do, a.hand.fits
	a.do = func(ctx context.Context, s any) (any, error) {
		instead, _ := ctx.Value(byHandKey{}).(insteadOf)
		if instead == nil {
			return do(ctx, s)
		}
		op, _ := OpFrom(ctx)
		v, err := instead(ctx, op, s, func() (any, error) { return do(ctx, s) })
		if err != nil {
			return nil, err
		}
		return fits(v)
	}
	return a
}
