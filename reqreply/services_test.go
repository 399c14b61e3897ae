package reqreply_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
	"github.com/wherry-go/wherry/reqreply"
	"github.com/wherry-go/wherry/retry"
)

// instance runs a Consumer of group "users" that can be asked for.
func instance(t *testing.T, k *kafkatest.Cluster, name string, routes ...wherry.Route) (s *reqreply.Service, stop func() error) {
	t.Helper()
	s = &reqreply.Service{Name: name, Version: "1.2.0", Topic: reqreply.ServicesTopic}
	c := &wherry.Consumer{Client: k.Client(t), Group: name, Handlers: routes, Policies: []wherry.Policy{s}}
	stop = kafkatest.Run(t, c)
	return s, stop
}

// ask asks for n services.
func ask(t *testing.T, c *reqreply.Caller, q reqreply.ServiceQuery, n int) []reqreply.ServiceStatus {
	t.Helper()
	q.Most, q.Wait = n, patience
	found, err := reqreply.Services(t.Context(), c, q)
	require.NoError(t, err)
	require.Len(t, found, n)
	return found
}

func TestEachInstanceOfAServiceAnswersForItself(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "user.getUser:1", "user.getUser.reply:1", "pay:1")
	var stops []func() error
	ids := map[string]bool{}
	for range 3 { // of one partition: two of them have nothing to do
		s, stop := instance(t, k, "users", getUser.Handler(find))
		stops = append(stops, stop)
		ids[s.Status().ID] = true
	}
	pay := reqreply.Method[string, string]{Topic: "pay"}
	payments, _ := instance(t, k, "payments", pay.Handler(func(context.Context, string) (string, error) { return "", nil }))
	require.Len(t, ids, 3)
	c := caller(t, k, getUser)

	all := ask(t, c, reqreply.ServiceQuery{}, 4)
	require.Equal(t, "payments", all[0].Name)
	for _, s := range all[1:] {
		require.Equal(t, "users", s.Name)
		require.Equal(t, "1.2.0", s.Version)
		require.True(t, ids[s.ID], "each once")
		delete(ids, s.ID)
		require.NotEmpty(t, s.Host)
		require.False(t, s.Began.IsZero())
		require.Positive(t, s.RoundTrip)
		require.Equal(t, []reqreply.MethodStatus{{Topic: "user.getUser"}}, s.Methods, "it had nothing to do")
	}

	// What is asked for is what answers: with all of their time, no other does.
	soon := func(q reqreply.ServiceQuery) []reqreply.ServiceStatus {
		q.Wait = time.Second
		found, err := reqreply.Services(t.Context(), c, q)
		require.NoError(t, err)
		return found
	}
	ask(t, c, reqreply.ServiceQuery{Name: "users"}, 3)
	require.LessOrEqual(t, len(soon(reqreply.ServiceQuery{Name: "users"})), 3)
	require.Equal(t, payments.Status().ID, ask(t, c, reqreply.ServiceQuery{Method: "pay"}, 1)[0].ID)
	require.Equal(t, payments.Status().ID, ask(t, c, reqreply.ServiceQuery{ID: payments.Status().ID}, 1)[0].ID)
	require.Empty(t, soon(reqreply.ServiceQuery{Name: "nobody"}))
	require.Empty(t, soon(reqreply.ServiceQuery{Name: "users", Method: "pay"}))

	// One that has gone does not answer.
	require.NoError(t, stops[0]())
	ask(t, c, reqreply.ServiceQuery{Name: "users"}, 2)
	require.LessOrEqual(t, len(soon(reqreply.ServiceQuery{Name: "users"})), 2)
}

