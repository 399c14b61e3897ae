package auth_test

import (
	"bytes"
	"context"
	"log/slog"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/dlq"
	"github.com/wherry-go/wherry/examples/shop/auth"
	"github.com/wherry-go/wherry/examples/shop/events"
	"github.com/wherry-go/wherry/kafkatest"
	"github.com/wherry-go/wherry/reqreply"
)

var (
	jo    = auth.NewUser{Email: "Jo@Example.com", Password: "correct horse", Name: "Jo"}
	login = auth.Credentials{Email: "jo@example.com", Password: "correct horse"}
)

// cluster has the topics of the shop.
func cluster(t *testing.T, k *kafkatest.Cluster) *kafkatest.Cluster {
	t.Helper()
	require.NoError(t, wherry.EnsureTopics(t.Context(), k.Client(t), events.Topics()...))
	return k
}

func service(cl *kgo.Client) *auth.Service {
	return auth.Cheap(&auth.Service{Client: cl, Tokens: tokens, Logger: slog.New(slog.DiscardHandler)})
}

func running(t *testing.T, k *kafkatest.Cluster) *auth.Service {
	t.Helper()
	s := service(k.Client(t))
	kafkatest.Run(t, s)
	return s
}

// whose returns whose token a login gets.
func whose(t *testing.T, s *auth.Service, c auth.Credentials) string {
	t.Helper()
	token, err := s.Login(t.Context(), c)
	require.NoError(t, err)
	id, err := tokens.Subject(token)
	require.NoError(t, err)
	return id
}

func TestUserRegistersLogsInAndIsFound(t *testing.T) {
	t.Parallel()
	k := cluster(t, kafkatest.NewCluster(t))
	s := running(t, k)
	user, err := s.Register(t.Context(), jo)
	require.NoError(t, err)
	require.NoError(t, uuid.Validate(user.ID))
	require.Equal(t, events.User{ID: user.ID, Name: "Jo", Email: "jo@example.com"}, user)
	require.Equal(t, user.ID, whose(t, s, login))
	require.Equal(t, user.ID, whose(t, s, auth.Credentials{Email: "JO@EXAMPLE.COM", Password: jo.Password}))
	for id, want := range map[string]*events.User{
		user.ID:          &user,
		"user1":          {ID: "user1", Name: "Ada", Email: "ada@example.com"},
		"nobody":         nil,
		"":               nil,
		"jo@example.com": nil, // not an id
	} {
		found, err := s.Find(t.Context(), id)
		require.NoError(t, err)
		require.Equal(t, want, found, id)
	}
}

func TestLoginThatIsRefused(t *testing.T) {
	t.Parallel()
	k := cluster(t, kafkatest.NewCluster(t))
	s := running(t, k)
	user, err := s.Register(t.Context(), jo)
	require.NoError(t, err)
	for _, c := range []auth.Credentials{
		{Email: login.Email, Password: "correct horsE"},
		{Email: "nobody@example.com", Password: login.Password},
		{Email: "ada@example.com", Password: login.Password}, // one of the seed's, who have no password
		{Email: user.ID, Password: ""},                       // a row without a hash
		{Email: login.Email, Password: ""},
	} {
		_, err := s.Login(t.Context(), c)
		var refused *auth.CredentialsError
		require.ErrorAs(t, err, &refused, c.Email)
		require.EqualError(t, err, "Invalid credentials")
	}
}

func TestUsersOutliveTheProcessAndAreThoseOfAll(t *testing.T) {
	t.Parallel()
	k := cluster(t, kafkatest.NewCluster(t))
	s := service(k.Client(t))
	stop := kafkatest.Run(t, s)
	other := running(t, k)
	user, err := s.Register(t.Context(), jo)
	require.NoError(t, err)
	// At once, in another process.
	require.Equal(t, user.ID, whose(t, other, login))
	found, err := other.Find(t.Context(), user.ID)
	require.NoError(t, err)
	require.Equal(t, &user, found)
	require.NoError(t, stop())
	require.Equal(t, user.ID, whose(t, running(t, k), login))
}

