// Package crashlab is the laboratory in which wherry's exactly-once runtime is
// attacked: a workload whose every effect can be told from every other, a
// checker that reads what the workload left in its topics, and what kills,
// freezes and disconnects the processes and brokers meanwhile.
//
// # The workload
//
// Inputs have keys and kinds: some are slow, some fail and are tried again, some
// can never be handled and are dead-lettered, some delete what others wrote. Each
// adds one to its key's counter in an owned table and emits the counter's new
// value to two topics, so that an effect that is lost or there twice shows as a
// gap or a repeat, a table that was restored wrongly does too, and half a
// transaction as a difference between the two topics. What must come of a log of
// inputs follows from it alone (Check).
//
// # Sagas
//
// Another workload is sagas (variant Sagas): processes that run an Engine, and
// processes of participants. A saga has a local step, one that may be asked for
// again, two side by side, one that some do without, one that may not be asked
// for again, an event that is answered by events, a pivot, and two steps after it
// (SagaSteps). A Script, which follows from the run's seed and the saga's number,
// says what each participant does with each attempt: it answers, says no, fails
// some times, loses the request or the answer, answers twice, contradicts itself,
// or is late; the same for undoing. The run's seed also says whether there is a
// deadline, a gate, an undo of the pivot, and how soon what has ended is forgotten.
//
// Each effect is a record that tells it from every other, and all of one saga are
// in one partition, in their order. CheckSagas holds them, the attempts that were
// sent, and the sagas' own records against the scripts: each saga ends once, as it
// may; no effect and no attempt is there twice; what is undone is what was done or
// may have been, in reverse; nothing is too early; nothing is lost.
//
// # The disturbances
//
// In tests in virtual time they are kafkatest's faults, drawn from a seed
// (sim_test.go). In real processes (Child, Lab) a process ends itself at its
// n-th request of a kind, before it is sent or when its answer has come; it is
// killed, frozen for longer than its session, or asked to stop; brokers are
// killed and started again. soak runs that for a given time on three real
// brokers, and docs/reliability.md has what came of it.
//
// # Planted faults
//
// Package internal/planted makes the runtime, and the saga engine, do things
// wrongly that a laboratory should notice, one at a time; TestPlanted_… and
// TestPlantedSagas_… show that this one does.
package crashlab
