package reqreply

import (
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/wherry-go/wherry"
)

// A Service counts what the handlers of a Consumer do, and tells those who ask
// for it. It is one of the Consumer's policies; where in their list does not
// matter:
//
//	users := &reqreply.Service{Name: "users", Version: "1.2.0", Topic: reqreply.ServicesTopic}
//	… Policies: []wherry.Policy{users, …}
//	users.Status()
//
// One may serve several Consumers.
type Service struct {
	Name    string // for people, and for those who ask
	Version string
	// Topic is where the Service hears those who ask for it with [Services]:
	// [ServicesTopic] unless an organisation has rules for names. While a
	// Consumer runs it is read, without a group, by a client of its own, in
	// requests of 5 s that wait. It is made, with one partition, where it does not
	// exist: that needs the right CREATE, and DESCRIBE_CONFIGS; reading needs READ
	// and DESCRIBE. Where it cannot be read that is logged and tried again, and the
	// Consumer goes on. Answers go to topics that end in ".reply" alone. "" means
	// that nobody can ask.
	Topic string
	// MeterProvider is for the metrics wherry.reqreply.requests and
	// wherry.reqreply.handler.duration: see the package's text. nil means the
	// global one.
	MeterProvider metric.MeterProvider

	once    sync.Once
	id      string
	host    string
	turn    chan struct{} // has a token while a Consumer's Run answers
	methods sync.Map      // topic to *counters
	began   atomic.Int64
}

// ServiceStatus is what the handlers of a [Service] did in one process. Its JSON
// is what goes on the wire.
type ServiceStatus struct {
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
	// ID is another one for each Service, by chance, and Host the name of the
	// machine, or container, as it has it itself.
	ID   string `json:"id"`
	Host string `json:"host,omitempty"`
	// Began is when the first Consumer was run, by that machine's clock; zero
	// before.
	Began   time.Time      `json:"began,omitzero"`
	Methods []MethodStatus `json:"methods"` // by topic
	// RoundTrip is what [Services] measured: from sending the question to reading
	// this answer. A Caller's first may be longer by its FetchMaxWait (500 ms by
	// default), see [Caller].Methods. 0 elsewhere.
	RoundTrip time.Duration `json:"-"`
}

// MethodStatus is what the handlers of one Method did.
type MethodStatus struct {
	Topic    string `json:"topic"`
	Requests uint64 `json:"requests"` // that came, with those below
	Events   uint64 `json:"events"`   // records that nobody asked for an answer to
	Calls    uint64 `json:"calls"`    // of the handler, each attempt
	Answered uint64 `json:"answered"` // with a value, or several
	// Faults are answers that are errors, Failed errors that went to the
	// policies.
	Faults uint64 `json:"faults"`
	Failed uint64 `json:"failed"`
	// Expired are requests that nobody waited for any more, Refused those whose
	// reply topic is not allowed or not there, and Repeated those that Dedupe
	// answered.
	Expired  uint64 `json:"expired"`
	Refused  uint64 `json:"refused"`
	Repeated uint64 `json:"repeated"`
	// Busy is the time that handlers took, in all; in JSON, in nanoseconds.
	Busy time.Duration `json:"busy"`
}

// Average is the time that a call of the handler took.
func (s MethodStatus) Average() time.Duration {
	if s.Calls == 0 {
		return 0
	}
	return s.Busy / time.Duration(s.Calls) //nolint:gosec // a count
}

type counters struct {
	requests, events, calls atomic.Uint64
	of                      [outcomes]atomic.Uint64
	busy                    atomic.Int64
}

func (c *counters) came(asked bool) {
	if asked {
		c.requests.Add(1)
	} else {
		c.events.Add(1)
	}
}

func (c *counters) worked(d time.Duration) {
	c.calls.Add(1)
	c.busy.Add(int64(d))
}

type serviceKey struct{}

func (s *Service) init() {
	s.once.Do(func() {
		var id [8]byte
		_, _ = rand.Read(id[:]) // it never fails, says crypto/rand
		s.id, s.turn = hex.EncodeToString(id[:]), make(chan struct{}, 1)
		s.host, _ = os.Hostname() // "" where the system does not tell
	})
}

// Prepare makes the handlers of the Consumer count here, and the Consumer
// answer those who ask.
func (s *Service) Prepare(setup *wherry.Setup) error {
	s.init()
	if s.Topic != "" {
		if slices.Contains(setup.Topics, s.Topic) {
			return fmt.Errorf("service %q: Topic is one that the Consumer reads", s.Name)
		}
		setup.Follow(newResponder(s, setup.Client, setup.Logger))
	}
	s.began.CompareAndSwap(0, time.Now().UnixNano())
	setup.WithValue(serviceKey{}, s)
	return nil
}

// Wrap returns next.
func (s *Service) Wrap(next wherry.Handler) wherry.Handler { return next }

// counters returns those of a topic.
func (s *Service) counters(topic string) *counters {
	c, ok := s.methods.Load(topic)
	if !ok {
		c, _ = s.methods.LoadOrStore(topic, &counters{})
	}
	return c.(*counters)
}

// Status returns what the handlers did. It asks no broker.
func (s *Service) Status() ServiceStatus {
	s.init()
	status := ServiceStatus{Name: s.Name, Version: s.Version, ID: s.id, Host: s.host, Methods: []MethodStatus{}}
	if began := s.began.Load(); began != 0 {
		status.Began = time.Unix(0, began)
	}
	s.methods.Range(func(topic, c any) bool {
		n := c.(*counters)
		status.Methods = append(status.Methods, MethodStatus{
			Topic: topic.(string), Requests: n.requests.Load(), Events: n.events.Load(), Calls: n.calls.Load(),
			Answered: n.of[answered].Load(), Faults: n.of[fault].Load(), Failed: n.of[failed].Load(),
			Expired: n.of[expired].Load(), Refused: n.of[refused].Load(), Repeated: n.of[repeated].Load(),
			Busy: time.Duration(n.busy.Load()),
		})
		return true
	})
	slices.SortFunc(status.Methods, func(a, b MethodStatus) int { return cmp.Compare(a.Topic, b.Topic) })
	return status
}
