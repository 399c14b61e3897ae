package saga

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/retry"
)

func TestS32_AGoodDefinitionHasNoFault(t *testing.T) {
	t.Parallel()
	for _, d := range []Definition[order]{both(), paying(), checkout(), saga(localStep("a"))} {
		require.NoError(t, d.Check())
		_, err := compile(d)
		require.NoError(t, err)
	}
}

func TestS32_EachFaultIsNamed(t *testing.T) {
	t.Parallel()
	good := func() Definition[order] { return saga(step("a"), step("b")) }
	b := func(change func(*Step[order])) func(*Definition[order]) {
		return func(d *Definition[order]) { change(&d.Steps[1]) }
	}
	placed := On(event{Topic: "placed"}, func(map[string]string) order { return order{} })
	pivot := func(d *Definition[order]) { d.Steps[0].Pivot, d.Steps[0].Idempotent = true, true }
	for name, row := range map[string]struct {
		change func(d *Definition[order])
		says   string
	}{
		"no name":                    {func(d *Definition[order]) { d.Name = "" }, `the Name is ""`},
		"a bad name":                 {func(d *Definition[order]) { d.Name = "an order" }, `the Name is "an order"`},
		"a long name":                {func(d *Definition[order]) { d.Name = strings.Repeat("x", 239) }, "the Name has 239 bytes, and at most 238"},
		"a version below 0":          {func(d *Definition[order]) { d.Version = -1 }, "the Version is -1"},
		"a version that is too high": {func(d *Definition[order]) { d.Version = 20261127235959 }, "the Version is 20261127235959: it takes 1 to 2147483647"},
		"a deadline below 0":         {func(d *Definition[order]) { d.Deadline = -1 }, "must not be negative"},
		"no steps":                   {func(d *Definition[order]) { d.Steps = nil }, "it has no Steps"},
		"a nil trigger":              {func(d *Definition[order]) { d.Start = []Trigger[order]{nil} }, "trigger 0 is nil"},
		"a trigger without a topic":  {func(d *Definition[order]) { d.Start = []Trigger[order]{Started[order, string]{}} }, "a trigger has no topic"},
		"a trigger without first":    {func(d *Definition[order]) { d.Start = []Trigger[order]{On[order](event{Topic: "placed"}, nil)} }, `the trigger of topic "placed": its function first is nil`},
		"a call without build":       {b(func(s *Step[order]) { s.Do = Call[order](method{Topic: "b"}, nil, nil) }), `step "b": its function build is nil`},
		"an event without build":     {b(func(s *Step[order]) { s.Do = Emit[order](event{Topic: "told"}, nil) }), `step "b": its function build is nil`},
		"a local one without do":     {b(func(s *Step[order]) { s.Do = Local[order, string](nil, nil) }), `step "b": its function do is nil`},
		"an undo without do":         {b(func(s *Step[order]) { s.Undo = Do[order](nil) }), `step "b": its Undo: its function do is nil`},
		"two triggers of one topic":  {func(d *Definition[order]) { d.Start = []Trigger[order]{placed, placed} }, "two triggers have the topic placed"},
		"a trigger that is awaited": {func(d *Definition[order]) {
			d.Start = []Trigger[order]{placed}
			d.Steps[1].Do = Await(success("placed"))
		}, `step "b" awaits placed, which is a trigger's topic too`},
		"a step without a name":      {b(func(s *Step[order]) { s.Name = "" }), "step 1 has no Name"},
		"a step with a dot":          {b(func(s *Step[order]) { s.Name = "b.c" }), `step "b.c": a name takes`},
		"a long step":                {b(func(s *Step[order]) { s.Name = strings.Repeat("b", 65) }), "has 65 bytes, and may have 64"},
		"two of one name":            {b(func(s *Step[order]) { s.Name = "a" }), `step "a" is there twice`},
		"two of one name in a group": {b(func(s *Step[order]) { *s = Step[order]{Name: "g", Parallel: []Step[order]{step("a")}} }), `step "a" is there twice`},
		"nothing to do":              {b(func(s *Step[order]) { s.Do = nil }), `step "b" has nothing to Do`},
		"an empty action":            {b(func(s *Step[order]) { s.Do = Called[order]{} }), `step "b" has nothing to Do`},
		"a group that does":          {b(func(s *Step[order]) { s.Parallel = []Step[order]{step("c")} }), `step "b" has Parallel, and besides`},
		"a group in a group": {b(func(s *Step[order]) {
			*s = Step[order]{Name: "g", Parallel: []Step[order]{with(step("c"), func(s *Step[order]) { s.Parallel = []Step[order]{step("d")} })}}
		}), `step "c" is in Parallel, and has Parallel itself`},
		"a pivot in a group": {b(func(s *Step[order]) {
			*s = Step[order]{Name: "g", Parallel: []Step[order]{with(step("c"), func(s *Step[order]) { s.Pivot = true })}}
		}), `step "c" is the pivot, and in Parallel`},
		"two pivots":                       {func(d *Definition[order]) { d.Steps[0].Pivot, d.Steps[1].Pivot = true, true }, "it has 2 pivots"},
		"a timeout below 0":                {b(func(s *Step[order]) { s.Timeout = -1 }), "Timeout must not be negative"},
		"a bad policy":                     {b(func(s *Step[order]) { s.Retry = retry.Policy{Jitter: 2, Multiplier: 0.5} }), "Jitter is 2"},
		"an undo and none":                 {b(func(s *Step[order]) { s.NoUndo = true }), `step "b" has an Undo and NoUndo`},
		"no undo":                          {b(func(s *Step[order]) { s.Undo = nil }), `step "b" has no Undo: set one, or NoUndo`},
		"an undo after the pivot":          {pivot, `step "b" has an Undo, and comes after the pivot`},
		"a timeout after the pivot":        {func(d *Definition[order]) { pivot(d); d.Steps[1].Undo = nil }, `step "b" has a Timeout, and is neither Idempotent nor undone`},
		"the same with NoUndo":             {func(d *Definition[order]) { pivot(d); d.Steps[1].Undo, d.Steps[1].NoUndo = nil, true }, "so it must be Idempotent"},
		"a pivot that is only timed":       {b(func(s *Step[order]) { s.Pivot, s.Undo = true, nil }), `step "b" has a Timeout, and is neither Idempotent nor undone`},
		"a pivot that would be done twice": {b(func(s *Step[order]) { s.Pivot, s.Undo, s.NoUndo = true, nil, true }), "so it must be Idempotent"},
		"a call without a topic":           {b(func(s *Step[order]) { s.Do = call("") }), `step "b" has no topic`},
		"an emission without a topic":      {b(func(s *Step[order]) { s.Undo = emit("") }), `step "b": its Undo has no topic`},
		"nothing to await":                 {b(func(s *Step[order]) { s.Do = Await[order]() }), `step "b" awaits nothing`},
		"a nil outcome":                    {b(func(s *Step[order]) { s.Do = Await[order](nil) }), `step "b": an outcome is nil`},
		"an outcome without a topic":       {b(func(s *Step[order]) { s.Do = Await(success("")) }), `step "b": an outcome has no topic`},
		"two outcomes of one topic":        {b(func(s *Step[order]) { s.Do = Await(success("x"), failure("x")) }), `step "b" has two outcomes of the topic x`},
		"nothing but failures":             {b(func(s *Step[order]) { s.Do = emit("x", failure("y")) }), `step "b" has only Failures`},
		"an undo with only its failures":   {b(func(s *Step[order]) { s.Undo = emit("x", failure("y")) }), `step "b": its Undo has only Failures`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := good()
			row.change(&d)
			err := d.Check()
			require.ErrorContains(t, err, row.says)
			require.True(t, strings.HasPrefix(err.Error(), fmt.Sprintf("saga %q: ", d.Name)), err)
			_, compiled := compile(d)
			require.Equal(t, err, compiled, "and nobody runs it")
		})
	}
}

