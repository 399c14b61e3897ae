package dlq

import (
	"context"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
)

// Replayer goes through a dead-letter topic once, from its start to the end
// that it has when Run is called, and decides about the letters that Select
// selects: it replays them, parks them or discards them. The topic itself is
// not changed: what was decided stands in a ledger, a topic of its own (see
// [LedgerTopic]), and letters that stand there are passed over by later runs.
// So a run that was cut short is ended by running it again.
//
//	report, err := (&dlq.Replayer{Client: cl, Topic: "billing.dlq", Rate: 50}).Run(ctx)
//
// # Guarantees
//
// Exactly once: the copies of some letters and their marks in the ledger are one
// transaction, of up to 5,000 letters, 8 MiB or what 100 ms brought. All of it
// is there or nothing is, also after a kill at any moment, and the next run goes
// on from there (TestReplayOnce_…). It holds for readers with read_committed,
// which wherry's Consumers are unless told otherwise. Others also see the copies
// of transactions that were aborted, and then those that took their place.
// While a transaction is open, readers with read_committed wait at it, in the
// topics that it has copies for: some milliseconds, and after a kill until the
// next run begins or for up to 20 s.
//
// A commit whose answer was lost is not guessed at: the producer is opened anew,
// which puts an end to what is open, and then the ledger is read to its end.
//
// Letters of one partition are copied in its order. Copies of the same key go
// to one partition, after whatever was written there since: a replay does not
// restore the order that the topic had.
//
// A copy that a broker refuses (too large for its topic, a topic that is gone or
// closed to the user) fails alone: the transaction is aborted, those that may be
// to blame are tried in smaller ones until it is found, and the others go. It
// stays undecided, with its reason in the Report.
//
// One run at a time works on a topic: a second one waits to see whether the
// first is alive, up to 5 s if it was killed a moment ago, and returns [ErrBusy]
// if it is. A run that was not heard of for so long (SIGSTOP, a laptop asleep, a
// broken network) is taken over. When it wakes up, brokers take nothing from it
// any more, because both have one transactional id ([ReplayID]), and it returns
// [ErrTakenOver]. Nothing is copied twice by two, nor left out by both.
//
// What a version of wherry without transactions has replayed counts. One that is
// at work still does at least once, and neither begins beside the other.
//
// # Rights
//
// Beside READ on the topic, WRITE on those that copies go to, and READ and WRITE
// on the ledger (CREATE, where it is not there yet), a run needs WRITE and
// DESCRIBE on the transactional id <Topic>.replay. Rights on all topics and ids
// that begin with Topic are the shortest way to say it.
//
// # Copies
//
// A replayed copy has the key, the value and the application's headers of the
// record that failed, byte for byte. Headers of the framework that gave up on
// it are not there. It goes to the partition that its key says, by the client's
// partitioner. Its header wherry-dlq-replays says how often it was replayed; a
// letter that was replayed MaxReplays times is parked instead, so that nothing
// fails for ever in circles. Its timestamp is now, see KeepTime. Its trace is
// a new one, whose first span is linked to the old trace.
//
// What share groups leave behind (KIP-1191) has no key and value: they are
// fetched from where the record failed, and the letter counts as failed if they
// are not there any more.
//
// The origin of a letter is what its headers say. Who may write to the
// dead-letter topic thereby chooses where copies go: Select.Topics or To bound
// that. Kafka's internal topics are refused.
//
// # Memory
//
// It has the fetched batches of each broker in memory (8 MiB at a time, before
// they are decompressed), and two transactions: one that is being written and
// one that fills. For each letter that the ledger has and the topic still holds
// it has one bit, or 250 bytes at most where decided letters are thinly spread;
// [Replayer.List] up to 40 bytes more. docs/benchmarks.md has what 1,000,000
// letters took.
//
// Its fields must not be changed while Run is at work. Run may be called again.
type Replayer struct {
	// Client says how to reach the cluster; see [wherry.Consumer.Client].
	// Required.
	Client *kgo.Client
	// Topic is the dead-letter topic. Required.
	Topic string
	// Select says which letters. Zero means all that are not decided.
	Select Selection
	// Action is what is done with them. "" means Replay.
	Action Action
	// To is the topic that copies go to. "" means the one that each record
	// failed in.
	To string
	// Group is the one consumer group that the copies are for: the Consumers of
	// other groups pass them by. (Consumers that are not of this library do
	// not.) "" means that copies are for all; those of records that were for
	// one group already stay so, unless To is another topic.
	Group string
	// Rate is how many copies are made in a second, evenly spread but for those
	// of a transaction, which arrive together: what 100 ms bring. 0 means no
	// limit.
	Rate float64
	// MaxReplays is how often a record may be replayed before its letter is
	// parked. 0 means 3; negative means no limit.
	MaxReplays int
	// Parking is the topic that letters are parked in. "" means <Topic>.parked.
	// It is made when the first letter is parked, with the partitions of Topic
	// and without an end of retention, unless it exists. A Replayer whose Topic
	// it is works on what is parked.
	Parking string
	// KeepTime gives replayed copies the timestamp of the record that failed:
	// for consumers that go by event time. A topic with a retention may then
	// delete copies of old records before anybody has read them, or refuse them.
	KeepTime bool
	// DryRun does everything but write: no copies, no marks, no topics. The
	// Report says what would be done.
	DryRun bool
	// Ends end the run at these offsets, by partition: [Report.Ends] of a
	// DryRun, to take what that has seen and nothing that came later.
	// Partitions that are not in it are not read. nil means the ends at the call.
	Ends map[int32]int64
	// By and Why stand in the ledger, with the time, and in the Report: who
	// decided, for what reason. By "" means user@host.
	By, Why string
	// Progress is told how far the run is: after letters were read or settled,
	// at most once a second, and once at the end. It is called by the goroutine of Run,
	// which waits for it; the Report is its own to keep.
	Progress func(Report)
	// Opts override the options of Client for this Replayer alone.
	Opts []kgo.Opt
	// Telemetry has where the spans of copies go. Zero means OpenTelemetry's
	// global providers.
	Telemetry wherry.Telemetry
	// Logger logs what an operator should know. nil means [slog.Default].
	Logger *slog.Logger
}

const (
	defaultMaxReplays = 3

	// The letters in hand are settled, in a transaction, when they are so many,
	// have so many bytes, or the first of them is so old.
	settleLetters = 5000
	settleBytes   = 8 << 20
	settleAfter   = 100 * time.Millisecond

	// grace is how long brokers are waited for when the context is done.
	grace = time.Second

	progressEvery = time.Second
)

// Run goes through the topic once. It returns nil when it has come to the end,
// also if some letters failed: see [Report.Failed]. Readers with read_committed
// see the copies then. Otherwise the run is not
// complete, and the error says why: a configuration that is wrong, a topic that
// does not exist, credentials or rights that are missing, a ledger that cannot
// be written, another run at work ([ErrBusy]) or in its place ([ErrTakenOver]),
// or the cause of ctx's end.
//
// It waits, logging, for a broker to answer, and for one that went away to come
// back. When ctx is done it returns within about two seconds: what is in hand is
// settled if a broker answers in that time; see [Report.Unsettled].
func (r *Replayer) Run(ctx context.Context) (Report, error) {
	j, err := r.open(ctx, false)
	if err != nil {
		return Report{}, err
	}
	defer j.close()
	err = j.run(ctx)
	j.report.Took = time.Since(j.began)
	if r.Progress != nil {
		r.Progress(j.report.clone())
	}
	return j.report, err
}
