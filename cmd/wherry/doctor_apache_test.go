package main_test

import (
	bytesof "encoding/binary"
	"hash/crc32"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/wherry-go/wherry/kafkatest"
)

func TestDoctor_BrokerSettingsOfAnApacheKafka(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewApache(t, kafkatest.ApacheConfig{Config: map[string]string{
		"add.partitions.to.txn.retry.backoff.ms":   "20",
		"offset.metadata.max.bytes":                "1000",
		"group.max.session.timeout.ms":             "30000",
		"transaction.max.timeout.ms":               "5000",
		"transactional.id.expiration.ms":           "60000",
		"auto.create.topics.enable":                "true",
		"unclean.leader.election.enable":           "true",
		"message.max.bytes":                        "500000",
		"offsets.topic.replication.factor":         "3",
		"transaction.state.log.replication.factor": "3",
	}})
	require.True(t, doctor(t, k.Brokers(), "oders").has("error topic-missing"), "asking for a topic does not make it")
	d := doctor(t, k.Brokers(), "oders", "-ignore", "topic-missing")
	require.Empty(t, d.Topics)
	require.Equal(t, 1, d.code)
	for _, want := range [][]string{
		{"warning txn-retry-backoff", "is 20 on broker 1"},
		{"warning offset-metadata", "is 1000"},
		{"error session-timeout-max", "is 30000"},
		{"error txn-timeout-max", "is 5000"},
		{"warning txn-id-expiration", "is 60000"},
		{"note auto-create-topics"},
		{"warning unclean-election", "--entity-default --add-config unclean.leader.election.enable=false"},
		{"warning message-max-bytes", "--entity-default --add-config message.max.bytes=1048588"},
		{"error offsets-topic", "offsets.topic.replication.factor is 3, on a cluster of 1 broker"},
		{"error transaction-topic", "transaction.state.log.replication.factor is 3"},
	} {
		require.True(t, d.has(want[0], want[1:]...), "%v in %v", want, d.all())
	}
	require.Len(t, d.Findings, 10, d.all())
	require.Empty(t, d.NotChecked)
	for _, f := range d.Findings {
		if f.Check == "txn-retry-backoff" {
			require.Contains(t, f.Mend, "server.properties", "it is not one that can be set while they run")
		}
	}

	// What is said to mend it does.
	value := "false"
	_, err := kadm.NewClient(k.Client(t)).AlterBrokerConfigs(t.Context(), []kadm.AlterConfig{{Name: "unclean.leader.election.enable", Value: &value}})
	require.NoError(t, err)
	await(t, func() (diagnosis, bool) {
		d := doctor(t, k.Brokers())
		return d, !d.has("warning unclean-election")
	}, func(d diagnosis) { require.Len(t, d.Findings, 9) })
}

