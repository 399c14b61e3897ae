package client_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/plain"

	"github.com/wherry-go/wherry/internal/client"
)

// journal is a log that tests may read while it is written.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

func (j *journal) logger() *slog.Logger { return slog.New(slog.NewTextHandler(j, nil)) }

type dial func(ctx context.Context, network, host string) (net.Conn, error)

// bubble runs f in virtual time with a client that dials with d.
func bubble(t *testing.T, d dial, f func(t *testing.T, cl *kgo.Client, log *journal), opts ...kgo.Opt) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		cl, err := kgo.NewClient(append(opts, kgo.SeedBrokers("broker:9092"), kgo.Dialer(d), kgo.DisableClientMetrics())...)
		require.NoError(t, err)
		defer cl.Close()
		f(t, cl, &journal{})
	})
}

// hangUp is a broker that takes a request in and closes the connection, as one
// does that refuses credentials or expects TLS.
func hangUp(context.Context, string, string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	go func() {
		_, _ = theirs.Read(make([]byte, 64<<10))
		_ = theirs.Close()
	}()
	return ours, nil
}

var errRefused = errors.New("connection refused")

func refuse(context.Context, string, string) (net.Conn, error) { return nil, errRefused }

func TestConnectWaitsForABrokerThatComesLate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var network kfake.VirtualNetwork
		up := make(chan struct{})
		late := func(ctx context.Context, tcp, host string) (net.Conn, error) {
			select {
			case <-up:
				return network.DialContext(ctx, tcp, host)
			default:
				return nil, errRefused
			}
		}
		cl, err := kgo.NewClient(kgo.SeedBrokers("127.0.0.1:9092"), kgo.Dialer(late), kgo.DisableClientMetrics())
		require.NoError(t, err)
		defer cl.Close()
		c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(9092), kfake.ListenFn(network.Listen))
		require.NoError(t, err)
		defer c.Close()
		time.AfterFunc(time.Hour, func() { close(up) })

		log, begin := &journal{}, time.Now()
		require.NoError(t, client.Connect(t.Context(), cl, log.logger()))
		require.GreaterOrEqual(t, time.Since(begin), time.Hour)
		require.Less(t, time.Since(begin), time.Hour+10*time.Second, "it asks at least every 5s, and half as much by chance")
		require.Contains(t, log.String(), "no broker answers, trying again")
		require.Contains(t, log.String(), errRefused.Error())
		require.Contains(t, log.String(), "a broker answers")
	})
}

func TestConnectLogsNothingWhereABrokerAnswersAtOnce(t *testing.T) {
	t.Parallel()
	c := broker(t)
	log := &journal{}
	require.NoError(t, client.Connect(context.Background(), through(t, c, kgo.ManualPartitioner()), log.logger()))
	require.Empty(t, log.String())
}

func TestConnectEndsWithItsContextAndTellsWhatItWaitedFor(t *testing.T) {
	t.Parallel()
	stop := errors.New("the process stops")
	bubble(t, refuse, func(t *testing.T, cl *kgo.Client, log *journal) {
		ctx, cancel := context.WithCancelCause(context.Background())
		time.AfterFunc(7*time.Second, func() { cancel(stop) })
		begin := time.Now()
		err := client.Connect(ctx, cl, log.logger())
		require.ErrorIs(t, err, stop)
		require.ErrorIs(t, err, errRefused)
		require.Equal(t, 7*time.Second, time.Since(begin))
	})
}

func TestConnectEndsWithItsContextWhileABrokerIsSilent(t *testing.T) {
	t.Parallel()
	silent := func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	bubble(t, silent, func(t *testing.T, cl *kgo.Client, log *journal) {
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		begin := time.Now()
		require.ErrorIs(t, client.Connect(ctx, cl, log.logger()), context.DeadlineExceeded)
		require.Equal(t, 3*time.Second, time.Since(begin))
	})
}

func TestConnectHasPatienceWithABrokerThatHangsUpButNotForEver(t *testing.T) {
	t.Parallel()
	bubble(t, hangUp, func(t *testing.T, cl *kgo.Client, log *journal) {
		begin := time.Now()
		err := client.Connect(t.Context(), cl, log.logger())
		require.ErrorContains(t, err, "hung up on for 10s")
		require.ErrorAs(t, err, new(*kgo.ErrFirstReadEOF))
		require.GreaterOrEqual(t, time.Since(begin), 10*time.Second)
		require.Less(t, time.Since(begin), 20*time.Second)
	})
}

