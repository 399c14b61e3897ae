package doctor

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Look asks a cluster. The zero value of what is asked for is the cluster
// alone.
type Look struct {
	Client    *kgo.Client
	Bootstrap string        // for the commands in findings
	Topics    []string      // to look at, beside those of the groups
	Groups    []string      // to look at
	Probe     bool          // whether a topic may be made, and deleted, to read each broker's clock
	Timeout   time.Duration // of each question; 0 means 10 s
}

// Run asks all that it may. It fails only where nothing can be known: where no
// broker tells of the cluster. All else that cannot be asked is in
// Facts.Missed.
func (l *Look) Run(ctx context.Context) (*Facts, error) {
	if l.Timeout == 0 {
		l.Timeout = 10 * time.Second
	}
	g := &gathering{Look: l, adm: kadm.NewClient(l.Client), facts: &Facts{Now: time.Now(), Bootstrap: l.Bootstrap}}
	if err := g.metadata(ctx); err != nil {
		return nil, err
	}
	// The versions first: who does not answer then is not asked again.
	for _, ask := range []func(context.Context){g.versions, g.fenced, g.clock, g.brokerSettings, g.groups, g.transactions, g.topics} {
		ask(ctx)
	}
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	return g.facts, nil
}

// gathering is one run of a Look.
type gathering struct {
	*Look
	adm   *kadm.Client
	facts *Facts

	mu sync.Mutex // over facts.Missed
}

// within returns the context of one question.
func (g *gathering) within(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, g.Timeout)
}

// anyone is a broker that answers, for what each of them can be asked. The
// client would choose one that may not.
func (g *gathering) anyone() kmsg.Requestor {
	for _, b := range g.facts.Brokers {
		if !b.Down {
			return g.Client.Broker(int(b.ID))
		}
	}
	return g.Client
}

// missed notes what could not be asked. needs is the right that it takes.
func (g *gathering) missed(what, needs string, err error) { g.miss(Missed{What: what}, needs, err) }

func (g *gathering) miss(m Missed, needs string, err error) {
	m.Why = because(needs, err)
	g.mu.Lock()
	defer g.mu.Unlock()
	if !slices.Contains(g.facts.Missed, m) {
		g.facts.Missed = append(g.facts.Missed, m)
	}
}

// because says why something could not be asked.
func because(needs string, err error) string {
	switch {
	case denied(err):
		return "needs " + needs
	case tooOld(err):
		return "the brokers do not know how: an older Kafka, or not Apache Kafka"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return "there was no answer in time"
	}
	return err.Error()
}

// denied reports whether err is for want of a right.
func denied(err error) bool {
	if _, ok := errors.AsType[*kadm.AuthError](err); ok {
		return true
	}
	for _, auth := range []error{
		kerr.TopicAuthorizationFailed, kerr.GroupAuthorizationFailed, kerr.ClusterAuthorizationFailed, kerr.TransactionalIDAuthorizationFailed,
	} {
		if errors.Is(err, auth) {
			return true
		}
	}
	return false
}

// tooOld reports whether a broker does not know the request; kgo has no value
// for it.
func tooOld(err error) bool {
	text := err.Error()
	return errors.Is(err, kerr.UnsupportedVersion) || strings.Contains(text, "request key is unknown") || strings.Contains(text, "broker is too old")
}
