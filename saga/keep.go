package saga

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
)

// keep stages what the saga is now.
func (h *handling) keep() error {
	if cause := context.Cause(h.ctx); cause != nil {
		return cause
	}
	if h.fault != nil {
		if unusable(h.fault) {
			return h.quarantine(h.fault)
		}
		if !h.in.quarantine(h.now, h.why(h.fault)) {
			return h.fault
		}
		h.tellFault(h.fault)
	}
	if err := h.put(); err != nil {
		return h.quarantine(err)
	}
	if h.kind == kindVerb {
		if err := h.answered(h.ctx, h.r, h.in, h.refused); err != nil {
			return err
		}
	}
	for _, st := range h.stucks {
		h.tellStuck(st)
	}
	return nil
}

// unusable reports whether an error is of what was staged: then all of it is
// dropped.
func unusable(err error) bool {
	_, ok := errors.AsType[*wherry.OutputError](err)
	return ok
}

func (h *handling) put() error {
	switch {
	case h.forget && h.ended != nil && h.before == nil && !h.index.claim(h.id, claim{h.r.Offset, true}):
		h.refused = "the saga is being forgotten at this moment: ask again"
		return nil
	case h.forget:
		if err := h.table.Delete(h.ctx, h.id); err != nil {
			return err
		}
		return h.desk.tell(h.ctx, h.id, told{})
	case h.ended != nil || h.in.phase == 0:
		return nil
	}
	value := encodeInstance(h.in)
	if bytes.Equal(value, h.before) {
		return nil
	}
	if err := h.table.Put(h.ctx, h.id, value); err != nil {
		return err
	}
	if h.in.phase.Ended() {
		return h.settled(h.ctx, h.in)
	}
	return nil
}

// quarantine drops all that the input brought about, and holds the saga as it was
// before it.
func (h *handling) quarantine(fault error) error {
	if h.before == nil || h.ended != nil {
		return fault
	}
	wherry.Discard(h.ctx)
	in, err := decodeInstance(h.id, h.before)
	if err != nil {
		return err
	}
	if !in.quarantine(h.now, h.why(fault)) {
		return fault
	}
	h.tellFault(fault)
	if err := h.table.Put(h.ctx, h.id, encodeInstance(in)); err != nil || h.kind != kindVerb {
		return err
	}
	v, err := readVerb(h.r)
	if err != nil {
		return err
	}
	return h.answered(h.ctx, h.r, in, fmt.Sprintf("%s: it leads to what cannot be produced: %v", v.name, fault))
}

// why names the input and what is wrong with it.
func (h *handling) why(fault error) string {
	return fmt.Sprintf("%s/%d@%d: %v", h.r.Topic, h.r.Partition, h.r.Offset, fault)
}

func (h *handling) tellFault(fault error) {
	h.log.ErrorContext(h.ctx, "saga: one is quarantined, an operator has to look at it", "id", h.id, "input", string(h.kind), "offset", h.r.Offset, "partition", h.r.Partition, "error", fault)
}

func (h *handling) tellStuck(st Stuck) {
	if h.onStuck == nil {
		h.log.WarnContext(h.ctx, "saga: one is stuck", "id", st.ID, "step", st.Step, "since", st.Since, "error", st.Err)
		return
	}
	var err error
	func() {
		defer recovered(&err)
		h.onStuck(h.ctx, st)
	}()
	if err != nil {
		h.log.ErrorContext(h.ctx, "saga: OnStuck panicked", "error", err)
	}
}

// refusing is a policy for inputs whose outputs the brokers refused: it holds the
// saga as it was before, instead of handling the input again.
func (s *shell) refusing(next wherry.Handler) wherry.Handler {
	return func(ctx context.Context, r *kgo.Record) error {
		fault := wherry.Refused(ctx)
		if fault == nil {
			return next(ctx, r)
		}
		m, err := readMessage(r, s.profiles)
		if err != nil || m.kind == kindSweep || partitionOf(m.id, s.places.known.Load()) != r.Partition {
			return fault
		}
		h := &handling{shell: s, ctx: ctx, r: r, message: m, index: s.clock.of(r.Partition), now: time.Now()}
		if h.index == nil {
			return errTaken
		}
		h.index.release(h.id)
		if err := h.load(); err != nil {
			return err
		}
		return h.quarantine(fault)
	}
}
