// Package apache runs a real Apache Kafka as child processes, for tests: one or
// three nodes in KRaft mode on loopback ports, from jars, without Docker and
// without an installation.
//
// Measured on two idle cores, one node is ready after 0.9 s and three after
// 2.5 s, at 160 MB each. That is due to a class-data archive (made at the first
// clean stop of a one-node cluster and kept beside the jars; without it a node
// takes 2.4 s, and that stop 2 s more), the serial collector, a small heap, and
// storage that is formatted without a second JVM. See Cluster for what its
// configuration changes from Kafka's own.
//
// The nodes die with this process, even when it is killed (on Linux; elsewhere
// only when Run returns).
package apache
