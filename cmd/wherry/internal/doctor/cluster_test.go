package doctor_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry/cmd/wherry/internal/doctor"
)

func TestExamine_Cluster(t *testing.T) {
	t.Parallel()
	check(t, map[string]row{
		"a broker is down": {
			func(p *patient) { p.Brokers[1].Down = true },
			[]string{"error broker-down"},
			[]string{"broker 2 is down", "kafka-cluster unregister --id 2 --bootstrap-server kafka:9092"},
		},
		"two are down": {
			func(p *patient) { p.Brokers[0].Down, p.Brokers[2].Down = true, true },
			[]string{"error broker-down"},
			[]string{"brokers 1 and 3 are down"},
		},
		"one does not answer": {
			func(p *patient) { p.Brokers[1].Down, p.Brokers[1].Silent = true, "there was no answer in time" },
			[]string{"error broker-silent"},
			[]string{"lists 1 broker from which", "broker 2: there was no answer in time", "advertised.listeners"},
		},
		"versions differ": {
			func(p *patient) { p.Brokers[2].Version = "v3.9" },
			[]string{"warning broker-versions"},
			[]string{"v3.9 on 3; v4.1 on 1 and 2"},
		},
		"the version of one is not known": {func(p *patient) { p.Brokers[2].Version = "" }, nil, nil},
		"the version of one that is down": {
			func(p *patient) { p.Brokers[2].Version, p.Brokers[2].Down = "v3.9", true },
			[]string{"error broker-down"},
			nil,
		},
		"no leader": {
			func(p *patient) { p.topic("orders").Partitions[1].Leader = -1 },
			[]string{"error no-leader"},
			[]string{"1 partition without a leader", "orders/1"},
		},
		"a replica is behind": {
			func(p *patient) {
				p.topic("orders").Partitions[0].ISR = []int32{1, 2}
				p.topic("orders").Partitions[2].ISR = []int32{1, 2}
			},
			[]string{"warning under-replicated"},
			[]string{"2 partitions with replicas that are not in sync", "orders/0, 2", "--under-replicated-partitions"},
		},
		"all of them": {
			func(p *patient) {
				for i := range 3 {
					p.topic("orders").Partitions[i].ISR = []int32{1, 2}
				}
			},
			[]string{"warning under-replicated"},
			[]string{"orders/0-2"},
		},
		"fewer in sync than must be": {
			func(p *patient) { p.topic("orders").Partitions[0].ISR = []int32{1} },
			[]string{"error below-min-isr"},
			[]string{"NOT_ENOUGH_REPLICAS"},
		},
		"the same in a topic of the brokers": {
			func(p *patient) { p.topic("__transaction_state").Partitions[0].ISR = []int32{1} },
			[]string{"error below-min-isr"},
			[]string{"__transaction_state/0"},
		},
		"one in sync is enough where one must be": {
			func(p *patient) {
				p.alone()
				p.replicas("orders", 1, 2)
				p.topic("orders").Partitions[0].ISR = []int32{1}
			},
			[]string{"warning under-replicated"},
			nil,
		},
	})
}

func TestExamine_Features(t *testing.T) {
	t.Parallel()
	version := func(finalized, supported int16) func(*patient) {
		return func(p *patient) {
			p.Features["transaction.version"] = doctor.Span{Finalized: finalized, Supported: supported}
		}
	}
	check(t, map[string]row{
		"transaction.version 2 could be finalized": {
			version(1, 2),
			[]string{"warning transaction-version"},
			[]string{"transaction.version is 1, the brokers can do 2", "kafka-features --bootstrap-server kafka:9092 upgrade --feature transaction.version=2"},
		},
		"it cannot":                {version(0, 1), []string{"note transaction-version"}, []string{"Upgrade to Kafka 4.0"}},
		"it is":                    {version(2, 3), nil, nil},
		"it is beyond":             {version(3, 3), nil, nil},
		"the brokers have no such": {func(p *patient) { p.Features = map[string]doctor.Span{} }, []string{"note transaction-version"}, nil},
		"features are not known":   {func(p *patient) { p.Features = nil }, nil, nil},
	})
}

func TestExamine_Clocks(t *testing.T) {
	t.Parallel()
	ahead := func(d, give time.Duration) func(*patient) {
		return func(p *patient) { p.Clocks = []doctor.Clock{{Of: "broker 2", Ahead: d, Give: give}} }
	}
	check(t, map[string]row{
		"a second":               {ahead(time.Second, 0), nil, nil},
		"more than a second":     {ahead(time.Second+time.Millisecond, 0), []string{"warning clock-skew"}, []string{"this machine's clock is 1s behind that of broker 2"}},
		"behind":                 {ahead(-3*time.Second, 0), []string{"warning clock-skew"}, []string{"this machine's clock is 3s ahead of that of broker 2"}},
		"within what is certain": {ahead(1500*time.Millisecond, 500*time.Millisecond), nil, nil},
		"beyond it":              {ahead(1501*time.Millisecond, 500*time.Millisecond), []string{"warning clock-skew"}, []string{"(±500ms)"}},
		"not known":              {func(p *patient) { p.Clocks = nil }, nil, nil},
	})
}

