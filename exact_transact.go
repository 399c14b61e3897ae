package wherry

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wherry-go/wherry/internal/client"
	"github.com/wherry-go/wherry/internal/planted"
	"github.com/wherry-go/wherry/internal/txn"
)

// transact commits a plan in a transaction. With an error, or where outputs
// were refused or partitions taken away, its entries stay in the batch.
func (x *exact) transact(ctx context.Context, pl *plan) error {
	// Brokers abort a transaction after txn.Timeout: waiting for it any longer
	// than its requests take is in vain.
	ctx, cancel := context.WithTimeout(ctx, 2*txn.Timeout)
	defer cancel()
	w, err := x.producer(ctx)
	if err != nil {
		return x.failed(ctx, "no transaction can be begun", err)
	}
	if err := w.Begin(); err != nil {
		x.discard()
		return x.failed(ctx, "no transaction can be begun", err)
	}
	x.begin(pl)
	if errs := produced(ctx, w, pl); errs != nil {
		x.abort(ctx)
		return x.refused(ctx, pl, errs)
	}
	if slices.ContainsFunc(pl.entries, func(e *entry) bool { return e.p.lane.WasCut() }) {
		x.abort(ctx)
		return nil // the next round is without those
	}
	req, err := x.offsets(ctx, pl)
	if err == nil {
		err = w.Offsets(ctx, req)
	}
	if err != nil {
		x.abort(ctx)
		if errors.Is(err, kerr.OffsetMetadataTooLarge) || rejoins(err) || errors.Is(err, kerr.FencedInstanceID) {
			x.run.notCommitted(ctx, err)
			return err
		}
		return x.failed(ctx, "offsets cannot be part of the transaction", err)
	}
	if err := w.Commit(ctx, pl.outputs); err != nil {
		x.doubt = pl
		x.discard()
		x.run.log.Warn("consumer: it is not known whether a transaction was committed, asking", "records", len(pl.entries), "error", err)
		if committed, unknown := x.settle(ctx); committed || unknown != nil {
			return unknown
		}
		return err // not at once again: it may come again
	}
	x.done(pl)
	return nil
}

// produced produces the outputs of a plan, those of entries that are to be apart
// one by one, and returns the error of each, or nil.
func produced(ctx context.Context, w *txn.Writer, pl *plan) (errs []error) {
	at := 0
	send := func(n int) bool {
		found := w.Produce(ctx, pl.outputs[at:at+n])
		if found != nil {
			errs = make([]error, len(pl.outputs))
			copy(errs[at:], found)
		}
		at += n
		return found == nil
	}
	together := 0
	for _, e := range pl.entries {
		if !e.apart {
			together += len(e.outputs)
			continue
		}
		if !send(together) {
			return errs
		}
		together = 0
		for range e.outputs {
			if !send(1) {
				return errs
			}
		}
	}
	send(together)
	return errs
}

// begin begins the spans of outputs that are sent for the first time.
func (x *exact) begin(pl *plan) {
	for _, e := range pl.entries {
		if e.sent != nil {
			continue
		}
		e.sent = make([]func(error), len(e.outputs))
		for i, out := range e.outputs {
			e.sent[i] = sending(deliveryFrom(out.Context), out)
		}
	}
}

// offsets makes the request that adds the plan's offsets to a transaction.
func (x *exact) offsets(ctx context.Context, pl *plan) (*kmsg.TxnOffsetCommitRequest, error) {
	r := x.run
	req := kmsg.NewPtrTxnOffsetCommitRequest()
	req.Group = r.c.Group
	req.MemberID, req.Generation, req.InstanceID = pl.member.id, pl.member.generation, r.instance()
	if req.MemberID == "" { // of nobody: brokers would not ask for the generation
		return nil, kerr.UnknownMemberID
	}
	if planted.Is(planted.NoFencing) {
		req.MemberID, req.Generation, req.InstanceID = "", -1, nil
	}
	at := map[string]int{}
	var names []string
	for _, p := range pl.partitions {
		if _, ok := at[p.topic]; !ok {
			at[p.topic] = len(names)
			names = append(names, p.topic)
		}
	}
	if err := r.knowTopics(ctx, names, pl.offsets); err != nil {
		return nil, err
	}
	req.Topics = make([]kmsg.TxnOffsetCommitRequestTopic, len(names))
	r.mu.Lock()
	for i, name := range names {
		req.Topics[i] = kmsg.NewTxnOffsetCommitRequestTopic()
		req.Topics[i].Topic, req.Topics[i].TopicID = name, r.topics[name]
	}
	r.mu.Unlock()
	for _, p := range pl.partitions {
		found := pl.offsets[p.topicPartition]
		rp := kmsg.NewTxnOffsetCommitRequestTopicPartition()
		rp.Partition, rp.Offset, rp.LeaderEpoch = p.partition, found.Offset, found.Epoch
		if found.finished != "" {
			rp.Metadata = &found.finished
		}
		topic := &req.Topics[at[p.topic]]
		topic.Partitions = append(topic.Partitions, rp)
	}
	return req, nil
}

// abort aborts the transaction that is open.
func (x *exact) abort(ctx context.Context) {
	if err := x.writer.Abort(ctx); err != nil {
		x.run.log.Debug("consumer: the transaction was not aborted, another producer of its name will do it", "error", err)
		x.discard()
	}
}

// discard lets go of the writer: the next one aborts what it left open.
func (x *exact) discard() {
	if x.writer != nil {
		x.writer.Close()
		x.writer = nil
	}
}

// failed decides what an error means that is not about a record: most pass, and
// the outputs make another transaction.
func (x *exact) failed(ctx context.Context, what string, err error) error {
	x.discard()
	switch {
	case ctx.Err() != nil && x.run.base.Err() != nil:
	case client.Permanent(err) && !errors.Is(err, kerr.TopicAuthorizationFailed):
		x.run.fail(fmt.Errorf("%s: %w", what, err))
	default:
		x.run.log.Warn("consumer: a transaction was not made, trying again", "why", what, "error", err)
	}
	return err
}

// settle finds out what became of the transaction in doubt: a new producer of
// the same name ends it if it is open, and then the group's offsets tell.
func (x *exact) settle(ctx context.Context) (committed bool, err error) {
	pl := x.doubt
	if _, err := x.producer(ctx); err != nil {
		return false, x.failed(ctx, "a transaction in doubt is not settled", err)
	}
	all, err := x.run.adm.FetchOffsets(kadm.RequireStable(ctx), x.run.c.Group)
	if err != nil {
		return false, x.failed(ctx, "a transaction in doubt is not settled", err)
	}
	// Partitions without entries may be where they were.
	for _, e := range pl.entries {
		p := e.p
		// What was taken away may have been committed by another since.
		if p.lane.WasCut() || p.member != x.run.member().id {
			continue
		}
		at := pl.offsets[p.topicPartition]
		is, ok := all.Lookup(p.topic, p.partition)
		if ok && is.Err != nil {
			return false, x.failed(ctx, "a transaction in doubt is not settled", is.Err)
		}
		if committed = ok && is.At == at.Offset && is.Metadata == at.finished; committed {
			x.done(pl)
		}
		break
	}
	x.doubt = nil
	return committed, nil
}
