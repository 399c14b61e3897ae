package wherry_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
	"github.com/wherry-go/wherry/retry"
)

// Configurations of tables that cannot work are refused before anything begins,
// with what to do.
func TestExactBreak_WrongTablesAreRefused(t *testing.T) {
	t.Parallel()
	other := wherry.Event[order]{Topic: "other"}
	for name, test := range map[string]struct {
		edit func(*wherry.Consumer)
		want string
	}{
		"at least once": {func(c *wherry.Consumer) { c.Delivery = wherry.AtLeastOnce }, "set Delivery to ExactlyOnce"},
		"nil":           {func(c *wherry.Consumer) { c.Tables = append(c.Tables, nil) }, "table 1 is nil"},
		"twice":         {func(c *wherry.Consumer) { c.Tables = append(c.Tables, counts) }, "table counts is listed twice"},
		"no topic":      {func(c *wherry.Consumer) { c.Tables = []wherry.Owned{&wherry.OwnedTable[count]{}} }, "topic"},
		"routed":        {func(c *wherry.Consumer) { c.Tables = []wherry.Owned{&wherry.OwnedTable[count]{Topic: "order.placed"}} }, "has a route"},
		"other partitions": {func(c *wherry.Consumer) {
			c.Handlers = append(c.Handlers, other.Handler(func(context.Context, order) error { return nil }))
		}, "same number"},
		"of its own": {func(c *wherry.Consumer) {
			c.Tables = []wherry.Owned{&wherry.OwnedTable[count]{Topic: "counts", Spec: wherry.TopicSpec{Partitions: 5}}}
		}, "same number"},
		"not a changelog": {func(c *wherry.Consumer) { c.Tables = []wherry.Owned{&wherry.OwnedTable[count]{Topic: "plain"}} }, "plain"},
		"delivery":        {func(c *wherry.Consumer) { c.Delivery = 7 }, "Delivery"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := kafkatest.NewCluster(t, "order.placed:2", "other:3", "counted:1")
			k.Create(t, kafkatest.Topic{Name: "plain", Partitions: 2, Config: map[string]string{"retention.ms": "60000", "cleanup.policy": "delete"}})
			c := exactly(k.Client(t), wherry.ByPartition)
			test.edit(c)
			end, _ := background(t, c)
			require.ErrorContains(t, receive(t, end, "the end"), test.want)
		})
	}
}

// What a handler must not do with a table is an error to it, and the record is
// handled all the same.
func TestExactBreak_WrongUseOfATable(t *testing.T) {
	t.Parallel()
	kafkatest.Test(t, []string{"order.placed:1", "counted:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		unlisted := &wherry.OwnedTable[count]{Topic: "unlisted"}
		_, _, err := counts.Get(t.Context(), "a")
		require.ErrorContains(t, err, "outside of a handler")
		require.ErrorContains(t, counts.Put(t.Context(), "a", count{1}), "outside of a handler")
		for _, err := range counts.All(t.Context()) {
			require.ErrorContains(t, err, "outside of a handler")
		}
		var left context.Context
		c := exactly(k.Client(t), wherry.ByPartition)
		c.Logger = quiet
		c.Handlers = []wherry.Route{orderPlaced.Handler(func(ctx context.Context, o order) error {
			left = ctx //nolint:fatcontext // what a handler must not do
			_, _, err := unlisted.Get(ctx, "a")
			errs := []error{err, unlisted.Put(ctx, "a", count{1}), wherry.Publish(ctx, &kgo.Record{Topic: "counts", Key: []byte("a")})}
			huge := &wherry.OwnedTable[[]byte]{Topic: "counts"}
			errs = append(errs, huge.Put(ctx, "huge", noise(3<<20)))
			for i, want := range []string{"not one of the Consumer's Tables", "not one of the Consumer's Tables", "use its Put and Delete", "MESSAGE_TOO_LARGE"} {
				if errs[i] == nil || !strings.Contains(errs[i].Error(), want) {
					return fmt.Errorf("%d: %w, not %q", i, errs[i], want)
				}
			}
			return counts.Put(ctx, o.ID, count{1})
		})}
		kafkatest.Send(t, k, orderPlaced, "a", order{ID: "a"})
		stop := kafkatest.Run(t, c)
		k.Sleep(t, time.Second)
		require.EqualValues(t, 1, sum(committed(t, k, "g", "order.placed")))
		// A goroutine that the handler left behind.
		require.Error(t, counts.Put(left, "late", count{1}))
		require.Error(t, counts.Delete(left, "late"))
		require.NoError(t, stop())
		_, _, err = counts.Get(left, "a")
		require.Error(t, err)
		require.Len(t, readAll(t, k, "counts"), 1)
	})
}

