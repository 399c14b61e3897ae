package payments_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/examples/checkout/contract"
	"github.com/wherry-go/wherry/examples/checkout/payments"
	"github.com/wherry-go/wherry/examples/checkout/trouble"
	"github.com/wherry-go/wherry/internal/header"
	"github.com/wherry-go/wherry/internal/interop/nest"
	"github.com/wherry-go/wherry/kafkatest"
	"github.com/wherry-go/wherry/reqreply"
)

const inbox = "checkout.saga.inbox"

// Both are asked the same, by hand, and have to do and to answer the same.
func TestPaymentsInGoAndInNestJS(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(t *testing.T, k *kafkatest.Cluster, book string){
		"Go": func(t *testing.T, k *kafkatest.Cluster, book string) {
			kafkatest.Run(t, payments.New(k.Client(t), trouble.OK, slog.New(slog.DiscardHandler), book))
		},
		"NestJS": inNest,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if name == "NestJS" {
				needNest(t)
			}
			k := kafkatest.NewCluster(t, contract.Pay.Topic, contract.Refund.Topic, inbox)
			book := filepath.Join(t.TempDir(), "payments.jsonl")
			// What a crash leaves of a line was never answered, and does not count.
			require.NoError(t, os.WriteFile(book, []byte(`{"key":"checkout/o-0/pay","did":"charge","payment":"pay-checkout/o-0/pay","amount":1}`+"\n"+`{"key":"che`), 0o600))
			start(t, k, book)
			pay := func(id, attempt string) (contract.Payment, error) {
				return ask(t, k, contract.Pay, id, "d", attempt)
			}
			refund := func(id, attempt string) (contract.Payment, error) {
				return ask(t, k, contract.Refund, id, "u", attempt)
			}
			refused := func(_ contract.Payment, err error) {
				t.Helper()
				var no *reqreply.Error
				require.ErrorAs(t, err, &no)
				require.Equal(t, "refunded", no.Code)
				require.Equal(t, "it was called off before", no.Message)
			}
			is := func(want string) func(contract.Payment, error) {
				return func(p contract.Payment, err error) {
					t.Helper()
					require.NoError(t, err)
					require.Equal(t, want, p.ID)
				}
			}
			is("pay-checkout/o-0/pay")(pay("o-0", "1")) // of the book's past
			is("pay-checkout/%C3%B6%201/pay")(pay("ö 1", "1"))
			is("pay-checkout/%C3%B6%201/pay")(pay("ö 1", "2"))
			is("pay-checkout/%C3%B6%201/pay")(refund("ö 1", "1"))
			is("pay-checkout/%C3%B6%201/pay")(refund("ö 1", "2"))
			refused(pay("ö 1", "3"))
			is("")(refund("o-2", "1")) // it overtook
			refused(pay("o-2", "1"))

			text, err := os.ReadFile(book)
			require.NoError(t, err)
			require.Equal(t, strings.Join([]string{
				`{"key":"checkout/o-0/pay","did":"charge","payment":"pay-checkout/o-0/pay","amount":1}`,
				`{"key":"checkout/%C3%B6%201/pay","did":"charge","payment":"pay-checkout/%C3%B6%201/pay","amount":9999}`,
				`{"key":"checkout/%C3%B6%201/pay","did":"refund","payment":"pay-checkout/%C3%B6%201/pay","amount":9999}`,
				`{"key":"checkout/o-2/pay","did":"refund","payment":"","amount":0}`,
				"",
			}, "\n"), string(text))
		})
	}
}

// ask sends what a saga sends for an attempt of the step pay, and returns the
// answer to it.
func ask(t *testing.T, k *kafkatest.Cluster, m reqreply.Method[contract.Charge, contract.Payment], id, direction, attempt string) (contract.Payment, error) {
	t.Helper()
	r, err := m.Request(t.Context(), contract.Charge{Customer: "ada", Amount: 9999})
	require.NoError(t, err)
	r.Key = []byte(id)
	number, err := strconv.Atoi(attempt)
	require.NoError(t, err)
	op := header.Op{Saga: "checkout", ID: id, Step: "pay", Undo: direction == "u", Attempt: number}
	op.AddTo(r, true) // as pay and refund have topics of their own
	m.Profile.Address(r, op.CorrelationID(0), inbox, 0)
	cl := k.Client(t, kgo.ProducerBatchCompression(kgo.NoCompression())) // KafkaJS has no snappy
	require.NoError(t, cl.ProduceSync(t.Context(), r).FirstErr())
	reply := kafkatest.NextRecord(t, k, inbox)
	require.Equal(t, op.CorrelationID(0), m.Profile.ReplyTo(reply))
	return m.Reply(reply)
}

// needNest skips the test where NestJS is missing, or fails it with
// KAFKATEST_REQUIRE=1.
func needNest(t *testing.T) {
	t.Helper()
	if _, err := nest.Payments(t.Context(), nil); err != nil {
		if os.Getenv("KAFKATEST_REQUIRE") == "1" {
			t.Fatal("KAFKATEST_REQUIRE=1, and " + err.Error())
		}
		t.Skip(err)
	}
}

// inNest runs the payments in NestJS until the test ends, and returns when they
// have their partitions.
func inNest(t *testing.T, k *kafkatest.Cluster, book string) {
	t.Helper()
	cmd, err := nest.Payments(context.Background(), k.Brokers(), "BOOK="+book, "MAX_WAIT_MS=50")
	require.NoError(t, err)
	p, err := nest.Start(cmd)
	require.NoError(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(p.Log())
		}
		require.NoError(t, p.Close())
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err = p.Await(ctx, nest.Joined, 1)
	require.NoError(t, err)
}
