package saga

import (
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"
)

// ReadSnapshot reads a record of a state topic, <name>.saga.state, for those who
// follow it themselves: an [Inspector] reads it as a whole. The steps have no
// names, as they are in no record of a saga. Where the record is of no saga (of
// what Engines note there, or one that was forgotten) ok is false.
func ReadSnapshot(name string, r *kgo.Record) (s Snapshot, ok bool, err error) {
	if !isID(r.Key) || r.Value == nil {
		return Snapshot{}, false, nil
	}
	i := &Inspector{Name: name}
	if s, err = i.readable(r, nil); err != nil {
		return s, false, fmt.Errorf("saga %s: %s/%d@%d: %w", name, r.Topic, r.Partition, r.Offset, err)
	}
	return s, true, nil
}
