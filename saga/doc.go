// Package saga has sagas whose only store is Kafka.
package saga