func TestS32_AllFaultsAreNamedAtOnce(t *testing.T) {
	t.Parallel()
	d := Definition[order]{Steps: []Step[order]{{}, {Name: "a", Do: call("")}, {Name: "a", Timeout: -1}}}
	err := d.Check()
	for _, says := range []string{"the Name", "step 0 has no Name", "step 0 has nothing to Do", `"a" has no topic`, `"a" is there twice`, "Timeout must not", "has no Undo"} {
		require.ErrorContains(t, err, says)
	}
}

func TestS32_WhatMaySurpriseIsAWarning(t *testing.T) {
	t.Parallel()
	require.Empty(t, both().Warnings())
	d := saga(
		Step[order]{Name: "a", Do: call("a.do"), NoUndo: true},
		Step[order]{Name: "t", Do: emit("told"), NoUndo: true, Timeout: time.Second},
		Step[order]{Name: "p", Do: call("p.do"), Pivot: true, Timeout: time.Second, Idempotent: true},
		Step[order]{Name: "b", Do: call("b.do")},
	)
	require.NoError(t, d.Check())
	require.Equal(t, []string{
		`step "a" has no Timeout, and nothing else ends it: if its answer is lost, the saga waits for ever`,
		`step "t" has a Timeout, and is done as soon as it is sent`,
		`step "b" comes after the pivot: if it is rejected, the saga is parked until an operator decides`,
		`step "b" has no Timeout, and nothing else ends it: if its answer is lost, the saga waits for ever`,
	}, d.Warnings())
	d.Deadline = time.Minute
	require.Len(t, d.Warnings(), 3)
}

// A zero value of what this package returns is no surprise either.
var _ Trigger[order] = Started[order, wherry.Event[string]]{}
