package doctor

import (
	"fmt"
	"slices"
	"time"
	"unicode/utf16"
)

// heldNormal is how long offsets are held in a group that is exactly once and
// well: as long as a transaction takes.
const heldNormal = 10 * time.Second

// held looks at offsets that wait for a transaction.
func (e *exam) held(g *Group) {
	var where []string
	for _, c := range g.Commits {
		if c.Held {
			where = append(where, place(c.Topic, c.Partition))
		}
	}
	if len(where) == 0 {
		return
	}
	f := Finding{
		Check: "offsets-held", Severity: Note, Where: where,
		What: fmt.Sprintf("group %s has %s whose offset waits for a transaction to end (UNSTABLE_OFFSET_COMMIT)", g.Name, count(len(where), "partition")),
		Why:  "Until then a member that is assigned one of them waits before it reads (KIP-447). In a group that is exactly once it is so for milliseconds, again and again.",
		Mend: "Look again. If it stays so, see which transaction is open, among these findings or by", Commands: []string{e.tool("kafka-transactions list")},
	}
	age, id, known := e.holder(g.Name)
	switch {
	case !known:
		f.What += "; for how long is not known, for no open transaction that may be seen has them"
	default:
		f.What += fmt.Sprintf(", that of %s, for %s", id, long(age))
		if age > e.OpenLong {
			f.Severity = Warning
		} else if age <= heldNormal {
			f.Mend, f.Commands = "Nothing needs to be done.", nil
		}
	}
	e.find(f)
}

// holder is the oldest open transaction that has offsets of the partition of
// __consumer_offsets in which a group is kept.
func (e *exam) holder(group string) (age time.Duration, id string, known bool) {
	partition, ok := e.offsetsPartition(group)
	if !ok {
		return 0, "", false
	}
	for _, tx := range e.Transactions {
		if d := e.brokerNow().Sub(tx.Began); slices.Contains(tx.Partitions["__consumer_offsets"], partition) && (!known || d > age) {
			age, id, known = d, tx.ID, true
		}
	}
	return age, id, known
}

// offsetsPartition is where a group is kept: by the hash that Java has for its
// name.
func (e *exam) offsetsPartition(group string) (int32, bool) {
	n := int32(len(e.Seen["__consumer_offsets"].Partitions))
	if n == 0 {
		return 0, false
	}
	var hash int32
	for _, unit := range utf16.Encode([]rune(group)) {
		hash = 31*hash + int32(unit)
	}
	return hash & 0x7fffffff % n, true
}

// Lag is how many offsets a group has not committed yet. Records that wait, for
// a retry or a limit, are among them.
type Lag struct {
	Total      int64
	Partitions int    // that have a commit
	Most       int64  // of one partition
	Where      string // that one
}

// Lag sums up a group's lag.
func (f *Facts) Lag(g *Group) Lag { return (&exam{Facts: f}).Lag(g) }

// Lag sums up a group's lag.
func (e *exam) Lag(g *Group) (lag Lag) {
	for _, c := range g.Commits {
		p, ok := e.partition(c.Topic, c.Partition)
		if !ok || c.Offset < 0 || p.End < 0 {
			continue
		}
		lag.Partitions++
		// Behind the start are records that are gone.
		n := max(0, p.End-max(c.Offset, p.Start))
		lag.Total += n
		if n > lag.Most {
			lag.Most, lag.Where = n, place(c.Topic, c.Partition)
		}
	}
	return lag
}
