package reqreply

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
)

// A Service counts what the handlers of a Consumer do. It is one of its
// policies; where in their list does not matter:
//
//	users := &reqreply.Service{Name: "users", Version: "1.2.0"}
//	… Policies: []wherry.Policy{users, …}
//	users.Status()
//
// One may serve several Consumers.
type Service struct {
	Name    string // for people
	Version string

	methods sync.Map // topic to *counters
	began   atomic.Int64
}

// ServiceStatus is what the handlers of a [Service] did in this process.
type ServiceStatus struct {
	Name, Version string
	Began         time.Time // when the first Consumer was run; zero before
	Methods       []MethodStatus
}

// MethodStatus is what the handlers of one Method did.
type MethodStatus struct {
	Topic    string
	Requests uint64 // that came, with those below
	Events   uint64 // records that nobody asked for an answer to
	Calls    uint64 // of the handler, each attempt
	// Faults are answers that are errors, Failed errors that went to the
	// policies.
	Faults, Failed uint64
	// Expired are requests that nobody waited for any more, Refused those whose
	// reply topic is not allowed or not there, and Repeated those that Dedupe
	// answered.
	Expired, Refused, Repeated uint64
	// Busy is the time that handlers took, in all.
	Busy time.Duration
}

// Average is the time that a call of the handler took.
func (s MethodStatus) Average() time.Duration {
	if s.Calls == 0 {
		return 0
	}
	return s.Busy / time.Duration(s.Calls) //nolint:gosec // a count
}

type counters struct {
	requests, events, calls, faults, failed, expired, refused, repeated atomic.Uint64
	busy                                                                atomic.Int64
}

func (c *counters) worked(d time.Duration) {
	c.calls.Add(1)
	c.busy.Add(int64(d))
}

type serviceKey struct{}

// Prepare makes the handlers of the Consumer count here.
func (s *Service) Prepare(setup *wherry.Setup) error {
	s.began.CompareAndSwap(0, time.Now().UnixNano())
	setup.WithValue(serviceKey{}, s)
	return nil
}

// Wrap returns next.
func (s *Service) Wrap(next wherry.Handler) wherry.Handler {
	return func(ctx context.Context, r *kgo.Record) error { return next(ctx, r) }
}

// counters returns those of the Consumer's Service, or the server's own.
func (s *server) counters(ctx context.Context) *counters {
	service, ok := ctx.Value(serviceKey{}).(*Service)
	if !ok {
		return &s.own
	}
	c, ok := service.methods.Load(s.topic)
	if !ok {
		c, _ = service.methods.LoadOrStore(s.topic, &counters{})
	}
	return c.(*counters)
}

// Status returns what the handlers did. It asks no broker.
func (s *Service) Status() ServiceStatus {
	status := ServiceStatus{Name: s.Name, Version: s.Version}
	if began := s.began.Load(); began != 0 {
		status.Began = time.Unix(0, began)
	}
	s.methods.Range(func(topic, c any) bool {
		n := c.(*counters)
		status.Methods = append(status.Methods, MethodStatus{
			Topic: topic.(string), Requests: n.requests.Load(), Events: n.events.Load(), Calls: n.calls.Load(),
			Faults: n.faults.Load(), Failed: n.failed.Load(), Expired: n.expired.Load(), Refused: n.refused.Load(),
			Repeated: n.repeated.Load(), Busy: time.Duration(n.busy.Load()),
		})
		return true
	})
	slices.SortFunc(status.Methods, func(a, b MethodStatus) int { return cmp.Compare(a.Topic, b.Topic) })
	return status
}
