package wherry

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/internal/client"
)

// fetchFailed decides what an error of a poll means: most pass, and kgo tries
// again; what trying again cannot mend ends the run.
func (r *run) fetchFailed(ctx context.Context, tp topicPartition, err error) {
	_, loss := errors.AsType[*kgo.ErrDataLoss](err)
	switch {
	case errors.Is(err, context.Canceled):
	case errors.Is(err, kerr.OffsetOutOfRange):
		if err := r.reset(ctx, tp); err != nil {
			r.fail(err)
		}
	case loss:
		r.mu.Lock()
		if p := r.partitions[tp]; p != nil {
			p.lane.Forget() // others may come in the place of what was lost
		}
		r.mu.Unlock()
		r.log.ErrorContext(ctx, "consumer: the cluster lost records that were acknowledged", "partition", tp.String(), "error", err)
	case errors.Is(err, kerr.FencedInstanceID):
		r.fail(sameInstance(err))
	case errors.Is(err, kerr.InconsistentGroupProtocol):
		r.fail(otherKind(err))
	case errors.Is(err, kerr.UnknownTopicID) && r.madeAnew(ctx, tp.topic):
		r.fail(anew(tp.topic))
	case client.Permanent(err), errors.Is(err, kgo.ErrClientClosed), errors.Is(err, kgo.ErrMaxDecompress), errors.Is(err, kerr.InvalidTopicException):
		if tp.topic != "" {
			err = fmt.Errorf("fetching %v: %w", tp, err)
		}
		r.fail(err)
	default:
		r.log.WarnContext(ctx, "consumer: fetching failed, trying again", "partition", tp.String(), "error", err)
	}
}

// madeAnew reports whether the topic is another one than at the start. kgo
// goes on asking for the one it knows.
func (r *run) madeAnew(ctx context.Context, topic string) bool {
	found, err := listTopics(ctx, kadm.NewClient(r.c.Client), []string{topic})
	before := r.ids[topic]
	return err == nil && found[topic].Err == nil && before != (kadm.TopicID{}) && found[topic].ID != before
}

// rejoins reports whether err is one after which kgo joins the group again.
func rejoins(err error) bool {
	for _, e := range []error{kerr.UnknownMemberID, kerr.IllegalGeneration, kerr.RebalanceInProgress, kerr.FencedMemberEpoch, kerr.StaleMemberEpoch, kerr.UnreleasedInstanceID} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
