package reqreply_test

import (
	"context"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
	"github.com/wherry-go/wherry/reqreply"
)

// TestMain keeps the log of the Consumers under test out of the way of what
// failed. WHERRY_TEST_LOG=1 shows it.
func TestMain(m *testing.M) {
	if os.Getenv("WHERRY_TEST_LOG") == "" {
		slog.SetDefault(slog.New(slog.DiscardHandler))
	}
	os.Exit(m.Run())
}

type user struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

var getUser = reqreply.Method[string, *user]{Topic: "user.getUser"}

func find(_ context.Context, id string) (*user, error) {
	switch id {
	case "nobody":
		return nil, nil //nolint:nilnil // an answer
	case "refused":
		return nil, &reqreply.Error{Code: "refused", Message: "not for you"}
	}
	return &user{ID: id, Name: "Ada"}, nil
}

// topics are those of getUser.
var topics = []string{"user.getUser:2", "user.getUser.reply:2"}

// serve runs a Consumer of group "users" with a Service that counts.
func serve(t *testing.T, k *kafkatest.Cluster, c *wherry.Consumer, routes ...wherry.Route) (counts func() reqreply.MethodStatus, stop func() error) {
	t.Helper()
	service := &reqreply.Service{Name: "users"}
	if c.Client == nil {
		c.Client = k.Client(t)
	}
	if c.Group == "" {
		c.Group = "users"
	}
	c.Handlers = routes
	c.Policies = append(c.Policies, service)
	stop = kafkatest.Run(t, c)
	return func() (s reqreply.MethodStatus) {
		for _, m := range service.Status().Methods {
			if m.Topic == routes[0].Topic {
				s = m
			}
		}
		return s
	}, stop
}

// call runs a Caller.
func caller(t *testing.T, k *kafkatest.Cluster, methods ...reqreply.AnyMethod) *reqreply.Caller {
	t.Helper()
	c := &reqreply.Caller{Client: k.Client(t), Methods: methods}
	kafkatest.Run(t, c)
	return c
}

// within is a context for a call that is expected to be answered.
func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// asked returns a request by hand.
func asked(value, id, topic, partition string) *kgo.Record {
	r := &kgo.Record{Topic: "user.getUser"}
	if value != "" {
		r.Value = []byte(value)
	}
	for _, h := range [][2]string{{"kafka_correlationId", id}, {"kafka_replyTopic", topic}, {"kafka_replyPartition", partition}} {
		if h[1] != "" {
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: h[0], Value: []byte(h[1])})
		}
	}
	return r
}

// headerOf returns the last header of that key.
func headerOf(r *kgo.Record, key string) string {
	for i := len(r.Headers) - 1; i >= 0; i-- {
		if r.Headers[i].Key == key {
			return string(r.Headers[i].Value)
		}
	}
	return ""
}

const patience = 30 * time.Second

// eventually waits for something that nothing tells of but a look.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	require.Eventually(t, ok, patience, 2*time.Millisecond, what)
}

func deleteTopic(t *testing.T, k *kafkatest.Cluster, topic string) {
	t.Helper()
	_, err := kadm.NewClient(k.Client(t)).DeleteTopic(t.Context(), topic)
	require.NoError(t, err)
}

func exists(t *testing.T, k *kafkatest.Cluster, topic string) bool {
	t.Helper()
	found, err := kadm.NewClient(k.Client(t)).ListTopics(t.Context(), topic)
	require.NoError(t, err)
	return found.Has(topic)
}
