package main

import (
	"time"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/dlq"
)

// jsonLetter is a letter as -json writes it. Names stay as they are; new ones
// may be added. Bytes are text where they are UTF-8, and otherwise in the field
// of the same name with Base64 after it; a null key or value is null.
type jsonLetter struct {
	Topic     string     `json:"topic"` // of the dead letter, as the next three
	Partition int32      `json:"partition"`
	Offset    int64      `json:"offset"`
	Timestamp time.Time  `json:"timestamp"`
	Format    dlq.Format `json:"format"`

	Origin      jsonOrigin `json:"origin"`
	Group       string     `json:"group"`
	Cause       string     `json:"cause"`
	Error       string     `json:"error"`
	ErrorType   string     `json:"errorType"`
	Stack       string     `json:"stack,omitempty"`
	Attempts    int        `json:"attempts"`
	FirstFailed time.Time  `json:"firstFailed,omitzero"`
	Failed      time.Time  `json:"failed,omitzero"`
	Replays     int        `json:"replays"`
	Missing     bool       `json:"missing,omitempty"`

	Key         *string       `json:"key"`
	KeyBase64   []byte        `json:"keyBase64,omitempty"`
	Value       *string       `json:"value"`
	ValueBase64 []byte        `json:"valueBase64,omitempty"`
	Headers     []jsonHeader  `json:"headers"`
	Decision    *dlq.Decision `json:"decision"` // null while there is none
}

// jsonOrigin is where the record failed.
type jsonOrigin struct {
	Topic     string    `json:"topic"`
	Partition int32     `json:"partition"`
	Offset    int64     `json:"offset"`
	Timestamp time.Time `json:"timestamp,omitzero"`
}

type jsonHeader struct {
	Key         string  `json:"key"`
	Value       *string `json:"value"`
	ValueBase64 []byte  `json:"valueBase64,omitempty"`
}

func letterJSON(e dlq.Entry) jsonLetter {
	l := jsonLetter{
		Topic: e.Record.Topic, Partition: e.Record.Partition, Offset: e.Record.Offset, Timestamp: e.Record.Timestamp.UTC(), Format: e.Format,
		Origin: jsonOrigin{e.Topic, e.Partition, e.Offset, e.Timestamp.UTC()}, Group: e.Group,
		Cause: string(e.Cause), Error: e.Error, ErrorType: e.ErrorType, Stack: e.Stack,
		Attempts: e.Attempts, FirstFailed: e.FirstFailed.UTC(), Failed: e.Failed.UTC(), Replays: e.Replays, Missing: e.Missing,
		Headers: make([]jsonHeader, 0, len(e.Headers)), Decision: e.Decision,
	}
	l.Key, l.KeyBase64 = jsonBytes(e.Key)
	l.Value, l.ValueBase64 = jsonBytes(e.Value)
	for _, h := range e.Headers {
		l.Headers = append(l.Headers, headerJSON(h))
	}
	return l
}

func headerJSON(h kgo.RecordHeader) jsonHeader {
	text, raw := jsonBytes(h.Value)
	return jsonHeader{h.Key, text, raw}
}

func jsonBytes(b []byte) (text *string, raw []byte) {
	switch {
	case b == nil:
		return nil, nil
	case utf8.Valid(b):
		s := string(b)
		return &s, nil
	}
	return nil, b
}

// jsonReport is a report as -json writes it.
type jsonReport struct {
	Run       string        `json:"run"`
	By        string        `json:"by"`
	Why       string        `json:"why,omitempty"`
	Began     time.Time     `json:"began"`
	Topic     string        `json:"topic"`
	Action    dlq.Action    `json:"action"`
	DryRun    bool          `json:"dryRun"`
	Read      int           `json:"read"`
	Decided   int           `json:"decided"`
	Selected  int           `json:"selected"`
	Replayed  int           `json:"replayed"`
	Parked    int           `json:"parked"`
	Discarded int           `json:"discarded"`
	Failed    int           `json:"failed"`
	Unsettled int           `json:"unsettled"`
	Failures  []jsonFailure `json:"failures"`
	Counts    jsonCounts    `json:"counts"`
	Seconds   float64       `json:"seconds"`
}

type jsonFailure struct {
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
	To        string `json:"to,omitempty"`
	Error     string `json:"error"`
}

type jsonCounts struct {
	Letters    int            `json:"letters"`
	Causes     map[string]int `json:"causes"`
	ErrorTypes map[string]int `json:"errorTypes"`
	Topics     map[string]int `json:"topics"`
	Groups     map[string]int `json:"groups"`
	Ages       []jsonAge      `json:"ages"`
	Oldest     time.Time      `json:"oldest,omitzero"`
	Newest     time.Time      `json:"newest,omitzero"`
}

type jsonAge struct {
	UnderSeconds int64 `json:"underSeconds"` // 0: all others
	Letters      int   `json:"letters"`
}

func reportJSON(r *dlq.Replayer, report dlq.Report) jsonReport {
	j := jsonReport{
		Run: report.Run, By: report.By, Why: report.Why, Began: report.Began.UTC(), Topic: r.Topic, Action: r.Action, DryRun: r.DryRun, Read: report.Read, Decided: report.Decided, Selected: report.Selected,
		Replayed: report.Replayed, Parked: report.Parked, Discarded: report.Discarded,
		Failed: report.Failed, Unsettled: report.Unsettled,
		Failures: []jsonFailure{}, Counts: countsJSON(report.Counts), Seconds: report.Took.Seconds(),
	}
	for _, f := range report.Failures {
		j.Failures = append(j.Failures, jsonFailure{f.Partition, f.Offset, f.To, f.Err.Error()})
	}
	return j
}

func countsJSON(c dlq.Counts) jsonCounts {
	j := jsonCounts{Causes: map[string]int{}, ErrorTypes: c.ErrorTypes, Topics: c.Topics, Groups: c.Groups, Oldest: c.Oldest.UTC(), Newest: c.Newest.UTC()}
	for cause, n := range c.Causes {
		j.Causes[string(cause)] = n
	}
	for _, a := range c.Ages {
		j.Ages = append(j.Ages, jsonAge{int64(a.Under / time.Second), a.Letters})
		j.Letters += a.Letters
	}
	return j
}
