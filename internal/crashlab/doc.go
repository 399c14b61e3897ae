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
// Package internal/planted makes the runtime do each of five things wrongly that
// a laboratory should notice, and TestPlanted_… shows that this one does.
package crashlab
