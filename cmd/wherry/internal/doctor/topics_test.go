package doctor_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry/cmd/wherry/internal/doctor"
)

func TestExamine_Topics(t *testing.T) {
	t.Parallel()
	set := func(topic, name, value string) func(*patient) {
		return func(p *patient) { p.setTopic(topic, name, value) }
	}
	const least, unclean = "min.insync.replicas", "unclean.leader.election.enable"
	check(t, map[string]row{
		"it does not exist": {
			func(p *patient) {
				p.Topics = append(p.Topics, doctor.Topic{Name: "oders", Why: "named in the call"})
			},
			[]string{"error topic-missing"},
			[]string{"there is no topic oders, named in the call", "kafka-topics --bootstrap-server kafka:9092 --create --topic oders"},
		},
		"one replica": {
			func(p *patient) { p.replicas("orders", 2); p.setTopic("orders", least, "1") },
			[]string{"warning one-replica"},
			[]string{"topic orders has one replica, on a cluster of 3 brokers"},
		},
		"one partition has one": {
			func(p *patient) {
				x := &p.topic("orders").Partitions[1]
				x.Replicas, x.ISR = []int32{2}, []int32{2}
				p.setTopic("orders", least, "1")
			},
			[]string{"warning one-replica"},
			nil,
		},
		"two replicas, one in sync": {func(p *patient) { p.replicas("orders", 1, 2); p.setTopic("orders", least, "1") }, nil, nil},
		"two replicas, both in sync": {
			func(p *patient) { p.replicas("orders", 1, 2) },
			[]string{"warning min-isr"},
			[]string{"min.insync.replicas 2 and 2 replicas", "--add-config min.insync.replicas=1"},
		},
		"three replicas, one in sync":   {set("orders", least, "1"), []string{"warning min-isr"}, []string{"--add-config min.insync.replicas=2"}},
		"three replicas, all in sync":   {set("orders", least, "3"), []string{"warning min-isr"}, []string{"also for a restart"}},
		"three replicas, four in sync":  {set("orders", least, "4"), []string{"error min-isr"}, []string{"NOT_ENOUGH_REPLICAS"}},
		"unclean leaders":               {set("orders", unclean, "true"), []string{"warning unclean-election"}, []string{"topic orders has unclean"}},
		"as the brokers have it":        {func(p *patient) { p.set(unclean, "true"); p.setTopic("orders", unclean, "true") }, []string{"warning unclean-election"}, []string{"on all 3 brokers"}},
		"batches of 1,000,012":          {set("balances", "max.message.bytes", "1000012"), nil, nil},
		"batches of 1,000,011":          {set("balances", "max.message.bytes", "1000011"), []string{"warning max-message-bytes"}, []string{"ProducerBatchMaxBytes"}},
		"compacted, kept for ever":      {set("balances", "retention.ms", "-1"), nil, nil},
		"compacted, kept for a week":    {set("balances", "retention.ms", "604800000"), []string{"note changelog-retention"}, []string{"604800000 (7 days)", "--add-config retention.ms=-1"}},
		"compacted and deleted":         {set("balances", "cleanup.policy", "compact,delete"), []string{"warning changelog-retention"}, nil},
		"compacted and deleted, spaced": {set("balances", "cleanup.policy", "delete, compact"), []string{"warning changelog-retention"}, []string{"cleanup.policy=compact,retention.ms=-1"}},
	})
}

