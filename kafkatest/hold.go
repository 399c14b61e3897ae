package kafkatest

import (
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// slots is how many lock files there can be. A file cannot be removed safely
// while others may be waiting for it, and test clusters are many, each with a new
// id; two that share a slot only wait for each other.
const slots = 256

// holders are the tests of this process that hold a cluster, by its id.
var holders sync.Map

// holdCluster waits until no other test, of this process or another, uses the
// cluster with the given id, and holds it until t's test ends. Two tests on one
// cluster would delete each other's topics. The cluster's own id tells the lock,
// because localhost:9092 and 127.0.0.1:9092 are one cluster.
//
// The lock goes with the open file, so that it is released when a process dies,
// however it dies, and two tests of one process exclude each other as well.
func holdCluster(t testing.TB, id string) {
	t.Helper()
	if other, ok := holders.Load(id); ok && below(t.Name(), other.(string)) {
		t.Fatalf("kafkatest: %s holds the cluster of KAFKATEST_BROKERS already: a test has one Cluster, which its subtests share", other)
	}
	slot := fnv.New32a()
	_, _ = slot.Write([]byte(id))
	path := filepath.Join(os.TempDir(), fmt.Sprintf("kafkatest-%d.lock", slot.Sum32()%slots))
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o666)
	if err != nil {
		t.Fatalf("kafkatest: open the lock of the cluster: %v", err)
	}
	if err := lock(file, patience(t)); err != nil {
		holder, _ := io.ReadAll(file)
		_ = file.Close()
		t.Fatalf("kafkatest: wait for the cluster of KAFKATEST_BROKERS: %v; held by %s "+
			"(a test that calls t.Parallel after NewCluster holds it while it is paused: call t.Parallel first)", err, holder)
	}
	_ = file.Truncate(0)
	_, _ = file.WriteAt(fmt.Appendf(nil, "%s of process %d", t.Name(), os.Getpid()), 0)
	holders.Store(id, t.Name())
	t.Cleanup(func() {
		holders.Delete(id)
		_ = file.Close() // releases the lock
	})
}

// lock takes the lock on file, or gives up after the given time.
func lock(file *os.File, patience time.Duration) error {
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := tryLock(file)
		if !errors.Is(err, errHeld) {
			return err
		}
		select {
		case <-ticker.C:
		case <-deadline.C:
			return fmt.Errorf("%w after %v", err, patience)
		}
	}
}

// patience is how long t's test may wait for its turn: until shortly before the
// test binary's own deadline, so that the reason is still told.
func patience(t testing.TB) time.Duration {
	if d, ok := t.(interface{ Deadline() (time.Time, bool) }); ok {
		if deadline, ok := d.Deadline(); ok {
			return max(time.Until(deadline)-5*time.Second, time.Second)
		}
	}
	return 10 * time.Minute
}

// below says whether a test is the other or a subtest of it.
func below(test, other string) bool {
	return test == other || strings.HasPrefix(test, other+"/")
}

var errHeld = errors.New("still in use")
