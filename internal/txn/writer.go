// Package txn produces in Kafka transactions that carry the offsets of a
// consumer group, for a client that does not consume itself.
//
// kgo's GroupTransactSession is both in one client: it polls only between
// transactions, commits as far as it has polled, and takes a commit whose
// answer was lost for an abort, so that its records are produced twice. Here
// the offsets are the caller's, sent as the caller's own request (KIP-447).
package txn

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/wherry-go/wherry/internal/client"
)

// Timeout is after how long brokers abort a transaction that its producer does
// not end.
const Timeout = 10 * time.Second

// Writer produces in one transaction after the other. Its methods must be
// called one after the other.
type Writer struct {
	ID string // the transactional id

	cl       *kgo.Client
	implicit bool // brokers add partitions to a transaction by themselves (KIP-890, part 2)
	warm     map[partition]bool
}

type partition struct {
	topic string
	n     int32
}

// Open opens a Writer of the transactional id. What a former producer of that
// id left open is aborted by it, and that producer is fenced.
func Open(ctx context.Context, lent *kgo.Client, opts []kgo.Opt, id string) (*Writer, error) {
	open := func(more ...kgo.Opt) (*kgo.Client, error) {
		return client.OpenTransactional(lent, opts, id, append(more, client.Outlive(ctx), kgo.TransactionTimeout(Timeout))...)
	}
	cl, err := open()
	if err != nil {
		return nil, err
	}
	w := &Writer{ID: id, cl: cl, warm: map[partition]bool{}}
	if w.implicit, err = implicit(ctx, cl); err == nil && !w.implicit {
		// Or kgo would change its mind when the cluster does.
		if mv, ok := cl.OptValue(kgo.MaxVersions).(*kversion.Versions); ok {
			cl.Close()
			if cl, err = open(kgo.MaxVersions(explicit(mv))); err != nil {
				return nil, err
			}
			w.cl = cl
		}
	}
	if err == nil {
		_, _, err = cl.ProducerID(ctx)
	}
	if err != nil {
		cl.Close()
		return nil, w.explain(err)
	}
	return w, nil
}

// implicit asks whether the cluster has transaction.version 2.
func implicit(ctx context.Context, cl *kgo.Client) (bool, error) {
	resp, err := kmsg.NewPtrApiVersionsRequest().RequestWith(ctx, cl)
	if err != nil {
		return false, err
	}
	for _, f := range resp.FinalizedFeatures {
		if f.Name == "transaction.version" {
			return f.MaxVersionLevel >= 2, nil
		}
	}
	return false, nil
}

// explicit is mv without the version of TxnOffsetCommit with which brokers add
// the group to the transaction by themselves.
func explicit(mv *kversion.Versions) *kversion.Versions {
	old := new(kversion.Versions)
	mv.EachMaxKeyVersion(func(k, v int16) { old.SetMaxKeyVersion(k, v) })
	old.SetMaxKeyVersion(int16(kmsg.TxnOffsetCommit), 4)
	return old
}

// explain adds to a refusal what it takes to mend it.
func (w *Writer) explain(err error) error {
	if errors.Is(err, kerr.TransactionalIDAuthorizationFailed) {
		return fmt.Errorf("transactional id %s: grant WRITE and DESCRIBE on it, best on all with the prefix of the group: %w", w.ID, err)
	}
	return fmt.Errorf("transactional id %s: %w", w.ID, err)
}

// Close closes the client. A transaction that is open stays so until another
// producer of the id opens or its time is over.
func (w *Writer) Close() { w.cl.Close() }

// Begin begins a transaction.
func (w *Writer) Begin() error { return w.cl.BeginTransaction() }

// Produce produces the records in the transaction and waits for their
// acknowledgements. It returns the error of each, or nil when there is none.
// When ctx ends first the Writer is of no use any more.
func (w *Writer) Produce(ctx context.Context, rs []*kgo.Record) (errs []error) {
	var (
		mu  sync.Mutex
		all sync.WaitGroup
	)
	all.Add(len(rs))
	for i, r := range rs {
		w.cl.Produce(ctx, r, func(_ *kgo.Record, err error) {
			defer all.Done()
			if err == nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if errs == nil {
				errs = make([]error, len(rs))
			}
			errs[i] = err
		})
	}
	acked := make(chan struct{})
	go func() { all.Wait(); close(acked) }()
	select {
	case <-acked:
		return errs
	case <-ctx.Done():
	}
	w.cl.Close() // or a record might still be kgo's when it is produced again
	<-acked
	if errs == nil {
		errs = make([]error, len(rs))
	}
	errs[0] = context.Cause(ctx)
	return errs
}

