package apache

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// fast is what suits tests, over Kafka's defaults, which the comments give.
// Session and quorum timeouts decide how soon the loss of a node is noticed: low
// enough for a test, high enough for a node that shares two cores with a dozen
// other programs. All of it can be overruled by Cluster.Config.
var fast = map[string]string{
	"auto.create.topics.enable":                    "false",
	"group.initial.rebalance.delay.ms":             "0",   // 3 s: a group waits for more members
	"group.min.session.timeout.ms":                 "100", // 6 s
	"add.partitions.to.txn.retry.backoff.ms":       "1",   // 20 ms: between a transaction and the next
	"group.coordinator.append.linger.ms":           "0",   // 5 ms
	"broker.session.timeout.ms":                    "4000",
	"broker.heartbeat.interval.ms":                 "500",
	"controller.quorum.election.timeout.ms":        "500",
	"controller.quorum.fetch.timeout.ms":           "1500",
	"num.partitions":                               "4",
	"offsets.topic.num.partitions":                 "3", // 50
	"transaction.state.log.num.partitions":         "3", // 50
	"share.coordinator.state.topic.num.partitions": "3", // 50
	"num.network.threads":                          "2",
	"num.io.threads":                               "4",
	"replica.fetch.backoff.ms":                     "100",      // 1 s: a restarted node catches up sooner
	"log.cleaner.dedupe.buffer.size":               "10485760", // 128 MB, of the heap
}

// properties returns the server.properties of one node. It has three listeners:
// CLIENT for clients, with or without TLS and logins; INNER for the other
// brokers and for us, always plain, so that neither needs a certificate or a
// user; and CONTROLLER for the quorum. The users' PLAIN passwords stand in here,
// their SCRAM secrets are stored in the cluster once it runs (addUsers).
func (c *Cluster) properties(n *node) []byte {
	replicas, inSync := len(c.nodes), (len(c.nodes)+1)/2
	p := maps.Clone(fast)
	for key, value := range map[string]any{
		"default.replication.factor":                       replicas,
		"offsets.topic.replication.factor":                 replicas,
		"transaction.state.log.replication.factor":         replicas,
		"share.coordinator.state.topic.replication.factor": replicas,
		"min.insync.replicas":                              inSync,
		"transaction.state.log.min.isr":                    inSync,
		"share.coordinator.state.topic.min.isr":            inSync,
		"node.id":                                          n.id,
		"process.roles":                                    "broker,controller",
		"log.dirs":                                         n.file("data"),
		"controller.listener.names":                        "CONTROLLER",
		"inter.broker.listener.name":                       "INNER",
		"listener.security.protocol.map":                   "CONTROLLER:PLAINTEXT,INNER:PLAINTEXT,CLIENT:" + c.protocol(),
	} {
		p[key] = fmt.Sprint(value)
	}
	var voters []string
	for _, v := range c.nodes {
		voters = append(voters, fmt.Sprintf("%d@%s", v.id, v.addr(v.controller)))
	}
	p["controller.quorum.voters"] = strings.Join(voters, ",")
	p["advertised.listeners"] = fmt.Sprintf("CLIENT://%s,INNER://%s", n.addr(n.client), n.addr(n.inner))
	p["listeners"] = fmt.Sprintf("%s,CONTROLLER://%s", p["advertised.listeners"], n.addr(n.controller))
	if c.TLS {
		p["ssl.keystore.type"], p["ssl.keystore.location"] = "PEM", c.keyFile()
	}
	if len(c.Users) > 0 {
		login := []string{"org.apache.kafka.common.security.plain.PlainLoginModule required"}
		for _, user := range slices.Sorted(maps.Keys(c.Users)) {
			login = append(login, fmt.Sprintf("user_%s=%q", user, c.Users[user]))
		}
		p["listener.name.client.sasl.enabled.mechanisms"] = "PLAIN,SCRAM-SHA-256"
		p["listener.name.client.plain.sasl.jaas.config"] = strings.Join(login, " ") + ";"
		p["listener.name.client.scram-sha-256.sasl.jaas.config"] = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
	}
	maps.Copy(p, c.Config)
	var b bytes.Buffer
	for _, key := range slices.Sorted(maps.Keys(p)) {
		fmt.Fprintf(&b, "%s=%s\n", key, p[key])
	}
	return b.Bytes()
}

// protocol returns the security protocol of the client listener.
func (c *Cluster) protocol() string {
	switch {
	case c.TLS && len(c.Users) > 0:
		return "SASL_SSL"
	case c.TLS:
		return "SSL"
	case len(c.Users) > 0:
		return "SASL_PLAINTEXT"
	}
	return "PLAINTEXT"
}
