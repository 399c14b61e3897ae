//go:build synctests

package kafkatest

// tagged tells that kgo's locks are made for a bubble (kgo/internal/xsync).
const tagged = true
