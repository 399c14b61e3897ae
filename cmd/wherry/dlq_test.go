package main_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/dlq"
	"github.com/wherry-go/wherry/kafkatest"
)

// letters is a cluster with dead letters in "dead", as operators find it.
type letters struct {
	*kafkatest.Cluster
	cl *kgo.Client
}

func newLetters(t *testing.T, n int, change ...func(i int, l *dlq.Letter)) letters {
	t.Helper()
	t.Parallel()
	k := kafkatest.NewCluster(t, "orders:1", "dead:1")
	l := letters{k, k.Client(t)}
	l.bury(t, n, change...)
	return l
}

func (l letters) bury(t *testing.T, n int, change ...func(i int, l *dlq.Letter)) {
	t.Helper()
	failed := time.Now().Add(-time.Hour)
	for i := range n {
		letter := &dlq.Letter{
			Topic: "orders", Partition: 0, Offset: int64(i), Timestamp: failed, Group: "billing",
			Key: fmt.Appendf(nil, "o-%d", i), Value: fmt.Appendf(nil, `{"id":"o-%d","amount":12.50}`, i),
			Cause: wherry.CauseExhausted, Error: "card declined", ErrorType: "*pay.Error", Stack: "main.pay()\n\tpay.go:7",
			Attempts: 4, FirstFailed: failed, Failed: failed,
		}
		for _, c := range change {
			c(i, letter)
		}
		r, err := letter.Encode("dead")
		require.NoError(t, err)
		require.NoError(t, l.cl.ProduceSync(t.Context(), r).FirstErr())
	}
}

// wherry runs the command against the cluster.
func (l letters) wherry(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	return callWith(t, []string{"WHERRY_BROKERS=" + strings.Join(l.Brokers(), ",")}, args...)
}

func (l letters) ok(t *testing.T, args ...string) string {
	t.Helper()
	code, stdout, stderr := l.wherry(t, args...)
	require.Zero(t, code, stderr)
	return stdout
}

// callWith is call with more in the environment.
func callWith(t *testing.T, env []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Dir, cmd.Env = t.TempDir(), append(os.Environ(), env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		_, exited := errors.AsType[*exec.ExitError](err)
		require.True(t, exited, "%v", err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// count is how many records that are committed a topic holds.
func (l letters) count(t *testing.T, topic string) (n int64) {
	t.Helper()
	return int64(len(l.content(t, topic)))
}

// content is what is committed in a topic of one partition.
func (l letters) content(t *testing.T, topic string) (all []*kgo.Record) {
	t.Helper()
	ends, err := kadm.NewClient(l.cl).ListCommittedOffsets(t.Context(), topic)
	require.NoError(t, err)
	end, _ := ends.Lookup(topic, 0)
	in := l.Client(t, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().AtStart()}}),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords())
	defer in.Close()
	ctx, cancel := context.WithTimeout(t.Context(), l.Timeout)
	defer cancel()
	for next := int64(0); next < end.Offset; {
		fetches := in.PollFetches(ctx)
		require.NoError(t, fetches.Err0())
		for r := range fetches.RecordsAll() {
			if next = r.Offset + 1; !r.Attrs.IsControl() {
				all = append(all, r)
			}
		}
	}
	return all
}

// counts is a report of what was done without its last line, which says who did
// it.
func counts(t *testing.T, report string) string {
	t.Helper()
	at := strings.LastIndex(strings.TrimRight(report, "\n"), "\n") + 1
	require.Regexp(t, `^by \S+@\S+, \d{4}-\d\d-\d\d \d\d:\d\d:\d\d, run [0-9a-f]{16}\n$`, report[at:])
	return report[:at]
}

func lines(text string) []string { return strings.Split(strings.TrimRight(text, "\n"), "\n") }

