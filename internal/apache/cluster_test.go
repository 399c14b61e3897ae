//go:build linux

package apache_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/wherry-go/wherry/internal/apache"
)

// wait bounds each step of a test; on an idle machine all take under 10 s.
const wait = time.Minute

// start runs c for the length of the test, or skips it where Kafka is missing.
func start(t *testing.T, c *apache.Cluster) {
	t.Helper()
	needKafka(t)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	begin := time.Now()
	go func() { ended <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-ended)
		require.Empty(t, processes(t, c.Dir), "nodes are left running")
	})
	select {
	case <-c.Ready():
		t.Logf("%d node(s) ready after %v", c.Nodes, time.Since(begin).Round(time.Millisecond))
	case err := <-ended:
		ended <- err
		t.FailNow()
	}
}

func needKafka(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("starts Apache Kafka: not with -short")
	}
	if _, err := apache.Find(); err != nil {
		if os.Getenv("KAFKATEST_REQUIRE") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
}

// processes returns the ids of the processes whose command line mentions dir.
func processes(t *testing.T, dir string) (found []int) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	require.NoError(t, err)
	for _, file := range files {
		if line, err := os.ReadFile(file); err == nil && strings.Contains(string(line), dir) {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			require.NoError(t, err)
			found = append(found, pid)
		}
	}
	return found
}

func client(t *testing.T, c *apache.Cluster, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(c.Brokers()...), kgo.DisableClientMetrics(), kgo.MetadataMinAge(50 * time.Millisecond), kgo.ProducerLinger(0),
	}, opts...)...)
	require.NoError(t, err)
	t.Cleanup(cl.Close)
	return cl
}

func create(t *testing.T, cl *kgo.Client, topic string, partitions int32) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	_, err := kadm.NewClient(cl).CreateTopic(ctx, partitions, -1, nil, topic)
	require.NoError(t, err)
}

func produce(t *testing.T, cl *kgo.Client, topic, value string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	require.NoError(t, cl.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: []byte(value)}).FirstErr())
}

// values reads n records of a topic from its start.
func values(t *testing.T, c *apache.Cluster, topic string, n int) (got []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	cl := client(t, c, kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	for len(got) < n {
		fetches := cl.PollFetches(ctx)
		require.NoError(t, ctx.Err())
		fetches.EachRecord(func(r *kgo.Record) { got = append(got, string(r.Value)) })
	}
	return got
}

func TestAKilledNodeKeepsItsData(t *testing.T) {
	t.Parallel()
	c := &apache.Cluster{}
	start(t, c)
	cl := client(t, c)
	create(t, cl, "orders", 1)
	produce(t, cl, "orders", "before")
	require.NoError(t, c.Kill(1))
	require.ErrorContains(t, c.Kill(1), "kill node 1: it does not run")
	require.NoError(t, c.Restart(t.Context(), 1))
	produce(t, cl, "orders", "after")
	require.Equal(t, []string{"before", "after"}, values(t, c, "orders", 2))
}

func TestTopicsDoNotAppearByThemselves(t *testing.T) {
	t.Parallel()
	c := &apache.Cluster{}
	start(t, c)
	cl := client(t, c, kgo.AllowAutoTopicCreation(), kgo.UnknownTopicRetries(1))
	err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: "orders"}).FirstErr()
	require.ErrorIs(t, err, kerr.UnknownTopicOrPartition)
}

func TestStopAndPauseANode(t *testing.T) {
	t.Parallel()
	c := &apache.Cluster{}
	start(t, c)
	cl := client(t, c)
	create(t, cl, "orders", 1)
	require.ErrorContains(t, c.Stop(2), "the nodes are numbered 1 to 1")

	require.NoError(t, c.Pause(1))
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	// A context does not end kgo's handshake of a new connection, its own limit does (10 s unless set).
	err := client(t, c, kgo.RequestTimeoutOverhead(300*time.Millisecond)).Ping(ctx)
	require.ErrorContains(t, err, "timeout", "a paused node accepts and does not answer")
	require.NoError(t, c.Resume(1))
	produce(t, cl, "orders", "resumed")

	require.NoError(t, c.Stop(1))
	require.ErrorContains(t, c.Pause(1), "pause node 1: it does not run")
	require.NoError(t, c.Restart(t.Context(), 1))
	require.ErrorContains(t, c.Restart(t.Context(), 1), "it runs already")
	produce(t, cl, "orders", "restarted")
	require.Equal(t, []string{"resumed", "restarted"}, values(t, c, "orders", 2))
}

func TestAClusterOfThreeSurvivesTheLossOfALeader(t *testing.T) {
	c := &apache.Cluster{Nodes: 3}
	start(t, c)
	require.Len(t, c.Brokers(), 3)
	cl := client(t, c)
	create(t, cl, "orders", 1)
	produce(t, cl, "orders", "before")
	topics, err := kadm.NewClient(cl).ListTopics(t.Context(), "orders")
	require.NoError(t, err)
	require.Len(t, topics["orders"].Partitions[0].Replicas, 3)
	leader := int(topics["orders"].Partitions[0].Leader)
	begin := time.Now()
	require.NoError(t, c.Kill(leader))
	produce(t, cl, "orders", "without node")
	t.Logf("%v from the kill of leader %d to the next acknowledgement", time.Since(begin).Round(time.Millisecond), leader)
	begin = time.Now()
	require.NoError(t, c.Restart(t.Context(), leader))
	t.Logf("restarted after %v", time.Since(begin).Round(time.Millisecond))
	produce(t, cl, "orders", "with node")
	require.Equal(t, []string{"before", "without node", "with node"}, values(t, c, "orders", 3))
}

