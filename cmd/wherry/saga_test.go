package main_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
	"github.com/wherry-go/wherry/saga"
)

// order is the state of the sagas of these tests.
type order struct {
	Total int      `json:"total"`
	Done  []string `json:"done,omitempty"`
}

var paid = wherry.Event[order]{Topic: "paid"}

// sagas is a cluster with an engine of the saga "trip", whose second step waits
// to be paid.
type sagas struct {
	letters
	engine *saga.Engine[order]
	stop   func() error
}

func newSagas(t *testing.T, ids ...string) sagas {
	t.Helper()
	t.Parallel()
	k := kafkatest.NewCluster(t, "paid:1")
	done := func(name string) saga.Action[order] {
		return saga.Local(func(context.Context, order) (string, error) { return name, nil }, func(o *order, r string) { o.Done = append(o.Done, r) })
	}
	e := &saga.Engine[order]{Client: k.Client(t), Topics: wherry.TopicSpec{Partitions: 2}, Definitions: []saga.Definition[order]{{
		Name: "trip", Steps: []saga.Step[order]{
			{Name: "reserve", Do: done("reserve"), Undo: done("release")},
			{Name: "pay", NoUndo: true, Do: saga.Await[order](saga.Success(paid, func(o *order, p order) { o.Total = p.Total }))},
			{Name: "notify", NoUndo: true, Do: done("notify")},
		},
	}}}
	s := sagas{letters{k, k.Client(t)}, e, kafkatest.Run(t, e)}
	for i, id := range ids {
		require.NoError(t, e.Start(t.Context(), id, order{Total: i}))
		_, err := e.Get(t.Context(), id)
		require.NoError(t, err)
	}
	return s
}

func (s sagas) pay(t *testing.T, id string) {
	t.Helper()
	require.NoError(t, saga.Signal(t.Context(), s.engine, id, paid, order{Total: 7}))
	_, err := s.engine.Wait(t.Context(), id)
	require.NoError(t, err)
}

func TestSagaList_IsATableOfWhatIsUnderWay(t *testing.T) {
	s := newSagas(t, "o-1", "o-2", "o-3")
	s.pay(t, "o-2")
	s.ok(t, "saga", "pause", "trip", "o-3", "-reason", "wait")
	got := lines(s.ok(t, "saga", "ls", "trip"))
	require.Len(t, got, 3)
	require.Regexp(t, `^ID +PHASE +STEP +BEGAN +NEXT +WHY$`, got[0])
	require.Regexp(t, `^o-1 +running +pay +\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  -$`, got[1])
	require.Regexp(t, `^o-3 +running, paused +pay +`, got[2])
	require.Len(t, lines(s.ok(t, "saga", "ls", "trip", "-all")), 4)
	require.Regexp(t, `^o-2 +done +- `, lines(s.ok(t, "saga", "ls", "trip", "-phase", "done"))[1])
	require.Len(t, lines(s.ok(t, "saga", "ls", "-paused", "trip", "-step", "pay")), 2)
	for flag, says := range map[string]string{"-since=2100-01-01": "-all lists those that have ended", "-phase=parked": "there is no such saga of trip"} {
		code, stdout, stderr := s.wherry(t, "saga", "ls", "trip", flag)
		require.Zero(t, code)
		require.Empty(t, stdout)
		require.Contains(t, stderr, says)
	}

	var one map[string]any
	require.NoError(t, json.Unmarshal([]byte(s.ok(t, "saga", "ls", "trip", "-phase", "done", "-json")), &one))
	require.Equal(t, []any{"trip", "o-2", 1.0, "done", false}, []any{one["saga"], one["id"], one["version"], one["phase"], one["stuck"]})
	require.Equal(t, map[string]any{"total": 7.0, "done": []any{"reserve", "notify"}}, one["state"])
	require.Contains(t, one, "offset")

	require.Contains(t, s.ok(t, "saga", "ls", "trip", "-summary"), "3 sagas\n\nby phase\n      2 running\n      1 done\n\nby version\n      3 version 1\n\n      0 stuck\n      1 paused\n")
	var counts map[string]any
	require.NoError(t, json.Unmarshal([]byte(s.ok(t, "saga", "ls", "trip", "-summary", "-json")), &counts))
	require.Equal(t, map[string]any{"running": 2.0, "done": 1.0}, counts["phases"])
	require.Len(t, counts["offsets"], 2)
}

