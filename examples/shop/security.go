package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// The variables with which the shop logs in. They are no flags because other
// users of a machine can see those.
const (
	saslMechanism = "KAFKA_SASL_MECHANISM" // PLAIN (the default), SCRAM-SHA-256 or SCRAM-SHA-512
	saslUsername  = "KAFKA_SASL_USERNAME"
	saslPassword  = "KAFKA_SASL_PASSWORD"
	tlsOn         = "KAFKA_TLS"             // true or false
	tlsCA         = "KAFKA_TLS_CA"          // PEM file of the authorities to trust; else the system's
	tlsCert       = "KAFKA_TLS_CERT"        // PEM file of the client's certificate
	tlsKey        = "KAFKA_TLS_KEY"         // PEM file of its key
	tlsServerName = "KAFKA_TLS_SERVER_NAME" // the name in the brokers' certificate, where it is not their host
)

var securityVariables = []string{saslMechanism, saslUsername, saslPassword, tlsOn, tlsCA, tlsCert, tlsKey, tlsServerName}

// parseSecurity returns the options that log in as the environment says. If
// they are not needed, it returns the variables that are set instead.
func parseSecurity(getenv func(string) string, needed bool) (opts []kgo.Opt, unused []string, err error) {
	if !needed {
		return nil, slices.DeleteFunc(slices.Clone(securityVariables), func(name string) bool { return getenv(name) == "" }), nil
	}
	mechanism, saslErr := parseSASL(getenv)
	if mechanism != nil {
		opts = append(opts, kgo.SASL(mechanism))
	}
	config, tlsErr := parseTLS(getenv)
	if config != nil {
		opts = append(opts, kgo.DialTLSConfig(config))
	}
	return opts, nil, errors.Join(saslErr, tlsErr)
}

// parseSASL returns how to log in, nil where there is no user. A password or a
// mechanism without a user is a fault rather than ignored: its owner believes to
// be logged in.
func parseSASL(getenv func(string) string) (sasl.Mechanism, error) {
	kind, user, pass := getenv(saslMechanism), getenv(saslUsername), getenv(saslPassword)
	var faults []error
	if user == "" && kind+pass != "" {
		faults = append(faults, fmt.Errorf("%s is missing: %s and %s have no effect without it", saslUsername, saslMechanism, saslPassword))
	}
	if user != "" && pass == "" {
		faults = append(faults, fmt.Errorf("%s is missing for user %q", saslPassword, user))
	}
	var mechanism sasl.Mechanism
	switch kind {
	case "", "PLAIN":
		mechanism = plain.Auth{User: user, Pass: pass}.AsMechanism()
	case "SCRAM-SHA-256":
		mechanism = scram.Auth{User: user, Pass: pass}.AsSha256Mechanism()
	case "SCRAM-SHA-512":
		mechanism = scram.Auth{User: user, Pass: pass}.AsSha512Mechanism()
	default:
		faults = append(faults, fmt.Errorf("%s %q: choose from PLAIN, SCRAM-SHA-256, SCRAM-SHA-512", saslMechanism, kind))
	}
	if user == "" {
		mechanism = nil
	}
	return mechanism, errors.Join(faults...)
}

// parseTLS returns how to encrypt, nil where TLS is off. Files are read and
// checked in any case, so that a fault shows before TLS is switched on.
func parseTLS(getenv func(string) string) (*tls.Config, error) {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	on := false
	if text := getenv(tlsOn); text != "" {
		var err error
		if on, err = strconv.ParseBool(text); err != nil {
			fault("%s %q: choose true or false", tlsOn, text)
		}
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: getenv(tlsServerName)}
	if file := getenv(tlsCA); file != "" {
		pem, err := os.ReadFile(file)
		config.RootCAs = x509.NewCertPool()
		if err != nil {
			fault("%s: %w", tlsCA, err)
		} else if !config.RootCAs.AppendCertsFromPEM(pem) {
			fault("%s: %s has no certificate in PEM form", tlsCA, file)
		}
	}
	cert, key := getenv(tlsCert), getenv(tlsKey)
	switch {
	case cert == "" && key == "":
	case key == "":
		fault("%s is missing: a client certificate (%s) needs its key", tlsKey, tlsCert)
	case cert == "":
		fault("%s is missing: a key (%s) needs its certificate", tlsCert, tlsKey)
	default:
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			fault("%s and %s: %w", tlsCert, tlsKey, err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	if !on {
		if getenv(tlsOn) == "" && getenv(tlsCA)+cert+key+config.ServerName != "" {
			fault("%s is missing: %s, %s, %s and %s have no effect unless it is true", tlsOn, tlsCA, tlsCert, tlsKey, tlsServerName)
		}
		config = nil
	}
	return config, errors.Join(faults...)
}
