package reqreply_test

import (
	"context"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/internal/interop"
	"github.com/wherry-go/wherry/kafkatest"
)

// A person with kcat asks a Method, and reads the answer.
func TestKcatCallsUs(t *testing.T) {
	t.Parallel()
	interop.Need(t, "kcat")
	k := kafkatest.NewCluster(t, "kcat.getUser:1", "kcat.getUser.reply:1")
	m := getUser
	m.Topic = "kcat.getUser"
	serve(t, k, &wherry.Consumer{Group: "kcat"}, m.Handler(find))
	kcat := func(stdin string, args ...string) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		cmd := exec.CommandContext(ctx, "kcat", append([]string{"-b", strings.Join(k.Brokers(), ","), "-q"}, args...)...)
		cmd.Stdin = strings.NewReader(stdin)
		var errs strings.Builder
		cmd.Stderr = &errs
		out, err := cmd.Output()
		require.NoError(t, err, errs.String())
		return string(out)
	}
	for i, test := range []struct{ ask, want string }{
		{"u1", `{"id":"u1","name":"Ada"}|kafka_correlationId=7,wherry-reply-group=kcat,kafka_nest-is-disposed=`},
		{"nobody", `NULL|kafka_correlationId=7,wherry-reply-group=kcat,kafka_nest-is-disposed=`},
		{"refused", `NULL|kafka_nest-err={"status":"error","code":"refused","message":"not for you"},kafka_correlationId=7,wherry-reply-group=kcat,kafka_nest-is-disposed=`},
	} {
		kcat(test.ask, "-P", "-t", "kcat.getUser", "-H", "kafka_correlationId=7", "-H", "kafka_replyTopic=kcat.getUser.reply")
		require.Equal(t, test.want+"\n", kcat("", "-C", "-t", "kcat.getUser.reply", "-o", string(rune('0'+i)), "-c", "1", "-Z", "-f", `%s|%h\n`))
	}
}
