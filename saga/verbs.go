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
	// Step is the step that Retry, Skip and Complete are about. "" means the one
	// in hand; where there are several, one is to be named.
	Step string
	// State, for Complete, is the saga's state from then on, as the Definition's
	// Codec writes it. nil leaves it as it is.
	State []byte
	// ID is the id of the verb, the same where it is asked for again: one of an id
	// is applied once. "" means a new one.
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

// Do does what an operator asks for, and returns when it is applied and
// committed: it is a record in the saga's inbox, applied once, and stands in its
// history with who asked and why. It returns a [*VerbError] where the verb was
// refused. After any other error it may have been applied, or be applied yet: ask
// again with the same By.ID.
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

// Cancel rejects the step in hand, before the pivot: attempts that are out
// settle, and what was done is undone. It returns when that is decided, before it
// is done; see [Engine.Wait]. Errors are those of [Inspector.Do], as with the
// other verbs.
func (e *Engine[S]) Cancel(ctx context.Context, id string, by By) error {
	return e.inspector().Do(ctx, id, Cancel, by)
}

// Undo is Cancel without waiting: attempts that are out count as unknown, and are
// undone.
func (e *Engine[S]) Undo(ctx context.Context, id string, by By) error {
	return e.inspector().Do(ctx, id, Undo, by)
}

// Retry tries a step in hand again at once, its attempts counted anew: also of a
// saga that is parked, stuck or quarantined.
func (e *Engine[S]) Retry(ctx context.Context, id string, by By) error {
	return e.inspector().Do(ctx, id, Retry, by)
}

// Skip passes a step in hand by, doing or undoing, as if it were nothing.
func (e *Engine[S]) Skip(ctx context.Context, id string, by By) error {
	return e.inspector().Do(ctx, id, Skip, by)
}

// Complete has a step in hand count as done, or as undone: somebody did it by
// hand.
func (e *Engine[S]) Complete(ctx context.Context, id string, by By) error {
	return e.inspector().Do(ctx, id, Complete, by)
}

// Pause begins no further attempt; what comes in is taken in.
func (e *Engine[S]) Pause(ctx context.Context, id string, by By) error {
	return e.inspector().Do(ctx, id, Pause, by)
}

// Resume ends a Pause and a quarantine.
func (e *Engine[S]) Resume(ctx context.Context, id string, by By) error {
	return e.inspector().Do(ctx, id, Resume, by)
}

// Purge forgets a saga at once, whatever it was doing: nothing is undone, and
// who waits for it finds nothing.
func (e *Engine[S]) Purge(ctx context.Context, id string, by By) error {
	return e.inspector().Do(ctx, id, Purge, by)
}
