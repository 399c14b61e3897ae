package main

import (
	"encoding/json"
	"time"
	"unicode/utf8"

	"github.com/wherry-go/wherry/saga"
)

// jsonSaga is a saga as -json writes it. Names stay as they are; new ones may be
// added. The state is JSON where it is, and otherwise in stateBase64.
type jsonSaga struct {
	Saga        string          `json:"saga"`
	ID          string          `json:"id"`
	IDBase64    []byte          `json:"idBase64,omitempty"` // where the id is not UTF-8
	Version     int             `json:"version"`
	Phase       string          `json:"phase"`
	Before      string          `json:"before,omitempty"`
	Paused      bool            `json:"paused"`
	Stuck       bool            `json:"stuck"`
	Reason      string          `json:"reason"` // the sentence of "wherry saga why"
	Step        string          `json:"step,omitempty"`
	Why         string          `json:"why,omitempty"`
	Began       time.Time       `json:"began"`
	Ended       time.Time       `json:"ended,omitzero"`
	Next        time.Time       `json:"next,omitzero"`
	Steps       []jsonStep      `json:"steps"`
	Early       []jsonEarly     `json:"early,omitempty"`
	History     []jsonMove      `json:"history"`
	Moves       uint64          `json:"moves"`
	Trace       string          `json:"trace,omitempty"`
	State       json.RawMessage `json:"state,omitempty"`
	StateBase64 []byte          `json:"stateBase64,omitempty"`
	Partition   *int32          `json:"partition,omitempty"` // of its record in the state topic, where it was read there
	Offset      *int64          `json:"offset,omitempty"`
}

type jsonStep struct {
	Step    string    `json:"step"`
	Status  string    `json:"status"`
	Doubt   bool      `json:"doubt,omitempty"`
	Attempt int       `json:"attempt,omitempty"`
	Began   time.Time `json:"began,omitzero"`
	Due     time.Time `json:"due,omitzero"`
}

type jsonEarly struct {
	Topic     string    `json:"topic"`
	Partition int32     `json:"partition"`
	Offset    int64     `json:"offset"`
	Came      time.Time `json:"came"`
}

type jsonMove struct {
	At      time.Time `json:"at"`
	What    string    `json:"what"`
	Step    string    `json:"step,omitempty"`
	Attempt int       `json:"attempt,omitempty"`
	Note    string    `json:"note,omitempty"`
}

func sagaJSON(s saga.Snapshot) jsonSaga {
	j := jsonSaga{
		Saga: s.Saga, ID: s.ID, Version: s.Version, Phase: s.Phase.String(), Paused: s.Paused, Stuck: s.Stuck,
		Reason: s.Reason().String(), Step: s.Step, Why: s.Why, Began: s.Began.UTC(), Ended: s.Ended.UTC(), Next: s.Next.UTC(),
		Steps: []jsonStep{}, History: []jsonMove{}, Moves: s.Moves, Trace: s.Trace,
	}
	if s.Before != 0 {
		j.Before = s.Before.String()
	}
	for _, p := range s.Steps {
		j.Steps = append(j.Steps, jsonStep{p.Step, p.Status, p.Doubt, p.Attempt, p.Began.UTC(), p.Due.UTC()})
	}
	for _, e := range s.Early {
		j.Early = append(j.Early, jsonEarly{e.Topic, e.Partition, e.Offset, e.Came.UTC()})
	}
	for _, t := range s.History {
		j.History = append(j.History, jsonMove{t.At.UTC(), t.What, t.Step, t.Attempt, t.Note})
	}
	if !utf8.ValidString(s.ID) {
		j.IDBase64 = []byte(s.ID)
	}
	if json.Valid(s.Raw) && utf8.Valid(s.Raw) {
		j.State = s.Raw
	} else {
		j.StateBase64 = s.Raw
	}
	if s.Offset >= 0 {
		j.Partition, j.Offset = &s.Partition, &s.Offset
	}
	return j
}

// jsonSagaCounts is what -summary counts.
type jsonSagaCounts struct {
	Phases     map[string]int  `json:"phases"`
	Versions   map[int]int     `json:"versions"`
	Stuck      int             `json:"stuck"`
	Paused     int             `json:"paused"`
	Unreadable int             `json:"unreadable"`
	Oldest     time.Time       `json:"oldest,omitzero"`
	Offsets    map[int32]int64 `json:"offsets"` // of the state topic, which it is current to
}

func sagaCountsJSON(c saga.Counts) jsonSagaCounts {
	j := jsonSagaCounts{
		Phases: map[string]int{}, Versions: c.Versions, Stuck: c.Stuck, Paused: c.Paused,
		Unreadable: c.Unreadable, Oldest: c.Oldest.UTC(), Offsets: c.Offsets,
	}
	for p, n := range c.Phases {
		j.Phases[p.String()] = n
	}
	return j
}

// jsonVerb is what became of a verb.
type jsonVerb struct {
	Saga    string `json:"saga"`
	ID      string `json:"id"`
	Verb    string `json:"verb"`
	Actor   string `json:"actor"`
	Reason  string `json:"reason"`
	Applied bool   `json:"applied"`
	Error   string `json:"error,omitempty"`
}