func TestNobodyRegistersOrLogsInBeforeTheServiceIsReady(t *testing.T) {
	t.Parallel()
	s := service(cluster(t, kafkatest.NewCluster(t)).Client(t))
	_, err := s.Register(t.Context(), jo)
	require.ErrorIs(t, err, auth.ErrNotReady)
	_, err = s.Login(t.Context(), login)
	require.ErrorIs(t, err, auth.ErrNotReady)
}

func TestOneAddressIsOneUserHoweverManyRegisterAtOnce(t *testing.T) {
	t.Parallel()
	k := cluster(t, kafkatest.NewCluster(t))
	services := []*auth.Service{running(t, k), running(t, k)}
	var group sync.WaitGroup
	users, errs := make([]events.User, 8), make([]error, 8)
	for i := range users {
		n := jo
		n.Name = strconv.Itoa(i)
		n.Email = []string{"jo@example.com", "JO@example.com"}[i/4]
		group.Go(func() { users[i], errs[i] = services[i%2].Register(t.Context(), n) })
	}
	group.Wait()
	var won []events.User
	for i, err := range errs {
		if err == nil {
			won = append(won, users[i])
			continue
		}
		var taken *auth.TakenError
		require.ErrorAs(t, err, &taken)
		require.EqualError(t, err, "User with email jo@example.com already exists")
	}
	require.Len(t, won, 1)
	for _, s := range services {
		require.Equal(t, won[0].ID, whose(t, s, login))
	}
	require.Len(t, read(t, k, events.AuthUsers), 2, "rows of one user")

	n := jo
	n.Email = "Ada@example.com" // one of the seed's
	_, err := services[0].Register(t.Context(), n)
	var taken *auth.TakenError
	require.ErrorAs(t, err, &taken)
}

// The process dies at each step of a registration, before and after the brokers
// have done what it asked them to; its user tries again elsewhere.
func TestOneAddressIsOneUserWhereverTheProcessDies(t *testing.T) {
	t.Parallel()
	for name, step := range map[string]kafkatest.Requests{
		"into the inbox": {Keys: []kmsg.Key{kmsg.Produce}, Topic: events.AuthInbox},
		"the rows":       {Keys: []kmsg.Key{kmsg.Produce}, Topic: events.AuthUsers},
		"the offsets":    {Keys: []kmsg.Key{kmsg.TxnOffsetCommit}, Group: auth.DecidingGroup},
		"its end":        {Keys: []kmsg.Key{kmsg.EndTxn}},
	} {
		for _, after := range []bool{false, true} {
			t.Run(name+", answered "+strconv.FormatBool(after), func(t *testing.T) {
				t.Parallel()
				kafkatest.Test(t, nil, func(t *testing.T, k *kafkatest.Cluster) {
					cluster(t, k)
					first := service(k.Client(t))
					stop := kafkatest.Run(t, first)
					crash := k.Crash
					if after {
						crash = k.CrashAfter
					}
					dead := crash(t, step)
					var lost events.User
					var unknown error
					gaveUp := make(chan struct{})
					go func() {
						defer close(gaveUp)
						lost, unknown = first.Register(context.Background(), jo)
					}()
					dead.Wait(t, 1)
					go func() { _ = stop() }() // it cannot leave its groups any more

					second := running(t, k)
					k.Sleep(t, time.Minute) // until the first one is missed
					user, err := second.Register(t.Context(), jo)
					var taken *auth.TakenError
					if err != nil {
						require.ErrorAs(t, err, &taken)
					}
					<-gaveUp
					if unknown == nil {
						require.ErrorAs(t, err, &taken, "the first one was told that it is registered")
					}
					id := whose(t, second, login)
					require.Contains(t, []string{id, ""}, user.ID)
					require.Contains(t, []string{id, ""}, lost.ID)
					found, err := second.Find(t.Context(), id)
					require.NoError(t, err)
					require.Equal(t, &events.User{ID: id, Name: "Jo", Email: "jo@example.com"}, found)
					require.Len(t, read(t, k, events.AuthUsers), 2, "rows of one user")
				})
			})
		}
	}
}