// Fresh notes where records of this transaction were produced to. It is called
// before Commit.
func (w *Writer) fresh(rs []*kgo.Record) bool {
	fresh := false
	for _, r := range rs {
		if p := (partition{r.Topic, r.Partition}); !w.warm[p] {
			w.warm[p], fresh = true, true
		}
	}
	return fresh
}

// Offsets makes the group's offsets part of the transaction, in which records
// were produced before. The caller sets the group, the member with its
// generation, and the offsets.
func (w *Writer) Offsets(ctx context.Context, req *kmsg.TxnOffsetCommitRequest) error {
	id, epoch, err := w.cl.ProducerID(ctx)
	if err != nil {
		return w.explain(err)
	}
	req.TransactionalID, req.ProducerID, req.ProducerEpoch = w.ID, id, epoch
	if !w.implicit {
		add := kmsg.NewPtrAddOffsetsToTxnRequest()
		add.TransactionalID, add.ProducerID, add.ProducerEpoch, add.Group = w.ID, id, epoch, req.Group
		err := again(ctx, func() error {
			resp, err := add.RequestWith(ctx, w.cl)
			if err != nil {
				return err
			}
			return kerr.ErrorForCode(resp.ErrorCode)
		})
		if err != nil {
			return w.explain(err)
		}
	}
	err = again(ctx, func() error {
		resp, err := req.RequestWith(ctx, w.cl)
		if err != nil {
			return err
		}
		for _, t := range resp.Topics {
			for _, p := range t.Partitions {
				if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
					return fmt.Errorf("partition %d: %w", p.Partition, err)
				}
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("offsets in the transaction: %w", err)
	}
	return nil
}

// patience is for how long a request is tried again while the transaction
// before is still being written down by brokers.
const patience = 5 * time.Second

func again(ctx context.Context, f func() error) error {
	begun, pause := time.Now(), 2*time.Millisecond
	for {
		err := f()
		if !errors.Is(err, kerr.ConcurrentTransactions) || time.Since(begun) > patience {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		case <-time.After(pause):
			pause = min(2*pause, 100*time.Millisecond)
		}
	}
}

// Commit commits the transaction, in which rs were produced. With an error it
// is not known whether it did: a Writer that is opened anew under the same id
// settles that, and then the group's offsets tell.
func (w *Writer) Commit(ctx context.Context, rs []*kgo.Record) error {
	if w.fresh(rs) {
		// The acknowledgement of the first record of a partition may come before
		// kgo has stored the partition. It would not find it, take the
		// transaction for an empty one and abort it, without an error. This
		// waits for the goroutine that stores.
		w.cl.PurgeTopicsFromProducing("wherry-no-such-topic")
	}
	return w.cl.EndTransaction(ctx, kgo.TryCommit)
}

// Abort aborts the transaction. With an error the Writer is of no use any more.
func (w *Writer) Abort(ctx context.Context) error {
	if err := w.cl.AbortBufferedRecords(ctx); err != nil {
		return err
	}
	return w.cl.EndTransaction(ctx, kgo.TryAbort)
}

// Fence ends what producers of these ids have left open, and refuses what they
// may still send. It asks for as many ids at once as help.
func Fence(ctx context.Context, cl *kgo.Client, ids []string) error {
	const atOnce = 16
	var (
		mu     sync.Mutex
		all    sync.WaitGroup
		faults []error
		places = make(chan struct{}, atOnce)
	)
	for _, id := range ids {
		places <- struct{}{}
		all.Go(func() {
			defer func() { <-places }()
			req := kmsg.NewPtrInitProducerIDRequest()
			req.TransactionalID, req.TransactionTimeoutMillis = &id, int32(Timeout.Milliseconds())
			req.ProducerID, req.ProducerEpoch = -1, -1
			resp, err := req.RequestWith(ctx, cl)
			if err == nil {
				err = kerr.ErrorForCode(resp.ErrorCode)
			}
			// The answer while an open transaction is being aborted.
			if err == nil || errors.Is(err, kerr.ConcurrentTransactions) {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			faults = append(faults, fmt.Errorf("transactional id %s: %w", id, err))
		})
	}
	all.Wait()
	return errors.Join(faults...)
}
