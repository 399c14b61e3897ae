package doctor_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry/cmd/wherry/internal/doctor"
)

var now = time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)

// patient is a cluster of three brokers in which nothing hurts: a topic with
// all that wherry keeps beside it, a changelog, and a group that reads.
type patient struct {
	doctor.Facts
	own []doctor.Topic // the brokers' own topics
}

func settings(pairs ...string) doctor.Settings {
	s := doctor.Settings{}
	for i := 0; i < len(pairs); i += 2 {
		s[pairs[i]] = doctor.Setting{Value: pairs[i+1]}
	}
	return s
}

func topic(name string, partitions int, pairs ...string) doctor.Topic {
	t := doctor.Topic{Name: name, ID: [16]byte{7}, Exists: true, Settings: settings(append([]string{
		"cleanup.policy", "delete", "retention.ms", "604800000", "retention.bytes", "-1", "max.message.bytes", "1048588",
		"min.insync.replicas", "2", "unclean.leader.election.enable", "false",
	}, pairs...)...)}
	for i := range partitions {
		t.Partitions = append(t.Partitions, doctor.Partition{
			ID: int32(i), Leader: 1, Replicas: []int32{1, 2, 3}, ISR: []int32{3, 2, 1}, Start: 10, Stable: 100, End: 100,
		})
	}
	return t
}

func healthy() *patient {
	p := &patient{Facts: doctor.Facts{Now: now, Bootstrap: "kafka:9092", ClusterID: "c"}}
	for id := range int32(3) {
		p.Brokers = append(p.Brokers, doctor.Broker{ID: id + 1, Version: "v4.1", Settings: settings(
			"add.partitions.to.txn.retry.backoff.ms", "1", "offset.metadata.max.bytes", "4096", "group.max.session.timeout.ms", "1800000",
			"group.min.session.timeout.ms", "6000", "transaction.max.timeout.ms", "900000", "transactional.id.expiration.ms", "604800000",
			"auto.create.topics.enable", "false", "unclean.leader.election.enable", "false", "message.max.bytes", "1048588",
			"offsets.topic.replication.factor", "3", "transaction.state.log.replication.factor", "3", "transaction.state.log.min.isr", "2",
		)})
	}
	p.Features = map[string]doctor.Span{"transaction.version": {Finalized: 2, Supported: 2}}
	p.Clocks = []doctor.Clock{{Of: "controller 1", Give: 2 * time.Millisecond}}
	p.own = []doctor.Topic{topic("__consumer_offsets", 3, "cleanup.policy", "compact"), topic("__transaction_state", 3, "cleanup.policy", "compact")}
	for i := range p.own {
		p.own[i].Internal = true
	}
	p.Topics = []doctor.Topic{
		topic("orders", 3),
		topic("orders.billing.retry.5s", 3, "max.message.bytes", "1050636"),
		topic("orders.billing.retry.keys", 3, "cleanup.policy", "compact", "retention.ms", "-1"),
		topic("billing.dlq", 3, "retention.ms", "-1", "max.message.bytes", "1064972"),
		topic("billing.dlq.ledger", 1, "cleanup.policy", "compact", "retention.ms", "-1"),
		topic("balances", 3, "cleanup.policy", "compact", "retention.ms", "-1"),
	}
	p.Groups = []doctor.Group{{
		Name: "billing", Exists: true, State: "Stable", Protocol: "classic",
		Members: []doctor.Member{
			{ID: "m-1", Client: "billing", Host: "/10.0.0.1", Subscribed: []string{"orders"}, Assigned: map[string][]int32{"orders": {0, 1}}},
			{ID: "m-2", Client: "billing", Host: "/10.0.0.2", Subscribed: []string{"orders"}, Assigned: map[string][]int32{"orders": {2}}},
		},
		Commits: []doctor.Commit{{Topic: "orders", Partition: 0, Offset: 100}, {Topic: "orders", Partition: 1, Offset: 90}, {Topic: "orders", Partition: 2, Offset: 10}},
	}}
	return p
}

// set changes a setting of all brokers; empty takes it away.
func (p *patient) set(name, value string) {
	for _, b := range p.Brokers {
		if b.Settings[name] = (doctor.Setting{Value: value}); value == "" {
			delete(b.Settings, name)
		}
	}
}

// topic finds a topic, also one of the brokers' own.
func (p *patient) topic(name string) *doctor.Topic {
	for _, all := range [][]doctor.Topic{p.Topics, p.own} {
		for i := range all {
			if all[i].Name == name {
				return &all[i]
			}
		}
	}
	panic("there is no topic " + name)
}

// setTopic changes a topic's setting.
func (p *patient) setTopic(topic, name, value string) {
	p.topic(topic).Settings[name] = doctor.Setting{Value: value}
}

// replicas changes the replicas of all partitions of a topic.
func (p *patient) replicas(topic string, ids ...int32) {
	for i := range p.topic(topic).Partitions {
		x := &p.topic(topic).Partitions[i]
		x.Replicas, x.ISR = ids, ids
	}
}

// without takes away one of the brokers' own topics.
func (p *patient) without(name string) {
	var left []doctor.Topic
	for _, t := range p.own {
		if t.Name != name {
			left = append(left, t)
		}
	}
	p.own = left
}

func (p *patient) alone() {
	p.Brokers = p.Brokers[:1]
	for _, all := range [][]doctor.Topic{p.Topics, p.own} {
		for _, t := range all {
			p.replicas(t.Name, 1)
			p.setTopic(t.Name, "min.insync.replicas", "1")
		}
	}
}

func (p *patient) examine(ignore ...string) doctor.Report {
	p.Seen = map[string]doctor.Topic{}
	for _, all := range [][]doctor.Topic{p.Topics, p.own} {
		for _, t := range all {
			if t.Exists {
				p.Seen[t.Name] = t
			}
		}
	}
	return doctor.Examine(&p.Facts, doctor.Options{Ignore: ignore})
}

// row is one fault, or one that is just none.
type row struct {
	change func(p *patient)
	want   []string // findings, as "severity check"; none is none
	says   []string // what the findings say, and how to mend it
}

// check runs rows, each on a healthy patient.
func check(t *testing.T, rows map[string]row) {
	t.Helper()
	for name, r := range rows {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := healthy()
			r.change(p)
			report := p.examine()
			var got []string
			var text strings.Builder
			for _, f := range report.Findings {
				got = append(got, f.Severity.String()+" "+f.Check)
				text.WriteString(strings.Join(append([]string{f.What, strings.Join(f.Where, "; "), f.Why, f.Mend}, f.Commands...), "\n") + "\n")
				require.NotEmpty(t, f.What)
				require.NotEmpty(t, f.Why, f.What)
				require.NotEmpty(t, f.Mend, f.What)
			}
			require.Equal(t, r.want, got, text.String())
			for _, s := range r.says {
				require.Contains(t, text.String(), s)
			}
		})
	}
}

func TestExamine_FindsNothingWhereNothingHurts(t *testing.T) {
	t.Parallel()
	report := healthy().examine()
	require.Empty(t, report.Findings)
	require.Empty(t, report.Missed)

	p := healthy()
	p.alone()
	report = p.examine()
	require.Empty(t, report.Findings, "one broker is well with one replica")

	require.Empty(t, doctor.Examine(&doctor.Facts{Now: now}, doctor.Options{}).Findings, "nothing is known")
}
