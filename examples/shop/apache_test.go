package main

import (
	"crypto/tls"
	"encoding/pem"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry/kafkatest"
)

// These tests start a real Kafka each, one after the other, and are skipped
// where its jars are missing.

func TestOnARealKafkaAnOrderIsPaidAndOutlivesARestart(t *testing.T) {
	k := kafkatest.NewApache(t, kafkatest.ApacheConfig{})
	brokers := strings.Join(k.Brokers(), ",")
	p := start(t, "-brokers", brokers)
	p.ready()
	paid := p.paid(p.place().ID)
	user, _ := p.register()
	keyed := p.send(http.MethodPost, "/orders", orderOf(user.ID), keyHeader, `"k-1"`)
	require.Equal(t, http.StatusCreated, keyed.Status, "%v", keyed.Message)
	require.NoError(t, p.stop())

	p = start(t, "-brokers", brokers, "-services", "orders,auth,notifications")
	p.ready()
	require.Len(t, p.list(), 2)
	require.Equal(t, paid, p.list()[0])
	out := p.send(http.MethodPost, "/orders", orderOf(user.ID), keyHeader, `"k-1"`, "Authorization", "Bearer "+p.token())
	require.Equal(t, http.StatusCreated, out.Status, "%v", out.Message)
	require.Equal(t, string(keyed.Data), string(out.Data))
	require.Len(t, p.list(), 2)
	o := p.place()
	q := start(t, "-brokers", brokers, "-services", "billing")
	q.ready()
	p.paid(o.ID)
}

func TestOnARealKafkaTheRightCredentialsWorkAndWrongOnesAreAnErrorAtOnce(t *testing.T) {
	k := kafkatest.NewApache(t, kafkatest.ApacheConfig{Users: map[string]string{"ada": "right"}})
	brokers := strings.Join(k.Brokers(), ",")
	for _, mechanism := range []string{"PLAIN", "SCRAM-SHA-256"} {
		env := func(password string) []string {
			return []string{"KAFKA_SASL_MECHANISM=" + mechanism, "KAFKA_SASL_USERNAME=ada", "KAFKA_SASL_PASSWORD=" + password}
		}
		_, err := binary() // its build is not what takes long below
		require.NoError(t, err)
		begun := time.Now()
		c := launch(t, env("wrong"), "-http", "127.0.0.1:0", "-brokers", brokers)
		require.Equal(t, 1, c.code(t))
		require.NotEmpty(t, c.stderr.lines("shop: connecting to", "SASL_AUTHENTICATION_FAILED"))
		require.Less(t, time.Since(begun), 10*time.Second)

		c = launch(t, env("right"), "-http", "127.0.0.1:0", "-brokers", brokers)
		c.started(t)
		c.ready()
		c.paid(c.place().ID)
	}
}

func TestOnARealKafkaTLS(t *testing.T) {
	k := kafkatest.NewApache(t, kafkatest.ApacheConfig{TLS: true})
	brokers := k.Brokers()[0]
	conn, err := tls.Dial("tcp", brokers, k.TLS())
	require.NoError(t, err)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	cert := conn.ConnectionState().PeerCertificates[0] // signed by itself
	require.NoError(t, conn.Close())
	require.NoError(t, os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}), 0o600))

	c := launch(t, []string{"KAFKA_TLS=true", "KAFKA_TLS_CA=" + ca}, "-http", "127.0.0.1:0", "-brokers", brokers)
	c.started(t)
	c.ready()
	c.paid(c.place().ID)

	c = launch(t, []string{"KAFKA_TLS=true"}, "-http", "127.0.0.1:0", "-brokers", brokers)
	require.Equal(t, 1, c.code(t))
	require.NotEmpty(t, c.stderr.lines("shop: connecting to", "certificate"))

	c = launch(t, []string{"KAFKA_TLS=true", "KAFKA_TLS_CA=" + ca, "KAFKA_TLS_SERVER_NAME=other.example"}, "-http", "127.0.0.1:0", "-brokers", brokers)
	require.Equal(t, 1, c.code(t))
	require.NotEmpty(t, c.stderr.lines("shop: connecting to", "other.example"))
}
