package main_test

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/wherry-go/wherry/kafkatest"
)

const secret = "s3cret-hunter2"

// ca writes the certificate that a node shows into a file.
func ca(t *testing.T, k *kafkatest.Apache) string {
	t.Helper()
	conn, err := (&tls.Dialer{Config: k.TLS()}).DialContext(t.Context(), "tcp", k.Brokers()[0])
	require.NoError(t, err)
	defer conn.Close()
	file := filepath.Join(t.TempDir(), "ca.pem")
	der := conn.(*tls.Conn).ConnectionState().PeerCertificates[0].Raw
	require.NoError(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	return file
}

func TestConnection_WithTLSAndALogin(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewApache(t, kafkatest.ApacheConfig{Topics: []string{"orders:1", "dead:1"}, Users: map[string]string{"ada": secret}, TLS: true})
	l := letters{k.Cluster, k.Client(t)}
	l.bury(t, 1)
	trusted := ca(t, k)
	passwordFile := filepath.Join(t.TempDir(), "password")
	require.NoError(t, os.WriteFile(passwordFile, []byte(secret+"\r\nmore\n"), 0o600))
	brokers := "WHERRY_BROKERS=" + strings.Join(k.Brokers(), ",")
	password := "WHERRY_SASL_PASSWORD=" + secret

	for name, row := range map[string]struct {
		env, args []string
		code      int
		want      string // on stderr
	}{
		"plain, by flags":          {[]string{password}, []string{"-tls-ca", trusted, "-sasl", "plain", "-sasl-user", "ada"}, 0, ""},
		"SCRAM, password file":     {nil, []string{"-tls-ca", trusted, "-sasl", "scram-sha-256", "-sasl-user", "ada", "-sasl-password-file", passwordFile}, 0, ""},
		"by the environment":       {[]string{password, "WHERRY_TLS_CA=" + trusted, "WHERRY_SASL=SCRAM-SHA-256", "WHERRY_SASL_USER=ada"}, nil, 0, ""},
		"any certificate, asked":   {[]string{password, "WHERRY_TLS_INSECURE=1"}, []string{"-sasl", "plain", "-sasl-user", "ada"}, 0, ""},
		"the server's other name":  {[]string{password}, []string{"-tls-ca", trusted, "-tls-server-name", "localhost", "-sasl", "plain", "-sasl-user", "ada"}, 0, ""},
		"the server's wrong name":  {[]string{password}, []string{"-tls-ca", trusted, "-tls-server-name", "elsewhere", "-sasl", "plain", "-sasl-user", "ada"}, 1, "-tls-server-name names what the certificate is for"},
		"an unknown certificate":   {[]string{password}, []string{"-tls", "-sasl", "plain", "-sasl-user", "ada"}, 1, "-tls-ca names the certificates to trust"},
		"a wrong password":         {[]string{password + "x"}, []string{"-tls-ca", trusted, "-sasl", "plain", "-sasl-user", "ada"}, 1, "the user or the password is wrong"},
		"a wrong password, SCRAM":  {[]string{password + "x"}, []string{"-tls-ca", trusted, "-sasl", "scram-sha-256", "-sasl-user", "ada"}, 1, "the user or the password is wrong"},
		"a mechanism it has not":   {[]string{password}, []string{"-tls-ca", trusted, "-sasl", "scram-sha-512", "-sasl-user", "ada"}, 1, "-sasl"},
		"without a login":          {nil, []string{"-tls-ca", trusted}, 1, "a login (-sasl)"},
		"without TLS":              {[]string{password}, []string{"-sasl", "plain", "-sasl-user", "ada", "-timeout", "2s"}, 1, "the listener speaks TLS: -tls"},
		"a file without PEM":       {[]string{password}, []string{"-tls-ca", passwordFile, "-sasl", "plain", "-sasl-user", "ada"}, 1, "there is no certificate in"},
		"a variable that is no 1":  {[]string{"WHERRY_TLS=maybe"}, nil, 2, "WHERRY_TLS is \"maybe\": set it to 1 or 0"},
		"a mechanism there is not": {[]string{password}, []string{"-sasl", "kerberos", "-sasl-user", "ada"}, 2, "give plain, scram-sha-256 or scram-sha-512"},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := callWith(t, append(row.env, brokers), append([]string{"dlq", "ls", "dead"}, row.args...)...)
			require.Equal(t, row.code, code, stderr)
			require.Contains(t, stderr, row.want)
			require.NotContains(t, stdout+stderr, secret)
			if code == 0 {
				require.Contains(t, stdout, "orders/0/0")
			}
		})
	}
	// All of it is the same for what the library opens besides.
	code, _, stderr := callWith(t, []string{brokers, password, "WHERRY_TLS_CA=" + trusted, "WHERRY_SASL=plain", "WHERRY_SASL_USER=ada"}, "dlq", "replay", "dead", "-yes")
	require.Zero(t, code, stderr)
	require.EqualValues(t, 1, l.count(t, "orders"))
}

func TestConnection_SCRAM512(t *testing.T) {
	t.Parallel()
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "dead"), kfake.EnableSASL(), kfake.Superuser("SCRAM-SHA-512", "ada", secret))
	require.NoError(t, err)
	t.Cleanup(fake.Close)
	code, _, stderr := callWith(t, []string{"WHERRY_SASL_PASSWORD=" + secret}, "dlq", "ls", "dead", "-brokers", fake.ListenAddrs()[0], "-sasl", "scram-sha-512", "-sasl-user", "ada")
	require.Zero(t, code, stderr)
}

func TestConnection_SaysWhatToTryWhenNothingAnswers(t *testing.T) {
	t.Parallel()
	silent, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer silent.Close()
	for name, row := range map[string]struct{ broker, want string }{
		"nobody listens": {"127.0.0.1:1", "check -brokers"},
		"it is silent":   {silent.Addr().String(), "nothing answered in 1s: check -brokers"},
	} {
		t.Run(name, func(t *testing.T) {
			code, _, stderr := call(t, "dlq", "ls", "dead", "-brokers", row.broker, "-timeout", "1s")
			require.Equal(t, 1, code)
			require.Contains(t, stderr, row.want)
			require.Equal(t, 1, strings.Count(stderr, "\n"), stderr)
		})
	}
}