func TestExamine_BrokerSettings(t *testing.T) {
	t.Parallel()
	set := func(name, value string) func(*patient) { return func(p *patient) { p.set(name, value) } }
	const (
		backoff, metadata, expiration = "add.partitions.to.txn.retry.backoff.ms", "offset.metadata.max.bytes", "transactional.id.expiration.ms"
		longest, shortest             = "group.max.session.timeout.ms", "group.min.session.timeout.ms"
		timeout, largest              = "transaction.max.timeout.ms", "message.max.bytes"
		create, unclean               = "auto.create.topics.enable", "unclean.leader.election.enable"
	)
	check(t, map[string]row{
		"retry backoff 5":            {set(backoff, "5"), nil, nil},
		"retry backoff 6":            {set(backoff, "6"), []string{"warning txn-retry-backoff"}, []string{"is 6 on all 3 brokers", "--entity-type brokers --entity-default --add-config " + backoff + "=1"}},
		"commit metadata 4096":       {set(metadata, "4096"), nil, nil},
		"commit metadata 4095":       {set(metadata, "4095"), []string{"note offset-metadata"}, nil},
		"commit metadata 3000":       {set(metadata, "3000"), []string{"note offset-metadata"}, nil},
		"commit metadata 2999":       {set(metadata, "2999"), []string{"warning offset-metadata"}, []string{"up to 3,000 characters"}},
		"session at most 45 s":       {set(longest, "45000"), nil, nil},
		"session at most 44.999 s":   {set(longest, "44999"), []string{"error session-timeout-max"}, []string{"INVALID_SESSION_TIMEOUT"}},
		"session at least 45 s":      {set(shortest, "45000"), nil, nil},
		"session at least 45.001 s":  {set(shortest, "45001"), []string{"error session-timeout-min"}, nil},
		"transactions of 10 s":       {set(timeout, "10000"), nil, nil},
		"transactions of 9.999 s":    {set(timeout, "9999"), []string{"error txn-timeout-max"}, []string{"INVALID_TRANSACTION_TIMEOUT"}},
		"ids expire after 1 h":       {set(expiration, "3600000"), nil, nil},
		"ids expire before 1 h":      {set(expiration, "3599999"), []string{"warning txn-id-expiration"}, nil},
		"topics appear":              {set(create, "true"), []string{"note auto-create-topics"}, []string{"typo"}},
		"unclean leaders":            {set(unclean, "TRUE"), []string{"warning unclean-election"}, nil},
		"records of 1,000,012 bytes": {set(largest, "1000012"), nil, nil},
		"records of 1,000,011 bytes": {set(largest, "1000011"), []string{"warning message-max-bytes"}, []string{"MESSAGE_TOO_LARGE"}},
		"one broker alone": {
			func(p *patient) { p.Brokers[1].Settings[backoff] = doctor.Setting{Value: "20"} },
			[]string{"warning txn-retry-backoff"},
			[]string{backoff + " is 20 on broker 2"},
		},
		"two of three, and in the file alone": {
			func(p *patient) {
				for i := range 2 {
					p.Brokers[i].Settings[backoff] = doctor.Setting{Value: "20", Fixed: true}
				}
			},
			[]string{"warning txn-retry-backoff"},
			[]string{"is 20 on brokers 1 and 2", "Set " + backoff + "=1 in the server.properties of each broker", "backoff.max.ms at 100"},
		},
		"one that is down does not count": {
			func(p *patient) {
				p.Brokers[1].Down = true
				p.Brokers[1].Settings[backoff] = doctor.Setting{Value: "20"}
			},
			[]string{"error broker-down"},
			nil,
		},
		"no number": {set(backoff, "soon"), nil, nil},
	})
}

func TestExamine_SettingsThatAreNotToldAreNotChecked(t *testing.T) {
	t.Parallel()
	p := healthy()
	for _, name := range []string{"add.partitions.to.txn.retry.backoff.ms", "offset.metadata.max.bytes"} {
		p.set(name, "")
	}
	delete(p.topic("orders").Settings, "unclean.leader.election.enable")
	report := p.examine()
	require.Empty(t, report.Findings)
	require.Equal(t, []doctor.Missed{
		{What: "broker settings add.partitions.to.txn.retry.backoff.ms, offset.metadata.max.bytes", Why: "the brokers do not know it: an older Kafka, or not Apache Kafka"},
		{What: "topic settings unclean.leader.election.enable", Why: "the brokers do not know it: an older Kafka, or not Apache Kafka"},
	}, report.Missed)

	p = healthy()
	p.without("__consumer_offsets")
	p.without("__transaction_state")
	for _, name := range []string{"offsets.topic.replication.factor", "transaction.state.log.replication.factor"} {
		p.set(name, "")
	}
	report = p.examine()
	require.Empty(t, report.Findings)
	require.Len(t, report.Missed, 1)
	require.Equal(t, "broker settings offsets.topic.replication.factor, transaction.state.log.replication.factor", report.Missed[0].What)

	p = healthy()
	p.Missed = []doctor.Missed{{What: "the settings of the brokers", Why: "needs DESCRIBE_CONFIGS on CLUSTER"}}
	for i := range p.Brokers {
		p.Brokers[i].Settings = nil
	}
	for i := range p.Topics {
		p.Topics[i].Settings = nil
	}
	report = p.examine()
	require.Empty(t, report.Findings)
	require.Equal(t, p.Missed, report.Missed, "what was missed is told once")
}

