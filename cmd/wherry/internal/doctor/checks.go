package doctor

// Checks are the names of all checks. They stay as they are.
var Checks = []string{
	"auto-create-topics", "below-min-isr", "broker-down", "broker-silent", "broker-versions", "changelog", "changelog-retention",
	"clock-skew", "dead-letter-policy", "dead-letter-retention", "delay-partitions", "delay-policy",
	"delay-retention", "finished-set", "group-empty", "group-missing", "group-state", "headers-room",
	"idle-members", "ledger-partitions", "max-message-bytes", "message-max-bytes", "min-isr", "no-leader",
	"offset-ahead", "offset-behind", "offset-metadata", "offsets-held", "offsets-topic", "one-replica",
	"read-committed", "session-timeout-max", "session-timeout-min", "stable-offset", "static-members",
	"topic-missing", "transaction-hangs", "transaction-open", "transaction-topic", "transaction-version",
	"txn-id-expiration", "txn-retry-backoff", "txn-timeout-max", "unclean-election", "under-replicated",
}
