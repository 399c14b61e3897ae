package reqreply

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/wherry-go/wherry"
)

// ServicesTopic is the topic where services are asked for by default.
const ServicesTopic = "wherry.services"

// ServiceQuery says which services are asked for. Those are meant that have all
// that is set. Its JSON is what goes on the wire.
type ServiceQuery struct {
	Name   string `json:"name,omitempty"`   // [Service].Name; "" means any
	ID     string `json:"id,omitempty"`     // that of one instance; "" means any
	Method string `json:"method,omitempty"` // that serve the Method of this topic; "" means any

	// Topic is the [Service].Topic of those asked. "" means ServicesTopic.
	Topic string `json:"-"`
	// Most is after how many answers not to wait for more: 1 asks whether there
	// is anybody. 0 means to wait for all.
	Most int `json:"-"`
	// Wait is for how long, from when the question can be sent: the first may take
	// some milliseconds, to find where answers are read. 0 means 1s.
	Wait time.Duration `json:"-"`
}

const defaultWait = time.Second

// Services asks for services, and returns what each instance says of itself, by
// name and id: each process that runs a Consumer with a [Service] that has a
// Topic answers for itself, also where its group has no partition for it. It
// returns when Most are there, after Wait, or at the deadline of ctx, whichever
// is first; with fewer than Most that is no error. No handler is called.
//
// An instance that was stopped or has crashed does not answer. One that is busy
// does, as it reads these questions beside its requests: what an answer does not
// tell is how long a request would have to wait.
//
// Errors are those of [Method.Call], with the answers that had come before. That
// of a Topic that does not exist means that no such service has ever run.
func Services(ctx context.Context, caller *Caller, q ServiceQuery) (found []ServiceStatus, err error) {
	if q.Most < 0 || q.Wait < 0 {
		return nil, errors.New("services: Most and Wait must not be negative")
	}
	m := Method[ServiceQuery, ServiceStatus]{
		Topic: cmp.Or(q.Topic, ServicesTopic), Codec: wherry.JSON{}, Timeout: cmp.Or(q.Wait, defaultWait),
	}
	if err := m.hear(ctx, caller); err != nil {
		return nil, fmt.Errorf("services: %w", err)
	}
	c, err := m.ask(ctx, caller, q, maxReplies)
	if err != nil {
		return nil, fmt.Errorf("services: %w", err)
	}
	defer func() { c.end(err) }()
	sent, seen := time.Now(), map[string]bool{"": true} // what has no id is no Service
	for q.Most == 0 || len(found) < q.Most {
		got, err := c.next()
		if errors.Is(err, context.DeadlineExceeded) {
			break
		}
		if err != nil {
			return byName(found), fmt.Errorf("services: %d answers: %w", len(found), err)
		}
		s, err := m.read(c, got)
		if err != nil || seen[s.ID] {
			continue
		}
		seen[s.ID], s.RoundTrip = true, time.Since(sent)
		found = append(found, s)
	}
	return byName(found), nil
}

func byName(found []ServiceStatus) []ServiceStatus {
	slices.SortFunc(found, func(a, b ServiceStatus) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.ID, b.ID))
	})
	return found
}

// means reports whether s is asked for.
func (q *ServiceQuery) means(s *ServiceStatus) bool {
	serves := func(m MethodStatus) bool { return m.Topic == q.Method }
	return (q.Name == "" || q.Name == s.Name) && (q.ID == "" || q.ID == s.ID) &&
		(q.Method == "" || slices.ContainsFunc(s.Methods, serves))
}