func TestExamine_InternalTopics(t *testing.T) {
	t.Parallel()
	const offsets, state = "__consumer_offsets", "__transaction_state"
	check(t, map[string]row{
		"offsets: one replica": {
			func(p *patient) { p.replicas(offsets, 2); p.setTopic(offsets, "min.insync.replicas", "1") },
			[]string{"warning offsets-topic"},
			[]string{"__consumer_offsets has one replica, on a cluster of 3 brokers", "kafka-reassign-partitions"},
		},
		"offsets: all must be in sync": {
			func(p *patient) { p.setTopic(offsets, "min.insync.replicas", "3") },
			[]string{"warning offsets-topic"},
			[]string{"needs all of them in sync", "--entity-name __consumer_offsets --add-config min.insync.replicas=2"},
		},
		"offsets: more in sync than there are": {
			func(p *patient) { p.setTopic(offsets, "min.insync.replicas", "4") },
			[]string{"error offsets-topic"},
			[]string{"groups neither form nor commit"},
		},
		"offsets: one in sync is Kafka's default": {func(p *patient) { p.setTopic(offsets, "min.insync.replicas", "1") }, nil, nil},
		"offsets: settings are not known":         {func(p *patient) { p.topic(offsets).Settings = nil }, nil, nil},
		"transactions: one in sync of three": {
			func(p *patient) { p.setTopic(state, "min.insync.replicas", "1") },
			[]string{"warning transaction-topic"},
			[]string{"needs one of them in sync"},
		},
		"transactions: more in sync than there are": {
			func(p *patient) { p.replicas(state, 1); p.setTopic(state, "min.insync.replicas", "2") },
			[]string{"error transaction-topic"},
			[]string{"no transaction begins or ends"},
		},
		"to be made: more replicas than brokers": {
			func(p *patient) { p.without(offsets); p.without(state); p.Brokers = p.Brokers[:2] },
			[]string{"error offsets-topic", "error transaction-topic"},
			[]string{"offsets.topic.replication.factor is 3, on a cluster of 2 brokers", "does not exist yet and cannot be made"},
		},
		"to be made: one replica": {
			func(p *patient) { p.without(offsets); p.set("offsets.topic.replication.factor", "1") },
			[]string{"warning offsets-topic"},
			[]string{"__consumer_offsets will have one replica", "Set offsets.topic.replication.factor=3"},
		},
		"to be made: all in sync": {
			func(p *patient) { p.without(state); p.set("transaction.state.log.min.isr", "3") },
			[]string{"warning transaction-topic"},
			[]string{"transaction.state.log.replication.factor=3 and transaction.state.log.min.isr=2"},
		},
		"made: the setting does not matter": {func(p *patient) { p.set("offsets.topic.replication.factor", "1") }, nil, nil},
		"to be made, and well":              {func(p *patient) { p.without(offsets); p.without(state) }, nil, nil},
		"it may be there and not be seen": {
			func(p *patient) {
				p.without(offsets)
				p.set("offsets.topic.replication.factor", "1")
				p.Veiled = true
			}, nil, nil,
		},
		"one broker, one replica": {
			func(p *patient) {
				p.alone()
				p.without(offsets)
				p.without(state)
				p.set("offsets.topic.replication.factor", "1")
				p.set("transaction.state.log.replication.factor", "1")
				p.set("transaction.state.log.min.isr", "1")
			}, nil, nil,
		},
	})
}

func TestExamine_TheLoginIsNamedAsEachToolNamesIt(t *testing.T) {
	t.Parallel()
	p := healthy()
	p.Bootstrap = "kafka:9093 --command-config client.properties"
	p.Brokers[1].Down = true
	p.topic("orders").Partitions[0].Leader = -1
	p.setTopic("orders", "min.insync.replicas", "3")
	var commands []string
	for _, f := range p.examine().Findings {
		commands = append(commands, f.Commands...)
	}
	require.Contains(t, commands, "kafka-cluster unregister --id 2 --bootstrap-server kafka:9093 --config client.properties")
	require.Contains(t, commands, "kafka-leader-election --bootstrap-server kafka:9093 --admin.config client.properties --election-type unclean --all-topic-partitions")
	require.Contains(t, commands, "kafka-configs --bootstrap-server kafka:9093 --command-config client.properties --alter --entity-type topics --entity-name orders --add-config min.insync.replicas=2")
}
