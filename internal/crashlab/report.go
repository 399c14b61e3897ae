//go:build unix

package crashlab

import (
	"fmt"
	"os"
	"strings"
)

// Markers between which WriteReport writes.
const (
	reportBegin = "<!-- soak: what .ci/soak writes begins here -->"
	reportEnd   = "<!-- soak: and ends here -->"
)

// WriteReport writes what rounds came to into a file, between the markers that
// it has.
func WriteReport(file, kafka string, rounds []Result) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(b), reportBegin)
	_, after, ok2 := strings.Cut(rest, reportEnd)
	if !ok || !ok2 {
		return fmt.Errorf("%s has not the lines %q and %q", file, reportBegin, reportEnd)
	}
	return os.WriteFile(file, []byte(before+reportBegin+"\n\n"+Report(kafka, rounds)+"\n"+reportEnd+after), 0o644)
}

// Report is what rounds came to, in Markdown.
func Report(kafka string, rounds []Result) string {
	var b strings.Builder
	all := Total(rounds)
	fmt.Fprintf(&b, "Three brokers, Apache Kafka %s; %d rounds, %.0f minutes, %d inputs, %d sagas; group session 10 s.\n\n", kafka, len(rounds), all.Seconds/60, all.Inputs, all.Ends[donePhase]+all.Ends[undonePhase])
	b.WriteString("| what happened | how often |\n|---|---|\n")
	for _, key := range Deadly() {
		fmt.Fprintf(&b, "| a process ended itself at %s: before it was sent / when it was answered | %d / %d |\n", key.Name(), all.Deaths[deadly(key, false)], all.Deaths[deadly(key, true)])
	}
	for _, row := range []struct {
		what string
		n    int
	}{
		{"a process was killed (SIGKILL)", all.Kills},
		{"a process was frozen for longer than its session (SIGSTOP, SIGCONT)", all.Freezes},
		{"a process was started that loses the network for 2 to 20 s", all.Cuts},
		{"a process was started whose heartbeats are held back for longer than its session", all.Mutes},
		{"a process was stopped (SIGTERM)", all.Stops},
		{"a process was started", all.Starts},
		{"a broker was killed and started again", all.Brokers},
		{"offsets were compared with what was visible", all.Samples},
		{"a saga came to its end, all done", all.Ends[donePhase]},
		{"a saga was undone", all.Ends[undonePhase]},
	} {
		fmt.Fprintf(&b, "| %s | %d |\n", row.what, row.n)
	}
	fmt.Fprintf(&b, "| **findings** | **%d** |\n\n", len(all.Findings))
	b.WriteString("| seed | variant | inputs or sagas | ended itself | killed | frozen | brokers | findings |\n|---|---|---|---|---|---|---|---|\n")
	for _, r := range rounds {
		died := 0
		for _, n := range r.Deaths {
			died += n
		}
		fmt.Fprintf(&b, "| %d | %s | %d | %d | %d | %d | %d | %d |\n", r.Seed, r.Variant, r.Inputs, died, r.Kills, r.Freezes, r.Brokers, len(r.Findings))
	}
	for i, f := range all.Findings {
		if i == 0 {
			b.WriteString("\n")
		}
		if i == 20 {
			fmt.Fprintf(&b, "- and %d more\n", len(all.Findings)-i)
			break
		}
		fmt.Fprintf(&b, "- %s\n", f)
	}
	return b.String()
}
