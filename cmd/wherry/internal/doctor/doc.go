// Package doctor finds out what hurts in a Kafka cluster, in the words of those
// who run services on it.
//
// [Look] asks the brokers and returns [Facts]; [Examine] makes [Finding]s of
// them and asks nobody. What could not be looked at is in the report as well,
// with the reason: no line means looked at, and well.
package doctor