func TestTheFiguresOfAServiceAreThoseOfWhatItDid(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "user.getUser:1", "user.getUser.reply:1")
	s := &reqreply.Service{Name: "users", Topic: reqreply.ServicesTopic}
	kafkatest.Run(t, &wherry.Consumer{
		Client: k.Client(t), Group: "users",
		Policies: []wherry.Policy{reqreply.Faults{Done: true}, retry.Policy{Attempts: 2, Initial: 1}, s},
		Handlers: []wherry.Route{getUser.Handler(func(ctx context.Context, id string) (*user, error) {
			if id == "down" {
				return nil, errors.New("down")
			}
			return find(ctx, id)
		})},
	})
	c := caller(t, k, getUser)
	for range 3 {
		_, err := getUser.Call(within(t, patience), c, "u1")
		require.NoError(t, err)
	}
	for _, id := range []string{"refused", "down"} {
		_, err := getUser.Call(within(t, patience), c, id)
		require.Error(t, err)
	}
	kafkatest.SendRecord(t, k, asked("event", "", "", ""))
	kafkatest.SendRecord(t, k, asked("u1", "id", "not.allowed", "0"))
	late := asked("u1", "late", "user.getUser.reply", "0")
	late.Headers = append(late.Headers, kgo.RecordHeader{Key: "wherry-deadline", Value: []byte("2020-01-01T00:00:00Z")})
	kafkatest.SendRecord(t, k, late)
	_, err := getUser.Call(within(t, patience), c, "u1") // behind those
	require.NoError(t, err)

	got := ask(t, c, reqreply.ServiceQuery{Name: "users"}, 1)[0]
	require.Equal(t, s.Status().Methods, got.Methods)
	m := got.Methods[0]
	require.Positive(t, m.Busy)
	m.Busy = 0
	require.Equal(t, reqreply.MethodStatus{
		Topic: "user.getUser", Requests: 9, Events: 1, Calls: 8, // "down" came twice
		Answered: 4, Faults: 2, Failed: 2, Expired: 1, Refused: 1,
	}, m)
}

func TestWhatIsNoQuestionIsPassedOver(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "user.getUser:1", "user.getUser.reply:1", "payments:1", "wherry.services:2")
	_, stop := instance(t, k, "users", getUser.Handler(find))
	question := func(value, id, topic, partition string) {
		r := asked(value, id, topic, partition)
		r.Topic = reqreply.ServicesTopic
		kafkatest.SendRecord(t, k, r)
	}
	question("\xff\x00{", "id", "user.getUser.reply", "0")
	question(`["users"]`, "id", "user.getUser.reply", "0")
	question(`{"name":7}`, "id", "user.getUser.reply", "0")
	question(`{}`, "", "user.getUser.reply", "0")
	question(`{}`, "id", "", "0")
	question(`{}`, "id", "payments", "0")
	question(`{}`, "id", "nowhere.reply", "0")
	question(`{}`, "id", "wherry.services", "0")
	question(`{}`, "id", "user.getUser.reply", "7")
	question(`{}`, "id", "user.getUser.reply", "none")
	question("", "nest", "user.getUser.reply", "0") // NestJS: client.send('wherry.services', '')
	reply := kafkatest.NextRecord(t, k, "user.getUser.reply")
	require.Equal(t, "nest", headerOf(reply, "kafka_correlationId"))
	require.Contains(t, string(reply.Value), `"name":"users"`)
	kafkatest.None(t, k, wherry.Event[string]{Topic: "payments"}, 50*time.Millisecond)
	for range 10 { // on either partition
		ask(t, caller(t, k), reqreply.ServiceQuery{Name: "users"}, 1)
	}
	require.NoError(t, stop())
}

// A Service of two Consumers is one instance, and is there while either runs.
func TestAServiceOfTwoConsumersAnswersOnce(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "user.getUser:1", "pay:1")
	s := &reqreply.Service{Name: "both", Topic: "acme.services"}
	pay := reqreply.Method[string, string]{Topic: "pay"}
	stopFirst := kafkatest.Run(t, &wherry.Consumer{Client: k.Client(t), Group: "users", Handlers: []wherry.Route{getUser.Handler(find)}, Policies: []wherry.Policy{s}})
	kafkatest.Run(t, &wherry.Consumer{
		Client: k.Client(t), Group: "pay", Policies: []wherry.Policy{s},
		Handlers: []wherry.Route{pay.Handler(func(context.Context, string) (string, error) { return "", nil })},
	})
	c := caller(t, k)
	q := reqreply.ServiceQuery{Topic: "acme.services"}
	found := ask(t, c, q, 1)
	require.Len(t, found[0].Methods, 2)
	before := c.Status().Answered
	q.Wait = time.Second
	_, err := reqreply.Services(t.Context(), c, q)
	require.NoError(t, err)
	require.LessOrEqual(t, c.Status().Answered-before, uint64(1), "one answer to a question")
	require.NoError(t, stopFirst())
	eventually(t, "the other one answers", func() bool {
		q.Most = 1
		found, err := reqreply.Services(t.Context(), c, q)
		return err == nil && len(found) == 1
	})
}

