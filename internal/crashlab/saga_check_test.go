package crashlab

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/internal/header"
)

// What engines and participants leave behind that do all as they should has no
// findings, and has all that scripts can say.
func TestCheckSagas_FindsNothingInAGoodRun(t *testing.T) {
	t.Parallel()
	replies, ends := map[Reply]int{}, map[string]int{}
	for seed := range uint64(12) {
		log := goodSagas(seed, 60)
		var texts []string
		for _, f := range CheckSagas(log) {
			texts = append(texts, f.String())
		}
		require.Empty(t, texts, "seed %d: %s", seed, strings.Join(texts, "\n"))
		for n := range 60 {
			s := ScriptOf(seed, n)
			for _, step := range SagaSteps() {
				replies[s.Do[step.Name].Reply]++
				replies["undo "+s.Undo[step.Name].Reply]++
			}
			end, _ := s.Ends()
			ends[end]++
		}
	}
	for _, r := range []Reply{Says, Refuses, Silent, Unheard, Twice, Contrary, Late, "undo says", "undo silent", "undo unheard", "undo twice", "undo late"} {
		require.NotZero(t, replies[r], r)
	}
	require.Greater(t, ends[donePhase], 100)
	require.Greater(t, ends[undonePhase], 100)
}

// spoil is one thing that must not be, done to the log of a good run.
type spoil struct {
	name string
	do   func(*SagaLog)
	want []string // kinds of findings
}

// editDeed changes the first deed that matches.
func editDeed(log *SagaLog, match func(Deed) bool, f func(*Deed)) {
	for i, r := range log.Deeds {
		var d Deed
		if json.Unmarshal(r.Value, &d) == nil && match(d) {
			f(&d)
			again := *r
			again.Value, _ = json.Marshal(d)
			log.Deeds[i] = &again
			return
		}
	}
	panic("no such deed")
}

// dropDeed takes the first deed that matches out.
func dropDeed(log *SagaLog, match func(Deed) bool) Deed {
	for i, r := range log.Deeds {
		var d Deed
		if json.Unmarshal(r.Value, &d) == nil && match(d) {
			log.Deeds = slices.Delete(log.Deeds, i, i+1)
			return d
		}
	}
	panic("no such deed")
}

// addDeed adds a deed at the end.
func addDeed(log *SagaLog, d Deed) {
	r := d.Record("lab.deeds")
	r.Offset = log.Deeds[len(log.Deeds)-1].Offset + 1
	log.Deeds = append(log.Deeds, r)
}

// ended returns the record of the first saga that ended so and matches.
func ended(log *SagaLog, phase string, match func(Script) bool) *SagaRecord {
	for i := range log.States {
		n := sagaNumber(log.States[i].ID)
		if log.States[i].Phase == phase && (match == nil || match(ScriptOf(log.Seed, n))) {
			return &log.States[i]
		}
	}
	panic("no such saga")
}

// deed matches effects.
func effectOf(id, step string, undo bool) func(Deed) bool {
	return func(d Deed) bool { return d.Kind == Did && d.Saga == id && d.Step == step && d.Undo == undo }
}

// refusedAt matches scripts in which the first thing that goes wrong is that a
// step says no.
func refusedAt(step string) func(Script) bool {
	return func(s Script) bool {
		for _, other := range SagaSteps() {
			if a := s.Do[other.Name]; other.Name == step {
				return a.Reply == Refuses && a.Fails == 0 && s.Does(other)
			} else if a.Reply != Says || a.Fails > 0 {
				return false
			}
		}
		return false
	}
}

