//go:build !synctests

package kafkatest

// tagged tells that kgo's locks are the ordinary ones. A goroutine that waits
// for an ordinary lock is not durably blocked, and stops virtual time for ever.
const tagged = false
