package dlq

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// topicID is an id as Kafka's own tools write it.
func topicID(id kadm.TopicID) string { return base64.RawURLEncoding.EncodeToString(id[:]) }

// markKey is the key of the record that marks one letter.
func markKey(id kadm.TopicID, at place) string {
	return topicID(id) + "/" + strconv.Itoa(int(at.partition)) + "/" + strconv.FormatInt(at.offset, 10)
}

// groupKey is the key of the record that marks several letters. No two groups
// share one, or compaction would lose what only the older has: letters of a run
// are in one group each.
func groupKey(id kadm.TopicID, run string, first place, last int64) string {
	return markKey(id, first) + "-" + strconv.FormatInt(last, 10) + "/" + run
}

// parseMarkKey reads a key of the ledger. ok is false for what is no mark of
// the topic with that id; last is -1 where it marks one letter.
func parseMarkKey(key []byte, id kadm.TopicID) (at place, last int64, run string, ok bool) {
	rest, ok := strings.CutPrefix(string(key), topicID(id)+"/")
	if !ok {
		return at, -1, "", false
	}
	partition, letters, ok := strings.Cut(rest, "/")
	if !ok {
		return at, -1, "", false
	}
	letters, run, many := strings.Cut(letters, "/")
	first, end, both := strings.Cut(letters, "-")
	p, err := strconv.ParseInt(partition, 10, 32)
	o, err2 := strconv.ParseInt(first, 10, 64)
	last = -1
	var err3 error
	if many {
		last, err3 = strconv.ParseInt(end, 10, 64)
		many = last > o && last < math.MaxInt64
	}
	ok = errors.Join(err, err2, err3) == nil && both == many && p >= 0 && o >= 0
	return place{int32(p), o}, last, run, ok
}

// letters are some that follow each other in a partition, and so do their
// copies: offset and number of the letters, partition and offset of the first
// copy.
type letters [4]int64

// group is the value of a record that marks several letters: a Decision without
// the copy's place, and the letters.
type group struct {
	Decision
	ToPartition *int32    `json:"toPartition,omitempty"` // hide the Decision's
	ToOffset    *int64    `json:"toOffset,omitempty"`
	Letters     []letters `json:"letters"`
}

// marked is a letter that was decided about and copied.
type marked struct {
	place
	action Action
	copy   *kgo.Record // with the place where it is; nil where none was made
}

// markRecords returns the records that say what was decided, d, about some
// letters: a record for those of one partition that have one topic to go to.
func markRecords(deadLetters string, id kadm.TopicID, all []marked, d Decision) (records []*kgo.Record, err error) {
	to := func(m marked) string {
		if m.copy == nil {
			return ""
		}
		return m.copy.Topic
	}
	alike := func(a, b marked) int {
		return cmp.Or(cmp.Compare(a.partition, b.partition), cmp.Compare(a.action, b.action), cmp.Compare(to(a), to(b)))
	}
	all = slices.Clone(all)
	slices.SortFunc(all, func(a, b marked) int { return cmp.Or(alike(a, b), cmp.Compare(a.offset, b.offset)) })
	for len(all) > 0 {
		n := 1
		for n < len(all) && alike(all[0], all[n]) == 0 {
			n++
		}
		d.Action, d.To = all[0].action, to(all[0])
		r := &kgo.Record{Topic: LedgerTopic(deadLetters)}
		if n == 1 {
			if c := all[0].copy; c != nil {
				d.ToPartition, d.ToOffset = c.Partition, c.Offset
			}
			r.Key = []byte(markKey(id, all[0].place))
			r.Value, err = json.Marshal(d)
		} else {
			r.Key = []byte(groupKey(id, d.Run, all[0].place, all[n-1].offset))
			r.Value, err = groupValue(d, all[:n])
		}
		if err != nil {
			return nil, err
		}
		records, all = append(records, r), all[n:]
	}
	return records, nil
}

// groupValue is the JSON of a group. Its letters are most of it, so they are not
// left to encoding/json.
func groupValue(d Decision, all []marked) ([]byte, error) {
	head, err := json.Marshal(group{Decision: d, Letters: []letters{}})
	if err != nil {
		return nil, err
	}
	out := bytes.TrimSuffix(head, []byte("]}"))
	var run letters
	write := func() {
		if run[1] == 0 {
			return
		}
		if out[len(out)-1] == ']' {
			out = append(out, ',')
		}
		for i, n := range run {
			out = strconv.AppendInt(append(out, "[,,,"[i]), n, 10)
		}
		out = append(out, ']')
	}
	for _, m := range all {
		next := letters{m.offset, 1}
		if m.copy != nil {
			next[2], next[3] = int64(m.copy.Partition), m.copy.Offset
		}
		follows := m.offset == run[0]+run[1] && next[2] == run[2] && (m.copy == nil || next[3] == run[3]+run[1])
		if run[1] > 0 && follows {
			run[1]++
			continue
		}
		write()
		run = next
	}
	write()
	return append(out, "]}"...), nil
}
