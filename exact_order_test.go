package wherry_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/dlq"
	"github.com/wherry-go/wherry/kafkatest"
	"github.com/wherry-go/wherry/retry"
)

// A record that came back from its delay topic was done, the next one of its key
// was handled, and then both were rolled back, for a neighbour whose output was
// refused: that the first was done is forgotten with it.
func TestExactlyOnce_TheOrderOfKeysOverDelayTopicsOutlivesARollback(t *testing.T) {
	t.Parallel()
	kafkatest.Test(t, []string{"order.placed:1", "counted:1", "dead:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		k.Create(t, kafkatest.Topic{Name: "small", Partitions: 1, Config: map[string]string{"max.message.bytes": "1000"}})
		c := exactly(k.Client(t, kgo.ClientID("first")), wherry.ByKey)
		c.Logger = quiet
		c.Policies = []wherry.Policy{
			&dlq.Queue{Topic: "dead"},
			retry.Topics{Policy: retry.Policy{Attempts: 3, Initial: time.Second}, KeepOrder: true},
		}
		c.Handlers = []wherry.Route{orderPlaced.Handler(func(ctx context.Context, o order) error {
			switch {
			case o.ID == "refused":
				if err := counts.Put(ctx, "refused", count{1}); err != nil {
					return err
				}
				return wherry.Publish(ctx, &kgo.Record{Topic: "small", Value: tooLarge()})
			case wherry.Attempt(ctx) == 1 && o.ID == "fails":
				return errors.New("not yet")
			case o.ID == "fails":
				time.Sleep(20 * time.Millisecond)
			}
			key := string(wherry.RecordFrom(ctx).Key)
			n, _, err := counts.Get(ctx, key)
			n.N++
			if err = errors.Join(err, counts.Put(ctx, key, n)); err != nil {
				return err
			}
			return counted.Publish(ctx, o.ID, n)
		})}
		stop := kafkatest.Run(t, c)
		k.Delay(t, kafkatest.Requests{Keys: []kmsg.Key{kmsg.Produce}, Topic: "small", Client: "first"}, 200*time.Millisecond)
		kafkatest.Send(t, k, orderPlaced, "k", order{ID: "fails"}) // due in a second
		k.Sleep(t, 950*time.Millisecond)
		kafkatest.Send(t, k, orderPlaced, "other", order{ID: "refused"}) // and for 200 ms it is not known
		k.Sleep(t, 100*time.Millisecond)
		kafkatest.Send(t, k, orderPlaced, "k", order{ID: "next"})
		k.Sleep(t, time.Minute)
		require.NoError(t, stop())
		var got []string
		for _, r := range readAll(t, k, "counted") {
			got = append(got, string(r.Key)+string(r.Value))
		}
		require.Equal(t, `fails{"N":1} next{"N":2}`, strings.Join(got, " "))
		require.Len(t, readAll(t, k, "dead"), 1)
	})
}