func TestSagaShow_ShowsEverything(t *testing.T) {
	s := newSagas(t, "o-1")
	got := s.ok(t, "saga", "show", "trip", "o-1")
	for _, want := range []string{
		"saga      trip\nid        o-1\nversion   1\nphase     running\nbegan     ",
		"\n\"o-1\" waits for the outcome of attempt 1 at step \"pay\" (await success paid), since ",
		"STEP     STATUS   ATTEMPT  BEGAN", "reserve  done     1        ", "notify   waiting  -        -", "\nhistory\n  o-1: running\n",
		"\nstate\n  {\n    \"total\": 0,\n",
	} {
		require.Contains(t, got, want)
	}
	var one map[string]any
	require.NoError(t, json.Unmarshal([]byte(s.ok(t, "saga", "show", "trip", "o-1", "-json")), &one))
	require.Equal(t, "doing", one["steps"].([]any)[1].(map[string]any)["status"])
	for _, key := range []string{"began"} {
		text, _ := one[key].(string)
		_, err := time.Parse(time.RFC3339Nano, text)
		require.NoError(t, err)
	}
	require.NotContains(t, one, "offset")
	require.Regexp(t, `^"o-1" waits for the outcome of attempt 1 at step "pay" \(await success paid\), since .*, without a time limit\.\n$`, s.ok(t, "saga", "why", "trip", "o-1"))

	code, _, stderr := s.wherry(t, "saga", "show", "trip", "o-7")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, `wherry: saga trip: "o-7": there is no such saga`)
	code, _, stderr = s.wherry(t, "saga", "ls", "tirp")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "the topics of the saga do not exist: tirp.saga.state")

	// Without an engine only the topic tells.
	require.NoError(t, s.stop())
	code, _, stderr = s.wherry(t, "saga", "why", "trip", "o-1")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, `no engine of "trip" runs`)
	require.Contains(t, s.ok(t, "saga", "why", "trip", "o-1", "-topic"), `step "pay" (await success paid)`)
	require.Contains(t, s.ok(t, "saga", "show", "trip", "o-1", "-topic"), "phase     running\n")
	code, _, stderr = s.wherry(t, "saga", "show", "trip", "o-7", "-topic")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "there is no such saga")
}

func TestSagaGraph_IsMermaidOrATimeline(t *testing.T) {
	s := newSagas(t, "o-1")
	require.Equal(t, s.engine.Definitions[0].Mermaid(), s.ok(t, "saga", "graph", "trip"))
	require.Contains(t, s.ok(t, "saga", "graph", "trip", "-version", "1"), "flowchart TD\n")
	require.Regexp(t, `(?s)^o-1: running\n.*started\n.*reserve +done\n.*pay +sent\n`, s.ok(t, "saga", "graph", "trip", "-id", "o-1"))
	code, _, stderr := s.wherry(t, "saga", "graph", "trip", "-version", "3")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "there is no version 3 of trip, but 1")
}

