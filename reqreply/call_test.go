package reqreply_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
	"github.com/wherry-go/wherry/reqreply"
)

func TestACallIsAnswered(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, topics...)
	counts, _ := serve(t, k, &wherry.Consumer{}, getUser.Handler(find))
	c := caller(t, k, getUser)

	u, err := getUser.Call(within(t, patience), c, "u1")
	require.NoError(t, err)
	require.Equal(t, &user{ID: "u1", Name: "Ada"}, u)

	u, err = getUser.Call(within(t, patience), c, "nobody")
	require.NoError(t, err)
	require.Nil(t, u, "null is an answer")

	_, err = getUser.Call(within(t, patience), c, "refused")
	var answer *reqreply.Error
	require.ErrorAs(t, err, &answer)
	require.Equal(t, "refused", answer.Code)
	require.Equal(t, "not for you", answer.Message)
	require.Equal(t, "user.getUser: refused: not for you", err.Error())
	require.ErrorIs(t, err, wherry.ErrPermanent)

	s := counts()
	require.EqualValues(t, 3, s.Requests)
	require.EqualValues(t, 3, s.Calls)
	require.EqualValues(t, 1, s.Faults)
	require.Positive(t, s.Average())
	status := c.Status()
	require.True(t, status.Ready)
	require.EqualValues(t, 3, status.Answered)
	require.EqualValues(t, 3, status.Sent)
	require.Contains(t, status.Partitions, "user.getUser.reply")
}

func TestHundredsOfCallsAtOnceEachGetTheirOwnAnswer(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, topics...)
	serve(t, k, &wherry.Consumer{Order: wherry.Unordered}, getUser.Handler(find))
	c := caller(t, k, getUser)
	ctx := within(t, patience)
	var all sync.WaitGroup
	failures := make(chan error, 500)
	for i := range 500 {
		all.Go(func() {
			id := fmt.Sprint("u", i)
			if u, err := getUser.Call(ctx, c, id); err != nil || u.ID != id {
				failures <- fmt.Errorf("%s: %v, %w", id, u, err)
			}
		})
	}
	all.Wait()
	close(failures)
	for err := range failures {
		require.NoError(t, err)
	}
	require.EqualValues(t, 500, c.Status().Answered)
	eventually(t, "the places are free", func() bool { return c.Status().Pending == 0 })
}

func TestMoreCallersThanReplyPartitions(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, topics...)
	serve(t, k, &wherry.Consumer{}, getUser.Handler(find))
	var callers []*reqreply.Caller
	for range 7 {
		callers = append(callers, caller(t, k, getUser))
	}
	ctx := within(t, patience)
	var others uint64
	for range 5 {
		for i, c := range callers {
			u, err := getUser.Call(ctx, c, fmt.Sprint("u", i))
			require.NoError(t, err)
			require.Equal(t, fmt.Sprint("u", i), u.ID)
		}
	}
	for _, c := range callers {
		s := c.Status()
		require.EqualValues(t, 5, s.Answered)
		require.Zero(t, s.Unknown)
		require.Zero(t, s.Late)
		others += s.Others
	}
	require.Positive(t, others, "seven share two partitions")
}

// NestJS's clients fail where there are more of them than partitions.
func TestHundredsOfCallersShareTwoPartitions(t *testing.T) {
	t.Parallel()
	const n = 300
	k := kafkatest.NewCluster(t, topics...)
	serve(t, k, &wherry.Consumer{Order: wherry.Unordered}, getUser.Handler(find))
	lent := k.Client(t)
	callers := make([]*reqreply.Caller, n)
	for i := range callers {
		callers[i] = &reqreply.Caller{Client: lent}
		kafkatest.Run(t, kafkatest.RunFunc(callers[i].Run))
	}
	patient := getUser
	patient.Timeout = 4 * patience // each reply comes to a hundred and fifty Callers
	ctx := within(t, patient.Timeout)
	var all sync.WaitGroup
	failures := make(chan error, n)
	for i, c := range callers {
		all.Go(func() {
			for range 3 {
				id := fmt.Sprint("u", i)
				if u, err := patient.Call(ctx, c, id); err != nil || u.ID != id {
					failures <- fmt.Errorf("%s: %v, %w", id, u, err)
					return
				}
			}
		})
	}
	all.Wait()
	close(failures)
	var errs []error
	for err := range failures {
		errs = append(errs, err)
	}
	require.NoError(t, errors.Join(errs...), "%d of %d", len(errs), n)
	var others uint64
	for _, c := range callers {
		s := c.Status()
		require.EqualValues(t, 3, s.Answered)
		require.Zero(t, s.Unknown+s.Late)
		others += s.Others
	}
	require.Positive(t, others)
}

