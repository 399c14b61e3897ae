package doctor

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Severity says how bad a finding is.
type Severity int

// The severities, the worst last.
const (
	Note    Severity = iota + 1 // good to know
	Warning                     // hurts, or will
	Error                       // something does not work, or loses records
)

func (s Severity) String() string { return [...]string{"", "note", "warning", "error"}[s] }

// MarshalText returns the severity's name.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Finding is something that hurts.
type Finding struct {
	// Check names the check that found it; the names stay as they are.
	Check    string   `json:"check"`
	Severity Severity `json:"severity"`
	What     string   `json:"what"`               // was found
	Where    []string `json:"where,omitempty"`    // partitions, members or brokers, where they are many
	Why      string   `json:"why"`                // it matters
	Mend     string   `json:"mend"`               // how to
	Commands []string `json:"commands,omitempty"` // that do it
}

// Report is what was found, the worst first.
type Report struct {
	Findings []Finding
	Missed   []Missed // what was not looked at
}

// Count returns how many findings are of a severity.
func (r Report) Count(s Severity) (n int) {
	for _, f := range r.Findings {
		if f.Severity == s {
			n++
		}
	}
	return n
}

// Options say how an examination is made.
type Options struct {
	// Ignore are names of checks whose findings are left out.
	Ignore []string
	// OpenLong is how long a transaction may be open before it is told. A
	// Consumer's takes milliseconds. 0 means a minute.
	OpenLong time.Duration
}

// Examine looks for what hurts.
func Examine(f *Facts, opts Options) Report {
	opts.OpenLong = cmp.Or(opts.OpenLong, time.Minute)
	e := &exam{Facts: f, Options: opts, silent: map[string][]string{}}
	e.cluster()
	e.brokerSettings()
	e.internalTopics()
	e.features()
	e.clocks()
	e.transactions()
	for i := range f.Groups {
		e.group(&f.Groups[i])
	}
	for i := range f.Topics {
		e.topic(&f.Topics[i])
	}
	e.noRoom()
	e.Report.Missed = slices.Clone(f.Missed)
	for _, what := range e.silences {
		e.Report.Missed = append(e.Report.Missed, Missed{
			What: what + " " + strings.Join(e.silent[what], ", "),
			Why:  "the brokers do not know it: an older Kafka, or not Apache Kafka",
		})
	}
	slices.SortStableFunc(e.Findings, func(a, b Finding) int { return cmp.Compare(b.Severity, a.Severity) })
	return e.Report
}

// exam is an examination that goes on.
type exam struct {
	*Facts
	Report
	Options
	silent   map[string][]string // settings that are not told, by whose
	silences []string            // the keys of silent, in order
	tight    []tight             // topics without room for headers
}

func (e *exam) find(f Finding) {
	if !slices.Contains(e.Ignore, f.Check) {
		e.Findings = append(e.Findings, f)
	}
}

// unknown notes that a setting is not told.
func (e *exam) unknown(whose, setting string) {
	if _, ok := e.silent[whose]; !ok {
		e.silences = append(e.silences, whose)
	}
	if !slices.Contains(e.silent[whose], setting) {
		e.silent[whose] = append(e.silent[whose], setting)
	}
}

// tool returns the command line of one of Kafka's tools, which differ in where
// they take the broker and in what they call the file with the login.
func (e *exam) tool(format string, args ...any) string {
	tool, rest, _ := strings.Cut(fmt.Sprintf(format, args...), " ")
	server := "--bootstrap-server " + e.Bootstrap
	switch tool {
	case "kafka-cluster": // a command's own flag
		return tool + " " + rest + " " + strings.Replace(server, "--command-config", "--config", 1)
	case "kafka-leader-election":
		server = strings.Replace(server, "--command-config", "--admin.config", 1)
	}
	return tool + " " + server + " " + rest
}

// setTopic returns the command that changes a topic's setting.
func (e *exam) setTopic(topic, setting string) string {
	return e.tool("kafka-configs --alter --entity-type topics --entity-name %s --add-config %s", topic, setting)
}

// alive are the brokers that are there.
func (e *exam) alive() []Broker {
	return slices.DeleteFunc(slices.Clone(e.Brokers), func(b Broker) bool { return b.Down })
}
