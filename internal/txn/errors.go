package txn

import (
	"context"
	"errors"
	"net"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Verdict is what the error of a record that was produced means.
type Verdict int

// Verdicts.
const (
	// Passing is about the producer, the transaction or the brokers: the record
	// may be produced again.
	Passing Verdict = iota
	// Doubtful may be about the record: it is if it comes again.
	Doubtful
	// Refused is about the record, which will be refused again.
	Refused
)

var refused = []error{
	kerr.MessageTooLarge, kerr.RecordListTooLarge, kerr.InvalidRecord, kerr.InvalidTimestamp, kerr.CorruptMessage,
	kerr.UnknownTopicOrPartition, kerr.InvalidTopicException, kerr.TopicAuthorizationFailed, kerr.PolicyViolation,
	kerr.UnsupportedForMessageFormat, kerr.UnsupportedCompressionType,
}

var passing = []error{
	kerr.ProducerFenced, kerr.InvalidProducerEpoch, kerr.InvalidProducerIDMapping, kerr.UnknownProducerID,
	kerr.OutOfOrderSequenceNumber, kerr.InvalidTxnState, kerr.TransactionAbortable, kerr.ConcurrentTransactions,
	kerr.TransactionCoordinatorFenced, kerr.TransactionalIDNotFound, kerr.InvalidTransactionTimeout, kerr.InvalidRequiredAcks,
	kerr.ClusterAuthorizationFailed, kerr.TransactionalIDAuthorizationFailed, kerr.SaslAuthenticationFailed,
	kerr.UnknownTopicID, // the topic was made anew: another client takes it, see client.Remade
	kgo.ErrAborting, kgo.ErrClientClosed, kgo.ErrRecordTimeout, kgo.ErrRecordRetries,
	context.Canceled, context.DeadlineExceeded,
}

// OfTopic reports whether err, with which a record was refused, is about its topic:
// all records to it are refused so, and no others.
func OfTopic(err error) bool {
	for _, e := range []error{kerr.UnknownTopicOrPartition, kerr.InvalidTopicException} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// Judge tells what the error of a record that was produced means.
func Judge(err error) Verdict {
	is := func(e error) bool { return errors.Is(err, e) }
	for _, e := range refused {
		if is(e) {
			return Refused
		}
	}
	for _, e := range passing {
		if is(e) {
			return Passing
		}
	}
	if _, ok := errors.AsType[net.Error](err); ok || kerr.IsRetriable(err) || kgo.IsRetryableBrokerErr(err) {
		return Passing
	}
	return Doubtful
}
