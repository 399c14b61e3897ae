package kafkatest_test

import (
	"encoding/json"
	"fmt"
	"runtime"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// event stands in for what users bring: anything with these methods.
type event[T any] struct{ Topic string }

func (e event[T]) TopicName() string { return e.Topic }

func (e event[T]) Record(key string, v T) (*kgo.Record, error) {
	value, err := json.Marshal(v)
	return &kgo.Record{Topic: e.Topic, Key: []byte(key), Value: value}, err
}

func (e event[T]) Decode(r *kgo.Record) (v T, err error) {
	return v, json.Unmarshal(r.Value, &v)
}

type order struct {
	ID     string
	Amount int
}

var (
	orderPlaced = event[order]{"order.placed"}
	orderPaid   = event[order]{"order.paid"}
)

// recorder is a test that may fail without failing ours.
type recorder struct {
	testing.TB // for what it does not do itself: Name, TempDir, …
	name       string

	mu       sync.Mutex
	text     string
	failed   bool
	skipped  bool
	cleanups []func()
}

// record runs f as a test would be run, cleanups included, and returns what came of it.
func record(t testing.TB, f func(t testing.TB)) *recorder {
	t.Helper()
	return recordAs(t, t.Name()+"/recorded", f)
}

func recordAs(t testing.TB, name string, f func(t testing.TB)) *recorder {
	rec := &recorder{TB: t, name: name}
	run := func(f func()) {
		done := make(chan struct{})
		go func() {
			defer close(done)
			f()
		}()
		<-done
	}
	run(func() { f(rec) })
	for last := rec.last(); last != nil; last = rec.last() {
		run(last)
	}
	return rec
}

// last takes the cleanup that was registered last, nil if none is left.
func (r *recorder) last() func() {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := len(r.cleanups) - 1
	if n < 0 {
		return nil
	}
	f := r.cleanups[n]
	r.cleanups = r.cleanups[:n]
	return f
}

func (r *recorder) Name() string { return r.name }
func (r *recorder) Helper()      {}

func (r *recorder) Cleanup(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cleanups = append(r.cleanups, f)
}

func (r *recorder) Failed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed
}

func (r *recorder) Logf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.text += fmt.Sprintf(format, args...) + "\n"
}

func (r *recorder) Errorf(format string, args ...any) {
	r.Logf(format, args...)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = true
}

func (r *recorder) FailNow() {
	r.mu.Lock()
	r.failed = true
	r.mu.Unlock()
	runtime.Goexit()
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	runtime.Goexit()
}

func (r *recorder) Skipf(format string, args ...any) {
	r.Logf(format, args...)
	r.skipped = true
	runtime.Goexit()
}