func TestDLQList_IsATableOfWhatIsNotDecided(t *testing.T) {
	l := newLetters(t, 3, func(i int, x *dlq.Letter) {
		if i == 1 {
			x.Key, x.Error = nil, "evil \x1b[2J\u202e\xff"+strings.Repeat("long ", 60)
		}
	})
	got := lines(l.ok(t, "dlq", "ls", "dead"))
	require.Len(t, got, 4)
	require.Regexp(t, `^LETTER  FAILED +CAUSE +ORIGIN +GROUP +KEY +TRIES +ERROR$`, got[0])
	require.Regexp(t, `^0/0     \d{4}-\d\d-\d\d \d\d:\d\d:\d\d  exhausted  orders/0/0  billing  o-0  4      \*pay.Error: card declined$`, got[1])
	require.Contains(t, got[2], ` -    4      *pay.Error: evil \x1b[2J\u202e�long long`)
	require.Greater(t, len(got[2]), 300, "nothing is cut where it is no terminal")

	l.ok(t, "dlq", "discard", "dead", "-key", "o-2", "-yes")
	require.Len(t, lines(l.ok(t, "dlq", "ls", "dead")), 3)
	got = lines(l.ok(t, "dlq", "ls", "-decided", "dead"))
	require.Len(t, got, 4)
	require.Regexp(t, `DECIDED +ERROR$`, got[0])
	require.Regexp(t, `discarded \d{4}-\d\d-\d\d \d\d:\d\d:\d\d by \S+@\S+  \*pay`, got[3])
	code, stdout, stderr := l.wherry(t, "dlq", "ls", "dead", "-since", "10m")
	require.Zero(t, code)
	require.Empty(t, stdout)
	require.Contains(t, stderr, "-decided lists the others")
}

func TestDLQList_JSONHasStableNamesAndAllBytes(t *testing.T) {
	l := newLetters(t, 1, func(_ int, x *dlq.Letter) {
		x.Key, x.Value = nil, []byte{0xff, 0}
		x.Headers = []kgo.RecordHeader{{Key: "a", Value: []byte("b<")}, {Key: "raw", Value: []byte{0xfe}}, {Key: "none"}}
	})
	var got map[string]any
	require.NoError(t, json.Unmarshal([]byte(l.ok(t, "dlq", "ls", "dead", "-json")), &got))
	for _, key := range []string{"timestamp", "firstFailed", "failed"} {
		text, _ := got[key].(string)
		_, err := time.Parse(time.RFC3339Nano, text)
		require.NoError(t, err)
		delete(got, key)
	}
	origin := got["origin"].(map[string]any)
	require.NotEmpty(t, origin["timestamp"])
	delete(origin, "timestamp")
	require.Equal(t, map[string]any{
		"topic": "dead", "partition": 0.0, "offset": 0.0, "format": "wherry",
		"origin": map[string]any{"topic": "orders", "partition": 0.0, "offset": 0.0}, "group": "billing",
		"cause": "exhausted", "error": "card declined", "errorType": "*pay.Error", "stack": "main.pay()\n\tpay.go:7", "attempts": 4.0, "replays": 0.0,
		"key": nil, "value": nil, "valueBase64": "/wA=",
		"headers": []any{
			map[string]any{"key": "a", "value": "b<"}, map[string]any{"key": "raw", "value": nil, "valueBase64": "/g=="}, map[string]any{"key": "none", "value": nil},
		},
		"decision": nil,
	}, got)
}

func TestDLQList_SummaryCounts(t *testing.T) {
	l := newLetters(t, 5, func(i int, x *dlq.Letter) {
		if i == 0 {
			x.Cause, x.Group, x.ErrorType = wherry.CausePanic, "", "runtime.Error"
		}
	})
	got := l.ok(t, "dlq", "ls", "dead", "-summary")
	for _, want := range []string{
		"5 letters\n", "by cause\n      4 exhausted\n      1 panic\n", "by type\n      4 *pay.Error\n      1 runtime.Error\n",
		"by topic\n      5 orders\n", "by group\n      4 billing\n      1 ?\n", "by age\n      5 under 1d\n",
	} {
		require.Contains(t, got, want)
	}
	var counts map[string]any
	require.NoError(t, json.Unmarshal([]byte(l.ok(t, "dlq", "ls", "dead", "-summary", "-json", "-cause", "panic")), &counts))
	require.InDelta(t, 1, counts["letters"], 0)
	require.Equal(t, map[string]any{"panic": 1.0}, counts["causes"])
}

