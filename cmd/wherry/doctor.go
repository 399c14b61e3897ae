package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/cmd/wherry/internal/doctor"
)

var doctorCommand = command{
	name:    "doctor",
	summary: "find what hurts in a cluster, its groups and topics",
	run:     runDoctor,
}

const doctorIntro = `Looks at a cluster, and at the groups and topics that are named, for what hurts a
service: broker settings that slow transactions or lose records, brokers that are
down, replicas that are behind, topics that are not as wherry needs them, offsets
that are out of range, transactions that hang, clocks that differ. For each it
says why it matters and how to mend it. Beside the topics named it looks at those
that the groups have offsets for or are assigned, and at their delay topics,
ledgers and dead letters. What it may not look at it says as well.

It changes nothing, but with -write-probe, which makes a topic and deletes it.

  wherry doctor -group billing                      a cluster, a group and all its topics
  wherry doctor billing.dlq orders                  a cluster and two topics
  wherry doctor -group billing -ignore auto-create-topics,read-committed
  wherry doctor -json | jq -r '.findings[].what'

Exit codes: 0 nothing is wrong (there may be notes), 1 there are warnings or
errors, 2 it could not look: at the cluster, or at a group or topic that was
named.`

// runDoctor is "wherry doctor".
func runDoctor(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var (
		conn   connection
		groups []string
		opts   doctor.Options
		flags  = flag.NewFlagSet("doctor", flag.ContinueOnError)
		asJSON = flags.Bool("json", false, "write one JSON object")
		probe  = flags.Bool("write-probe", false, "compare the clock of every broker, by way of a topic wherry-doctor-<number> that is made and deleted")
	)
	flags.DurationVar(&opts.OpenLong, "transaction-age", time.Minute, "how long a transaction may be open before it is told")
	flags.Func("group", "consumer `group` to look at; may be given several times, or with commas", collect(&groups))
	flags.Func("ignore", "`check` to pass over, by the name in brackets; may be given several times, or with commas", collect(&opts.Ignore))
	topics, err := parseOperands(flags, []*flag.FlagSet{conn.flags()}, []string{"topic..."}, args, doctorIntro, stdout, stderr)
	if err != nil {
		return err
	}
	for _, name := range opts.Ignore {
		if !slices.Contains(doctor.Checks, name) {
			return &usageError{text: fmt.Sprintf("-ignore %s: there is no check of that name, they are %s", name, strings.Join(doctor.Checks, ", "))}
		}
	}
	facts, err := lookAt(ctx, &conn, &doctor.Look{Topics: topics, Groups: groups, Probe: *probe, Timeout: conn.timeout})
	if err != nil {
		if _, wrong := errors.AsType[*usageError](err); wrong {
			return err
		}
		return &codeError{2, err}
	}
	report := doctor.Examine(facts, opts)
	if *asJSON {
		out := jsonTo(stdout)
		out.SetIndent("", "  ")
		err = out.Encode(doctorJSON(facts, report))
	} else {
		err = writeDoctor(stdout, facts, report)
	}
	if err != nil {
		return err
	}
	switch {
	case report.Count(doctor.Warning)+report.Count(doctor.Error) > 0:
		return &codeError{code: 1}
	case unseen(report) != "":
		return &codeError{2, errors.New("could not look at " + unseen(report))}
	}
	return nil
}

// lookAt asks the cluster.
func lookAt(ctx context.Context, conn *connection, look *doctor.Look) (*doctor.Facts, error) {
	opts, err := conn.options()
	if err != nil {
		return nil, err
	}
	// A broker that hangs must not take the time of a whole question: another
	// may know.
	cl, err := kgo.NewClient(append(opts, kgo.RequestTimeoutOverhead(max(conn.timeout/3, 200*time.Millisecond)))...)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	look.Client, look.Bootstrap = cl, strings.TrimSpace(strings.Split(conn.brokers, ",")[0])
	if secure, err := conn.tlsConfig(); err == nil && secure != nil || conn.mechanism != "" {
		look.Bootstrap += " --command-config client.properties"
	}
	facts, err := look.Run(ctx)
	if err != nil && ctx.Err() == nil {
		return nil, fmt.Errorf("connecting to %s: %w: %s", conn.brokers, err, conn.advice(err))
	}
	return facts, err
}

// unseen is what was named and could not be looked at.
func unseen(r doctor.Report) string {
	var all []string
	for _, m := range r.Missed {
		if m.Named {
			all = append(all, m.What)
		}
	}
	return strings.Join(all, ", ")
}

// collect collects the values of a flag.
func collect(to *[]string) func(string) error {
	return func(value string) error {
		for _, v := range strings.Split(value, ",") {
			if v = strings.TrimSpace(v); v == "" {
				return errors.New("a name is empty")
			}
			*to = append(*to, v)
		}
		return nil
	}
}

// jsonDoctor is a report as -json writes it. Names stay as they are.
type jsonDoctor struct {
	Cluster    string           `json:"cluster"`
	Brokers    []jsonBroker     `json:"brokers"`
	Groups     []jsonGroup      `json:"groups"`
	Topics     []string         `json:"topics"` // looked at
	Errors     int              `json:"errors"`
	Warnings   int              `json:"warnings"`
	Notes      int              `json:"notes"`
	Findings   []doctor.Finding `json:"findings"`
	NotChecked []doctor.Missed  `json:"notChecked"`
}

type jsonBroker struct {
	ID      int32  `json:"id"`
	Version string `json:"version,omitempty"`
	Down    bool   `json:"down,omitempty"`
}

type jsonGroup struct {
	Name       string `json:"name"`
	State      string `json:"state"`
	Protocol   string `json:"protocol"`
	Members    int    `json:"members"`
	Lag        int64  `json:"lag"`
	Partitions int    `json:"partitions"` // with a commit
}

func doctorJSON(f *doctor.Facts, r doctor.Report) jsonDoctor {
	j := jsonDoctor{
		Cluster: f.ClusterID, Brokers: []jsonBroker{}, Groups: []jsonGroup{}, Topics: []string{},
		Errors: r.Count(doctor.Error), Warnings: r.Count(doctor.Warning), Notes: r.Count(doctor.Note),
		Findings: append([]doctor.Finding{}, r.Findings...), NotChecked: append([]doctor.Missed{}, r.Missed...),
	}
	for _, b := range f.Brokers {
		j.Brokers = append(j.Brokers, jsonBroker{b.ID, b.Version, b.Down})
	}
	for i, g := range f.Groups {
		lag := f.Lag(&f.Groups[i])
		j.Groups = append(j.Groups, jsonGroup{g.Name, g.State, g.Protocol, len(g.Members), lag.Total, lag.Partitions})
	}
	for _, t := range f.Topics {
		if t.Exists {
			j.Topics = append(j.Topics, t.Name)
		}
	}
	return j
}