// The requests of a Service must not suffer from its being asked for.
func TestAServicesTopicThatCannotBeReadHoldsUpNothing(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "user.getUser:1", "user.getUser.reply:1")
	if !k.Embedded() {
		t.Skip("the embedded broker refuses the topic")
	}
	refused := k.Refuse(t, kafkatest.Requests{Keys: []kmsg.Key{kmsg.CreateTopics}}, kerr.TopicAuthorizationFailed)
	instance(t, k, "users", getUser.Handler(find))
	require.Positive(t, refused.Hits())
	_, err := getUser.Call(within(t, patience), caller(t, k, getUser), "u1")
	require.NoError(t, err)
}

func TestAskingForServicesEndsWithItsContextAndItsCaller(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "wherry.services:1")
	c := &reqreply.Caller{Client: k.Client(t)}
	stop := kafkatest.Run(t, c)
	found, err := reqreply.Services(t.Context(), c, reqreply.ServiceQuery{Wait: time.Second})
	require.NoError(t, err, "the time to begin is not the wait's")
	require.Empty(t, found)
	found, err = reqreply.Services(within(t, 2*time.Second), c, reqreply.ServiceQuery{Wait: time.Hour})
	require.NoError(t, err)
	require.Empty(t, found)
	sent := c.Status().Sent
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		_, err := reqreply.Services(ctx, c, reqreply.ServiceQuery{Wait: time.Hour})
		ended <- err
	}()
	eventually(t, "it waits", func() bool { return c.Status().Sent == sent+1 })
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
	go func() {
		_, err := reqreply.Services(t.Context(), c, reqreply.ServiceQuery{Wait: time.Hour})
		ended <- err
	}()
	eventually(t, "it waits", func() bool { return c.Status().Sent == sent+2 })
	require.NoError(t, stop())
	require.ErrorIs(t, <-ended, reqreply.ErrEnded)
	_, err = reqreply.Services(t.Context(), c, reqreply.ServiceQuery{Most: -1})
	require.ErrorContains(t, err, "negative")
}

// The topic is deleted, and its broker loses connections: the instances find it
// gone, make it anew, and answer again.
func TestAServicesTopicThatIsDeletedIsMadeAnew(t *testing.T) {
	t.Parallel()
	kafkatest.Test(t, []string{"user.getUser:1", "user.getUser.reply:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		if !k.Virtual() {
			t.Skip("needs -tags synctests")
		}
		for range 2 {
			instance(t, k, "users", getUser.Handler(find))
		}
		ask(t, caller(t, k), reqreply.ServiceQuery{Name: "users"}, 2)
		k.Drop(t, kafkatest.Requests{Keys: []kmsg.Key{kmsg.Fetch}, Topic: reqreply.ServicesTopic})
		ask(t, caller(t, k), reqreply.ServiceQuery{Name: "users"}, 2)
		deleteTopic(t, k, reqreply.ServicesTopic)
		time.Sleep(time.Minute)
		ask(t, caller(t, k), reqreply.ServiceQuery{Name: "users"}, 2)
	})
}

// An hour with nothing to do: a request each 5 s, in which the broker waits.
func TestAServiceThatNobodyAsksForCostsLittle(t *testing.T) {
	t.Parallel()
	requests := map[string]int64{}
	for _, topic := range []string{"", reqreply.ServicesTopic} {
		kafkatest.Test(t, []string{"user.getUser:1", "wherry.services:1"}, func(t *testing.T, k *kafkatest.Cluster) {
			if !k.Virtual() {
				t.Skip("needs -tags synctests")
			}
			n := &requestCount{}
			kafkatest.Run(t, &wherry.Consumer{
				Client: k.Client(t, kgo.WithHooks(n)), Group: "users", Handlers: []wherry.Route{getUser.Handler(find)},
				Policies: []wherry.Policy{&reqreply.Service{Name: "users", Topic: topic}},
			})
			before := n.Load()
			time.Sleep(time.Hour)
			requests[topic] = n.Load() - before
		})
	}
	t.Log("requests in an hour, without and with:", requests)
	require.Less(t, requests[reqreply.ServicesTopic]-requests[""], int64(3600/5+100), "%v", requests)
}

// requestCount counts the requests of clients.
type requestCount struct{ atomic.Int64 }

func (n *requestCount) OnBrokerWrite(kgo.BrokerMetadata, int16, int, time.Duration, time.Duration, error) {
	n.Add(1)
}