func TestCheckSagas_FindsEachThingThatMustNotBe(t *testing.T) {
	t.Parallel()
	const seed = 2 // no deadline, no gate
	for _, test := range []spoil{
		{"a start is lost", func(l *SagaLog) { l.Started = append(l.Started, 1000) }, []string{"lost"}},
		{"nobody started it", func(l *SagaLog) { l.Started = l.Started[1:] }, []string{"foreign"}},
		{"it has not ended", func(l *SagaLog) {
			r := ended(l, donePhase, nil)
			r.Phase, r.Ended = "running", false
		}, []string{"open"}},
		{"it is parked", func(l *SagaLog) {
			r := ended(l, donePhase, nil)
			r.Phase, r.Ended = "parked", false
		}, []string{"held", "open"}},
		{"it ends twice", func(l *SagaLog) {
			again := *ended(l, donePhase, nil)
			again.Moves++
			l.States = append(l.States, again)
		}, []string{"ended twice"}},
		{"it is forgotten too early", func(l *SagaLog) {
			r := ended(l, donePhase, nil)
			*r = SagaRecord{ID: r.ID, At: r.At, Deleted: true}
		}, []string{"lost", "open"}},
		{"it comes again after it was forgotten", func(l *SagaLog) {
			again := *ended(l, donePhase, nil)
			l.States = append(l.States, SagaRecord{ID: again.ID, Deleted: true}, again)
		}, []string{"ended twice"}},
		{"it goes back", func(l *SagaLog) {
			r := *ended(l, undonePhase, nil)
			for i := range l.States {
				if l.States[i].ID == r.ID && l.States[i].Phase == "undoing" {
					l.States[i].Moves = 1
				}
			}
		}, []string{"back"}},
		{"it is done in place of undone", func(l *SagaLog) { ended(l, undonePhase, refusedAt("note")).Phase = donePhase }, []string{"outcome", "lost"}},
		{"it is undone without a reason", func(l *SagaLog) {
			r := ended(l, donePhase, func(s Script) bool { return s.N > 0 })
			l.Calm, r.Phase = false, undonePhase
			r.History = slices.DeleteFunc(r.History, func(m SagaMove) bool { return m.What == "timed out" || m.What == "deadline" })
			r.Moves = uint64(len(r.History))
		}, []string{"outcome", "pivot", "kept"}},
		{"an effect is there twice", func(l *SagaLog) {
			r := ended(l, donePhase, nil)
			for _, rec := range l.Deeds {
				var d Deed
				if _ = json.Unmarshal(rec.Value, &d); effectOf(r.ID, "capture", false)(d) {
					addDeed(l, d)
					return
				}
			}
		}, []string{"doubled"}},
		{"an effect is there again under another key", func(l *SagaLog) {
			r := ended(l, donePhase, nil)
			addDeed(l, Deed{Kind: Did, Saga: r.ID, Step: "notify", Key: "other", Attempt: 2})
		}, []string{"key"}},
		{"an effect of an attempt that failed", func(l *SagaLog) {
			editDeed(l, func(d Deed) bool { return d.Kind == Did }, func(d *Deed) { d.Failed = true })
		}, []string{"half"}},
		{"an attempt is there twice", func(l *SagaLog) { l.Commands = append(l.Commands, l.Commands[0]) }, []string{"sent twice"}},
		{"an attempt is missing", func(l *SagaLog) {
			i := slices.IndexFunc(l.Commands, func(r *kgo.Record) bool {
				id, _ := header.Get(r, header.CorrelationID)
				return strings.Contains(id, ".d.2.")
			})
			one, _ := header.Get(l.Commands[i], header.CorrelationID)
			one = strings.Replace(one, ".d.2.", ".d.1.", 1)
			l.Commands = slices.DeleteFunc(l.Commands, func(r *kgo.Record) bool { id, _ := header.Get(r, header.CorrelationID); return id == one })
		}, []string{"attempts"}},
		{"what was done is not undone", func(l *SagaLog) {
			dropDeed(l, effectOf(ended(l, undonePhase, refusedAt("reserve")).ID, "note", true))
		}, []string{"kept", "state"}},
		{"what was not done is undone", func(l *SagaLog) {
			dropDeed(l, effectOf(ended(l, undonePhase, refusedAt("reserve")).ID, "note", false))
		}, []string{"undone", "state"}},
		{"the undoing of what was refused is asked for", func(l *SagaLog) {
			f := &fakeSaga{fakeRun: &fakeRun{offsets: map[string]int64{}}, id: ended(l, undonePhase, refusedAt("reserve")).ID, now: time.Now()}
			f.send(sagaOp{"reserve", true}, 1)
			l.Commands = append(l.Commands, f.log.Commands...)
		}, []string{"undone"}},
		{"it is done after it was undone", func(l *SagaLog) {
			d := dropDeed(l, effectOf(ended(l, undonePhase, refusedAt("reserve")).ID, "note", false))
			addDeed(l, d)
		}, []string{"late"}},
		{"something of a saga that is done is undone", func(l *SagaLog) {
			addDeed(l, Deed{Kind: Did, Saga: ended(l, donePhase, nil).ID, Step: "reserve", Undo: true})
		}, []string{"undone"}},
		{"what comes after the pivot is undone", func(l *SagaLog) {
			id := ended(l, undonePhase, refusedAt("reserve")).ID
			addDeed(l, Deed{Kind: Did, Saga: id, Step: "close"})
			addDeed(l, Deed{Kind: Did, Saga: id, Step: "close", Undo: true})
		}, []string{"pivot", "order"}},
		{"a step that is left out is done", func(l *SagaLog) {
			addDeed(l, Deed{Kind: Did, Saga: ended(l, donePhase, func(s Script) bool { return s.Skip }).ID, Step: SkippedStep})
		}, []string{"unwanted", "order", "state"}},
		{"a stage is done before the one before it", func(l *SagaLog) {
			id := ended(l, donePhase, nil).ID
			addDeed(l, dropDeed(l, effectOf(id, "reserve", false)))
		}, []string{"order"}},
		{"a stage is undone before the one after it", func(l *SagaLog) {
			id := ended(l, undonePhase, refusedAt("ship")).ID
			addDeed(l, dropDeed(l, effectOf(id, "reserve", true)))
		}, []string{"order"}},
		{"an answer is taken in twice", func(l *SagaLog) {
			r := ended(l, donePhase, nil)
			r.State.Done["reserve"] = append(r.State.Done["reserve"], r.State.Done["reserve"]...)
		}, []string{"state"}},
		{"an answer is taken in that nobody gave", func(l *SagaLog) {
			ended(l, donePhase, nil).State.Done["reserve"] = []string{"x"}
		}, []string{"state"}},
		{"an answer is not taken in", func(l *SagaLog) { delete(ended(l, donePhase, nil).State.Done, "reserve") }, []string{"state"}},
		{"an attempt comes too early", func(l *SagaLog) {
			for i, r := range l.Commands {
				if id, _ := header.Get(r, header.CorrelationID); strings.Contains(id, ".2.") {
					at, _ := header.Time(r, header.Deadline)
					again := *r
					header.Set(&again, header.Deadline, header.FormatTime(at.Add(-200*time.Millisecond)))
					l.Commands[i] = &again
					return
				}
			}
		}, []string{"early"}},
		{"an attempt is given up too early", func(l *SagaLog) {
			for i := range l.States {
				for j, m := range l.States[i].History {
					if step, _ := stepNamed(m.Step); l.States[i].Ended && m.What == "timed out" && step.Kind == CallStep {
						l.States[i].History[j].At = m.At.Add(-2 * time.Millisecond)
						return
					}
				}
			}
		}, []string{"early"}},
		{"an attempt follows too early in the history", func(l *SagaLog) {
			for i := range l.States {
				for j, m := range l.States[i].History {
					if l.States[i].Ended && m.What == "sent" && m.Attempt == 2 {
						l.States[i].History[j].At = m.At.Add(-2 * time.Millisecond)
						return
					}
				}
			}
		}, []string{"early"}},
		{"what is no deed", func(l *SagaLog) { l.Deeds = append(l.Deeds, &kgo.Record{Value: []byte("{}")}) }, []string{"lab"}},
		{"what is no command", func(l *SagaLog) { l.Commands = append(l.Commands, &kgo.Record{Topic: "lab.ship"}) }, []string{"lab"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			log := goodSagas(seed, 200)
			test.do(&log)
			var kinds []string
			for _, f := range CheckSagas(log) {
				t.Log(f)
				if !slices.Contains(kinds, f.Kind) {
					kinds = append(kinds, f.Kind)
				}
			}
			require.ElementsMatch(t, test.want, kinds)
		})
	}
}