func TestSagaVerbs_AreAppliedAndSayWho(t *testing.T) {
	s := newSagas(t, "o-1", "o-2", "o-3")
	require.Equal(t, "o-1: pause, by ada\no-2: pause, by ada\n", s.ok(t, "saga", "pause", "trip", "o-1", "o-2", "-reason", "lunch", "-by", "ada"))
	code, stdout, stderr := s.wherry(t, "saga", "pause", "trip", "o-2", "o-3", "-reason", "lunch")
	require.Equal(t, 3, code)
	require.Regexp(t, `^o-3: pause, by \S+@\S+\n$`, stdout)
	require.Contains(t, stderr, `wherry: saga trip: "o-2": pause: it is paused already`)
	require.Contains(t, stderr, "wherry: 1 of 2 sagas refused\n")
	s.ok(t, "saga", "resume", "trip", "o-1", "o-2", "o-3", "-reason", "back")
	code, _, stderr = s.wherry(t, "saga", "retry", "trip", "o-1", "-step", "notify", "-reason", "x")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, `step "notify" is not in hand`)

	s.ok(t, "saga", "skip", "trip", "o-1", "-step", "pay", "-reason", "a gift")
	in, err := s.engine.Get(t.Context(), "o-1")
	require.NoError(t, err)
	require.Equal(t, saga.Done, in.Phase)
	s.ok(t, "saga", "complete", "trip", "o-2", "-reason", "cash", "-state", `{"total":3}`)
	state, err := s.engine.Wait(t.Context(), "o-2")
	require.NoError(t, err)
	require.Equal(t, order{Total: 3, Done: []string{"notify"}}, state)

	var done map[string]any
	require.NoError(t, json.Unmarshal([]byte(s.ok(t, "saga", "undo", "trip", "o-3", "-reason", "fraud", "-by", "ada", "-yes", "-json")), &done))
	require.Equal(t, map[string]any{"saga": "trip", "id": "o-3", "verb": "undo", "actor": "ada", "reason": "fraud", "applied": true}, done)
	_, err = s.engine.Wait(t.Context(), "o-3")
	require.ErrorContains(t, err, "undo by ada: fraud")
	require.Contains(t, s.ok(t, "saga", "show", "trip", "o-3"), "undo by ada: fraud")
	s.ok(t, "saga", "purge", "trip", "o-3", "-reason", "test", "-yes")
	_, err = s.engine.Get(t.Context(), "o-3")
	require.ErrorIs(t, err, saga.ErrNotFound)
}

func TestSaga_WrongCallsExitTwo(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		args []string
		want string
	}{
		"no command":          {[]string{"saga"}, "wherry saga <command> <name>"},
		"no such command":     {[]string{"saga", "burn"}, `there is no command "saga burn"`},
		"no name":             {[]string{"saga", "ls"}, "saga ls needs a <name>"},
		"no id":               {[]string{"saga", "show", "trip"}, "needs a <id>"},
		"no id of a verb":     {[]string{"saga", "cancel", "trip", "-reason", "x"}, "saga cancel needs an <id>"},
		"no reason":           {[]string{"saga", "cancel", "trip", "o-1"}, "saga cancel needs a -reason"},
		"no such phase":       {[]string{"saga", "ls", "trip", "-phase", "lost"}, "give one of done, early, parked, quarantined, queued, running, undoing, undone"},
		"not a time":          {[]string{"saga", "ls", "trip", "-since", "soon"}, "such as 90m, 3d or 1w"},
		"nobody can be asked": {[]string{"saga", "purge", "trip", "o-1", "-reason", "x"}, "give -yes"},
		"no step of a pause":  {[]string{"saga", "pause", "trip", "o-1", "-step", "pay"}, "Usage: wherry saga pause <name> [id...]"},
		"version and id":      {[]string{"saga", "graph", "trip", "-id", "o-1", "-version", "1"}, "give one of them"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, stdout, stderr := call(t, row.args...)
			require.Equal(t, 2, code, stderr)
			require.Empty(t, stdout)
			require.Contains(t, stderr, row.want)
		})
	}
}

func TestSaga_Help(t *testing.T) {
	t.Parallel()
	for want, args := range map[string][]string{
		"wherry saga why order o-1":                     {"help", "saga"},
		"forget a saga at once":                         {"saga", "-h"},
		"Usage: wherry saga cancel <name> [id...]":      {"help", "saga", "cancel"},
		"Usage: wherry saga show <name> <id> [flags]":   {"saga", "help", "show"},
		"done, early, parked, quarantined, queued, run": {"saga", "ls", "-h"},
	} {
		code, stdout, stderr := call(t, args...)
		require.Zero(t, code, args)
		require.Empty(t, stderr, args)
		require.Contains(t, stdout, want, args)
	}
	code, stdout, _ := call(t, "help")
	require.Zero(t, code)
	for _, c := range strings.Fields("saga dlq doctor broker version") {
		require.Contains(t, stdout, fmt.Sprintf("\n  %s ", c))
	}
}
