package saga

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"
)

// An Outline is a [Definition] without its code: its steps by name, and what
// they do. An [Engine] writes that of each of its Definitions into the state
// topic when it begins to run, for those who have no code: [Inspector], and the
// command "wherry saga".
type Outline struct {
	Name    string        `json:"name"`
	Version int           `json:"version"`
	Steps   []OutlineStep `json:"steps"`
	// Mermaid is what [Definition.Mermaid] returns.
	Mermaid string `json:"mermaid,omitempty"`
}

// OutlineStep is a step of an [Outline], also one of several that are done at
// the same time.
type OutlineStep struct {
	Name  string `json:"name"`
	Stage int    `json:"stage"`          // from 0; steps of one stage are done at the same time
	Do    string `json:"do"`             // what it does: "call payments.charge"
	Undo  string `json:"undo,omitempty"` // "" where nothing is undone
	Pivot bool   `json:"pivot,omitempty"`
}

// step is the name of the i-th step, its number where nobody knows it, and ""
// for none, -1.
func (o *Outline) step(i int) string {
	switch {
	case i < 0:
		return ""
	case o != nil && i < len(o.Steps):
		return o.Steps[i].Name
	}
	return "step " + strconv.Itoa(i+1)
}

// does says what the i-th step does, or how it is undone, "" where nobody knows.
func (o *Outline) does(i int, undo bool) string {
	switch {
	case o == nil || i < 0 || i >= len(o.Steps):
		return ""
	case undo:
		return o.Steps[i].Undo
	}
	return o.Steps[i].Do
}

// outlineKey begins the keys of the state topic's records with Outlines, before
// the version. No saga has such an id.
const outlineKey = "\x00def."

// isID reports whether a key of the state topic is that of a saga.
func isID(key []byte) bool { return len(key) > 0 && key[0] != 0 }

// record is that of the state topic.
func (o Outline) record() (*kgo.Record, error) {
	value, err := json.Marshal(o)
	return &kgo.Record{Topic: stateTopic(o.Name), Key: []byte(outlineKey + strconv.Itoa(o.Version)), Value: value}, err
}

// readOutline reads a record of the state topic, or what an owner tells. It
// returns nil for what is none: it is for people, who see numbers then.
func readOutline(b []byte) *Outline {
	o := &Outline{}
	if len(b) == 0 || json.Unmarshal(b, o) != nil {
		return nil
	}
	return o
}

// outlines are those of the state topic, by version.
type outlines map[int]*Outline

// take takes in a record of the state topic that is no saga.
func (all outlines) take(key string, value []byte) {
	if o := readOutline(value); o != nil && strings.HasPrefix(key, outlineKey) {
		all[o.Version] = o
	}
}

func (all outlines) sorted() (list []Outline) {
	for _, o := range all {
		list = append(list, *o)
	}
	slices.SortFunc(list, func(a, b Outline) int { return a.Version - b.Version })
	return list
}

// outline is the plan without code.
func (p *plan) outline() Outline {
	o := Outline{Name: p.name, Version: p.version, Mermaid: p.mermaid()}
	for i := range p.steps {
		s := OutlineStep{Name: p.steps[i].name, Stage: p.steps[i].stage, Do: p.steps[i].do.String(), Pivot: i == p.pivot}
		if p.steps[i].undoes() {
			s.Undo = p.steps[i].undo.String()
		}
		o.Steps = append(o.Steps, s)
	}
	return o
}
