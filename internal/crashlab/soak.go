//go:build unix

package crashlab

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/wherry-go/wherry/internal/apache"
)

// Soak plays rounds on three real brokers for a time, and writes what came of
// them down after each: it goes on where it was interrupted.
type Soak struct {
	For     time.Duration // of all rounds together
	Dir     string        // for its state, and the processes' logs of rounds with findings
	Report  string        // a file with the markers of reliability.md, or ""
	Program string        // calls RunChild
	Plant   string        // a fault to be found, or ""
	Only    Variant       // "" for all in turn
	Out     io.Writer
}

// A round has so many inputs, in so many a second.
const (
	roundInputs = 6000
	roundRate   = 150
	roundSagas  = 4500
	sagaRate    = 150
	mostRounds  = 200
)

// state is what a Soak keeps.
type state struct {
	Plant  string   `json:"plant"`
	Kafka  string   `json:"kafka"`
	Rounds []Result `json:"rounds"`
}

func (s *Soak) file() string { return filepath.Join(s.Dir, "state.json") }

// load returns the state of a soak that is not over, or an empty one.
func (s *Soak) load() state {
	fresh := state{Plant: s.Plant, Kafka: apache.Version}
	b, err := os.ReadFile(s.file())
	if err != nil {
		return fresh
	}
	var old state
	if json.Unmarshal(b, &old) != nil || old.Plant != s.Plant || old.Kafka != apache.Version || s.over(old) {
		return fresh
	}
	return old
}

func (s *Soak) save(st state) error {
	b, err := json.MarshalIndent(st, "", "\t")
	if err != nil {
		return err
	}
	tmp := s.file() + ".new"
	if err := os.WriteFile(tmp, b, 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, s.file())
}

func (s *Soak) over(st state) bool {
	return Total(st.Rounds).Seconds >= s.For.Seconds() || len(st.Rounds) >= mostRounds
}

// ErrFound is wrapped by what a Soak with findings returns.
var ErrFound = errors.New("there are findings")

// Run plays rounds until the time is over. With findings it returns an error.
func (s *Soak) Run(ctx context.Context) error {
	if err := os.MkdirAll(s.Dir, 0o755); err != nil {
		return err
	}
	st := s.load()
	if n := len(st.Rounds); n > 0 {
		s.tell("going on after %d rounds", n)
	}
	kafka := &apache.Cluster{Nodes: 3, Config: map[string]string{"log.retention.check.interval.ms": "3600000"}}
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 1)
	go func() { ended <- kafka.Run(life) }()
	defer func() {
		end()
		if err := <-ended; err != nil {
			s.tell("the brokers: %v", err)
		}
	}()
	select {
	case <-kafka.Ready():
	case err := <-ended:
		ended <- nil
		return fmt.Errorf("starting three brokers: %w", err)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	s.tell("Apache Kafka %s, three brokers at %v", apache.Version, kafka.Brokers())
	for !s.over(st) && ctx.Err() == nil {
		result := s.round(ctx, kafka, st)
		if ctx.Err() != nil {
			break // cut short: it says nothing
		}
		st.Rounds = append(st.Rounds, result)
		if err := s.save(st); err != nil {
			return err
		}
		if s.Report != "" && s.Plant == "" {
			if err := WriteReport(s.Report, st.Kafka, st.Rounds); err != nil {
				return err
			}
		}
		all := Total(st.Rounds)
		s.tell("round %d: %d inputs, %d findings, %s; %.0f of %.0f s", len(st.Rounds), result.Inputs, len(result.Findings), orFine(result.Error), all.Seconds, s.For.Seconds())
		if result.Error != "" {
			return fmt.Errorf("round %d (seed %d): %s", len(st.Rounds), result.Seed, result.Error)
		}
		if s.Plant != "" && len(result.Findings) > 0 {
			break // it is found
		}
	}
	if n := len(Total(st.Rounds).Findings); n > 0 {
		return fmt.Errorf("%w: %d", ErrFound, n)
	}
	return ctx.Err()
}

// round plays the next round.
func (s *Soak) round(ctx context.Context, kafka *apache.Cluster, st state) Result {
	n := len(st.Rounds)
	seed := uint64(n + 1)
	dir := filepath.Join(s.Dir, fmt.Sprintf("round-%d", seed))
	_ = os.RemoveAll(dir) // of a round that was cut short
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Result{Seed: seed, Error: err.Error()}
	}
	plan := 0
	if n > 0 {
		plan = st.Rounds[n-1].Plan
	}
	variant, inputs, rate := cmp.Or(s.Only, variantOf(n)), roundInputs, roundRate
	if variant == Sagas {
		inputs, rate = roundSagas, sagaRate
	}
	r := &Round{
		Lab: Lab{
			Brokers: kafka.Brokers(), Program: s.Program, Subjects: subjectsOf(variant), Dir: dir, Run: fmt.Sprintf("soak-%d-%d", seed, time.Now().Unix()),
			Seed: seed, Variant: variant, Session: 10 * time.Second, Plant: s.Plant,
		},
		Inputs: inputs, Rate: rate, Nodes: 3, Kafka: kafka, Plan: plan,
		Tell: func(say string) { s.tell("  %s", say) },
	}
	s.tell("round %d: seed %d, %s", n+1, seed, r.Variant)
	result := r.Play(ctx)
	for i, f := range result.Findings {
		if i < 20 {
			s.tell("  FOUND %s", f)
		}
	}
	if len(result.Findings) == 0 && result.Error == "" {
		_ = os.RemoveAll(dir)
	}
	return result
}

// variantOf is that of the n-th round: each second one is of sagas.
func variantOf(n int) Variant {
	if n%2 == 1 {
		return Sagas
	}
	return Variants()[n/2%len(Variants())]
}

func (s *Soak) tell(format string, args ...any) {
	_, _ = fmt.Fprintf(s.Out, time.Now().Format("15:04:05 ")+format+"\n", args...)
}

func orFine(err string) string {
	if err == "" {
		return "fine"
	}
	return "failed: " + err
}
