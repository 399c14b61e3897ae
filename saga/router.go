package saga

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/dlq"
)

// routed is a topic of events, and which sagas a record of it is about.
type routed struct {
	from wherry.Position
	ids  []func(r *kgo.Record) (string, error)
}

// routes are the topics that start sagas or end steps. Those of one topic are
// read from the earliest position that a trigger asks for, and from Latest
// where none does.
func routes(plans map[int]*plan) map[string]*routed {
	all := map[string]*routed{}
	add := func(topic string, from wherry.Position, id func(r *kgo.Record) (string, error)) {
		t := all[topic]
		if t == nil {
			t = &routed{from: from}
			all[topic] = t
		}
		if t.from == wherry.Latest || from != wherry.Latest && from < t.from {
			t.from = from
		}
		t.ids = append(t.ids, id)
	}
	for _, version := range slices.Sorted(maps.Keys(plans)) {
		p := plans[version]
		for _, t := range p.triggers {
			add(t.topic, t.from, t.id)
		}
		for i := range p.steps {
			for _, a := range []act{p.steps[i].do, p.steps[i].undo} {
				for _, o := range a.outcomes {
					add(o.topic, wherry.Latest, o.id)
				}
			}
		}
	}
	return all
}

// about says why a record is not about a saga; nil if it is.
func (t *routed) about(saga string, r *kgo.Record) error {
	var others []string
	for _, of := range t.ids {
		id, err := of(r)
		switch {
		case err != nil:
			return fmt.Errorf("which saga a record of %s is about: %w", r.Topic, err)
		case id == saga:
			return nil
		case !slices.Contains(others, id):
			others = append(others, id)
		}
	}
	return fmt.Errorf("a record of %s is about saga %q, and this is %q: see By of its trigger, or outcome", r.Topic, others, saga)
}

// routers are the Consumers that bring events into the inbox: one for each
// position that topics are read from, because that belongs to a group.
func (s *shell) routers() (all []*wherry.Consumer) {
	byFrom := map[wherry.Position][]wherry.Route{}
	topics := routes(s.plans)
	for _, topic := range slices.Sorted(maps.Keys(topics)) {
		t := topics[topic]
		byFrom[t.from] = append(byFrom[t.from], wherry.Route{Topic: topic, Handler: s.route(t.ids)})
	}
	for _, from := range slices.Sorted(maps.Keys(byFrom)) {
		group := s.name + ".saga.router"
		switch from {
		case wherry.Latest:
		case wherry.Earliest:
			group += ".earliest"
		default:
			group += "." + strconv.FormatInt(int64(from), 10)
		}
		all = append(all, &wherry.Consumer{
			Client: s.client, Group: group, From: from, Delivery: wherry.ExactlyOnce,
			Handlers: byFrom[from], Policies: []wherry.Policy{s.dead()}, Opts: s.fetchLess(), Logger: s.log,
		})
	}
	return all
}

// route brings an event to the sagas that it is about.
func (s *shell) route(ids []func(r *kgo.Record) (string, error)) wherry.Handler {
	return func(ctx context.Context, r *kgo.Record) error {
		var told []string
		var fault error
		for _, of := range ids {
			id, err := of(r)
			if err == nil {
				err = checkID(id)
			}
			if err != nil {
				fault = errors.Join(fault, err)
				continue
			}
			if slices.Contains(told, id) {
				continue
			}
			told = append(told, id)
			to := partitionOf(id, s.places.known.Load())
			e := eventRecord(s.inbox, to, id, r)
			wherry.ToPartition(e, to)
			if err := wherry.Publish(ctx, e); err != nil {
				return err
			}
		}
		if len(told) == 0 {
			return &wherry.RecordError{Cause: wherry.CauseUndecodable, Err: fmt.Errorf("which saga of %s it is about: %w", s.name, fault)}
		}
		return nil
	}
}

// dead is the policy that makes dead letters.
func (s *shell) dead() *dlq.Queue {
	return &dlq.Queue{Topic: deadTopic(s.name), Gate: dlq.Gate{After: -1}, MeterProvider: s.meters}
}