func TestTheCallersEndFailsWhatIsPendingAtOnce(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, topics...)
	c := &reqreply.Caller{Client: k.Client(t), Methods: []reqreply.AnyMethod{getUser}}
	stop := kafkatest.Run(t, c)
	ended := make(chan error, 10)
	for range 10 {
		go func() {
			_, err := getUser.Call(within(t, time.Hour), c, "u1")
			ended <- err
		}()
	}
	eventually(t, "all are sent", func() bool { return c.Status().Sent == 10 })
	began := time.Now()
	require.NoError(t, stop())
	for range 10 {
		require.ErrorIs(t, <-ended, reqreply.ErrEnded)
	}
	require.Less(t, time.Since(began), 10*time.Second)
	_, err := getUser.Call(within(t, time.Hour), c, "u1")
	require.ErrorIs(t, err, reqreply.ErrEnded)
	require.False(t, c.Status().Ready)
}

func TestACallBeforeRunWaitsForIt(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, topics...)
	serve(t, k, &wherry.Consumer{}, getUser.Handler(find))
	c := &reqreply.Caller{Client: k.Client(t)}
	_, err := getUser.Call(within(t, 20*time.Millisecond), c, "u1")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, "Run")
	answered := make(chan error, 1)
	go func() {
		_, err := getUser.Call(within(t, patience), c, "u1")
		answered <- err
	}()
	kafkatest.Run(t, c)
	require.NoError(t, <-answered)
}

func TestALateReplyAndADuplicateAreCountedAndReachNobody(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, topics...)
	c := caller(t, k, getUser)
	_, err := getUser.Call(within(t, 100*time.Millisecond), c, "u1") // nobody answers
	require.ErrorIs(t, err, context.DeadlineExceeded)

	request := kafkatest.NextRecord(t, k, "user.getUser")
	require.NotEmpty(t, headerOf(request, "wherry-deadline"))
	reply := func(id string) {
		r := &kgo.Record{Topic: "user.getUser.reply", Value: []byte(`{"id":"x"}`)}
		if id != "" {
			r.Headers = []kgo.RecordHeader{{Key: "kafka_correlationId", Value: []byte(id)}}
		}
		p := c.Status().Partitions["user.getUser.reply"]
		require.Equal(t, headerOf(request, "kafka_replyPartition"), strconv.Itoa(int(p)))
		wherry.ToPartition(r, p)
		cl := k.Client(t, kgo.RecordPartitioner(wherry.Partitioner(kgo.StickyKeyPartitioner(nil))))
		require.NoError(t, cl.ProduceSync(t.Context(), r).FirstErr())
	}
	id := headerOf(request, "kafka_correlationId")
	reply(id)
	reply(id)
	eventually(t, "late", func() bool { return c.Status().Late == 2 })
	prefix, _, _ := strings.Cut(id, "-")
	reply("")
	reply(prefix + "-999999")
	reply(prefix + "-0")
	eventually(t, "unknown", func() bool { return c.Status().Unknown == 3 })
	reply("somebody-else")
	eventually(t, "others", func() bool { return c.Status().Others == 1 })
	require.Zero(t, c.Status().Answered)
}

func TestTheReplyTopicIsMadeWhereItIsMissing(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "user.getUser:1")
	serve(t, k, &wherry.Consumer{}, getUser.Handler(find))
	c := &reqreply.Caller{Client: k.Client(t), Topics: wherry.TopicSpec{Partitions: 3}}
	kafkatest.Run(t, c)
	u, err := getUser.Call(within(t, patience), c, "u1")
	require.NoError(t, err)
	require.Equal(t, "u1", u.ID)
}

func TestCallsAreBounded(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, topics...)
	c := &reqreply.Caller{Client: k.Client(t), MaxPending: 3}
	kafkatest.Run(t, c)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 3)
	for range 3 {
		go func() {
			_, err := getUser.Call(ctx, c, "u1")
			ended <- err
		}()
	}
	eventually(t, "three are pending", func() bool { return c.Status().Pending == 3 })
	_, err := getUser.Call(ctx, c, "u1")
	require.ErrorIs(t, err, reqreply.ErrBusy)
	cancel()
	for range 3 {
		require.ErrorIs(t, <-ended, context.Canceled)
	}
	eventually(t, "the places are free", func() bool { return c.Status().Pending == 0 })
}