// Attempts that failed are not seen by the next, nor by anybody else; what a
// handler wrote itself is seen by it at once.
func TestExactBreak_AnAttemptSeesItsOwnWritesAlone(t *testing.T) {
	t.Parallel()
	for _, by := range []wherry.Order{wherry.ByPartition, wherry.ByKey} {
		t.Run(strconv.Itoa(int(by)), func(t *testing.T) {
			t.Parallel()
			kafkatest.Test(t, []string{"order.placed:1", "counted:1"}, func(t *testing.T, k *kafkatest.Cluster) {
				c := exactly(k.Client(t), by)
				c.Logger = quiet
				c.Policies = []wherry.Policy{retry.Policy{Attempts: 4, Initial: time.Second}}
				c.Handlers = []wherry.Route{orderPlaced.Handler(func(ctx context.Context, o order) error {
					before, had, err := counts.Get(ctx, o.ID)
					if err != nil {
						return err
					}
					if had != (o.Total%3 > 0) {
						return wherry.Permanent(fmt.Errorf("%d has %v", o.Total, before))
					}
					for i := range 3 {
						if err := counts.Put(ctx, o.ID, count{before.N + 1 + i}); err != nil {
							return err
						}
						if now, ok, err := counts.Get(ctx, o.ID); err != nil || !ok || now.N != before.N+1+i {
							return wherry.Permanent(fmt.Errorf("%v after %d, %w", now, before.N+1+i, err))
						}
					}
					if err := counts.Delete(ctx, o.ID); err != nil {
						return err
					}
					if _, ok, _ := counts.Get(ctx, o.ID); ok {
						return wherry.Permanent(errors.New("it was deleted"))
					}
					if wherry.Attempt(ctx) < 3 {
						return errors.New("not yet")
					}
					if o.Total%3 < 2 {
						return counts.Put(ctx, o.ID, count{before.N + 10})
					}
					return counted.Publish(ctx, o.ID, count{before.N})
				})}
				stop := kafkatest.Run(t, c)
				for i := range 12 {
					for key := range 3 {
						id := strconv.Itoa(key)
						kafkatest.Send(t, k, orderPlaced, id, order{ID: id, Total: i})
					}
					k.Sleep(t, time.Duration(i)*time.Second)
				}
				k.Sleep(t, 5*time.Minute)
				require.EqualValues(t, 36, sum(committed(t, k, "g", "order.placed")))
				require.NoError(t, stop())
				all := readAll(t, k, "counted")
				require.Len(t, all, 12)
				for _, r := range all {
					v, err := counted.Decode(r)
					require.NoError(t, err)
					require.Equal(t, 20, v.N)
				}
			})
		})
	}
}

// The messages of a batch are of different keys, ByKey, and each has its writes
// in the transaction of its own record. (Those of one batch do not see each
// other's: see OwnedTable.)
func TestExactBreak_BatchesAndTables(t *testing.T) {
	t.Parallel()
	kafkatest.Test(t, []string{"order.placed:2", "counted:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		c := exactly(k.Client(t), wherry.ByKey)
		c.Logger = quiet
		c.Policies = []wherry.Policy{retry.Policy{Attempts: 3, Initial: time.Second}}
		calls := 0
		c.Handlers = []wherry.Route{orderPlaced.Batch(func(_ context.Context, batch []wherry.Message[order]) []error {
			errs := make([]error, len(batch))
			for i, m := range batch {
				errs[i] = countOrders(m.Context, m.Value)
				if calls++; calls%7 == 0 && wherry.Attempt(m.Context) < 2 {
					errs[i] = errors.New("not yet")
				}
			}
			return errs
		}).Sized(5, 10*time.Millisecond)}
		c.Concurrency = 1
		for range 20 {
			for key := range 4 {
				kafkatest.Send(t, k, orderPlaced, strconv.Itoa(key), order_(key))
			}
		}
		stop := kafkatest.Run(t, c)
		k.Sleep(t, time.Minute)
		require.EqualValues(t, 80, sum(committed(t, k, "g", "order.placed")))
		require.NoError(t, stop())
		requireCounts(t, k, 4, 20)
	})
}

// What does not decode in a table is an error to the handler that asks for it.
func TestExactBreak_AValueThatDoesNotDecode(t *testing.T) {
	t.Parallel()
	kafkatest.Test(t, []string{"order.placed:1", "counted:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		require.NoError(t, wherry.EnsureTopics(t.Context(), k.Client(t), wherry.TopicSpec{Name: "counts", Partitions: 1, Changelog: true}))
		kafkatest.SendRecord(t, k, &kgo.Record{Topic: "counts", Key: []byte("bad"), Value: []byte("{")})
		kafkatest.SendRecord(t, k, &kgo.Record{Topic: "counts", Key: []byte("good"), Value: []byte(`{"N":4}`)})
		c := exactly(k.Client(t), wherry.ByPartition)
		c.Logger = quiet
		var all []string
		c.Handlers = []wherry.Route{orderPlaced.Handler(func(ctx context.Context, o order) error {
			for m, err := range counts.All(ctx) {
				all = append(all, fmt.Sprint(string(m.Record.Key), m.Value.N, err == nil))
			}
			return countOrders(ctx, o)
		})}
		stop := kafkatest.Run(t, c)
		kafkatest.Send(t, k, orderPlaced, "good", order{ID: "good"})
		k.Sleep(t, time.Second)
		require.EqualValues(t, 1, sum(committed(t, k, "g", "order.placed")))
		require.ElementsMatch(t, []string{"bad0 false", "good4 true"}, all)
		require.NoError(t, stop())

		kafkatest.Send(t, k, orderPlaced, "bad", order{ID: "bad"})
		again := exactly(k.Client(t), wherry.ByPartition)
		again.Logger = quiet
		var found *wherry.RecordError
		err := again.Run(t.Context())
		require.ErrorAs(t, err, &found)
		require.Equal(t, "order.placed", found.Topic) // that one did decode
		require.ErrorContains(t, err, "counts")
	})
}