func TestDoctor_ThreeNodesOfWhichOneIsKilled(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewApache(t, kafkatest.ApacheConfig{Nodes: 3, Topics: []string{"orders:3"}})
	cl := k.Client(t)
	for partition := range int32(3) {
		w := k.Client(t, kgo.RecordPartitioner(kgo.ManualPartitioner()))
		require.NoError(t, w.ProduceSync(t.Context(), &kgo.Record{Topic: "orders", Partition: partition}).FirstErr())
	}
	commit(t, cl, "billing", "orders", 1, "")
	d := doctor(t, k.Brokers(), "-group", "billing", "-ignore", "group-empty")
	require.Zero(t, d.code, d.all())
	require.Empty(t, d.Findings, d.all())

	adm := kadm.NewClient(cl)
	one, three := "1", "3"
	for _, topic := range []struct {
		name     string
		replicas int16
		config   map[string]*string
	}{
		{"alone", 1, nil},
		{"frail", 3, map[string]*string{"min.insync.replicas": &one}},
		{"strict", 3, map[string]*string{"min.insync.replicas": &three}},
	} {
		_, err := adm.CreateTopic(t.Context(), 1, topic.replicas, topic.config, topic.name)
		require.NoError(t, err, topic.name)
	}
	await(t, func() (diagnosis, bool) {
		d := doctor(t, k.Brokers(), "alone", "frail", "strict")
		return d, len(d.Topics) == 3 && len(d.NotChecked) == 0
	}, func(d diagnosis) {
		require.True(t, d.has("warning one-replica", "topic alone has one replica, on a cluster of 3 brokers"), d.all())
		require.True(t, d.has("error min-isr", "topic alone has min.insync.replicas 2 and 1 replica"), d.all())
		require.True(t, d.has("warning min-isr", "topic frail has min.insync.replicas 1 and 3 replicas"), d.all())
		require.True(t, d.has("warning min-isr", "topic strict has min.insync.replicas 3 and 3 replicas"), d.all())
		require.Len(t, d.Findings, 4, d.all())
	})

	k.Kill(t, 2)
	await(t, func() (diagnosis, bool) {
		d := doctor(t, k.Brokers(), "orders", "strict", "-timeout", "3s")
		return d, d.has("warning under-replicated", "orders/0-2") && d.has("error below-min-isr", "strict/0")
	}, func(d diagnosis) {
		require.Equal(t, 1, d.code)
		require.True(t, d.has("error broker-down", "broker 2 is down"), d.all())
		require.True(t, d.Brokers[1].Down)
		require.True(t, d.has("warning under-replicated", "__consumer_offsets"), d.all())
	})
	k.Restart(t, 2)
	well := func() {
		t.Helper()
		await(t, func() (diagnosis, bool) {
			d := doctor(t, k.Brokers(), "-group", "billing", "-ignore", "group-empty,one-replica,min-isr")
			return d, d.code == 0
		}, func(d diagnosis) { require.Empty(t, d.Findings) })
	}

	// A busy machine may take so long to ask that the others have given the paused
	// one up by then: it is down, no longer silent. Or so long to answer that all
	// seem silent.
	await(t, func() (diagnosis, bool) {
		well()
		k.Pause(t, 3)
		d := doctor(t, k.Brokers(), "-timeout", "5s")
		k.Resume(t, 3)
		return d, d.has("error broker-silent", "lists 1 broker", "broker 3: there was no answer in time")
	}, func(d diagnosis) { require.Equal(t, 1, d.code) })
	well()
}

func TestDoctor_SaysWhatItMayNotLookAt(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewApache(t, kafkatest.ApacheConfig{
		Topics: []string{"orders:1"}, Users: map[string]string{"ada": "a", "bob": secret},
		Config: map[string]string{
			"authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
			"super.users":           "User:ada;User:ANONYMOUS",
		},
	})
	commit(t, k.Client(t), "billing", "orders", 0, "")
	bob := []string{"WHERRY_SASL=plain", "WHERRY_SASL_USER=bob", "WHERRY_SASL_PASSWORD=" + secret}

	d, stderr := doctorWith(t, k.Brokers(), bob, "orders", "-group", "billing")
	require.Equal(t, 2, d.code, "a group and a topic were named")
	require.Equal(t, "wherry: could not look at group billing, topic orders\n", stderr)
	require.Empty(t, d.Findings)
	require.ElementsMatch(t, []string{
		"clocks: needs DESCRIBE on CLUSTER, or -write-probe and CREATE, WRITE and DELETE on TOPIC wherry-doctor-*",
		"the settings of the brokers: needs DESCRIBE_CONFIGS on CLUSTER",
		"group billing: needs DESCRIBE on GROUP billing",
		"open transactions, but for those that this user may see: needs DESCRIBE on TRANSACTIONAL_ID *",
		"leaders and replicas of topics that this user may not see: needs DESCRIBE on TOPIC *",
		"topic orders: needs DESCRIBE on TOPIC orders",
	}, d.missed())
	d, stderr = doctorWith(t, k.Brokers(), bob)
	require.Zero(t, d.code, "nothing was named")
	require.Empty(t, stderr)
	require.NotEmpty(t, d.NotChecked)

	acls := kadm.NewACLs().Allow("User:bob").AllowHosts("*").Topics("orders").Groups("billing").Operations(kadm.OpDescribe).ResourcePatternType(kadm.ACLPatternLiteral)
	_, err := kadm.NewClient(k.Client(t)).CreateACLs(t.Context(), acls)
	require.NoError(t, err)
	await(t, func() (diagnosis, bool) {
		d, _ := doctorWith(t, k.Brokers(), bob, "orders", "-group", "billing", "-ignore", "group-empty")
		return d, d.code == 0
	}, func(d diagnosis) {
		require.Contains(t, d.missed(), "the settings of topic orders: needs DESCRIBE_CONFIGS on TOPIC orders")
		require.Contains(t, d.missed(), "the producers of topic orders: needs READ on TOPIC orders")
		require.Empty(t, d.Findings)
	})
	code, stdout, _ := callWith(t, append(bob, "WHERRY_BROKERS="+k.Brokers()[0]), "doctor", "-write-probe", "orders")
	require.Zero(t, code)
	require.Contains(t, stdout, "NOT CHECKED  the brokers' clocks, by -write-probe: needs CREATE, WRITE and DELETE on TOPIC")
	require.NotContains(t, stdout, secret)

	d, _ = doctorWith(t, k.Brokers(), []string{"WHERRY_SASL=plain", "WHERRY_SASL_USER=ada", "WHERRY_SASL_PASSWORD=a"}, "oders")
	require.Empty(t, d.NotChecked, "the other user may look at everything")
	require.True(t, d.has("error topic-missing", "--bootstrap-server "+k.Brokers()[0]+" --command-config client.properties"), d.all())
}

