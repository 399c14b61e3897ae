package reqreply_test

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/internal/interop"
	"github.com/wherry-go/wherry/kafkatest"
	"github.com/wherry-go/wherry/reqreply"
)

// howTo is what docs/interop.md has of a file: its part between two marks, as
// code of its own.
func howTo(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile("../internal/interop/spring/src/main/java/wherry/" + name)
	require.NoError(t, err)
	_, body, _ := strings.Cut(string(b), "\t// begin\n")
	body, _, ok := strings.Cut(body, "\t// end\n")
	require.True(t, ok)
	return strings.TrimPrefix(strings.ReplaceAll("\n"+body, "\n\t", "\n"), "\n")
}

// properties are those that docs/interop.md gives for an application.
func properties(t *testing.T, doc, heading string) map[string]string {
	t.Helper()
	_, part, ok := strings.Cut(doc, heading)
	require.True(t, ok, heading)
	_, part, ok = strings.Cut(part, "```properties\n")
	require.True(t, ok, heading)
	part, _, _ = strings.Cut(part, "```")
	all := map[string]string{}
	for line := range strings.Lines(part) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), "="); ok && k != "spring.kafka.bootstrap-servers" {
			all[k] = strings.ReplaceAll(v, "com.example.", "wherry.Peer$")
		}
	}
	return all
}

// What docs/interop.md tells a Spring user is what runs here.
func TestTheSpringHowTo(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("../docs/interop.md")
	require.NoError(t, err)
	doc := string(b)
	for _, name := range []string{"UsersService.java", "UsersClient.java"} {
		require.Contains(t, doc, "```java\n"+howTo(t, name)+"```", name)
	}
	k := kafkatest.NewCluster(t, topics...)
	method := reqreply.Method[string, *user]{Topic: "user.getUser", Codec: wherry.JSON{}, Profile: reqreply.Spring()}

	service := interop.OpenSpring(t, "UsersService", k.Brokers(), properties(t, doc, "### A Spring service"))
	c := caller(t, k, method)
	u, err := method.Call(within(t, patience), c, "u1")
	require.NoError(t, err)
	require.Equal(t, &user{"u1", "Ada"}, u)
	u, err = method.Call(within(t, patience), c, "u2")
	require.NoError(t, err)
	require.Nil(t, u)
	_, err = method.Call(within(t, patience), c, "")
	require.EqualError(t, err, "user.getUser: no id")
	service.Do(t, "close", nil)

	serve(t, k, &wherry.Consumer{}, method.Handler(find))
	client := interop.OpenSpring(t, "UsersClient", k.Brokers(), properties(t, doc, "### A Spring client"))
	require.JSONEq(t, `{"id":"u1","name":"Ada"}`, string(client.Ask(t, "user.getUser", map[string]any{"value": "u1"}).Value))
	require.JSONEq(t, `null`, string(client.Ask(t, "user.getUser", map[string]any{"value": "nobody"}).Value))
	got := client.Ask(t, "user.getUser", map[string]any{"value": "refused"})
	require.Equal(t, "org.springframework.kafka.KafkaException", got.Error)
	require.JSONEq(t, `{"status":"error","code":"refused","message":"not for you"}`, got.Message)
}
