package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
)

// environment is a getenv.
type environment map[string]string

func (e environment) get(name string) string { return e[name] }

func TestMechanismsOfTheEnvironment(t *testing.T) {
	t.Parallel()
	for given, want := range map[string]string{"": "PLAIN", "PLAIN": "PLAIN", "SCRAM-SHA-256": "SCRAM-SHA-256", "SCRAM-SHA-512": "SCRAM-SHA-512"} {
		m, err := parseSASL(environment{saslMechanism: given, saslUsername: "ada", saslPassword: "secret"}.get)
		require.NoError(t, err)
		require.Equal(t, want, m.Name())
	}
	m, err := parseSASL(environment{}.get)
	require.NoError(t, err)
	require.Nil(t, m)
}

func TestTLSOfTheEnvironment(t *testing.T) {
	t.Parallel()
	cert, key := writePair(t)
	cfg, err := parseTLS(environment{tlsOn: "true", tlsCA: cert, tlsCert: cert, tlsKey: key, tlsServerName: "kafka.example"}.get)
	require.NoError(t, err)
	require.Equal(t, "kafka.example", cfg.ServerName)
	require.Len(t, cfg.Certificates, 1)
	require.NotNil(t, cfg.RootCAs)
	require.Equal(t, uint16(tls.VersionTLS12), cfg.MinVersion)

	for _, off := range []environment{{}, {tlsOn: "false"}, {tlsOn: "false", tlsCA: cert}} {
		cfg, err = parseTLS(off.get)
		require.NoError(t, err)
		require.Nil(t, cfg)
	}
}

func TestSecurityReachesTheClient(t *testing.T) {
	t.Parallel()
	cfg, err := parse([]string{"-brokers", "localhost:1"}, environment{saslUsername: "ada", saslPassword: "secret", tlsOn: "1"}.get)
	require.NoError(t, err)
	cl, err := newClient(cfg, cfg.brokers)
	require.NoError(t, err)
	defer cl.Close()
	require.Len(t, cl.OptValue(kgo.SASL).([]sasl.Mechanism), 1)
	require.NotNil(t, cl.OptValue(kgo.DialTLSConfig))
}

func TestFaultsOfTheEnvironmentComeAllAtOnce(t *testing.T) {
	t.Parallel()
	cert, key := writePair(t)
	missing := filepath.Join(t.TempDir(), "missing.pem")
	_, err := parse([]string{"-brokers", "localhost:9092", "-payments", "lots"}, environment{
		saslMechanism: "GSSAPI", saslUsername: "ada", tlsOn: "yes", tlsCA: missing, tlsCert: cert,
	}.get)
	for _, want := range []string{
		`-payments "lots": choose from `,
		`KAFKA_SASL_PASSWORD is missing for user "ada"`,
		`KAFKA_SASL_MECHANISM "GSSAPI": choose from PLAIN, SCRAM-SHA-256, SCRAM-SHA-512`,
		`KAFKA_TLS "yes": choose true or false`,
		`KAFKA_TLS_CA: open ` + missing,
		`KAFKA_TLS_KEY is missing: a client certificate (KAFKA_TLS_CERT) needs its key`,
	} {
		require.ErrorContains(t, err, want)
	}
	for want, env := range map[string]environment{
		"KAFKA_SASL_USERNAME is missing":       {saslPassword: "secret"},
		"KAFKA_TLS_CERT is missing":            {tlsOn: "true", tlsKey: key},
		"has no certificate in PEM form":       {tlsOn: "true", tlsCA: key},
		"KAFKA_TLS_CERT and KAFKA_TLS_KEY: ":   {tlsOn: "true", tlsCert: key, tlsKey: cert},
		"KAFKA_TLS is missing: KAFKA_TLS_CA, ": {tlsServerName: "kafka.example"},
	} {
		_, err = parse([]string{"-brokers", "localhost:9092"}, env.get)
		require.ErrorContains(t, err, want)
	}
}

func TestCredentialsWithoutBrokersAreSaidToBeUnused(t *testing.T) {
	t.Parallel()
	cfg, err := parse([]string{"-http", "127.0.0.1:0", "-data", "", "-limits", "off"}, environment{saslUsername: "ada", tlsCA: "missing.pem"}.get)
	require.NoError(t, err)
	require.Equal(t, []string{saslUsername, tlsCA}, cfg.unused)
	p := startConfig(t, cfg)
	p.ready()
	require.Len(t, p.logs.lines("level=WARN", "set without effect", "KAFKA_SASL_USERNAME KAFKA_TLS_CA"), 1)
}

// writePair writes a certificate and its key.
func writePair(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	require.NoError(t, err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	require.NoError(t, err)
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	require.NoError(t, os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	require.NoError(t, os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), 0o600))
	return cert, key
}
