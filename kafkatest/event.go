package kafkatest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Encoder makes a record of a value, with the topic set. A wherry.Event[T] is
// one; so is anything with this method.
type Encoder[T any] interface {
	Record(key string, v T) (*kgo.Record, error)
}

// Decoder reads the records of one topic. A wherry.Event[T] is one; so is
// anything with these methods.
type Decoder[T any] interface {
	TopicName() string
	Decode(*kgo.Record) (T, error)
}

// Send produces v with the key and returns the acknowledged record, with its
// partition and offset. It ends the test when v cannot be encoded or the
// broker does not acknowledge it within k.Timeout.
func Send[T any](t testing.TB, k *Cluster, e Encoder[T], key string, v T) *kgo.Record {
	t.Helper()
	r, err := e.Record(key, v)
	if err != nil {
		t.Fatalf("kafkatest: encode the value with key %q: %v", key, err)
	}
	return SendRecord(t, k, r)
}

// SendRecord is Send for a record made by hand: bytes that nobody can decode,
// headers of another language. Its partition is chosen by its key.
func SendRecord(t testing.TB, k *Cluster, r *kgo.Record) *kgo.Record {
	t.Helper()
	ctx, cancel := k.within(t, k.longest())
	defer cancel()
	sent, err := k.admin.ProduceSync(ctx, r).First()
	switch {
	case err == nil:
		return sent
	case errors.Is(err, kerr.UnknownTopicOrPartition):
		t.Fatalf("kafkatest: topic %q does not exist: name it in NewCluster or make it with Create", r.Topic)
	default:
		t.Fatalf("kafkatest: send to topic %q: %v%s", r.Topic, err, cause(ctx))
	}
	return nil
}

// Next returns the next record of e's topic in this test, decoded. Calls for
// one topic share one position, whatever their decoders: each record comes
// once, those of a partition in order, partitions among each other in any
// order. Records of open and aborted transactions do not come (read committed).
//
// It ends the test when none comes within k.Timeout, when a Runner of the test
// ends with an error meanwhile, and when the record does not decode.
func Next[T any](t testing.TB, k *Cluster, e Decoder[T]) T {
	t.Helper()
	r := NextRecord(t, k, e.TopicName())
	v, err := e.Decode(r)
	if err != nil {
		t.Fatalf("kafkatest: decode %s: %v", describe(r), err)
	}
	return v
}

// NextRecord is Next for the record itself: bytes, headers, offset.
func NextRecord(t testing.TB, k *Cluster, topic string) *kgo.Record {
	t.Helper()
	rd := k.reader(t, topic)
	ctx, cancel := k.within(t, k.longest())
	defer cancel()
	r, err := rd.next(ctx)
	if err != nil {
		t.Fatalf("kafkatest: no record on topic %q within %v: %v\n%s%s", topic, k.longest(), err, k.report(topic, rd), k.hint())
	}
	return r
}

// None ends the test if a record of e's topic that Next has not returned is
// there, or comes within the given time. All that was committed in that time
// counts, however slow the reading is: a short time does not make None pass by
// accident on a slow broker.
func None[T any](t testing.TB, k *Cluster, e Decoder[T], within time.Duration) {
	t.Helper()
	k.refuseLong(t, "None", within)
	rd := k.reader(t, e.TopicName())
	ctx, cancel := k.within(t, within)
	defer cancel()
	r, err := rd.next(ctx)
	if errors.Is(err, errTimeout) {
		ctx, cancel := k.within(t, k.longest())
		defer cancel()
		r, err = rd.rest(ctx, k.admin)
	}
	if err != nil {
		t.Fatalf("kafkatest: none on topic %q: %v", e.TopicName(), err)
	}
	if r == nil {
		return
	}
	value := ""
	if v, err := e.Decode(r); err == nil {
		value = fmt.Sprintf("\n\tdecoded: %+v", v)
	}
	t.Fatalf("kafkatest: wanted no record on topic %q within %v, got %s%s", e.TopicName(), within, describe(r), value)
}
