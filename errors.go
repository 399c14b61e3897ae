package wherry

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// A Cause says in one word why a record could not be handled.
type Cause string

// The causes of a [RecordError].
const (
	CauseFailed      Cause = "failed"      // the handler returned an error
	CausePermanent   Cause = "permanent"   // the handler returned an error that no retry can mend
	CauseExhausted   Cause = "exhausted"   // the last of the allowed attempts failed
	CauseUndecodable Cause = "undecodable" // the bytes are no valid value of the type asked for
	CauseExpired     Cause = "expired"     // its time was over before it could be handled
	CauseRejected    Cause = "rejected"    // the broker refused one of its outputs
	CausePanic       Cause = "panic"       // the handler panicked
)

// RecordError says which record could not be handled and why. [Consumer.Run]
// returns one when it stops; policies find it in a handler's error with
// errors.As and fill in what they know. It is not changed after it was
// returned from Run.
type RecordError struct {
	Topic     string
	Partition int32
	Offset    int64
	Cause     Cause
	Attempts  int       // how often the handler was called, at least 1
	First     time.Time // when the first attempt failed; zero when only one was made
	Stack     string    // the stack of a panic, else empty
	Err       error     // what the handler returned
}

// Error names the record as topic/partition@offset.
func (e *RecordError) Error() string {
	at := ""
	if e.Topic != "" {
		at = fmt.Sprintf("record %s/%d@%d: ", e.Topic, e.Partition, e.Offset)
	}
	text := fmt.Sprint(e.Err)
	if e.Cause == CausePanic {
		text = strings.TrimPrefix(text, "panic: ") // says the Cause
	}
	if e.Attempts > 1 {
		return fmt.Sprintf("%s%s after %d attempts: %s", at, e.Cause, e.Attempts, text)
	}
	return fmt.Sprintf("%s%s: %s", at, e.Cause, text)
}

// Unwrap returns what the handler returned.
func (e *RecordError) Unwrap() error { return e.Err }

// recordError returns err as the error of r: the RecordError in it, with the
// coordinates filled in, or a new one around it.
func recordError(r *kgo.Record, err error) *RecordError {
	e := RecordError{Cause: CauseFailed, Err: err}
	if found, ok := errors.AsType[*RecordError](err); ok {
		switch {
		case found.Topic != "" && (found.Topic != r.Topic || found.Partition != r.Partition || found.Offset != r.Offset):
			// It is about another record, as of a Table: for r an error like any.
		case error(found) != err: //nolint:errorlint // is it wrapped at all?
			e = *found
			e.Err = err // keep what was wrapped around it
		default:
			e = *found
		}
	} else if errors.Is(err, ErrPermanent) {
		e.Cause = CausePermanent
	}
	e.Topic, e.Partition, e.Offset = r.Topic, r.Partition, r.Offset
	e.Attempts = max(e.Attempts, 1)
	return &e
}

// OutputError says that an output was refused: by [Publish], which knows the
// size limit, or by the broker. It is permanent (see [ErrPermanent]).
type OutputError struct {
	Topic string // where the output was to go
	Key   []byte
	Size  int   // of key, value and headers, in bytes
	Err   error // the refusal, mostly a *kerr.Error
}

func (e *OutputError) Error() string {
	return fmt.Sprintf("output to %s (key %.40q, %d bytes) refused: %v", e.Topic, e.Key, e.Size, e.Err)
}

// Unwrap returns the refusal.
func (e *OutputError) Unwrap() error { return e.Err }

// Is reports that an OutputError is an [ErrPermanent].
func (e *OutputError) Is(target error) bool { return target == ErrPermanent }

// ErrPermanent is in every error that [Permanent] returned: test for it with
// errors.Is.
var ErrPermanent = errors.New("permanent")

// Permanent marks err as one that no retry can mend: policies that retry give
// up at once. It returns nil for nil.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &permanent{err}
}

type permanent struct{ err error }

func (e *permanent) Error() string        { return e.err.Error() }
func (e *permanent) Unwrap() error        { return e.err }
func (e *permanent) Is(target error) bool { return target == ErrPermanent }

// OffsetRangeError says that a partition was to be read from an offset that
// its log does not hold: retention deleted it, or the topic was made anew.
type OffsetRangeError struct {
	Group      string
	Topic      string
	Partition  int32
	Offset     int64 // the offset asked for
	Start, End int64 // what the log holds: Start is its first offset, End the one after its last
}

func (e *OffsetRangeError) Error() string {
	return fmt.Sprintf("group %s: offset %d of %s/%d is out of range, the log holds %d to %d: set Consumer.OnReset, or the group's offset with kafka-consumer-groups --reset-offsets",
		e.Group, e.Offset, e.Topic, e.Partition, e.Start, e.End)
}
