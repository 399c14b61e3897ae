package sagatest_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/saga"
	"github.com/wherry-go/wherry/saga/sagatest"
)

func TestFails_WithWhatIsWrongWhereItIsAndHowItCameThere(t *testing.T) {
	t.Parallel()
	type story = *sagatest.Saga[order]
	for name, test := range map[string]struct {
		play func(s story)
		want string
	}{
		"a reply to what was not asked":    {func(s story) { s.Reply("ship", shipped{}) }, "no outcome of ship is waited for"},
		"a reply of another type":          {func(s story) { s.Reply("reserve", shipped{}) }, "the answer of stock.reserve: want sagatest_test.reserved, and this is sagatest_test.shipped"},
		"a step that there is not":         {func(s story) { s.Reply("reverse", nil) }, `there is no step "reverse"; the steps are ["reserve" "pay" "ship" "log" "notify"]`},
		"the undoing of nothing":           {func(s story) { s.Reply("undo reserve", nil) }, "no outcome of undo reserve is waited for"},
		"asked for something else":         {func(s story) { s.Asked("pay") }, "want asked: pay\nbut asked: reserve"},
		"asked for nothing":                {func(s story) { s.Asked() }, "want asked: nothing\nbut asked: reserve"},
		"an end that has not come":         {func(s story) { s.Done() }, "want the saga to be done\nbut it is running"},
		"another end":                      {func(s story) { s.Refuse("reserve", "no", "no"); s.Done() }, "want the saga to be done\nbut it is undone"},
		"for another step":                 {func(s story) { s.Refuse("reserve", "no", "no"); s.Undone("pay") }, `because of step "pay"` + "\n" + `but it is because of "reserve"`},
		"an event of nobody":               {func(s story) { sagatest.Event(s, notifyWanted, order{}) }, "nothing of saga checkout is started by notify.wanted, or awaits it"},
		"an event of another saga":         {func(s story) { sagatest.Event(s, paymentCreated, payment{Order: "o-2"}) }, `is about saga ["o-2"], and this is "o-1"`},
		"an event that is not encoded":     {func(s story) { sagatest.Event(s, wherry.Event[func()]{Topic: "payment.created"}, func() {}) }, "encoding func()"},
		"a reply where events are awaited": {func(s story) { s.Reply("reserve", nil); s.Reply("pay", nil) }, "pay gets no reply: events end it, of payment.created, payment.failed"},
		"a reply that was lost":            {func(s story) { s.Lose("reserve"); s.Reply("reserve", nil) }, "the answer to attempt 1 was lost"},
		"nothing late":                     {func(s story) { s.Late("reserve", nil) }, "no answer of reserve is late"},
		"a request of another type":        {func(s story) { sagatest.Request[shipReq](s, "reserve") }, "reserve sends a sagatest_test.reserveReq, and the test wants a sagatest_test.shipReq"},
		"a request that was not sent":      {func(s story) { sagatest.Request[shipReq](s, "ship") }, "nothing was sent for ship"},
		"a verb that is refused":           {func(s story) { s.Do(saga.Resume, saga.By{}) }, "it is not paused"},
		"no verb":                          {func(s story) { s.Do("explode", saga.By{}) }, "there is no such verb"},
		"a call that is no Local step":     {func(s story) { s.FailLocal("reserve", errDown) }, `"reserve" is no Local step: it does call stock.reserve`},
		"an undo that there is not":        {func(s story) { s.FailLocal("undo log", errDown) }, `"undo log" is no Local step: there is nothing to do`},
		"stuck":                            {func(s story) { s.Stuck("reserve") }, "nobody was told that reserve is stuck"},
		"time without a timer":             {func(s story) { s.Refuse("reserve", "no", "no"); s.Next() }, "nothing is due, however long one waits"},
		"another start":                    {func(s story) { s.Start(order{Total: 2}) }, "was started before, with another state"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text := fails(t, func(t testing.TB) { test.play(sagatest.Start(t, checkout(), "o-1", order{Total: 100})) }, test.want)
			require.Contains(t, text, "\"o-1\" ", "where it is")
			require.Contains(t, text, "ask reserve: stock.reserve {\"Total\":100}", "how it came there")
		})
	}
}

