package wherry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// A Policy decides what happens around a handler: it wraps the next one in
// and is called for each record. Policies are values with documented zero
// fields and may serve several Consumers at once.
//
// A policy may call the inner handler any number of times, one after the
// other. What the inner handler staged with [Publish] in an earlier call is
// dropped by the next call; what the policy staged itself stands if the chain
// of all policies ends in nil. The context that it hands on must derive from
// the one it was given.
type Policy interface {
	Wrap(next Handler) Handler
}

// Middleware is a Policy made from a function, as http.HandlerFunc is an
// http.Handler.
type Middleware func(next Handler) Handler

// Wrap calls m.
func (m Middleware) Wrap(next Handler) Handler { return m(next) }

// A Preparer is a Policy that takes part in the configuration of the Consumer
// it serves. Run asks each of its policies that is one, once, before it opens
// anything. Prepare only declares: the policy keeps nothing of it.
type Preparer interface {
	Policy
	Prepare(*Setup) error
}

// Setup is what a [Preparer] sees of its Consumer and may add to it.
type Setup struct {
	// Client is the Consumer's Client, lent to the policy as well.
	Client *kgo.Client
	// Group is the consumer group.
	Group string
	// Topics are the topics of the Consumer's routes, each once, in order.
	Topics []string
	// Order, MaxWait and Logger are the Consumer's, defaults filled in.
	Order   Order
	MaxWait time.Duration
	Logger  *slog.Logger
	// Tables is whether the Consumer has owned tables, whose parts go by the
	// number of the partition: what takes a hop must come back by the same
	// number, see [ToPartition].
	Tables bool

	hops      map[string]Hop // by the topic read
	faults    []error
	needs     []TopicSpec
	followers []Follower
	values    []value
}

type value struct{ key, value any }

// Subscribe makes the Consumer read the topic of a hop too, and hand its
// records to the routes of the topic that it stands in for.
func (s *Setup) Subscribe(hop Hop) {
	if s.hops == nil {
		s.hops = map[string]Hop{}
	}
	if before, ok := s.hops[hop.Topic]; ok && before.As != hop.As {
		s.faults = append(s.faults, fmt.Errorf("policies subscribe to %s as %s and as %s", hop.Topic, before.As, hop.As))
	}
	s.hops[hop.Topic] = hop
}

// A Follower is something that follows what is in Kafka, such as a [Table].
type Follower interface {
	Run(ctx context.Context) error
	Ready() <-chan struct{}
	// Sync returns when what was written before the call has been followed.
	Sync(ctx context.Context) error
}

// Follow runs f for the length of the Consumer's Run. It is ready before the
// first record is handled, and in sync, at each assignment, before the first
// record of the partitions that were added. Its error ends the Consumer.
func (s *Setup) Follow(f Follower) { s.followers = append(s.followers, f) }

// WithValue puts a value into the context of each handler of this Consumer,
// where a policy finds what it shares among the calls of one Run. As with
// context.WithValue, the key should be of a type of the policy's own.
func (s *Setup) WithValue(key, v any) { s.values = append(s.values, value{key, v}) }

// Value returns what was put under key with WithValue so far, the last of it:
// policies prepare in their order, and then the routes. nil means nothing.
func (s *Setup) Value(key any) any {
	for i := len(s.values) - 1; i >= 0; i-- {
		if s.values[i].key == key {
			return s.values[i].value
		}
	}
	return nil
}

func (s *Setup) withValues(ctx context.Context) context.Context {
	for _, v := range s.values {
		ctx = context.WithValue(ctx, v.key, v.value) //nolint:fatcontext // once for a run
	}
	return ctx
}

// Need makes Run ensure that a topic exists with these settings, as
// [EnsureTopics] does, before the Consumer reads its first record. Several
// policies may need the same topic, with the same settings.
func (s *Setup) Need(spec TopicSpec) {
	if !slices.ContainsFunc(s.needs, func(n TopicSpec) bool { return reflect.DeepEqual(n, spec) }) {
		s.needs = append(s.needs, spec)
	}
}

// chain wraps h in policies, the first of them outermost.
func chain(h Handler, policies []Policy) Handler {
	h = attempt(guard(instead(h)))
	for i := len(policies) - 1; i >= 0; i-- {
		h = guard(policies[i].Wrap(staging(h)))
	}
	return h
}

// staging gives each call of next a stage of its own, which replaces that of
// the call before. When next returns an error the attempt has failed, and what
// the handler staged is dropped, also if it was a policy that failed after the
// handler's nil. What policies staged stays, such as the answer that tells of
// the error.
func staging(next Handler) Handler {
	return func(ctx context.Context, r *kgo.Record) error {
		outer := stageFrom(ctx)
		if outer == nil {
			return next(ctx, r)
		}
		inner := outer.inner(ctx)
		defer inner.end()
		err := next(inner, r)
		if err != nil {
			inner.dropHandler()
		}
		return err
	}
}

// attempt is one call of the handler itself: one that fails leaves no outputs,
// and one that takes longer than the Consumer's Timeout has its context ended.
func attempt(next Handler) Handler {
	return func(ctx context.Context, r *kgo.Record) error {
		s, d := stageFrom(ctx), deliveryFrom(ctx)
		if s != nil {
			s.handler = true
		}
		if d != nil && d.run.c.Timeout > 0 {
			limited, clock := within(ctx, d.run.c.Timeout)
			defer clock.end()
			d.tick(clock)
			defer d.tick(nil)
			ctx = limited
		}
		err := next(ctx, r)
		if d != nil {
			d.calls++
			d.last = err
		}
		if err == nil {
			return nil
		}
		if s != nil {
			s.dropHandler()
		}
		if cause := context.Cause(ctx); errors.Is(cause, context.DeadlineExceeded) && !errors.Is(err, cause) {
			err = fmt.Errorf("%w: %w", cause, err)
		}
		return err
	}
}

// instead stands for the handler where there is nothing to call it with, and
// in the second run of a chain whose outputs the broker refused: policies see
// the error as the handler's.
func instead(next Handler) Handler {
	return func(ctx context.Context, r *kgo.Record) error {
		if d := deliveryFrom(ctx); d != nil && d.instead != nil {
			return d.instead
		}
		return next(ctx, r)
	}
}
