package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// hangUpPatience is how long a broker may close every new connection at once
// before that counts as wrong credentials or TLS settings rather than as a
// broker (or the proxy before it) that is still starting.
const hangUpPatience = 10 * time.Second

// Connect waits until a broker answers. It logs what keeps it from one, at
// growing intervals of up to 5 s, and returns an error at once when waiting
// cannot mend it: refused credentials, a certificate that does not verify.
// When ctx ends first, the error has both ctx's cause and the last failure.
func Connect(ctx context.Context, cl *kgo.Client, log *slog.Logger) error {
	pause := backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(250*time.Millisecond),
		backoff.WithMaxInterval(5*time.Second),
		backoff.WithMaxElapsedTime(0),
	)
	seeds := cl.OptValue(kgo.SeedBrokers)
	var waited bool
	var hangUps time.Time // since when every attempt was hung up on
	for {
		err := Ping(ctx, cl)
		switch {
		case err == nil:
			if waited {
				log.InfoContext(ctx, "kafka: a broker answers", "brokers", seeds)
			}
			return nil
		case ctx.Err() != nil:
			return errors.Join(context.Cause(ctx), err)
		case Permanent(err):
			return fmt.Errorf("connecting to %v: %w", seeds, err)
		}
		// A plain EOF, which kgo does not wrap, is a hang-up in the middle of
		// the SASL exchange: some brokers refuse a password so.
		if _, hungUp := errors.AsType[*kgo.ErrFirstReadEOF](err); !hungUp && !errors.Is(err, io.EOF) {
			hangUps = time.Time{}
		} else if hangUps.IsZero() {
			hangUps = time.Now()
		} else if time.Since(hangUps) >= hangUpPatience {
			return fmt.Errorf("connecting to %v: hung up on for %v: %w", seeds, hangUpPatience, err)
		}
		waited = true
		wait := pause.NextBackOff()
		log.WarnContext(ctx, "kafka: no broker answers, trying again", "brokers", seeds, "in", wait.Round(time.Millisecond), "error", err)
		select {
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		case <-time.After(wait):
		}
	}
}

// Ping asks one broker after the other until one answers, and returns the last
// error where none does. kgo's Ping does that
// with one request, which the client of a broker that has just failed may still be
// reading while it is written for the next one: a data race, where ctx or the
// client ends.
func Ping(ctx context.Context, cl *kgo.Client) (err error) {
	for _, b := range slices.Concat(cl.DiscoveredBrokers(), cl.SeedBrokers()) {
		req := kmsg.NewPtrMetadataRequest()
		req.Topics = []kmsg.MetadataRequestTopic{} // none; nil means all
		if _, err = b.Request(ctx, req); err == nil || ctx.Err() != nil {
			break
		}
	}
	return err
}

// Probe opens a client like lent that ends with ctx, and waits as Connect does
// until a broker answers it. The caller closes it. It is for what a Run asks
// before it opens what it works with: a request of lent itself outlives ctx,
// by up to 10 s where a broker takes connections and never answers.
func Probe(ctx context.Context, lent *kgo.Client, log *slog.Logger) (*kgo.Client, error) {
	cl, err := Open(lent, nil, kgo.WithContext(ctx))
	if err != nil {
		return nil, err
	}
	if err := Connect(ctx, cl, log); err != nil {
		cl.Close()
		return nil, err
	}
	return cl, nil
}

// Permanent reports whether err is one that trying again cannot mend: refused
// credentials or missing rights, a version the broker does not speak, a TLS
// handshake that fails for its certificates.
func Permanent(err error) bool {
	for _, e := range []error{
		kerr.SaslAuthenticationFailed, kerr.UnsupportedSaslMechanism, kerr.IllegalSaslState,
		kerr.ClusterAuthorizationFailed, kerr.TopicAuthorizationFailed, kerr.GroupAuthorizationFailed,
		kerr.TransactionalIDAuthorizationFailed, kerr.SecurityDisabled, kerr.UnsupportedVersion,
		kerr.InvalidGroupID, kerr.FencedInstanceID, kerr.InconsistentGroupProtocol, kerr.InvalidSessionTimeout,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return true
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return true
	}
	_, ok := errors.AsType[tls.RecordHeaderError](err)
	return ok
}
