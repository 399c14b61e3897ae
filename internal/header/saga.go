package header

import (
	"encoding/base64"
	"math"
	"net/url"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/internal/planted"
)

// A request of a saga. Which one it is stands in its correlation id, see
// [Op.CorrelationID].
const (
	Saga          = "wherry-saga"           // the saga's name
	SagaOp        = "wherry-saga-op"        // the idempotency key, see [Op.Key]
	SagaDirection = "wherry-saga-direction" // Do or Undo; not of an undo that has a topic of its own
	SagaDone      = "wherry-saga-done"      // of an undo: present where the do is known to have succeeded

	Do   = "do"
	Undo = "undo"

	ReplyNothing = "wherry-reply-nothing" // of a reply to an undo: there is no value, and none is meant
)

// Limits of what an Op says.
const (
	maxSaga = 249 // a topic's name begins with it
	maxID   = 256
	maxStep = 64
)

// Op is what a saga asks of a participant.
type Op struct {
	Saga    string
	ID      string
	Step    string
	Undo    bool
	Done    bool
	Attempt int
}

// Valid reports whether each part is there, and what it may be.
func (o Op) Valid() bool {
	return legal(o.Saga, maxSaga, "._-") && o.ID != "" && len(o.ID) <= maxID && legal(o.Step, maxStep, "_- ") && o.Attempt > 0 && o.Attempt <= math.MaxInt32
}

// legal reports whether s has letters, digits and other, and not too many.
func legal(s string, most int, other string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && strings.IndexByte(other, c) < 0 {
			return false
		}
	}
	return s != "" && len(s) <= most
}

// Direction is Do or Undo.
func (o Op) Direction() string {
	if o.Undo {
		return Undo
	}
	return Do
}

// Key is the same for each attempt, and for no other Op. It is printable ASCII.
func (o Op) Key() string {
	if planted.Is(planted.AttemptInKey) {
		o.Step += strconv.Itoa(o.Attempt)
	}
	return url.PathEscape(o.Saga) + "/" + url.PathEscape(o.ID) + "/" + url.PathEscape(o.Step) + "/" + o.Direction()
}

// CorrelationID returns the correlation id of the request: the saga's id in
// base64url, the step, d or u, the attempt, and the partition of the saga, with
// dots between.
func (o Op) CorrelationID(partition int32) string {
	direction := "d"
	if o.Undo {
		direction = "u"
	}
	return base64.RawURLEncoding.EncodeToString([]byte(o.ID)) + "." + o.Step + "." + direction + "." + strconv.Itoa(o.Attempt) + "." + FormatInt(partition)
}

// ParseCorrelationID is the opposite. What no CorrelationID can be is not ok. The
// Op has no Saga and is not Done, which the id does not say.
func ParseCorrelationID(text string) (o Op, partition int32, ok bool) {
	if len(text) > 2*maxID+maxStep { // of which the other parts need less than half of maxID
		return Op{}, 0, false
	}
	parts := strings.Split(text, ".")
	if len(parts) != 5 {
		return Op{}, 0, false
	}
	id, err := base64.RawURLEncoding.DecodeString(parts[0])
	if err != nil {
		return Op{}, 0, false
	}
	attempt, err := strconv.ParseInt(parts[3], 10, 32)
	if err != nil {
		return Op{}, 0, false
	}
	p, err := strconv.ParseInt(parts[4], 10, 32)
	if err != nil || p < 0 {
		return Op{}, 0, false
	}
	o = Op{ID: string(id), Step: parts[1], Undo: parts[2] == "u", Attempt: int(attempt)}
	whole := o
	whole.Saga = "any"
	// What is written in another way, +1 or a line break in the base64, is none.
	if !whole.Valid() || o.CorrelationID(int32(p)) != text {
		return Op{}, 0, false
	}
	return o, int32(p), true
}

// OpOf returns what a request with that correlation id is asked for. A request
// without a name of a saga, or whose SagaDirection is not that of its
// correlation id, is not ok; one without a SagaDirection is.
func OpOf(saga, direction, correlationID string, done bool) (Op, bool) {
	if saga == "" {
		return Op{}, false
	}
	o, _, ok := ParseCorrelationID(correlationID)
	o.Saga, o.Done = saga, done && o.Undo
	if !ok || !o.Valid() || direction != "" && direction != o.Direction() {
		return Op{}, false
	}
	return o, true
}

// AddTo puts into a request what is not in its correlation id, and the key, for
// those who do not read that. apart says that the undo has another topic than
// the do: there it is a request like any.
func (o Op) AddTo(r *kgo.Record, apart bool) {
	Add(r, Saga, o.Saga)
	Add(r, SagaOp, o.Key())
	if !o.Undo || !apart {
		Add(r, SagaDirection, o.Direction())
	}
	if o.Undo && o.Done {
		Add(r, SagaDone, "1")
	}
}
