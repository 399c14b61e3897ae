package crashlab

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/internal/header"
)

// SagaLog is what a run of sagas left behind: the records of each topic that a
// read_committed consumer sees, in the order of each partition.
type SagaLog struct {
	Seed     uint64
	Calm     bool          // nothing went wrong but what scripts say
	Started  []int         // the sagas whose start was acknowledged
	Deeds    []*kgo.Record // of the topic of effects
	Commands []*kgo.Record // of all topics of participants
	States   []SagaRecord  // of the state topic
}

// SagaState is the state of a saga of the laboratory: what its steps answered,
// as each apply took it in.
type SagaState struct {
	N      int                 `json:"n"`
	Skip   bool                `json:"skip,omitempty"`
	Done   map[string][]string `json:"done,omitempty"`   // tokens, by step
	Undone map[string][]string `json:"undone,omitempty"` // likewise
}

// apply takes in the token of a step that was done, or undone.
func (s *SagaState) apply(step string, undo bool, token string) {
	to := &s.Done
	if undo {
		to = &s.Undone
	}
	if *to == nil {
		*to = map[string][]string{}
	}
	(*to)[step] = append((*to)[step], token)
}

// SagaRecord is a record of the state topic.
type SagaRecord struct {
	At      string // its place
	ID      string
	Deleted bool // the saga is forgotten
	Phase   string
	Ended   bool
	Began   time.Time
	State   SagaState
	Moves   uint64     // transitions in all
	History []SagaMove // the last of them
}

// whole reports whether the history has all transitions.
func (r SagaRecord) whole() bool { return uint64(len(r.History)) == r.Moves }

// SagaMove is one transition of a saga.
type SagaMove struct {
	At      time.Time
	What    string
	Step    string
	Attempt int
	Note    string
}

// Deed is what was done for a saga: a record of the topic of effects, to which
// all of one saga are written in one partition.
type Deed struct {
	Kind    DeedKind  `json:"kind"`
	Saga    string    `json:"saga"` // its id
	Step    string    `json:"step"`
	Undo    bool      `json:"undo,omitempty"`
	Attempt int       `json:"attempt"`
	Key     string    `json:"key"`   // the idempotency key
	Token   string    `json:"token"` // tells one deed from every other
	Process string    `json:"process"`
	At      time.Time `json:"at"`
	Failed  bool      `json:"failed,omitempty"` // Did: of an attempt that failed, so nobody may see it; Said: it did
}

// DeedKind tells effects from what is only a note of what was said.
type DeedKind string

// Kinds of deeds.
const (
	Did  DeedKind = "did"  // an effect
	Said DeedKind = "said" // an attempt was handled, and this was answered
)

// Record returns the deed as a record.
func (d Deed) Record(topic string) *kgo.Record {
	value, err := json.Marshal(d)
	if err != nil {
		panic(err) // it has no field that cannot be encoded
	}
	return &kgo.Record{Topic: topic, Key: []byte(d.Saga), Value: value}
}

// Command is a record of a topic of participants: an attempt at a step.
type Command struct {
	Saga    string
	Step    string
	Undo    bool
	Attempt int       // 0 in an event, which does not say
	Begun   time.Time // when the engine decided it; zero in an event
	At      string    // its place
}

// readCommand reads a command. Step is given by the record's topic.
func readCommand(r *kgo.Record, step string) (Command, error) {
	c := Command{Step: step, At: place(r)}
	if s, _ := stepNamed(step); s.Kind == EmitStep {
		var b Bill
		if err := json.Unmarshal(r.Value, &b); err != nil {
			return c, err
		}
		c.Saga, c.Undo = b.ID, b.Cancel
		return c, nil
	}
	id, _ := header.Get(r, header.CorrelationID)
	said, _, err := c.correlate(id)
	if err != nil {
		return c, err
	}
	if said != step {
		return c, fmt.Errorf("it is for step %q", said)
	}
	deadline, ok := header.Time(r, header.Deadline)
	if !ok {
		return c, errors.New("it has no deadline")
	}
	c.Begun = deadline.Add(-sagaTimeout)
	return c, nil
}

// correlate reads a correlation id: of which attempt it is, and the partition of
// the inbox that awaits the answer.
func (c *Command) correlate(id string) (step string, partition int32, err error) {
	parts := strings.Split(id, ".")
	if len(parts) != 5 {
		return "", 0, fmt.Errorf("its correlation id is %q", id)
	}
	saga, err := base64.RawURLEncoding.DecodeString(parts[0])
	attempt, err2 := strconv.Atoi(parts[3])
	p, err3 := strconv.ParseInt(parts[4], 10, 32)
	if err := errors.Join(err, err2, err3); err != nil {
		return "", 0, fmt.Errorf("its correlation id is %q: %w", id, err)
	}
	c.Saga, c.Undo, c.Attempt = string(saga), parts[2] == "u", attempt
	return parts[1], int32(p), nil
}

func place(r *kgo.Record) string { return r.Topic + "/" + from(r) }

// Bill is the event that asks for a bill, or cancels it.
type Bill struct {
	ID     string `json:"id"`
	N      int    `json:"n"`
	Cancel bool   `json:"cancel,omitempty"`
}
