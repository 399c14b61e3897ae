package dlq

import (
	"fmt"
	"maps"
	"time"

	"github.com/wherry-go/wherry"
)

// Report is what a run did, or with DryRun what it would do. It is right also
// when Run returned an error.
type Report struct {
	Run      string        // the run's id, as in the ledger, as are the next two
	By, Why  string        // who ran it, for what reason
	Began    time.Time     // when it began
	Read     int           // letters read
	Decided  int           // of those that match: passed over, another run decided them
	Selected int           // all that follow, together
	Took     time.Duration // how long it took

	Replayed  int // copied, and marked in the ledger
	Parked    int // copied as they are, and marked
	Discarded int // marked as discarded
	Failed    int // not copied, and not decided: the next run takes them again
	// Unsettled letters were in the last transaction of a run that ended early,
	// before a broker told whether it is committed. Either all of them are done
	// and decided or none is; the next run finds out.
	Unsettled int

	// Failures has the reasons of the first 100 that failed.
	Failures []*LetterError
	// Counts sorts the selected letters.
	Counts Counts
	// Ends are the offsets up to which each partition was to be read. As
	// [Replayer.Ends] of another run they keep that from taking letters that
	// came later.
	Ends map[int32]int64
}

// maxFailures is how many reasons a Report keeps.
const maxFailures = 100

// LetterError says why a letter could not be read, copied or marked.
type LetterError struct {
	Topic     string // of the dead letter, as are the next two
	Partition int32
	Offset    int64
	To        string // where its copy was to go; empty when it is not known
	Err       error
}

func (e *LetterError) Error() string {
	at := fmt.Sprintf("letter %s/%d/%d: ", e.Topic, e.Partition, e.Offset)
	if e.To != "" {
		at += "copying to " + e.To + ": "
	}
	return at + e.Err.Error()
}

// Unwrap returns the reason.
func (e *LetterError) Unwrap() error { return e.Err }

// Counts are numbers of letters by what they say of themselves. What they do
// not say is counted under the empty text.
type Counts struct {
	Causes                     map[wherry.Cause]int
	Topics, Groups, ErrorTypes map[string]int
	Ages                       [5]AgeCount // since they failed, the youngest first
	Oldest, Newest             time.Time   // when the first and the last of them failed
}

// AgeCount is how many letters are younger than Under, and not counted before.
// Under 0 means all others.
type AgeCount struct {
	Under   time.Duration
	Letters int
}

// Others counts what would have been the 1,001st value of a kind in [Counts].
const Others = "(others)"

const maxValues = 1000

func newCounts() Counts {
	const day = 24 * time.Hour
	return Counts{
		Causes: map[wherry.Cause]int{}, Topics: map[string]int{}, Groups: map[string]int{}, ErrorTypes: map[string]int{},
		Ages: [5]AgeCount{{Under: time.Hour}, {Under: day}, {Under: 7 * day}, {Under: 30 * day}, {}},
	}
}

// add counts a letter.
func (c *Counts) add(l *Letter, now time.Time) {
	tally(c.Causes, l.Cause)
	tally(c.Topics, l.Topic)
	tally(c.Groups, l.Group)
	tally(c.ErrorTypes, l.ErrorType)
	failed := failedAt(l)
	if c.Oldest.IsZero() || failed.Before(c.Oldest) {
		c.Oldest = failed
	}
	if failed.After(c.Newest) {
		c.Newest = failed
	}
	for i := range c.Ages {
		if a := &c.Ages[i]; a.Under == 0 || now.Sub(failed) < a.Under {
			a.Letters++
			return
		}
	}
}

// tally keeps no more than maxValues values: whoever writes letters chooses
// them.
func tally[K ~string](counts map[K]int, value K) {
	if _, known := counts[value]; !known && len(counts) >= maxValues {
		value = Others
	}
	counts[value]++
}

func (c *Counts) clone() Counts {
	n := *c
	n.Causes, n.Topics, n.Groups, n.ErrorTypes = maps.Clone(c.Causes), maps.Clone(c.Topics), maps.Clone(c.Groups), maps.Clone(c.ErrorTypes)
	return n
}

// clone is a Report that stays as it is.
func (r *Report) clone() Report {
	n := *r
	n.Failures, n.Counts, n.Ends = append([]*LetterError(nil), r.Failures...), r.Counts.clone(), maps.Clone(r.Ends)
	return n
}
