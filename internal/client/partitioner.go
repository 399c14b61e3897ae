package client

import (
	"context"

	"github.com/twmb/franz-go/pkg/kgo"
)

type partitionKey struct{}

// mark is a record's context that says where it goes.
type mark struct {
	context.Context //nolint:containedctx // it is one
	partition       int32
}

func (m *mark) Value(key any) any {
	if key == (partitionKey{}) {
		return m
	}
	return m.Context.Value(key)
}

// ToPartition marks r to go to partition p, whatever its key, through a
// client that has Partitioner. kgo's own partitioners but the manual one
// ignore Record.Partition.
func ToPartition(r *kgo.Record, p int32) {
	ctx := r.Context
	if ctx == nil {
		ctx = context.Background()
	}
	r.Partition = p
	r.Context = &mark{ctx, p}
}

// Marked returns the partition that ToPartition gave r.
func Marked(r *kgo.Record) (p int32, ok bool) {
	m, ok := r.Context.(*mark)
	if !ok && r.Context != nil {
		m, ok = r.Context.Value(partitionKey{}).(*mark)
	}
	if !ok {
		return 0, false
	}
	return m.partition, true
}

// Partitioner sends what ToPartition marked where the mark says and asks
// inner for the rest. A mark beyond the topic's partitions fails the record.
func Partitioner(inner kgo.Partitioner) kgo.Partitioner { return partitioner{inner} }

type partitioner struct{ inner kgo.Partitioner }

func (p partitioner) ForTopic(topic string) kgo.TopicPartitioner {
	inner := p.inner.ForTopic(topic)
	// kgo asks for the optional interfaces by type assertion, so each shape
	// of inner needs a shape of its own.
	tp := topicPartitioner{inner}
	backup, byBackup := inner.(kgo.TopicBackupPartitioner)
	batch, onBatch := inner.(kgo.TopicPartitionerOnNewBatch)
	switch {
	case byBackup && onBatch:
		return &struct {
			backupPartitioner
			kgo.TopicPartitionerOnNewBatch
		}{backupPartitioner{tp, backup}, batch}
	case byBackup:
		return &backupPartitioner{tp, backup}
	case onBatch:
		return &struct {
			topicPartitioner
			kgo.TopicPartitionerOnNewBatch
		}{tp, batch}
	}
	return &tp
}

type topicPartitioner struct{ inner kgo.TopicPartitioner }

func (p topicPartitioner) RequiresConsistency(r *kgo.Record) bool {
	_, marked := Marked(r)
	return marked || p.inner.RequiresConsistency(r)
}

func (p topicPartitioner) Partition(r *kgo.Record, n int) int {
	if to, ok := Marked(r); ok {
		return int(to)
	}
	return p.inner.Partition(r, n)
}

type backupPartitioner struct {
	topicPartitioner
	backup kgo.TopicBackupPartitioner
}

func (p backupPartitioner) PartitionByBackup(r *kgo.Record, n int, it kgo.TopicBackupIter) int {
	if to, ok := Marked(r); ok {
		return int(to)
	}
	return p.backup.PartitionByBackup(r, n, it)
}