// A deadline that comes before its time is found, and one that comes in time is
// a reason to undo.
func TestCheckSagas_Deadlines(t *testing.T) {
	t.Parallel()
	const seed = 3
	log := goodSagas(seed, 200)
	require.Empty(t, CheckSagas(log))
	found := 0
	for i := range log.States {
		r := &log.States[i]
		for j, m := range r.History {
			if r.Ended && m.What == "deadline" {
				found++
				r.History[j].At = r.Began.Add(SettingsOf(seed).Deadline - time.Millisecond)
			}
		}
	}
	require.NotZero(t, found)
	findings := CheckSagas(log)
	require.Len(t, findings, found)
	require.Equal(t, "early", findings[0].Kind)
}

// Who says yes and then no is taken at the word that comes first, as events of
// two topics are in no order; nobody else is.
func TestCheckSagas_OfTwoContraryEventsTheFirstCounts(t *testing.T) {
	t.Parallel()
	refused := &SagaRecord{Phase: undonePhase, Moves: 1, History: []SagaMove{{What: "rejected", Step: "bill"}}}
	late := &SagaRecord{Phase: undonePhase, Moves: 1, History: []SagaMove{{What: "rejected", Step: "ship"}}}
	for _, test := range []struct {
		says Reply
		calm bool
		end  *SagaRecord
		want bool
	}{{Contrary, false, refused, true}, {Contrary, true, refused, false}, {Contrary, false, late, false}, {Says, false, refused, false}} {
		c := &sagaChecker{log: SagaLog{Calm: test.calm}}
		s := &sagaSeen{Script: Script{Do: map[string]Answer{"bill": {Reply: test.says}}}}
		require.Equal(t, test.want, c.contradicted(s, test.end), "%+v", test)
	}
}