func TestUsersMustLogIn(t *testing.T) {
	t.Parallel()
	c := &apache.Cluster{Users: map[string]string{"alice": "wonder land", "bob": "b"}}
	start(t, c)
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	logins := func(user, password string) []sasl.Mechanism {
		return []sasl.Mechanism{
			plain.Auth{User: user, Pass: password}.AsMechanism(),
			scram.Auth{User: user, Pass: password}.AsSha256Mechanism(),
		}
	}
	for _, user := range []string{"alice", "bob"} {
		for _, m := range logins(user, c.Users[user]) {
			require.NoError(t, client(t, c, kgo.SASL(m)).Ping(ctx), "%s by %s", user, m.Name())
		}
	}
	for _, m := range logins("alice", "wrong") {
		require.ErrorIs(t, client(t, c, kgo.SASL(m)).Ping(ctx), kerr.SaslAuthenticationFailed, m.Name())
	}
	short, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	require.Error(t, client(t, c).Ping(short), "without a login")
}

func TestTLSIsTrustedByItsOwnCertificateAlone(t *testing.T) {
	t.Parallel()
	c := &apache.Cluster{TLS: true, Users: map[string]string{"alice": "a"}}
	start(t, c)
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	login := kgo.SASL(plain.Auth{User: "alice", Pass: "a"}.AsMechanism())
	require.NoError(t, client(t, c, login, kgo.DialTLSConfig(c.ClientTLS())).Ping(ctx))
	require.ErrorContains(t, client(t, c, login, kgo.DialTLS()).Ping(ctx), "certificate signed by unknown authority")
	short, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	require.Error(t, client(t, c, login).Ping(short), "without TLS")
}

func TestANodeThatDoesNotStartShowsItsLog(t *testing.T) {
	t.Parallel()
	needKafka(t)
	c := &apache.Cluster{Config: map[string]string{"num.io.threads": "many"}}
	err := c.Run(t.Context())
	require.ErrorContains(t, err, "node 1 died (exit status 1)")
	require.ErrorContains(t, err, "num.io.threads")
	require.NoDirExists(t, c.Dir)
	require.ErrorContains(t, c.Restart(t.Context(), 1), "the cluster has ended")
}

func TestANodeThatDiesEndsRun(t *testing.T) {
	t.Parallel()
	needKafka(t)
	c := &apache.Cluster{}
	ended := make(chan error, 1)
	go func() { ended <- c.Run(t.Context()) }()
	<-c.Ready()
	node := processes(t, c.Dir)
	require.Len(t, node, 1)
	require.NoError(t, syscall.Kill(node[0], syscall.SIGKILL))
	require.ErrorContains(t, <-ended, "node 1 died (signal: killed)")
}

func TestAFolderOfOnesOwnIsKept(t *testing.T) {
	t.Parallel()
	needKafka(t)
	dir := t.TempDir()
	for i, run := range []string{"first", "second"} {
		t.Run(run, func(t *testing.T) {
			c := &apache.Cluster{Dir: dir}
			start(t, c)
			cl := client(t, c)
			if i == 0 {
				create(t, cl, "orders", 1)
			}
			produce(t, cl, "orders", run)
			require.Equal(t, []string{"first", "second"}[:i+1], values(t, c, "orders", i+1))
		})
	}
	require.FileExists(t, filepath.Join(dir, "node-1", "log"))
}

// A test binary that is killed runs no cleanups: nodes must not outlive it.
func TestNodesDieWithAProcessThatIsKilled(t *testing.T) {
	if os.Getenv("APACHE_TEST_CHILD") != "" {
		c := &apache.Cluster{}
		go func() { fmt.Println("ended:", c.Run(context.Background())) }()
		<-c.Ready()
		fmt.Println("dir:", c.Dir)
		select {}
	}
	t.Parallel()
	needKafka(t)
	child := exec.Command(os.Args[0], "-test.run=^TestNodesDieWithAProcessThatIsKilled$")
	child.Env = append(os.Environ(), "APACHE_TEST_CHILD=1")
	out, err := child.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, child.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	dir, ok := strings.CutPrefix(strings.TrimSpace(line), "dir: ")
	require.True(t, ok, line)
	t.Cleanup(func() { os.RemoveAll(dir) })
	require.Len(t, processes(t, dir), 1)
	require.NoError(t, child.Process.Kill())
	_, _ = io.Copy(io.Discard, out)
	require.Error(t, child.Wait())
	require.Eventually(t, func() bool { return len(processes(t, dir)) == 0 }, wait, 10*time.Millisecond)
}

func TestConfigurationFaultsAreErrorsOfRun(t *testing.T) {
	t.Parallel()
	needKafka(t)
	require.ErrorContains(t, (&apache.Cluster{Nodes: 2}).Run(t.Context()), "2 nodes: want 1 or 3")
	require.ErrorContains(t, (&apache.Cluster{Users: map[string]string{"a\"b": ""}}).Run(t.Context()), "cannot hold")
	require.ErrorContains(t, (&apache.Cluster{Jars: t.TempDir()}).Run(t.Context()), "ClassNotFoundException")
}