func TestARequestThatCannotBeSentFailsItsCall(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, topics...)
	c := caller(t, k, getUser)
	_, err := getUser.Call(within(t, patience), c, strings.Repeat("x", 2<<20))
	require.ErrorContains(t, err, "sending the request")
	require.ErrorContains(t, err, "MESSAGE_TOO_LARGE")
	missing := reqreply.Method[string, string]{Topic: "nowhere", ReplyTopic: "user.getUser.reply"}
	_, err = missing.Call(within(t, patience), c, "x")
	require.ErrorContains(t, err, "UNKNOWN_TOPIC_OR_PARTITION")
	eventually(t, "the places are free", func() bool { return c.Status().Pending == 0 })
}

func TestKeyHeadersAndIDOfARequestTravel(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, topics...)
	m := getUser
	m.Key = func(id string) string { return "key-" + id }
	m.ID = func(id string) string { return "id-" + id }
	m.Headers = func(context.Context, string) []kgo.RecordHeader {
		return []kgo.RecordHeader{{Key: "tenant", Value: []byte("t1")}}
	}
	seen := make(chan *kgo.Record, 1)
	serve(t, k, &wherry.Consumer{}, m.Handler(func(ctx context.Context, id string) (*user, error) {
		r := *wherry.RecordFrom(ctx)
		seen <- &r
		return find(ctx, id)
	}))
	_, err := m.Call(within(t, patience), caller(t, k, m), "u1")
	require.NoError(t, err)
	r := <-seen
	require.Equal(t, "key-u1", string(r.Key))
	require.Equal(t, "id-u1", headerOf(r, "wherry-request-id"))
	require.Equal(t, "t1", headerOf(r, "tenant"))
	reply := kafkatest.NextRecord(t, k, "user.getUser.reply")
	require.Equal(t, "key-u1", string(reply.Key), "a reply keeps the request's key")
	require.Equal(t, "users", headerOf(reply, "wherry-reply-group"))
}

func TestFaultsOfAConfigurationComeAtOnce(t *testing.T) {
	t.Parallel()
	err := (&reqreply.Caller{MaxPending: -1, Methods: []reqreply.AnyMethod{nil, reqreply.Method[string, string]{Timeout: -1}}}).Run(t.Context())
	for _, part := range []string{"set Client", "MaxPending", "method 0 is nil", "set Topic", "Timeout"} {
		require.ErrorContains(t, err, part)
	}
	same := reqreply.Method[string, string]{Topic: "t", ReplyTopic: "t", Profile: reqreply.Profile{Error: "kafka_replyTopic"}}
	k := kafkatest.NewCluster(t, topics...)
	err = (&wherry.Consumer{Client: k.Client(t), Group: "g", Handlers: []wherry.Route{same.Handler(nil)}}).Run(t.Context())
	require.ErrorContains(t, err, "ReplyTopic is Topic")
	require.ErrorContains(t, err, "one name")
	c := caller(t, k)
	require.Error(t, c.Run(t.Context()), "a second Run")
	_, err = getUser.Call(t.Context(), nil, "u1")
	require.ErrorContains(t, err, "no Caller")
	require.NotErrorIs(t, err, reqreply.ErrEnded)
}

func TestTheBytesOfARequestAreTheCallersOnceTheCallHasEnded(t *testing.T) {
	t.Parallel()
	type own []byte
	k := kafkatest.NewCluster(t, "raw:1", "raw.reply:1")
	c := &reqreply.Caller{Client: k.Client(t), Opts: []kgo.Opt{kgo.ProducerLinger(time.Second)}}
	kafkatest.Run(t, c)
	given := func(v []byte, call func(context.Context) error) {
		sent := c.Status().Sent
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- call(ctx) }()
		eventually(t, "it waits to be sent", func() bool { return c.Status().Sent > sent })
		cancel()
		require.ErrorIs(t, <-ended, context.Canceled)
		copy(v, "XXXXX")
		require.Equal(t, `"abc"`, string(kafkatest.NextRecord(t, k, "raw").Value))
	}
	plain, raw, mine := []byte(`"abc"`), json.RawMessage(`"abc"`), own(`"abc"`)
	given(plain, func(ctx context.Context) error {
		_, err := reqreply.Method[[]byte, string]{Topic: "raw"}.Call(ctx, c, plain)
		return err
	})
	given(raw, func(ctx context.Context) error {
		_, err := reqreply.Method[json.RawMessage, string]{Topic: "raw"}.Call(ctx, c, raw)
		return err
	})
	given(mine, func(ctx context.Context) error {
		_, err := reqreply.Method[own, string]{Topic: "raw"}.Call(ctx, c, mine)
		return err
	})
}
