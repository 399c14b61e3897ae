package dlq

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
)

// Action is what is done with a dead letter.
type Action string

// The actions of a [Replayer]. In the ledger they say what was done.
const (
	Replay  Action = "replayed"  // copied to the topic that its record failed in, or to another
	Park    Action = "parked"    // copied as it is to a topic where it waits for a person
	Discard Action = "discarded" // left where it is, and passed over from then on
)

// Decision is what was decided about a dead letter, as the ledger has it. Its
// JSON form is the value of the ledger's records, see [LedgerTopic].
type Decision struct {
	Action Action    `json:"action"`
	At     time.Time `json:"at"`
	By     string    `json:"by,omitempty"`  // who ran it
	Why    string    `json:"why,omitempty"` // the reason given
	Run    string    `json:"run,omitempty"` // the run's id, one for all of its letters
	// Where the copy is; To is empty when none was made.
	To          string `json:"to,omitempty"`
	ToPartition int32  `json:"toPartition"`
	ToOffset    int64  `json:"toOffset"`
}

// LedgerTopic returns the name of the ledger of a dead-letter topic. It is a
// compacted topic of one partition with the [Decision] about each letter, the
// latest of which counts; it is to be read with read_committed. Its keys begin
// with the topic's id, so that a topic that was deleted and made anew does not
// inherit what was decided about the old one. Then come the letter's partition
// and offset:
//
//	<id>/<partition>/<offset>                    a Decision
//	<id>/<partition>/<first>-<last>/<run>        one about several letters
//	run/<id>/<run>                               a run at work
//
// One about several has, in place of toPartition and toOffset, "letters": lists
// of four numbers, which are the offset of a letter, how many follow it, itself
// among them, and the partition and the offset of its copy, whose neighbours'
// copies follow it as well.
func LedgerTopic(deadLetters string) string { return deadLetters + ".ledger" }

func ledgerSpec(deadLetters string) wherry.TopicSpec {
	return wherry.TopicSpec{Name: LedgerTopic(deadLetters), Partitions: 1, Changelog: true}
}

// ledger is what was decided about the letters that a dead-letter topic holds.
type ledger struct {
	run  string   // whose ledger it is
	runs runsSeen // those that may be at work
	next int64    // where the reading ended; of runs, see runsSeen

	mu     sync.Mutex // never held over a call that blocks
	marks  places
	detail *texts // of the decisions; nil where only the places are kept
	// begun says that what is read from now on was decided since the run began:
	// by it, or by another.
	begun        bool
	ours, theirs places
}

// newLedger returns an empty one. It has what was decided if detailed, and
// otherwise which letters are decided.
func newLedger(run string, detailed bool) *ledger {
	l := &ledger{run: run, runs: runsSeen{by: map[string]seen{}}, marks: places{}, ours: places{}, theirs: places{}}
	if detailed {
		l.detail = &texts{}
	}
	return l
}

func (l *ledger) has(at place) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.marks.has(at)
}

// since reports who has decided about a letter since the run began: the run
// itself, or another. What the run knows to be committed is not in it.
func (l *ledger) since(at place) (ours, theirs bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ours.has(at), l.theirs.has(at)
}

// get returns what was decided about the letter at a place, nil if nothing was.
func (l *ledger) get(at place) *Decision {
	l.mu.Lock()
	defer l.mu.Unlock()
	if m := l.marks.mark(at); m != nil {
		return l.detail.decision(*m)
	}
	return nil
}

// set enters a decision.
func (l *ledger) set(at place, d Decision) {
	var m *mark
	if l.detail != nil {
		m = &mark{d.ToOffset, d.ToPartition, l.detail.number(d)}
	}
	l.marks.add(at, m)
	switch {
	case !l.begun:
	case d.Run == l.run:
		l.ours.add(at, nil)
	default:
		l.theirs.add(at, nil)
	}
}

// apply takes in a committed record of the ledger. A mark that it cannot read
// counts as a decision all the same: doing nothing is the safe side.
func (l *ledger) apply(r *kgo.Record, of view) {
	if l.runs.apply(r, of.id) {
		return
	}
	at, last, run, ok := parseMarkKey(r.Key, of.id)
	if !ok { // of an older topic
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	g := group{Decision: Decision{At: r.Timestamp, Run: run}}
	single := last < 0
	switch {
	case r.Value == nil && single:
		l.marks.remove(at)
		return
	case r.Value == nil:
		return
	case single && json.Unmarshal(r.Value, &g.Decision) != nil:
		g.Decision = Decision{At: r.Timestamp}
	case !single && (json.Unmarshal(r.Value, &g) != nil || !g.within(at.offset, last)):
		g.Decision, g.Letters = Decision{At: r.Timestamp, Run: run}, []letters{{at.offset, last - at.offset + 1}}
	}
	// Retention removed the letters before it, and nobody asks for later ones.
	begin, end := of.starts[at.partition], of.ends[at.partition]
	if single {
		if at.offset >= begin {
			l.set(at, g.Decision)
		}
		return
	}
	for _, some := range g.Letters {
		for i := max(0, begin-some[0]); i < min(some[1], end-some[0]); i++ {
			d := g.Decision
			if d.To != "" {
				d.ToPartition, d.ToOffset = int32(some[2]), some[3]+i
			}
			l.set(place{at.partition, some[0] + i}, d)
		}
	}
}

// within reports whether the letters are those that the key names.
func (g group) within(first, last int64) bool {
	for _, some := range g.Letters {
		if some[0] < first || some[1] < 1 || some[1] > last-first+1 || some[0]+some[1]-1 > last {
			return false
		}
	}
	return true
}

// wrote notes that records of the ledger are committed, which need not be read.
func (l *ledger) wrote(records []*kgo.Record) {
	for _, r := range records {
		l.next = max(l.next, r.Offset+1)
	}
}

// catchUp reads the ledger of a dead-letter topic from where the reading ended
// before, to the end that is stable or, if whole, to the end that it has: it
// waits until each transaction that is open there is decided. A ledger that
// does not exist is empty.
func (l *ledger) catchUp(ctx context.Context, s scan, cl *kgo.Client, of view, whole bool) error {
	end, err := l.read(ctx, s, cl, extent{whole: whole}, l.next, func(r *kgo.Record) { l.apply(r, of) })
	l.next = max(l.next, end)
	return err
}

// watchRuns reads who is at work, to the end that the ledger has. It does not
// wait for transactions, which those records are not part of.
func (l *ledger) watchRuns(ctx context.Context, s scan, cl *kgo.Client, id kadm.TopicID) error {
	s.uncommitted = true
	end, err := l.read(ctx, s, cl, extent{whole: true}, max(l.runs.next, l.next), func(r *kgo.Record) { l.runs.apply(r, id) })
	l.runs.next = max(l.runs.next, end)
	return err
}

func (l *ledger) read(ctx context.Context, s scan, cl *kgo.Client, how extent, from int64, apply func(*kgo.Record)) (end int64, err error) {
	s.topic = LedgerTopic(s.topic)
	v, err := look(ctx, cl, s.topic, how, s.log)
	if errors.Is(err, errNoTopic) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if len(v.ends) != 1 {
		return 0, fmt.Errorf("topic %s: it has %d partitions, a ledger has one: it is not wherry's, rename or delete it", s.topic, len(v.ends))
	}
	s.id, s.from, s.to, s.idle = v.id, map[int32]int64{0: max(from, v.starts[0])}, v.ends, nil
	for r, err := range s.records(ctx) {
		if err != nil {
			return 0, err
		}
		apply(r)
	}
	return v.ends[0], nil
}
