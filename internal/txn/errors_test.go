package txn

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

func TestJudge(t *testing.T) {
	t.Parallel()
	for verdict, errs := range map[Verdict][]error{
		Refused: {
			kerr.MessageTooLarge, kerr.RecordListTooLarge, kerr.UnknownTopicOrPartition, kerr.TopicAuthorizationFailed,
			kerr.InvalidTopicException, kerr.InvalidRecord, fmt.Errorf("partition 3: %w", kerr.MessageTooLarge),
		},
		Passing: {
			kerr.ProducerFenced, kerr.InvalidProducerEpoch, kerr.TransactionAbortable, kerr.ConcurrentTransactions, kerr.NotLeaderForPartition,
			kerr.CoordinatorNotAvailable, kerr.NotEnoughReplicas, kgo.ErrAborting, kgo.ErrClientClosed, context.Canceled, context.DeadlineExceeded,
			&net.OpError{Op: "read", Err: errors.New("connection reset")}, kerr.TransactionalIDAuthorizationFailed,
		},
		Doubtful: {kerr.UnknownServerError, errors.New("of a hook")},
	} {
		for _, err := range errs {
			require.Equal(t, verdict, Judge(err), "%v", err)
		}
	}
}