func TestConnectForgetsHangUpsWhenSomethingElseComesBetween(t *testing.T) {
	t.Parallel()
	turn := func(ctx context.Context, network, host string) (net.Conn, error) {
		if time.Now().Unix()/8%2 == 1 { // 8s of each
			return refuse(ctx, network, host)
		}
		return hangUp(ctx, network, host)
	}
	bubble(t, turn, func(t *testing.T, cl *kgo.Client, log *journal) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		require.ErrorIs(t, client.Connect(ctx, cl, log.logger()), context.DeadlineExceeded)
	})
}

func TestConnectReturnsAtOnceWhatWaitingCannotMend(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		err  error
	}{
		{"refused credentials", kerr.SaslAuthenticationFailed},
		{"a SASL mechanism that the broker does not know", kerr.UnsupportedSaslMechanism},
		{"missing rights", kerr.ClusterAuthorizationFailed},
		{"a certificate that does not verify", &tls.CertificateVerificationError{Err: errors.New("unknown authority")}},
		{"no TLS at the other end", tls.RecordHeaderError{Msg: "first record does not look like a TLS handshake"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			require.True(t, client.Permanent(test.err))
			bubble(t, func(context.Context, string, string) (net.Conn, error) { return nil, test.err },
				func(t *testing.T, cl *kgo.Client, log *journal) {
					begin := time.Now()
					err := client.Connect(t.Context(), cl, log.logger())
					require.ErrorIs(t, err, test.err)
					require.ErrorContains(t, err, "broker:9092")
					require.Less(t, time.Since(begin), time.Second)
					require.Empty(t, log.String(), "returned, so not logged")
				})
		})
	}
}

func TestPermanentIsNotWhatMayPass(t *testing.T) {
	t.Parallel()
	for _, err := range []error{
		nil, errRefused, context.Canceled, kerr.CoordinatorNotAvailable, kerr.NotLeaderForPartition,
		kerr.UnknownTopicOrPartition, kerr.RebalanceInProgress, &kgo.ErrFirstReadEOF{},
	} {
		require.False(t, client.Permanent(err), "%v", err)
	}
}

func TestConnectWithARefusedPasswordEnds(t *testing.T) {
	t.Parallel()
	network := &kfake.VirtualNetwork{}
	synctest.Test(t, func(t *testing.T) {
		c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(9092), kfake.ListenFn(network.Listen), kfake.EnableSASL(), kfake.Superuser("PLAIN", "admin", "right"))
		require.NoError(t, err)
		defer c.Close()
		cl, err := kgo.NewClient(kgo.SeedBrokers("127.0.0.1:9092"), kgo.Dialer(network.DialContext), kgo.DisableClientMetrics(),
			kgo.SASL(plain.Auth{User: "admin", Pass: "wrong"}.AsMechanism()))
		require.NoError(t, err)
		defer cl.Close()
		begin := time.Now()
		require.Error(t, client.Connect(t.Context(), cl, (&journal{}).logger()))
		require.Less(t, time.Since(begin), time.Minute)
	})
}

func TestConnectWithTLSToABrokerWithoutItEnds(t *testing.T) {
	t.Parallel()
	// Kafka takes the first bytes of a TLS handshake for the size of a request
	// that is too large, and hangs up.
	secure := func(ctx context.Context, network, host string) (net.Conn, error) {
		conn, err := hangUp(ctx, network, host)
		if err != nil {
			return nil, err
		}
		s := tls.Client(conn, &tls.Config{ServerName: "broker"})
		return s, s.HandshakeContext(ctx)
	}
	bubble(t, secure, func(t *testing.T, cl *kgo.Client, log *journal) {
		begin := time.Now()
		err := client.Connect(t.Context(), cl, log.logger())
		require.ErrorContains(t, err, "hung up on for 10s")
		require.Less(t, time.Since(begin), 20*time.Second)
	})
}

func TestConnectWithoutTLSToABrokerWithItSaysSoInItsLog(t *testing.T) {
	t.Parallel()
	alert := func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		go func() {
			_, _ = theirs.Read(make([]byte, 64<<10))
			_, _ = theirs.Write([]byte{21, 3, 3, 0, 2, 2, 10}) // what crypto/tls answers to a plaintext request
			_ = theirs.Close()
		}()
		return ours, nil
	}
	bubble(t, alert, func(t *testing.T, cl *kgo.Client, log *journal) {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		require.ErrorIs(t, client.Connect(ctx, cl, log.logger()), context.DeadlineExceeded)
		require.Contains(t, log.String(), "plaintext connection speaking to a tls endpoint")
	})
}
