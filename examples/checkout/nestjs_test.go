package main

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/examples/checkout/contract"
	"github.com/wherry-go/wherry/internal/interop/nest"
	"github.com/wherry-go/wherry/kafkatest"
)

func TestPaymentsInNestJS(t *testing.T) {
	t.Parallel()
	if _, err := nest.Payments(t.Context(), nil); err != nil {
		if os.Getenv("KAFKATEST_REQUIRE") == "1" {
			t.Fatal("KAFKATEST_REQUIRE=1, and " + err.Error())
		}
		t.Skip(err)
	}
	const others = "stock,shipping,ledger,notify,checkout"
	k, dir := kafkatest.NewCluster(t), t.TempDir()
	require.NoError(t, wherry.EnsureTopics(t.Context(), k.Client(t), contract.Topics()...)) // NestJS ends where they are missing

	stop := inNest(t, k, dir, "flaky")
	p := start(t, k, dir, "-services", others)
	code, c := p.checkout("o-1")
	require.Equal(t, http.StatusCreated, code, c)
	require.Equal(t, "pay-checkout/o-1/pay", c.Payment)
	require.Equal(t, []string{"pay", "pay"}, happened(p.timeline("o-1"), "failed"), "an Error is a failure")
	p.stop()

	p = start(t, k, dir, "-services", others, "-capture", "refuse")
	code, c = p.checkout("o-2")
	require.Equal(t, http.StatusConflict, code, c)
	require.Equal(t, "undone", c.step("pay"))
	p.stop()
	stop()

	inNest(t, k, dir, "refuse")
	p = start(t, k, dir, "-services", others)
	code, c = p.checkout("o-3")
	require.Equal(t, http.StatusConflict, code, c)
	require.Equal(t, "rejected", c.step("pay"), "an RpcException is a no")
	require.Contains(t, c.Why, "refused: the card was declined")
	undone := takenBack()
	delete(undone, "charge 9999")
	delete(undone, "refund 9999")
	require.Equal(t, map[string]world{"o-1": sold(), "o-2": takenBack(), "o-3": undone}, worlds(t, k, dir))
}

// inNest runs the payments in NestJS, and returns when they have their
// partitions.
func inNest(t *testing.T, k *kafkatest.Cluster, dir, pay string) (stop func()) {
	t.Helper()
	cmd, err := nest.Payments(context.Background(), k.Brokers(), "PAY="+pay, "BOOK="+filepath.Join(dir, "payments.jsonl"), "MAX_WAIT_MS=50")
	require.NoError(t, err)
	p, err := nest.Start(cmd)
	require.NoError(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(p.Log())
		}
		require.NoError(t, p.Close())
	})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	_, err = p.Await(ctx, nest.Joined, 1)
	require.NoError(t, err)
	return func() { p.Stop(syscall.SIGTERM) }
}