func TestFails_BeforeAnythingHasHappened(t *testing.T) {
	t.Parallel()
	fails(t, func(t testing.TB) { sagatest.New(t, checkout(), "o-1").Crash() }, "a Crash before anything has happened", `"o-1" was not started`)
	fails(t, func(t testing.TB) { sagatest.New(t, checkout(), "o-1").Twice() }, "Twice before anything has come")
	fails(t, func(t testing.TB) { sagatest.New(t, checkout(), "o-1").Next() }, "nothing is due")
	fails(t, func(t testing.TB) { sagatest.New(t, checkout(), "") }, "the id is empty")
	d := checkout()
	d.Steps[0].Undo = nil
	fails(t, func(t testing.TB) { sagatest.New(t, d, "o-1") }, `step "reserve" has no Undo`)
}

func TestFails_WhereALostAnswerWouldBeWaitedForForEver(t *testing.T) {
	t.Parallel()
	d := saga.Definition[order]{Name: "slow", Steps: []saga.Step[order]{{
		Name: "ship", NoUndo: true, Do: saga.Call(ship, func(order) shipReq { return shipReq{} }, nil),
	}}}
	fails(t, func(t testing.TB) { sagatest.Start(t, d, "o-1", order{}).Lose("ship") }, "ship: nothing ends the wait if its answer is lost: give the step a Timeout")
}

func TestFails_AQuarantineThatWasNotAskedFor(t *testing.T) {
	t.Parallel()
	d := saga.Definition[order]{Name: "q", Steps: []saga.Step[order]{{
		Name: "ship", NoUndo: true, Do: saga.Call(ship, func(order) shipReq { return shipReq{} }, func(*order, shipped) { panic("a nil map, say") }),
	}}}
	fails(t, func(t testing.TB) { sagatest.Start(t, d, "o-1", order{}).Reply("ship", shipped{}) },
		"the saga ended up quarantined", "a nil map, say")
	passes(t, func(t testing.TB) {
		s := sagatest.Start(t, d, "o-1", order{})
		s.Reply("ship", shipped{})
		s.Is(saga.Quarantined)
	})
}

func TestGolden_IsWrittenComparedAndMissed(t *testing.T) { // not parallel: the environment
	path := filepath.Join(t.TempDir(), "deep", "story.txt")
	story := func(total int) func(t testing.TB) {
		return func(t testing.TB) { sagatest.Start(t, checkout(), "o-1", order{Total: total}).Golden(path) }
	}
	fails(t, story(1), "story.txt does not exist: write it with SAGATEST_UPDATE=1", "It would be:\n\nsaga checkout, version 2")
	t.Setenv("SAGATEST_UPDATE", "1")
	require.Contains(t, passes(t, story(1)), "wrote "+path)
	t.Setenv("SAGATEST_UPDATE", "")
	passes(t, story(1))
	fails(t, story(2), "the saga did not go as in "+path, "line 3:\n  want +0s  start {\"total\":1}\n  but  +0s  start {\"total\":2}")
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Contains(t, string(b), `start {"total":1}`, "it is not written unless asked")
}

func TestS27_ShapePinsADefinition(t *testing.T) { // not parallel: the environment
	path := filepath.Join(t.TempDir(), "checkout.v2.txt")
	shape := func(change func(d *saga.Definition[order])) func(t testing.TB) {
		return func(t testing.TB) {
			d := checkout()
			change(&d)
			sagatest.Shape(t, d, path)
		}
	}
	same := shape(func(*saga.Definition[order]) {})
	t.Setenv("SAGATEST_UPDATE", "1")
	passes(t, same)
	t.Setenv("SAGATEST_UPDATE", "")
	passes(t, same)
	passes(t, shape(func(d *saga.Definition[order]) { d.Steps[0].Timeout = time.Hour }))
	fails(t, shape(func(d *saga.Definition[order]) { d.Steps = d.Steps[:4] }),
		"saga checkout is not as in "+path, "Sagas of version 2 may be in flight", "Give the changed one Version 3", "It is now:\nsaga checkout version 2")
	fails(t, shape(func(d *saga.Definition[order]) { d.Steps[3].Name = "write" }), "want log: local\n  but  write: local")
	fails(t, shape(func(d *saga.Definition[order]) { d.Version = 3 }), "The file is that of version 2, and the Definition has Version 3: pin it in a file of its own")
	fails(t, shape(func(d *saga.Definition[order]) { d.Steps = nil }), "it has no Steps")
}
