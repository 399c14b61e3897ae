package saga_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
	"github.com/wherry-go/wherry/saga"
)

// A local step succeeded in a process that died before it could commit that. Its
// successor is told no, and cannot know: the step is undone as well. What was
// started after it had come is in no doubt.
func TestS19_WhatMayHaveBeenDoneBeforeACrashIsUndone(t *testing.T) {
	t.Parallel()
	kafkatest.Test(t, nil, func(t *testing.T, k *kafkatest.Cluster) {
		k.WallLimit(time.Minute)
		var l diary
		engineOf := func(client string, answer error) *saga.Engine[order] {
			return &saga.Engine[order]{
				Client: k.Client(t, kgo.ClientID(client)), Topics: wherry.TopicSpec{Partitions: 1},
				Opts: []kgo.Opt{kgo.SessionTimeout(6 * time.Second), kgo.HeartbeatInterval(time.Second)},
				Definitions: []saga.Definition[order]{trip(l.step("a"), saga.Step[order]{
					Name: "b", Undo: l.undo("b"), Do: saga.Do(func(ctx context.Context, _ order) error {
						l.add(ctx, "b by "+client)
						return answer
					}),
				})},
			}
		}
		first := engineOf("first", nil)
		ctx, cancel := context.WithCancel(context.Background())
		end := make(chan error, 1)
		go func() { end <- first.Run(ctx) }()
		k.Sleep(t, 10*time.Second)
		f := k.Crash(t, kafkatest.Requests{Keys: []kmsg.Key{kmsg.EndTxn}, Client: "first"})
		require.NoError(t, engineOf("starter", nil).Start(t.Context(), "o-1", order{}))
		f.Wait(t, 1)
		cancel()
		<-end // what it says is of no use: it is dead
		require.Equal(t, []string{"a", "b by first"}, l.of("o-1"))

		second := engineOf("second", errRefused)
		kafkatest.Run(t, second)
		k.Sleep(t, time.Minute)
		require.NoError(t, second.Start(t.Context(), "o-2", order{}))
		k.Sleep(t, time.Minute)
		require.Equal(t, []string{"a", "b by first", "a", "b by second", "undo b", "undo a"}, l.of("o-1"))
		require.Equal(t, []string{"a", "b by second", "undo a"}, l.of("o-2"))
		require.Equal(t, saga.Undone, phaseOf(t, k, "o-1", saga.Undone).Phase)
		noLetters(t, k)
	})
}