func TestDLQShow_ShowsEverything(t *testing.T) {
	l := newLetters(t, 2, func(_ int, x *dlq.Letter) {
		x.Headers = []kgo.RecordHeader{{Key: "tenant", Value: []byte("a\x1b")}}
	})
	l.ok(t, "dlq", "replay", "dead", "-at", "0/1", "-yes", "-why", "fixed", "-by", "ada")
	got := l.ok(t, "dlq", "show", "dead", "0/1")
	for _, want := range []string{
		"letter        dead/0/1\n", "format        wherry\n", "origin        orders/0/1\n", "group         billing\n", "cause         exhausted\n",
		"attempts      4\n", "decided       replayed ", " by ada\n", "why           fixed\n", "copy          orders/0/0\n",
		"\nerror\n  card declined\n", "\nstack\n  main.pay()\n      pay.go:7\n", "\nheaders\n  tenant: a\\x1b\n", "\nkey\n  o-1\n",
		"\nvalue\n  {\n    \"id\": \"o-1\",\n    \"amount\": 12.50\n  }\n",
	} {
		require.Contains(t, got, want)
	}
	var letter map[string]any
	require.NoError(t, json.Unmarshal([]byte(l.ok(t, "dlq", "show", "dead", "0/1", "-json")), &letter))
	require.Equal(t, `{"id":"o-1","amount":12.50}`, letter["value"]) //nolint:testifylint // the bytes are to be the same
	require.Equal(t, "replayed", letter["decision"].(map[string]any)["action"])

	code, _, stderr := l.wherry(t, "dlq", "show", "dead", "0/7")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "topic dead has no letter 0/7")
}

func TestDLQReplay_CopiesWhatIsSelectedAndSaysSo(t *testing.T) {
	l := newLetters(t, 5)
	dry := l.ok(t, "dlq", "replay", "dead", "-key", "o-1", "-key", "o-3", "-dry-run")
	require.Contains(t, dry, "      2 would be replayed to the topics that the records failed in\n")
	require.Contains(t, dry, "by cause\n      2 exhausted\n")
	require.Zero(t, l.count(t, "orders"))

	require.Equal(t, "      2 replayed to the topics that the records failed in, for group billing alone\n",
		counts(t, l.ok(t, "dlq", "replay", "dead", "-key", "o-1", "-key", "o-3", "-group", "billing", "-yes", "-rate", "100")))
	r := kafkatest.NextRecord(t, l.Cluster, "orders")
	require.Equal(t, "o-1", string(r.Key))
	require.Contains(t, r.Headers, kgo.RecordHeader{Key: "wherry-only-group", Value: []byte("billing")})

	require.Equal(t, "      3 replayed to the topics that the records failed in\n      2 passed over, decided before\n", counts(t, l.ok(t, "dlq", "replay", "dead", "-yes")))
	require.Equal(t, "      5 passed over, decided before\nNo letter is selected, of 5.\n", l.ok(t, "dlq", "replay", "dead", "-yes"))
	require.EqualValues(t, 5, l.count(t, "orders"))

	var report map[string]any
	require.NoError(t, json.Unmarshal([]byte(l.ok(t, "dlq", "replay", "dead", "-yes", "-decided", "-limit", "2", "-json", "-by", "ada", "-why", "the bank is open")), &report))
	require.Equal(t, []any{"ada", "the bank is open"}, []any{report["by"], report["why"]})
	_, err := time.Parse(time.RFC3339Nano, report["began"].(string))
	require.NoError(t, err)
	require.InDelta(t, 2, report["replayed"], 0)
	require.Equal(t, "replayed", report["action"])
}

func TestDLQPark_AndReplayWhatWasParked(t *testing.T) {
	l := newLetters(t, 2)
	require.Equal(t, "      2 parked to dead.parked\n", counts(t, l.ok(t, "dlq", "park", "dead", "-yes")))
	require.Equal(t, "      2 replayed to the topics that the records failed in\n", counts(t, l.ok(t, "dlq", "replay", "dead.parked", "-yes")))
	require.EqualValues(t, 2, l.count(t, "orders"))
}

func TestDLQReplay_ExitsWithThreeWhenSomeLettersFailed(t *testing.T) {
	l := newLetters(t, 2, func(i int, x *dlq.Letter) {
		if i == 0 {
			x.Topic = "gone"
		}
	})
	code, stdout, stderr := l.wherry(t, "dlq", "replay", "dead", "-yes")
	require.Equal(t, 3, code)
	require.Equal(t, "      1 replayed to the topics that the records failed in\n      1 failed, and stay undecided\n", counts(t, stdout))
	require.Contains(t, stderr, "wherry: letter dead/0/0: copying to gone: topic gone does not exist")
	require.Contains(t, stderr, "wherry: 1 of 2 letters failed and stay undecided\n")
}