func TestExamine_TopicsOfWherrysOwn(t *testing.T) {
	t.Parallel()
	const wait, keys, dead, ledger = "orders.billing.retry.5s", "orders.billing.retry.keys", "billing.dlq", "billing.dlq.ledger"
	set := func(topic, name, value string) func(*patient) {
		return func(p *patient) { p.setTopic(topic, name, value) }
	}
	cut := func(topic string, partitions int) func(*patient) {
		return func(p *patient) {
			x := p.topic(topic)
			for len(x.Partitions) < partitions {
				next := x.Partitions[0]
				next.ID = int32(len(x.Partitions))
				x.Partitions = append(x.Partitions, next)
			}
			x.Partitions = x.Partitions[:partitions]
		}
	}
	check(t, map[string]row{
		"delay: compacted":                {set(wait, "cleanup.policy", "compact"), []string{"error delay-policy"}, []string{"cleanup.policy=delete"}},
		"delay: bounded in bytes":         {set(wait, "retention.bytes", "1000"), []string{"error delay-retention"}, []string{"retention.bytes=-1"}},
		"delay: kept for ever":            {set(wait, "retention.ms", "-1"), nil, nil},
		"delay: gone before it is due":    {set(wait, "retention.ms", "5000"), []string{"error delay-retention"}, []string{"what failed once is lost", "retention.ms=604805000"}},
		"delay: a moment to spare":        {set(wait, "retention.ms", "5001"), []string{"warning delay-retention"}, nil},
		"delay: almost a day to spare":    {set(wait, "retention.ms", "86404999"), []string{"warning delay-retention"}, []string{"wherry makes these topics with 7 days to spare"}},
		"delay: a day to spare":           {set(wait, "retention.ms", "86405000"), nil, nil},
		"delay: fewer partitions":         {cut(wait, 2), []string{"warning delay-partitions"}, []string{"has 2 partitions, orders has 3", "--alter --topic orders.billing.retry.5s --partitions 3"}},
		"delay: more partitions":          {cut(wait, 4), []string{"note delay-partitions"}, []string{"Nothing breaks"}},
		"delay: no room for headers":      {set(wait, "max.message.bytes", "1050635"), []string{"note headers-room"}, []string{"max.message.bytes=1050636"}},
		"keys: fewer partitions":          {cut(keys, 2), []string{"warning delay-partitions"}, nil},
		"keys: not compacted":             {set(keys, "cleanup.policy", "delete"), []string{"error changelog"}, []string{"cleanup.policy delete and retention.ms -1"}},
		"keys: retention":                 {set(keys, "retention.ms", "604800000"), []string{"error changelog"}, nil},
		"ledger: compacted and deleted":   {set(ledger, "cleanup.policy", "compact,delete"), []string{"error changelog"}, []string{"wherry refuses it"}},
		"ledger: two partitions":          {cut(ledger, 2), []string{"error ledger-partitions"}, nil},
		"dead letters: compacted":         {set(dead, "cleanup.policy", "compact"), []string{"error dead-letter-policy"}, nil},
		"dead letters: 30 days":           {set(dead, "retention.ms", "2592000000"), nil, nil},
		"dead letters: almost 30 days":    {set(dead, "retention.ms", "2591999999"), []string{"note dead-letter-retention"}, []string{"retention.ms=7776000000"}},
		"dead letters: 7 days":            {set(dead, "retention.ms", "604800000"), []string{"note dead-letter-retention"}, []string{"keeps letters for 7 days"}},
		"dead letters: almost 7 days":     {set(dead, "retention.ms", "604799999"), []string{"warning dead-letter-retention"}, nil},
		"dead letters: no room for stack": {set(dead, "max.message.bytes", "1064971"), []string{"note headers-room"}, []string{"1 topic of wherry's own", "billing.dlq has max.message.bytes 1064971", "max.message.bytes=1064972"}},
		"dead letters: nobody's group":    {func(p *patient) { p.Groups = nil; p.setTopic(dead, "max.message.bytes", "1064971") }, nil, nil},
	})
}

func TestExamine_KnowsWherrysTopicsByTheirNames(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		topic string
		want  string // what a topic of that name is blamed for, when it is deleted after 1 ms
	}{
		"a delay topic":                  {"orders.billing.retry.1m30s", "delay-retention"},
		"of a topic with dots":           {"orders.v2.billing.retry.1h", "delay-retention"},
		"of a topic that is not seen":    {"other.billing.retry.1h", "delay-retention"},
		"the keys":                       {"orders.billing.retry.keys", "changelog"},
		"Spring's delay topic":           {"orders-retry-1000", ""},
		"without a group":                {"orders.retry.1s", ""},
		"no delay":                       {"orders.billing.retry.soon", ""},
		"dead letters by their name":     {"orders.DLQ", "dead-letter-retention"},
		"Spring's":                       {"orders-dlt", "dead-letter-retention"},
		"parked":                         {"orders.dlq.parked", "dead-letter-retention"},
		"dead letters by their ledger":   {"letters", "dead-letter-retention"},
		"a ledger":                       {"orders.dlq.ledger", "changelog"},
		"a ledger of something else":     {"general.ledger", ""},
		"a plain topic":                  {"payments", ""},
		"a topic that ends in retry":     {"orders.billing.retry", ""},
		"negative and zero are no delay": {"orders.billing.retry.0s", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := healthy()
			p.Groups = nil
			seen := []doctor.Topic{topic("orders", 3), topic("orders.v2", 3), topic("letters.ledger", 1)}
			p.own = append(p.own, seen...)
			p.Topics = []doctor.Topic{topic(row.topic, 3, "retention.ms", "1", "max.message.bytes", "1050636")}
			report := p.examine()
			var got []string
			for _, f := range report.Findings {
				if f.Check != "ledger-partitions" {
					got = append(got, f.Check)
				}
			}
			if row.want == "" {
				require.Empty(t, got)
			} else {
				require.Equal(t, []string{row.want}, got)
			}
		})
	}
}

func TestExamine_PassesOverWhatIsIgnored(t *testing.T) {
	t.Parallel()
	p := healthy()
	p.set("auto.create.topics.enable", "true")
	p.setTopic("orders", "min.insync.replicas", "4")
	require.Len(t, p.examine().Findings, 2)
	report := p.examine("auto-create-topics")
	require.Len(t, report.Findings, 1)
	require.Equal(t, "min-isr", report.Findings[0].Check)
	require.Equal(t, 1, report.Count(doctor.Error))
	require.Zero(t, report.Count(doctor.Note))
}

func TestExamine_TheWorstComesFirst(t *testing.T) {
	t.Parallel()
	p := healthy()
	p.set("auto.create.topics.enable", "true")
	p.set("unclean.leader.election.enable", "true")
	p.Groups[0].Commits[0].Offset = 101
	var got []doctor.Severity
	for _, f := range p.examine().Findings {
		got = append(got, f.Severity)
	}
	require.Equal(t, []doctor.Severity{doctor.Error, doctor.Warning, doctor.Note}, got)
}