// read returns what is committed in a topic.
func read(t *testing.T, k *kafkatest.Cluster, topics ...string) (records []*kgo.Record) {
	t.Helper()
	cl := k.Client(t, kgo.ConsumeTopics(topics...), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords())
	ends, err := kadm.NewClient(cl).ListEndOffsets(t.Context(), topics...)
	require.NoError(t, err)
	left := map[string]int64{}
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset > 0 {
			left[o.Topic+"/"+strconv.Itoa(int(o.Partition))] = o.Offset
		}
	})
	for len(left) > 0 {
		fetches := cl.PollFetches(t.Context())
		require.NoError(t, fetches.Err())
		for r := range fetches.RecordsAll() {
			if at := r.Topic + "/" + strconv.Itoa(int(r.Partition)); r.Offset+1 >= left[at] {
				delete(left, at)
			}
			if !r.Attrs.IsControl() {
				records = append(records, r)
			}
		}
	}
	return records
}

// A request as a NestJS client sends it, byte for byte.
func TestUserIsAnsweredOnTheWireAsTheSeedAsks(t *testing.T) {
	t.Parallel()
	k := cluster(t, kafkatest.NewCluster(t, "user.getUser.reply"))
	s := running(t, k)
	user, err := s.Register(t.Context(), jo)
	require.NoError(t, err)
	for id, want := range map[string]string{
		"user1":        `{"id":"user1","name":"Ada","email":"ada@example.com"}`,
		`"user1"`:      `{"id":"user1","name":"Ada","email":"ada@example.com"}`,
		user.ID:        `{"id":"` + user.ID + `","name":"Jo","email":"jo@example.com"}`,
		"nobody":       "",
		"jo@nowhere.x": "",
	} {
		kafkatest.SendRecord(t, k, &kgo.Record{Topic: "user.getUser", Value: []byte(id), Headers: []kgo.RecordHeader{
			{Key: "kafka_correlationId", Value: []byte("6f1e0b2c3d4e5f6a7b8c9")},
			{Key: "kafka_replyTopic", Value: []byte("user.getUser.reply")},
			{Key: "kafka_replyPartition", Value: []byte("0")},
		}})
		reply := kafkatest.NextRecord(t, k, "user.getUser.reply")
		require.Equal(t, want, string(reply.Value))
		require.Equal(t, want == "", reply.Value == nil, "nobody is null")
		headers := map[string]string{}
		for _, h := range reply.Headers {
			headers[h.Key] = string(h.Value)
		}
		require.Equal(t, "6f1e0b2c3d4e5f6a7b8c9", headers["kafka_correlationId"])
		require.Contains(t, headers, "kafka_nest-is-disposed")
		require.NotContains(t, headers, "kafka_nest-err")
	}
}

