package saga

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
)

// By says who asks for a verb, and why. Both stand in the saga's history.
type By struct {
	// Actor is who. Required.
	Actor string
	// Reason is why. Required.
	Reason string
	// Step is the step that Retry, Skip and Complete are about. "" means the one in
	// hand; if there are several, name one.
	Step string
	// State, for Complete, is the saga's state from then on, as the Definition's
	// Codec writes it. nil leaves it as it is.
	State []byte
	// ID identifies the verb: use the same one to ask for it again after an error,
	// and it is applied once. "" means a new one.
	ID string
}

// A VerbError says why a verb was not applied.
type VerbError struct {
	Saga, ID string
	Verb     VerbName
	Reason   string
}

func (e *VerbError) Error() string {
	return fmt.Sprintf("saga %s: %q: %s", e.Saga, e.ID, e.Reason)
}

// Do applies a verb, and returns when that is committed. The verb is a record in the
// saga's inbox, is applied once, and is recorded in the history with who asked and
// why. Do returns a [*VerbError] if the verb was refused. After any other error it
// may have been applied, or may still be: ask again with the same By.ID.
func (i *Inspector) Do(ctx context.Context, id string, verb VerbName, by By) error {
	if err := by.check(verb); err != nil {
		return fmt.Errorf("saga %s: %q: %s: %w", i.Name, id, verb, err)
	}
	if by.ID == "" {
		by.ID = rand.Text()
	}
	answer, err := ask(ctx, i, demands(i.Name), id, demand{
		ID: id, Verb: verb, Once: by.ID, Actor: by.Actor, Reason: by.Reason, Step: by.Step, State: by.State,
	})
	if err == nil && answer.Refused != "" {
		return &VerbError{Saga: i.Name, ID: id, Verb: verb, Reason: answer.Refused}
	}
	return err
}

func (by By) check(verb VerbName) error {
	var faults []error
	fault := func(text string) { faults = append(faults, errors.New(text)) }
	step := false
	switch verb {
	case Cancel, Undo, Pause, Resume, Purge:
	case Retry, Skip, Complete:
		step = true
	default:
		fault("there is no such verb")
	}
	if by.Actor == "" {
		fault("no actor: say who in By.Actor")
	}
	if by.Reason == "" {
		fault("no reason: say why in By.Reason")
	}
	if by.Step != "" && !step {
		fault("By.Step is for retry, skip and complete")
	}
	if by.State != nil && verb != Complete {
		fault("By.State is for complete")
	}
	return errors.Join(faults...)
}

// Cancel rejects the step in hand, before the pivot: the saga waits for attempts that
// are out, and then undoes what was done. An event that is awaited is such an attempt:
// if it may never come, use Undo. Cancel returns when that is decided, before
// it is done; see [Engine.Wait]. Its errors, like those of the other verbs, are those
// of [Inspector.Do].
func (e *Engine[S]) Cancel(ctx context.Context, id string, by By) error {
	return e.inspector().Do(ctx, id, Cancel, by)
}

// Undo is Cancel without waiting: attempts that are out count as unknown, and are
// undone.
func (e *Engine[S]) Undo(ctx context.Context, id string, by By) error {
	return e.inspector().Do(ctx, id, Undo, by)
}

// Retry tries the step in hand again at once, and counts its attempts from the start
// again; also for a saga that is parked, stuck or quarantined.
func (e *Engine[S]) Retry(ctx context.Context, id string, by By) error {
	return e.inspector().Do(ctx, id, Retry, by)
}

// Skip passes over the step in hand, doing or undoing, as if it were nothing.
func (e *Engine[S]) Skip(ctx context.Context, id string, by By) error {
	return e.inspector().Do(ctx, id, Skip, by)
}

// Complete counts the step in hand as done, or as undone, because somebody did it by
// hand.
func (e *Engine[S]) Complete(ctx context.Context, id string, by By) error {
	return e.inspector().Do(ctx, id, Complete, by)
}

// Pause lets no further attempt begin; answers and events are still taken in.
func (e *Engine[S]) Pause(ctx context.Context, id string, by By) error {
	return e.inspector().Do(ctx, id, Pause, by)
}

// Resume ends a Pause, a quarantine, and the parking of a saga whose version had no
// code.
func (e *Engine[S]) Resume(ctx context.Context, id string, by By) error {
	return e.inspector().Do(ctx, id, Resume, by)
}

// Purge forgets a saga at once, whatever it was doing: nothing is undone, and those
// who wait for it get [ErrNotFound].
func (e *Engine[S]) Purge(ctx context.Context, id string, by By) error {
	return e.inspector().Do(ctx, id, Purge, by)
}
