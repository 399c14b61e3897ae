// Package client opens Kafka clients from one that the user lent, and waits
// for a broker to answer. It is the one place that knows which options are
// wherry's defaults, which are the user's to change, and which clients cannot
// be lent.
package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Defaults returns the options that a user may override: they decide latency,
// not correctness.
//
// kgo's own linger of 10 ms would be paid at every hop of a chain of
// services, and its smallest metadata age of 5 s turns a moved leader or a
// topic that was just made into a stall of as long.
func Defaults() []kgo.Opt {
	return []kgo.Opt{
		kgo.ProducerLinger(0),
		kgo.MetadataMinAge(50 * time.Millisecond),
		kgo.ConcurrentTransactionsBackoff(2 * time.Millisecond),
		// Outputs that no broker takes: producing waits at 64 MiB. (kgo's own
		// limit of 10,000 records wakes a goroutine for each acknowledgement.)
		kgo.MaxBufferedBytes(64 << 20),
		kgo.MaxBufferedRecords(1 << 20),
		// As Kafka's own producer. A KafkaJS consumer (NestJS) stops for good at
		// a batch of kgo's default, snappy, which it cannot read.
		kgo.ProducerBatchCompression(kgo.NoCompression()),
		kgo.FetchMinBytes(1),
		kgo.FetchMaxWait(500 * time.Millisecond),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
	}
}

// Check reports, all at once, why lent cannot serve as the base of another
// client; nil when it can.
func Check(lent *kgo.Client) error {
	if lent == nil {
		return errors.New("no client: set Client to a *kgo.Client")
	}
	var faults []error
	refuse := func(bad bool, option, reason string) {
		if bad {
			faults = append(faults, fmt.Errorf("the client has %s: %s", option, reason))
		}
	}
	text := func(opt any) string { s, _ := lent.OptValue(opt).(string); return s }
	flag := func(opt any) bool { b, _ := lent.OptValue(opt).(bool); return b }

	const consumes = "wherry opens a client of its own to consume; lend one that only says how to reach the cluster"
	refuse(text(kgo.ConsumerGroup) != "", "ConsumerGroup", consumes)
	refuse(text(kgo.ShareGroup) != "", "ShareGroup", consumes)
	refuse(len(lent.GetConsumeTopics()) > 0, "ConsumeTopics or ConsumePartitions", consumes)
	refuse(flag(kgo.ConsumeRegex), "ConsumeRegex", consumes)
	refuse(text(kgo.InstanceID) != "", "InstanceID", "two clients with one instance id fence each other; set it in Opts of the one Consumer that it names")
	refuse(text(kgo.TransactionalID) != "", "TransactionalID", "two producers with one transactional id fence each other")
	refuse(flag(kgo.ManualFlushing), "ManualFlushing", "nobody would flush what wherry produces")
	return errors.Join(faults...)
}

// Open opens a client with, from weakest to strongest, wherry's defaults, the
// lent client's options, the options of one user of it, and musts. It takes
// the lent client as Check found it.
func Open(lent *kgo.Client, opts []kgo.Opt, musts ...kgo.Opt) (cl *kgo.Client, err error) {
	return open(lent, opts, "", musts)
}

// OpenTransactional opens a client as Open does that produces in transactions
// under an id.
func OpenTransactional(lent *kgo.Client, opts []kgo.Opt, id string, musts ...kgo.Opt) (*kgo.Client, error) {
	return open(lent, opts, id, append(musts, kgo.TransactionalID(id)))
}

// opening lets one client be opened at a time: kgo writes to what
// kgo.ProducerBatchCompression was given (see its DefaultCompressor), which
// clients with the same options share.
var opening sync.Mutex

func open(lent *kgo.Client, opts []kgo.Opt, id string, musts []kgo.Opt) (cl *kgo.Client, err error) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case refusal:
			cl, err = nil, p.error
		default: // a hook that registers itself once (kprom) panics on a second client
			cl, err = nil, fmt.Errorf("a hook of the client cannot serve a second client; give it in Opts of the one user that it belongs to, not to the lent client: %v", p)
		}
	}()
	// Concat, not append: Opts is the lent client's own slice.
	opening.Lock()
	defer opening.Unlock()
	cl, err = kgo.NewClient(slices.Concat(Defaults(), lent.Opts(), opts, musts, []kgo.Opt{kgo.WithHooks(inspector{id})})...)
	if err != nil {
		return nil, fmt.Errorf("opening a client: %w", err)
	}
	return cl, nil
}

// inspector refuses a client before it starts anything. Later it may have
// joined its group, and closing it would wait for callbacks that wait for the
// client.
type inspector struct {
	id string // transactional, "" for none
}

type refusal struct{ error }

func (i inspector) OnNewClient(cl *kgo.Client) {
	if err := merged(cl, i.id); err != nil {
		panic(refusal{err})
	}
}

// merged reports, all at once, the options of an opened client with which
// wherry cannot do what it promises.
func merged(cl *kgo.Client, id string) error {
	var faults []error
	refuse := func(bad bool, option, reason string) {
		if bad {
			faults = append(faults, fmt.Errorf("%s in the options of the client or in Opts: %s", option, reason))
		}
	}
	flag := func(opt any) bool { b, _ := cl.OptValue(opt).(bool); return b }
	refuse(flag(kgo.ManualFlushing), "ManualFlushing", "nobody would flush what wherry produces")
	refuse(flag(kgo.ConsumeRegex), "ConsumeRegex", "topics are named, not matched")
	refuse(flag(kgo.DefaultProduceTopicAlways), "DefaultProduceTopicAlways", "outputs would all go to one topic")
	refuse(cl.OptValue(kgo.TransactionalID) != id, "TransactionalID", "wherry names its producers itself")
	refuse(id != "" && flag(kgo.DisableIdempotentWrite), "DisableIdempotentWrite", "transactions need it")
	refuse(cl.OptValue(kgo.RequiredAcks) != kgo.AllISRAcks(), "RequiredAcks", "an output counts as done when all in-sync replicas have it")
	return errors.Join(faults...)
}

// Outlive is the context that an opened client runs under: it has ctx's
// values, not its end, so that work in hand can be finished and committed
// after ctx is done. It overrides a context of the lent client's.
func Outlive(ctx context.Context) kgo.Opt { return kgo.WithContext(context.WithoutCancel(ctx)) }
