package main

import (
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry/kafkatest"
	"github.com/wherry-go/wherry/saga"
)

// happened are the steps of a timeline's lines that say so, such as
// "      33ms  ship     done" and "failed (attempt 2): it is broken".
func happened(timeline, what string) (steps []string) {
	line := regexp.MustCompile(`(?m)^ *[0-9.m]*s  (\w+) +` + what + `\b`)
	for _, m := range line.FindAllStringSubmatch(timeline, -1) {
		steps = append(steps, m[1])
	}
	return steps
}

func TestACheckoutIsDone(t *testing.T) {
	t.Parallel()
	k, dir := kafkatest.NewCluster(t), t.TempDir()
	p := start(t, k, dir)
	code, c := p.checkout("o-1")
	require.Equal(t, http.StatusCreated, code, c)
	require.Equal(t, "done", c.Phase)
	require.Equal(t, "shelf of the engine", c.Shelf)
	require.Equal(t, "pay-checkout/o-1/pay", c.Payment)
	require.Equal(t, "sale-o-1", c.Entry)
	require.Len(t, c.Tracking, 12)
	require.Equal(t, []string{"reserve done", "pay done", "ship done", "capture done", "notify done"}, c.steps())
	require.Contains(t, p.logs.String(), "2 × engine is on its way: "+c.Tracking)

	// The same key is the same checkout.
	code, again := p.checkout("o-1")
	require.Equal(t, http.StatusCreated, code, again)
	require.Equal(t, c.Tracking, again.Tracking)
	require.Equal(t, map[string]world{"o-1": sold()}, worlds(t, k, dir))
	require.Empty(t, read(t, k, "checkout.saga.dlq"))

	for body, want := range map[string]string{
		`{}`:                `customer is missing\naddress is missing\nitem is missing\nquantity must be at least 1\namount must be at least 1`,
		`{"discount": 100}`: `unknown field`,
	} {
		code, text := p.do(http.MethodPost, "/checkouts", body)
		require.Equal(t, http.StatusBadRequest, code)
		require.Contains(t, string(text), want)
	}
	code, _ = p.do(http.MethodGet, "/checkouts/o-2", "")
	require.Equal(t, http.StatusNotFound, code)
}

func TestARefusedPaymentIsUndone(t *testing.T) {
	t.Parallel()
	k, dir := kafkatest.NewCluster(t), t.TempDir()
	p := start(t, k, dir, "-pay", "refuse")
	code, c := p.checkout("o-1")
	require.Equal(t, http.StatusConflict, code, c)
	require.Equal(t, "undone", c.Phase)
	require.Contains(t, c.Why, `because of step "pay": `)
	require.Contains(t, c.Why, `refused: no`)
	require.Equal(t, []string{"reserve undone", "pay rejected", "ship undone", "capture waiting", "notify waiting"}, c.steps())
	require.Equal(t, []string{"ship", "reserve"}, happened(p.timeline("o-1"), "undone"), "backwards")
	require.Equal(t, map[string]world{"o-1": {"stock -2": 1, "stock 2": 1, "cancelled label": 1}}, worlds(t, k, dir))
}

// Each of four attempts may have charged: nobody knows, so it is refunded.
func TestAPaymentThatIsNotAnsweredIsRefunded(t *testing.T) {
	t.Parallel()
	k, dir := kafkatest.NewCluster(t), t.TempDir()
	p := start(t, k, dir, "-pay", "timeout", "-step-timeout", "1s")
	code, c := p.checkout("o-1")
	require.Equal(t, http.StatusConflict, code, c)
	require.Equal(t, "undone", c.step("pay"))
	payments := slices.DeleteFunc(happened(p.timeline("o-1"), "timed out"), func(step string) bool { return step != "pay" })
	require.Len(t, payments, 4)
	require.Equal(t, map[string]world{"o-1": takenBack()}, worlds(t, k, dir))
}

func TestWhatIsFlakyIsTriedAgainAndTheCheckoutIsDone(t *testing.T) {
	t.Parallel()
	k, dir := kafkatest.NewCluster(t), t.TempDir()
	p := start(t, k, dir, "-pay", "flaky", "-capture", "flaky")
	code, c := p.checkout("o-1")
	require.Equal(t, http.StatusCreated, code, c)
	require.Equal(t, []string{"pay", "pay", "capture", "capture"}, happened(p.timeline("o-1"), "failed"))
	require.Empty(t, happened(p.timeline("o-1"), "undoing"))
	require.Equal(t, map[string]world{"o-1": sold()}, worlds(t, k, dir))
}

// After the pivot there is no way back: it shows as stuck, and an operator ends it.
func TestANoticeThatFailsForEverIsStuckAndCanBeSkipped(t *testing.T) {
	t.Parallel()
	k, dir := kafkatest.NewCluster(t), t.TempDir()
	p := start(t, k, dir, "-notify", "fail", "-stuck-after", "100ms")
	p.begin("o-1")
	c := p.becomes("o-1", "stuck", func(c shown) bool { return c.Stuck })
	require.Equal(t, "running", c.Phase)
	require.Contains(t, c.Why, `"o-1" is stuck`)
	require.Contains(t, c.Why, `step "notify"`)
	require.Equal(t, "done", c.step("capture"))
	eventually(t, "the hook to be told", func() bool { return strings.Contains(p.logs.String(), `checkout: stuck" id=o-1 step=notify`) })

	operator := &saga.Inspector{Client: k.Client(t), Name: "checkout"}
	by := saga.By{Actor: "ada", Reason: "I telephoned"}
	require.Error(t, operator.Do(t.Context(), "o-1", saga.Undo, by), "not after the pivot")
	require.NoError(t, operator.Do(t.Context(), "o-1", saga.Skip, by))
	c = p.becomes("o-1", "done", func(c shown) bool { return c.Phase == "done" })
	require.Equal(t, "skipped", c.step("notify"))
	require.Contains(t, p.timeline("o-1"), "I telephoned")
	require.Equal(t, map[string]world{"o-1": sold()}, worlds(t, k, dir))
}

// A no after the pivot is for people.
func TestANoticeThatIsRefusedIsParked(t *testing.T) {
	t.Parallel()
	k, dir := kafkatest.NewCluster(t), t.TempDir()
	p := start(t, k, dir, "-notify", "refuse")
	p.begin("o-1")
	c := p.becomes("o-1", "parked", func(c shown) bool { return c.Phase == "parked" })
	require.Contains(t, c.Why, "waits for an operator")
	operator := &saga.Inspector{Client: k.Client(t), Name: "checkout"}
	require.NoError(t, operator.Do(t.Context(), "o-1", saga.Complete, saga.By{Actor: "ada", Reason: "told in the shop"}))
	p.becomes("o-1", "done", func(c shown) bool { return c.Phase == "done" })
}
