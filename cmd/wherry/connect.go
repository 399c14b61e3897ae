package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/wherry-go/wherry/internal/client"
)

// connection says how to reach a cluster: the flags that all commands have
// which talk to one, and the environment behind them.
type connection struct {
	brokers                          string
	tls, insecure                    bool
	ca, cert, key, serverName        string
	mechanism, user, passwordFile    string
	timeout                          time.Duration
	passwordFromEnv, environmentBool string
}

const connectionTitle = `Connection flags. The environment has their defaults: WHERRY_BROKERS, WHERRY_TLS=1,
WHERRY_TLS_CA, WHERRY_TLS_CERT, WHERRY_TLS_KEY, WHERRY_TLS_SERVER_NAME, WHERRY_TLS_INSECURE=1,
WHERRY_SASL, WHERRY_SASL_USER, WHERRY_SASL_PASSWORD_FILE. The password itself is never a flag:
it is in WHERRY_SASL_PASSWORD or in the file.`

// flags returns the flags, with the environment as their defaults.
func (c *connection) flags() *flag.FlagSet {
	f := flag.NewFlagSet(connectionTitle, flag.ContinueOnError)
	env := func(p *string, name, variable, otherwise, usage string) {
		f.StringVar(p, name, cmp.Or(os.Getenv(variable), otherwise), usage)
	}
	yes := func(p *bool, name, variable, usage string) {
		is, err := strconv.ParseBool(cmp.Or(os.Getenv(variable), "false"))
		if err != nil {
			c.environmentBool = fmt.Sprintf("%s is %q: set it to 1 or 0", variable, os.Getenv(variable))
		}
		f.BoolVar(p, name, is, usage)
	}
	env(&c.brokers, "brokers", "WHERRY_BROKERS", "127.0.0.1:9092", "`host:port` of brokers to begin with, separated by commas")
	yes(&c.tls, "tls", "WHERRY_TLS", "use TLS; the other tls flags imply it")
	env(&c.ca, "tls-ca", "WHERRY_TLS_CA", "", "`file` with the certificates (PEM) to trust, instead of the system's")
	env(&c.cert, "tls-cert", "WHERRY_TLS_CERT", "", "`file` with the certificate (PEM) to log in with; needs -tls-key")
	env(&c.key, "tls-key", "WHERRY_TLS_KEY", "", "`file` with the key (PEM) of -tls-cert")
	env(&c.serverName, "tls-server-name", "WHERRY_TLS_SERVER_NAME", "", "`name` that the brokers' certificates must have (default the host that is dialed)")
	yes(&c.insecure, "tls-insecure", "WHERRY_TLS_INSECURE", "trust any certificate: whoever is between sees and changes everything")
	env(&c.mechanism, "sasl", "WHERRY_SASL", "", "`mechanism` to log in by: plain, scram-sha-256 or scram-sha-512")
	env(&c.user, "sasl-user", "WHERRY_SASL_USER", "", "`user` to log in as")
	env(&c.passwordFile, "sasl-password-file", "WHERRY_SASL_PASSWORD_FILE", "", "`file` whose first line is the password")
	f.DurationVar(&c.timeout, "timeout", 10*time.Second, "how long to wait for a first answer")
	c.passwordFromEnv = os.Getenv("WHERRY_SASL_PASSWORD")
	return f
}

// options returns the options of a client that the flags ask for.
func (c *connection) options() ([]kgo.Opt, error) {
	if c.environmentBool != "" {
		return nil, &usageError{text: c.environmentBool}
	}
	var seeds []string
	for _, b := range strings.Split(c.brokers, ",") {
		if b = strings.TrimSpace(b); b != "" {
			seeds = append(seeds, b)
		}
	}
	if len(seeds) == 0 {
		return nil, &usageError{text: "-brokers names none: give host:port"}
	}
	opts := []kgo.Opt{kgo.SeedBrokers(seeds...), kgo.ClientID("wherry"), kgo.DialTimeout(c.timeout)}
	secure, err := c.tlsConfig()
	if err != nil {
		return nil, err
	}
	if secure != nil {
		opts = append(opts, kgo.DialTLSConfig(secure))
	}
	login, err := c.login()
	if err != nil {
		return nil, err
	}
	return append(opts, login...), nil
}

