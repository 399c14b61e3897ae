package reqreply_test

import (
	"context"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
	"github.com/wherry-go/wherry/reqreply"
)

// bell answers those who wait for it when it is rung, all in one handler.
type bell struct {
	mu    sync.Mutex
	waits []reqreply.Asker[string]
	in    chan struct{}
}

var ring = reqreply.Method[string, string]{Topic: "user.getUser"}

func (b *bell) handle(ctx context.Context, what string) (string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if what == "wait" {
		a, ok := ring.Asker(ctx)
		if !ok {
			return "nobody asks", nil
		}
		b.waits = append(b.waits, a)
		b.in <- struct{}{}
		return "", reqreply.ErrLater
	}
	if what == "loud" {
		what = strings.Repeat("ding", 300_000)
	}
	for _, a := range b.waits {
		if err := a.Answer(ctx, what); err != nil {
			return "", err
		}
	}
	b.waits = nil
	return "rung", nil
}

func TestAnAnswerMayComeLater(t *testing.T) {
	t.Parallel()
	for name, delivery := range map[string]wherry.Delivery{"at least once": wherry.AtLeastOnce, "exactly once": wherry.ExactlyOnce} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := kafkatest.NewCluster(t, topics...)
			b := &bell{in: make(chan struct{}, 2)}
			counts, _ := serve(t, k, &wherry.Consumer{Delivery: delivery}, ring.Handler(b.handle))
			c := caller(t, k, ring)
			answers := make(chan string, 2)
			for range 2 {
				go func() {
					got, err := ring.Call(within(t, patience), c, "wait")
					if err != nil {
						got = err.Error()
					}
					answers <- got
				}()
			}
			<-b.in
			<-b.in
			require.Empty(t, answers)
			got, err := ring.Call(within(t, patience), c, "ding")
			require.NoError(t, err)
			require.Equal(t, "rung", got)
			require.Equal(t, []string{"ding", "ding"}, []string{<-answers, <-answers})
			eventually(t, "three answers are counted", func() bool { return counts().Answered == 3 })

			kafkatest.SendRecord(t, k, asked("wait", "", "", "")) // an event
			eventually(t, "it is handled", func() bool { return counts().Events == 1 })
		})
	}
}

func TestALaterAnswerThatIsTooLargeIsAnError(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, topics...)
	b := &bell{in: make(chan struct{}, 1)}
	serve(t, k, &wherry.Consumer{}, ring.Handler(b.handle))
	c := caller(t, k, ring)
	answer := make(chan error, 1)
	go func() {
		_, err := ring.Call(within(t, patience), c, "wait")
		answer <- err
	}()
	<-b.in
	_, err := ring.Call(within(t, patience), c, "loud")
	require.NoError(t, err)
	var e *reqreply.Error
	require.ErrorAs(t, <-answer, &e)
	require.Equal(t, reqreply.CodeTooLarge, e.Code)
}
