package crashlab

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Partitions is how many partitions the topics of a run have.
const Partitions = 4

// Topics are the names that one run uses.
type Topics struct {
	In, A, B, Dead, Table string
	Small                 string // takes no value of more than SmallBytes, and so none at all
	Group                 string
}

// Named returns the topics of the run with this name.
func Named(run string) Topics {
	return Topics{
		In: run + ".in", A: run + ".a", B: run + ".b", Dead: run + ".dead", Table: run + ".counters",
		Small: run + ".small", Group: run,
	}
}

// All returns the names of the topics.
func (t Topics) All() []string { return []string{t.In, t.A, t.B, t.Dead, t.Table, t.Small} }

// SmallBytes is the most that Topics.Small takes.
const SmallBytes = 1000

// Config returns the settings of a topic: a table is compacted and kept.
func (t Topics) Config(topic string) map[string]string {
	switch topic {
	case t.Table:
		return map[string]string{"cleanup.policy": "compact", "retention.ms": "-1"}
	case t.Small:
		return map[string]string{"max.message.bytes": strconv.Itoa(SmallBytes)}
	}
	return nil
}

// Kind says what is to become of an input.
type Kind string

// Kinds of input.
const (
	Plain    Kind = "plain"    // counts
	Slow     Kind = "slow"     // the same, after Work
	Fails    Kind = "fails"    // its first attempt has all effects, and then fails
	Bad      Kind = "bad"      // so do all attempts: it is dead-lettered
	Garbled  Kind = "garbled"  // its bytes do not decode: it is dead-lettered
	Rejected Kind = "rejected" // the brokers refuse one of its outputs: it is dead-lettered, and nothing else of it stays
	Reset    Kind = "reset"    // deletes the counter, and emits 0
	Quiet    Kind = "quiet"    // counts, and emits nothing
)

// Input is one input.
type Input struct {
	N    int           `json:"n"`
	Key  string        `json:"key"`
	Kind Kind          `json:"kind"`
	Work time.Duration `json:"work,omitempty"` // of a handler, for slow ones
}

// Output is an effect of an input: a record of topics A and B, or the value of a
// counter in the table.
type Output struct {
	N       int    `json:"n"`
	From    string `json:"from"`  // partition/offset of the input
	Count   int    `json:"count"` // of its key, with this input
	Process string `json:"process"`
	Attempt int    `json:"attempt"`
	Fails   bool   `json:"fails,omitempty"` // of an attempt that failed: nobody may see it
}

// InputOf returns the n-th input of a run. It depends on seed and n alone.
func InputOf(seed uint64, n, keys int) Input {
	r := rand.New(rand.NewPCG(seed, uint64(n)))
	in := Input{N: n, Key: "k-" + strconv.Itoa(r.IntN(keys)), Kind: Plain}
	switch p := r.IntN(100); {
	case p < 12:
		in.Kind, in.Work = Slow, time.Duration(20+r.IntN(280))*time.Millisecond
	case p < 20:
		in.Kind = Fails
	case p < 23:
		in.Kind = Bad
	case p < 25:
		in.Kind = Garbled
	case p < 28:
		in.Kind = Rejected
	case p < 34:
		in.Kind = Reset
	case p < 39:
		in.Kind = Quiet
	}
	return in
}

// Record returns the input as a record.
func (in Input) Record(topic string) *kgo.Record {
	value, err := json.Marshal(in)
	if err != nil {
		panic(err) // it has no field that cannot be encoded
	}
	if in.Kind == Garbled {
		value = append([]byte(garble), value[1:]...)
	}
	return &kgo.Record{Topic: topic, Key: []byte(in.Key), Value: value}
}

// garble is what a value begins with that does not decode.
const garble = "<"

// readInput reads an input, or a dead letter of one, whether it decodes or not.
func readInput(value []byte) (in Input, err error) {
	if rest, ok := strings.CutPrefix(string(value), garble); ok {
		value = []byte("{" + rest)
	}
	if err = json.Unmarshal(value, &in); err == nil && in.Kind == "" {
		err = fmt.Errorf("%q is no input", value)
	}
	return in, err
}

// Dead reports whether the input ends as a dead letter.
func (in Input) Dead() bool {
	return in.Kind == Bad || in.Kind == Garbled || in.Kind == Rejected
}

// Emits reports whether the input has outputs in A and B.
func (in Input) Emits() bool { return !in.Dead() && in.Kind != Quiet }

// Fail reports whether this attempt fails after all its effects.
func (in Input) Fail(attempt int) bool { return in.Kind == Bad || in.Kind == Fails && attempt == 1 }

// Next is the counter after this input.
func (in Input) Next(count int) int {
	if in.Kind == Reset {
		return 0
	}
	return count + 1
}

// from names a record's place, as Output.From does.
func from(r *kgo.Record) string { return fmt.Sprintf("%d/%d", r.Partition, r.Offset) }