func TestPasswordIsNowhereAndItsHashInAuthsOwnTopicsAlone(t *testing.T) {
	t.Parallel()
	k := cluster(t, kafkatest.NewCluster(t))
	var log bytes.Buffer
	s := auth.Cheap(&auth.Service{
		Client: k.Client(t), Tokens: tokens,
		Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	stop := kafkatest.Run(t, s)
	caller := &reqreply.Caller{Client: k.Client(t), Methods: []reqreply.AnyMethod{events.GetUser}, Logger: slog.New(slog.DiscardHandler)}
	kafkatest.Run(t, caller)
	user, err := s.Register(t.Context(), jo)
	require.NoError(t, err)
	_, err = s.Register(t.Context(), jo)
	require.Error(t, err)
	whose(t, s, login)
	_, err = s.Login(t.Context(), auth.Credentials{Email: login.Email, Password: "another horse"})
	require.Error(t, err)
	asked, err := events.GetUser.Call(t.Context(), caller, user.ID)
	require.NoError(t, err)
	require.Equal(t, &user, asked)

	all, err := kadm.NewClient(k.Client(t)).ListTopics(t.Context())
	require.NoError(t, err)
	hashed := map[string]bool{}
	for _, r := range read(t, k, all.Names()...) {
		require.NotContains(t, string(r.Value), "horse", r.Topic)
		if bytes.Contains(r.Value, []byte("argon2")) {
			hashed[r.Topic] = true
		}
	}
	require.Equal(t, map[string]bool{events.AuthInbox: true, events.AuthUsers: true}, hashed)
	require.NoError(t, stop())
	require.NotContains(t, log.String(), "horse")
	require.NotContains(t, log.String(), "argon2")
	require.Contains(t, log.String(), user.ID, "else the log shows nothing")
}

func TestRegistrationThatCannotBeWrittenIsADeadLetterWithoutItsHash(t *testing.T) {
	t.Parallel()
	kafkatest.Test(t, nil, func(t *testing.T, k *kafkatest.Cluster) {
		cluster(t, k)
		s := running(t, k)
		k.Refuse(t, kafkatest.Requests{Keys: []kmsg.Key{kmsg.Produce}, Topic: events.AuthUsers}, kerr.TopicAuthorizationFailed)
		_, err := s.Register(t.Context(), jo)
		var unconfirmed *auth.UnconfirmedError
		require.ErrorAs(t, err, &unconfirmed)
		l, err := dlq.Read(kafkatest.NextRecord(t, k, auth.DeadLetters))
		require.NoError(t, err)
		require.Equal(t, events.AuthInbox, l.Topic)
		require.Contains(t, string(l.Value), "jo@example.com")
		require.NotContains(t, string(l.Value), "hash")
		require.NotContains(t, string(l.Value), "argon2")

		user, err := s.Register(t.Context(), jo)
		require.NoError(t, err)
		require.Equal(t, user.ID, whose(t, s, login))
	})
}

// Under another key it is another partition's, whose owner does not know that the
// address is taken.
func TestRegistrationUnderAnotherKeyThanItsAddressIsADeadLetter(t *testing.T) {
	t.Parallel()
	k := cluster(t, kafkatest.NewCluster(t))
	s := running(t, k)
	user, err := s.Register(t.Context(), jo)
	require.NoError(t, err)
	for _, key := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
		kafkatest.SendRecord(t, k, &kgo.Record{
			Topic: events.AuthInbox, Key: []byte(key),
			Value: []byte(`{"id":"u-` + key + `","name":"Thief","email":"jo@example.com","hash":"$argon2id$v=19$m=64,t=1,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA"}`),
		})
		letter, err := dlq.Read(kafkatest.NextRecord(t, k, auth.DeadLetters))
		require.NoError(t, err)
		require.Contains(t, letter.Error, "not in the line of its address")
		require.NotContains(t, string(letter.Value), "hash")
	}
	require.Equal(t, user.ID, whose(t, s, login))
	require.Len(t, read(t, k, events.AuthUsers), 2, "rows of one user")
}

func TestRequestThatCannotBeAnsweredIsAnErrorForItsCaller(t *testing.T) {
	t.Parallel()
	k := cluster(t, kafkatest.NewCluster(t))
	running(t, k)
	caller := &reqreply.Caller{Client: k.Client(t), Methods: []reqreply.AnyMethod{events.GetUser}, Logger: slog.New(slog.DiscardHandler)}
	kafkatest.Run(t, caller)
	kafkatest.SendRecord(t, k, &kgo.Record{Topic: events.AuthUsers, Key: []byte("u-1"), Value: []byte("no JSON")})
	_, err := events.GetUser.Call(t.Context(), caller, "u-1")
	var answer *reqreply.Error
	require.ErrorAs(t, err, &answer)
	require.NotErrorIs(t, err, context.DeadlineExceeded)
	found, err := events.GetUser.Call(t.Context(), caller, "user1")
	require.NoError(t, err)
	require.Equal(t, "Ada", found.Name)
}
