// Package embedded runs a Kafka-protocol broker inside the process, with an
// optional data folder: kfake, franz-go's own Kafka in Go, made safe to
// develop against. It is no replacement for Apache Kafka.
//
// What a data folder keeps:
//
//   - After a clean end of [Broker.Run] everything is there again at the next
//     start: topics, settings, records, group offsets, transactions, open ones
//     too.
//   - After the process was killed, records that were acknowledged are there
//     (they are in the page cache of the operating system). Transactions that
//     were open are aborted by explicit markers before a client is let in, and
//     their producers are fenced. A transaction whose commit was being written
//     is completed in all its partitions if its producer makes that certain,
//     and else aborted where the commit is missing: then it is torn. The group
//     offsets of such a transaction may be missing, so its input is handled
//     once more.
//   - Nothing is synced to the disk before a clean end: a power cut can lose
//     what was acknowledged.
//
// A start goes in this order: lock the folder, take the port (clients that
// connect now wait), put back what a cut-off compaction left, read all records
// once and check them, end what a kill left open, start kfake on the result,
// compact, let clients in. Each step can be cut off by another kill: the next
// start begins again with the same outcome.
//
// Damage found in the folder is either refused with an error that names the
// file, or repaired with a warning in the log; bytes that a repair cuts off
// are kept in the sub-folder "damaged".
//
// The folder is kfake's (twmb/franz-go, package kfake, persist.go) plus
// wherry.lock, damaged and, for the length of a compaction, compacting. The
// parts of that format which this package reads and writes are in format.go;
// a new kfake has to be checked against it.
package embedded
