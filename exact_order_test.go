package wherry_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
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
// was sent, and then the first was rolled back, for a neighbour whose output was
// refused: the next one does not overtake it, whether it rests on the table or not.
func TestExactlyOnce_TheOrderOfKeysOverDelayTopicsOutlivesARollback(t *testing.T) {
	t.Parallel()
	for _, rests := range []bool{true, false} {
		t.Run(fmt.Sprint("rests on the table ", rests), func(t *testing.T) {
			t.Parallel()
			orderOverRollback(t, rests)
		})
	}
}

func orderOverRollback(t *testing.T, rests bool) {
	t.Helper()
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
			case !rests:
				return counted.Publish(ctx, o.ID, count{2})
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

// What stands behind a record that is run again, in the line of its key, is run
// again as well: it is not committed before. Other keys are left alone.
func TestExactlyOnce_WhatStandsBehindARefusedRecordRunsAgainAfterIt(t *testing.T) {
	t.Parallel()
	for by, again := range map[wherry.Order]string{
		wherry.ByPartition: "a1 a2 b1 | a2 b1",
		wherry.ByKey:       "a1 a2 b1 | a2",
		wherry.Unordered:   "a1 a2 b1 |",
	} {
		t.Run(again, func(t *testing.T) {
			t.Parallel()
			kafkatest.Test(t, []string{"order.placed:1", "counted:1", "dead:1"}, func(t *testing.T, k *kafkatest.Cluster) {
				k.Create(t, kafkatest.Topic{Name: "small", Partitions: 1, Config: map[string]string{"max.message.bytes": "1000"}})
				var (
					mu    sync.Mutex
					calls []string
				)
				c := exactly(k.Client(t, kgo.ClientID("first")), by)
				c.Logger, c.Tables, c.Concurrency = quiet, nil, 1
				c.Policies = []wherry.Policy{&dlq.Queue{Topic: "dead"}, wherry.Middleware(func(next wherry.Handler) wherry.Handler {
					return func(ctx context.Context, r *kgo.Record) error {
						mu.Lock()
						defer mu.Unlock()
						if wherry.Refused(ctx) != nil {
							calls = append(calls, "|")
						}
						return next(ctx, r)
					}
				})}
				c.Handlers = []wherry.Route{orderPlaced.Handler(func(ctx context.Context, o order) error {
					calls = append(calls, o.ID)
					if o.ID == "a1" {
						return wherry.Publish(ctx, &kgo.Record{Topic: "small", Value: tooLarge()})
					}
					return counted.Publish(ctx, o.ID, count{1})
				})}
				k.Delay(t, kafkatest.Requests{Keys: []kmsg.Key{kmsg.Produce}, Topic: "small", Client: "first"}, 200*time.Millisecond)
				stop := kafkatest.Run(t, c)
				for _, id := range []string{"a1", "a2", "b1"} {
					kafkatest.Send(t, k, orderPlaced, id[:1], order{ID: id})
				}
				k.Sleep(t, 10*time.Second)
				require.NoError(t, stop())
				require.Equal(t, again, strings.Join(calls, " "))
				require.Len(t, readAll(t, k, "counted"), 2)
				require.Len(t, readAll(t, k, "dead"), 1)
			})
		})
	}
}
