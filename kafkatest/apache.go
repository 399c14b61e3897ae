package kafkatest

import (
	"context"
	"crypto/tls"
	"maps"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/plain"

	"github.com/wherry-go/wherry/internal/apache"
)

// ApacheConfig says what NewApache starts. The zero value is one node without
// logins.
type ApacheConfig struct {
	Nodes  int               // 1 or 3; 0 means 1. Of three, topics have three replicas, two of them in sync
	Topics []string          // made at the start, written as for NewCluster
	Config map[string]string // more of server.properties, for all nodes
	Users  map[string]string // passwords by user: clients must log in by SASL PLAIN or SCRAM-SHA-256; empty means no login
	TLS    bool              // whether clients must use TLS
}

// Apache is a real Apache Kafka for one test: a Cluster whose nodes can be
// killed, stopped, restarted, paused and resumed. Nodes are numbered from 1.
type Apache struct {
	*Cluster
	nodes *apache.Cluster
}

// NewApache starts an Apache Kafka for t's test alone, from Kafka's jars, and
// stops it when the test ends. It takes about one second for one node and three
// for three on an idle machine, and a few seconds more in the first run.
//
// Where Java or the jars are missing the test is skipped, with the command that
// brings them as the reason; with KAFKATEST_REQUIRE=1 in the environment it
// fails. KAFKATEST_JARS names the folder of the jars, if it is not the default.
//
// Opts logs in as the first of Users, by name, and trusts the node's
// certificate. A test that wants to log in otherwise begins with Brokers and TLS.
func NewApache(t testing.TB, cfg ApacheConfig) *Apache {
	t.Helper()
	jars, err := apache.Find()
	if err != nil {
		if os.Getenv("KAFKATEST_REQUIRE") == "1" {
			t.Fatalf("kafkatest: KAFKATEST_REQUIRE=1, and there is no Apache Kafka: %v", err)
		}
		t.Skipf("kafkatest: no Apache Kafka: %v", err)
	}
	nodes := &apache.Cluster{Nodes: cfg.Nodes, Jars: jars, Config: cfg.Config, Users: cfg.Users, TLS: cfg.TLS}
	Run(t, nodes)
	a := &Apache{Cluster: &Cluster{Timeout: realTimeout}, nodes: nodes}
	var opts []kgo.Opt
	if cfg.TLS {
		a.network.base = (&tls.Dialer{NetDialer: plainDialer, Config: a.TLS()}).DialContext
	}
	if len(cfg.Users) > 0 {
		user := slices.Min(slices.Collect(maps.Keys(cfg.Users)))
		opts = append(opts, kgo.SASL(plain.Auth{User: user, Pass: cfg.Users[user]}.AsMechanism()))
	}
	a.connect(t, nodes.Brokers(), opts...)
	a.Create(t, parseTopics(t, cfg.Topics)...)
	return a
}

// TLS returns a configuration that trusts the nodes' certificate and no other;
// nil without ApacheConfig.TLS.
func (a *Apache) TLS() *tls.Config { return a.nodes.ClientTLS() }

// Kill ends a node as a crash does (SIGKILL) and returns when it has ended. Its
// data stay. The cluster gives it up after 4 s, and until then refuses a node of
// the same number, so that a Restart right after Kill takes about 5 s.
func (a *Apache) Kill(t testing.TB, node int) {
	t.Helper()
	must(t, a.nodes.Kill(node))
}

// Stop ends a node cleanly: it hands its partitions over first.
func (a *Apache) Stop(t testing.TB, node int) {
	t.Helper()
	must(t, a.nodes.Stop(node))
}

// Restart starts a node after Kill or Stop, with the same address and data, and
// returns when it answers and is in sync: another may be lost then. Where two of
// three are down neither answers alone; restart them in two goroutines.
func (a *Apache) Restart(t testing.TB, node int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	must(t, a.nodes.Restart(ctx, node))
}

// Pause freezes a node (SIGSTOP): its connections stay open and nothing answers.
// The others give it up after 4 s, a client that waits for it only when the
// request's own time is over (kgo: at least 20 s for a record).
func (a *Apache) Pause(t testing.TB, node int) {
	t.Helper()
	must(t, a.nodes.Pause(node))
}

// Resume lets a paused node go on.
func (a *Apache) Resume(t testing.TB, node int) {
	t.Helper()
	must(t, a.nodes.Resume(node))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("kafkatest: %v", err)
	}
}
