package saga

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"

	"github.com/wherry-go/wherry"
)

// localContext is that of a local step: it ends with the handler's, and has
// the values of Run's. What a handler may do with its context, such as
// [wherry.Publish], is not for a step: a failed attempt would leave it behind.
type localContext struct {
	context.Context                 //nolint:containedctx // the handler's: it is one
	values          context.Context //nolint:containedctx // and so is Run's
	op              Op
}

func (c *localContext) Value(key any) any {
	if key == (opKey{}) {
		return c.op
	}
	return c.values.Value(key)
}

// locals runs attempts at local steps, side by side, and returns how they ended.
// The state is that of now: nothing changes it meanwhile.
func (s *shell) locals(ctx context.Context, p *plan, in *instance, all []effect) ([]input, error) {
	state, err := stateOf(p, in)
	if err != nil {
		return nil, err
	}
	results := make([]input, len(all))
	if len(all) == 1 {
		results[0] = s.local(ctx, p, state, all[0])
		return results, nil
	}
	var wg sync.WaitGroup
	for i, e := range all {
		wg.Go(func() { results[i] = s.local(ctx, p, state, e) })
	}
	wg.Wait()
	return results, nil
}

// stateOf returns the state of an instance.
func stateOf(p *plan, in *instance) (_ any, err error) {
	if in.state != nil {
		return in.state, nil
	}
	defer recovered(&err)
	in.state, err = p.decode(in.raw)
	return in.state, err
}

// recovered makes an error of a panic.
func recovered(err *error) {
	if p := recover(); p != nil {
		cause, ok := p.(error)
		if !ok {
			cause = fmt.Errorf("%v", p)
		}
		*err = &wherry.RecordError{Cause: wherry.CausePanic, Err: fmt.Errorf("panic: %w", cause), Stack: string(debug.Stack())}
	}
}

// local makes an attempt at a local step.
func (s *shell) local(ctx context.Context, p *plan, state any, e effect) input {
	i := input{kind: inLocal, op: e.op}
	a := p.steps[e.step].act(e.op.Undo)
	ctx, end := s.in.local(&localContext{ctx, s.root, e.op}, ctx, e.op)
	defer func() { end(i.err) }()
	if e.timeout > 0 {
		limited, cancel := context.WithTimeout(ctx, e.timeout)
		defer cancel()
		ctx = limited
	}
	returned := false
	func() {
		defer func() {
			if !returned && i.err == nil { // t.FailNow does this
				i.err = &wherry.RecordError{Cause: wherry.CausePanic, Err: errGoexit}
			}
		}()
		defer recovered(&i.err)
		i.result, i.err = a.do(ctx, state)
		returned = true
	}()
	if i.err != nil && e.timeout > 0 && errors.Is(ctx.Err(), context.DeadlineExceeded) && !errors.Is(i.err, context.DeadlineExceeded) {
		i.err = fmt.Errorf("%w: %w", context.DeadlineExceeded, i.err)
	}
	return i
}

var errGoexit = errors.New("the step ended its goroutine with runtime.Goexit")
