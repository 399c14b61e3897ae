package reqreply

import (
	"bytes"
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
)

// ErrLater is what a handler returns that answers later, through an [Asker]:
// its request is done, and not answered now.
var ErrLater = errors.New("the answer comes later")

// An Asker is who made a request. It is kept in memory, and given an answer when
// another record is handled that has it: see [Method.Asker]. Who asks must bear
// that no answer comes, and ask again: one that is in the memory of a process
// that ended is lost.
type Asker[Resp any] struct {
	server *running
	codec  wherry.Codec
	to     address
	key    []byte
	came   time.Time
}

// Asker returns who made the request whose [Method.Handler] was given ctx. What
// asks for no answer has none: ok is false.
func (m Method[Req, Resp]) Asker(ctx context.Context) (a Asker[Resp], ok bool) {
	r := wherry.RecordFrom(ctx)
	if r == nil {
		return a, false
	}
	a = Asker[Resp]{server: runningFrom(ctx, r), codec: m.codec(), key: bytes.Clone(r.Key), came: time.Now()}
	if a.server == nil {
		return a, false
	}
	to, err := a.server.names.address(r)
	to.id = bytes.Clone(to.id) // to keep it is not to keep the whole fetch
	a.to = to
	return a, err == nil && to.asks()
}

// Awaits reports whether somebody still waits for the answer, by the deadline of
// the request.
func (a Asker[Resp]) Awaits() bool { return a.to.awaited(time.Now()) }

// Answer stages the answer, as an output of the record whose handler was given
// ctx; [Method].Dedupe does not keep it. It stages nothing where nobody waits
// any more, or where the reply topic is gone. An answer that is too large becomes
// an [*Error].
func (a Asker[Resp]) Answer(ctx context.Context, v Resp) error {
	if !a.Awaits() || a.server.reach.check(ctx, &a.to) != nil {
		return nil //nolint:nilerr // nobody can be told
	}
	out, err := encode(a.codec, "", v)
	if err != nil {
		return err
	}
	r := &kgo.Record{Key: a.key}
	err = a.server.stage(ctx, r, &a.to, []*kgo.Record{out})
	kind := answered
	if _, large := errors.AsType[*wherry.OutputError](err); large {
		kind, err = fault, a.server.stage(ctx, r, &a.to, []*kgo.Record{a.server.faultRecord(tooLarge(err))})
	}
	if err == nil {
		a.server.count(ctx, kind, time.Since(a.came))
	}
	return err
}