func (c *connection) tlsConfig() (*tls.Config, error) {
	if !c.tls && !c.insecure && c.ca == "" && c.cert == "" && c.key == "" && c.serverName == "" {
		return nil, nil
	}
	if (c.cert == "") != (c.key == "") {
		return nil, &usageError{text: "give -tls-cert and -tls-key together"}
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.serverName, InsecureSkipVerify: c.insecure}
	if c.ca != "" {
		pem, err := os.ReadFile(c.ca)
		if err != nil {
			return nil, fmt.Errorf("-tls-ca: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("-tls-ca: there is no certificate in %s: give PEM", c.ca)
		}
	}
	if c.cert != "" {
		pair, err := tls.LoadX509KeyPair(c.cert, c.key)
		if err != nil {
			return nil, fmt.Errorf("-tls-cert and -tls-key: %w", err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg, nil
}

func (c *connection) login() ([]kgo.Opt, error) {
	if c.mechanism == "" {
		if c.user != "" {
			return nil, &usageError{text: "there is a user and no mechanism: give -sasl plain, scram-sha-256 or scram-sha-512"}
		}
		return nil, nil
	}
	password := c.passwordFromEnv
	if c.passwordFile != "" {
		content, err := os.ReadFile(c.passwordFile)
		if err != nil {
			return nil, fmt.Errorf("-sasl-password-file: %w", err)
		}
		password, _, _ = strings.Cut(string(content), "\n")
		password = strings.TrimSuffix(password, "\r")
	}
	if c.user == "" || password == "" {
		return nil, &usageError{text: "-sasl needs -sasl-user, and the password in WHERRY_SASL_PASSWORD or in the file of -sasl-password-file"}
	}
	auth := scram.Auth{User: c.user, Pass: password}
	switch strings.ToLower(c.mechanism) {
	case "plain":
		return []kgo.Opt{kgo.SASL(plain.Auth{User: c.user, Pass: password}.AsMechanism())}, nil
	case "scram-sha-256":
		return []kgo.Opt{kgo.SASL(auth.AsSha256Mechanism())}, nil
	case "scram-sha-512":
		return []kgo.Opt{kgo.SASL(auth.AsSha512Mechanism())}, nil
	}
	return nil, &usageError{text: fmt.Sprintf("there is no -sasl %q: give plain, scram-sha-256 or scram-sha-512", c.mechanism)}
}

// open returns a client of a cluster that has answered. The caller closes it.
func (c *connection) open(ctx context.Context) (*kgo.Client, error) {
	opts, err := c.options()
	if err != nil {
		return nil, err
	}
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		return nil, err
	}
	ping, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	if err := client.Ping(ping, cl); err != nil {
		cl.Close()
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, fmt.Errorf("connecting to %s: %w: %s", c.brokers, err, c.advice(err))
	}
	return cl, nil
}

// advice says what to try about an error of connecting.
func (c *connection) advice(err error) string {
	_, badName := errors.AsType[x509.HostnameError](err)
	_, unknownCA := errors.AsType[x509.UnknownAuthorityError](err)
	_, badCert := errors.AsType[*tls.CertificateVerificationError](err)
	_, noTLS := errors.AsType[tls.RecordHeaderError](err)
	_, hungUp := errors.AsType[*kgo.ErrFirstReadEOF](err)
	switch {
	case badName:
		return "-tls-server-name names what the certificate is for"
	case unknownCA, badCert:
		return "-tls-ca names the certificates to trust"
	case noTLS:
		return "the listener does not speak TLS: leave the tls flags and WHERRY_TLS… out, or give its other port"
	case errors.Is(err, kerr.SaslAuthenticationFailed):
		return "the user or the password is wrong, or -sasl is not the mechanism that the user has"
	case errors.Is(err, kerr.UnsupportedSaslMechanism):
		return "give another -sasl"
	case strings.Contains(err.Error(), "speaking to a tls endpoint"): // kgo has no type for it
		return "the listener speaks TLS: -tls, and -tls-ca if its certificate is not one of the system's"
	case (hungUp || errors.Is(err, io.EOF)) && c.mechanism != "":
		return "the listener may want TLS (-tls), no login, or another user and password"
	case hungUp, errors.Is(err, io.EOF):
		return "the listener may want TLS (-tls) or a login (-sasl)"
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Sprintf("nothing answered in %v: check -brokers, and whether the listener wants TLS (-tls)", c.timeout)
	}
	return "check -brokers"
}
