package main

import (
	"context"
	"errors"
)

// stages are parts of a process that need those before them: they are started
// one after the other and ended in the opposite order.
type stages struct {
	// ended is called when a stage has ended, by itself or not.
	ended func()
	all   []*stage
}

// stage is one of them, from its start on.
type stage struct {
	stop context.CancelFunc
	done chan struct{}
	err  error // what its Run returned; read after done
}

// start runs a stage until end. Its context has the values of ctx, not its
// end: when ctx is done, the stages before the last one still have to work for
// those after them.
func (s *stages) start(ctx context.Context, run func(context.Context) error) {
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	st := &stage{stop: stop, done: make(chan struct{})}
	s.all = append(s.all, st)
	go func() {
		defer s.ended()
		defer close(st.done)
		st.err = run(ctx)
	}()
}

// end stops the stages, each when those after it have ended, and returns their
// errors. No goroutine of start is left after it.
func (s *stages) end() error {
	errs := make([]error, len(s.all))
	for i := len(s.all) - 1; i >= 0; i-- {
		st := s.all[i]
		st.stop()
		<-st.done
		errs[i] = st.err
	}
	return errors.Join(errs...)
}
