// Package planted has the faults that the laboratory (internal/crashlab) plants
// to show that it would find them. Nothing outside of tests sets them.
//
// Is is asked in the code that a fault would break: one atomic load.
package planted

import (
	"fmt"
	"sync/atomic"
)

// Fault is one thing that the exactly-once runtime, or the saga engine on it, does
// wrong while it is set.
type Fault int32

// Faults. At most one is set at a time.
const (
	// None is the state of every process but those of the laboratory.
	None Fault = iota
	// NoFencing leaves the group's generation and the member id out of
	// TxnOffsetCommit, so that the coordinator takes it from anybody.
	NoFencing
	// NoMetadata commits the watermark without the finished set.
	NoMetadata
	// PollHead commits the offset after the last record that was fetched, in
	// place of the watermark.
	PollHead
	// KeepOverlay keeps the table writes of a transaction that was aborted,
	// though its records run again.
	KeepOverlay
	// RestoreToLSO restores tables to the last stable offset, in place of the
	// high watermark.
	RestoreToLSO
	// KeepRevoked goes on with partitions that were taken away, whose new owner
	// has begun.
	KeepRevoked
	// SkipUndo leaves alone what a saga does not know whether it was done.
	SkipUndo
	// DoubledReply takes the answer to a step that is done in once more.
	DoubledReply
	// AttemptInKey has a participant tell attempts of one step apart, as if each
	// were another one.
	AttemptInKey
)

// Env is the environment variable that names a fault, for FromEnv.
const Env = "WHERRY_PLANT"

var names = []string{"None", "NoFencing", "NoMetadata", "PollHead", "KeepOverlay", "RestoreToLSO", "KeepRevoked", "SkipUndo", "DoubledReply", "AttemptInKey"}

// Faults returns all but None.
func Faults() []Fault {
	return []Fault{NoFencing, NoMetadata, PollHead, KeepOverlay, RestoreToLSO, KeepRevoked, SkipUndo, DoubledReply, AttemptInKey}
}

// String returns the fault's name.
func (f Fault) String() string { return names[f] }

var current atomic.Int32

// Set plants a fault in this process in place of the one before; None takes it
// out.
func Set(f Fault) { current.Store(int32(f)) }

// Is tells whether f is planted.
func Is(f Fault) bool { return current.Load() == int32(f) }

// FromEnv plants the fault that getenv(Env) names; empty means None. Only the
// main of the laboratory's child processes calls it, with os.Getenv: the
// variable has no effect on any other program.
func FromEnv(getenv func(string) string) error {
	name := getenv(Env)
	if name == "" {
		return nil
	}
	for i := range names {
		if names[i] == name {
			Set(Fault(i))
			return nil
		}
	}
	return fmt.Errorf("%s=%s: there is no such fault; there are %v", Env, name, names)
}