// TestDoctor_ATransactionThatHangs makes one as bugs do (KAFKA-9144): a
// transactional batch that no coordinator knows of.
func TestDoctor_ATransactionThatHangs(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewApache(t, kafkatest.ApacheConfig{Topics: []string{"orders:1"}, Config: map[string]string{"transaction.partition.verification.enable": "false"}})
	old := k.Client(t, kgo.MaxVersions(kversion.V3_7_0())) // since 4.0 a batch tells the coordinator by itself
	id := "lost-1"
	init := kmsg.NewPtrInitProducerIDRequest()
	init.TransactionalID, init.TransactionTimeoutMillis = &id, 60_000
	producer, err := init.RequestWith(t.Context(), old)
	require.NoError(t, err)
	require.NoError(t, kerr.ErrorForCode(producer.ErrorCode))
	req := kmsg.NewPtrProduceRequest()
	req.TransactionID, req.Acks, req.TimeoutMillis = &id, -1, 5_000
	topic, partition := kmsg.NewProduceRequestTopic(), kmsg.NewProduceRequestTopicPartition()
	partition.Records = transactional(producer.ProducerID, producer.ProducerEpoch)
	topic.Topic, topic.Partitions = "orders", append(topic.Partitions, partition)
	req.Topics = append(req.Topics, topic)
	resp, err := req.RequestWith(t.Context(), old)
	require.NoError(t, err)
	require.NoError(t, kerr.ErrorForCode(resp.Topics[0].Partitions[0].ErrorCode))

	d := doctor(t, k.Brokers(), "orders", "-transaction-age", "1ms")
	require.Equal(t, 1, d.code)
	require.True(t, d.has("warning transaction-hangs", "has a transaction open in orders/0 from offset 0", "abort --topic orders --partition 0 --start-offset 0"), d.all())

	// As kafka-transactions abort does.
	_, err = kadm.NewClient(k.Client(t)).WriteTxnMarkers(t.Context(), kadm.TxnMarkers{
		ProducerID: producer.ProducerID, ProducerEpoch: producer.ProducerEpoch, Topics: kadm.TopicsSet{"orders": {0: {}}},
	})
	require.NoError(t, err)
	await(t, func() (diagnosis, bool) {
		d := doctor(t, k.Brokers(), "orders", "-transaction-age", "1ms")
		return d, !d.has("warning transaction-hangs")
	}, func(d diagnosis) { require.Zero(t, d.code, d.all()) })
}

// transactional is a batch of one record in a transaction.
func transactional(producer int64, epoch int16) []byte {
	record := kmsg.Record{Value: []byte("v")}
	record.Length = int32(len(record.AppendTo(nil)) - 1)
	now := time.Now().UnixMilli()
	batch := kmsg.RecordBatch{
		PartitionLeaderEpoch: -1, Magic: 2, Attributes: 1 << 4, FirstTimestamp: now, MaxTimestamp: now,
		ProducerID: producer, ProducerEpoch: epoch, NumRecords: 1, Records: record.AppendTo(nil),
	}
	raw := batch.AppendTo(nil)
	bytesof.BigEndian.PutUint32(raw[8:], uint32(len(raw)-12))
	bytesof.BigEndian.PutUint32(raw[17:], crc32.Checksum(raw[21:], crc32.MakeTable(crc32.Castagnoli)))
	return raw
}