func TestDLQReplay_InterruptedItSaysHowToGoOn(t *testing.T) {
	l := newLetters(t, 60)
	cmd := exec.Command(binary, "dlq", "replay", "dead", "-yes", "-rate", "20", "-brokers", strings.Join(l.Brokers(), ","))
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	require.NoError(t, cmd.Start())
	kafkatest.NextRecord(t, l.Cluster, "orders")
	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	_ = cmd.Wait()
	require.Equal(t, 1, cmd.ProcessState.ExitCode(), errs.String())
	require.Contains(t, errs.String(), "start it again to go on")
	require.Contains(t, out.String(), " replayed ")
	done := l.count(t, "orders")
	require.Less(t, done, int64(60))
	l.ok(t, "dlq", "replay", "dead", "-yes")
	require.EqualValues(t, 60, l.count(t, "orders"), "none twice")
}

func TestDLQ_WrongCallsExitTwo(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		args []string
		want string
	}{
		"no command":          {[]string{"dlq"}, "wherry dlq <command> <topic>"},
		"no such command":     {[]string{"dlq", "burn"}, `there is no command "dlq burn"`},
		"help on nothing":     {[]string{"help", "dlq", "burn"}, `there is no command "dlq burn"`},
		"no topic":            {[]string{"dlq", "ls"}, "dlq ls needs a <topic>"},
		"two topics":          {[]string{"dlq", "ls", "a", "-json", "b"}, `dlq ls takes no argument "b"`},
		"no letter":           {[]string{"dlq", "show", "dead"}, "needs a <letter>"},
		"a partition":         {[]string{"dlq", "show", "dead", "3"}, "is no letter"},
		"not a place":         {[]string{"dlq", "ls", "dead", "-at", "x/y"}, "3/17-20"},
		"not a time":          {[]string{"dlq", "ls", "dead", "-since", "soon"}, "such as 90m, 3d or 1w"},
		"no time between":     {[]string{"dlq", "ls", "dead", "-since", "1h", "-until", "2h"}, "-since must be before -until"},
		"not a header":        {[]string{"dlq", "ls", "dead", "-header", "x"}, "give name=value"},
		"nobody can be asked": {[]string{"dlq", "replay", "dead"}, "give -yes, or -dry-run"},
		"no replays":          {[]string{"dlq", "replay", "dead", "-yes", "-max-replays", "0"}, "wherry dlq park"},
		"no brokers":          {[]string{"dlq", "ls", "dead", "-brokers", ","}, "give host:port"},
		"user, no mechanism":  {[]string{"dlq", "ls", "dead", "-sasl-user", "u"}, "give -sasl plain"},
		"no password":         {[]string{"dlq", "ls", "dead", "-sasl", "plain", "-sasl-user", "u"}, "WHERRY_SASL_PASSWORD"},
		"cert without key":    {[]string{"dlq", "ls", "dead", "-tls-cert", "c"}, "-tls-cert and -tls-key together"},
		"no such flag":        {[]string{"dlq", "ls", "dead", "-nonsense"}, "Usage: wherry dlq ls <topic>"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, stdout, stderr := call(t, row.args...)
			require.Equal(t, 2, code, stderr)
			require.Empty(t, stdout)
			require.Contains(t, stderr, row.want)
		})
	}
}

func TestDLQ_Help(t *testing.T) {
	t.Parallel()
	for want, args := range map[string][]string{
		"wherry dlq park billing.dlq -cause undecodable":  {"help", "dlq"},
		"list letters, or count them":                     {"dlq", "-h"},
		"Usage: wherry dlq replay <topic> [flags]":        {"help", "dlq", "replay"},
		"Usage: wherry dlq show <topic> <letter> [flags]": {"dlq", "help", "show"},
		"WHERRY_SASL_PASSWORD or in the file":             {"dlq", "ls", "-h"},
	} {
		code, stdout, stderr := callWith(t, []string{"WHERRY_SASL_PASSWORD=hunter2"}, args...)
		require.Zero(t, code, args)
		require.Empty(t, stderr, args)
		require.Contains(t, stdout, want, args)
		require.NotContains(t, stdout, "hunter2")
	}
}
