package embedded

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// findings is what a scan of the data folder has found.
type findings struct {
	topics     []topicEntry
	partitions []*partition
	committed  map[producer]bool // a commit marker of it stands in some partition
	damaged    bool              // something had to be cut off, set aside or given up
}

// partition is what a scan has found of one partition.
type partition struct {
	topic    string
	number   int32
	dir      string
	segments []int64 // their first offsets, in order
	next     int64   // the offset after the last batch
	epoch    int32   // leader epoch of the last batch
	open     map[int64]producer
	windows  map[int64]*seqWindow // by producer id
}

// file returns the path of the segment that begins at base, or with suffix
// .idx of its index.
func (p *partition) file(base int64, suffix string) string {
	return filepath.Join(p.dir, strconv.FormatInt(base, 10)+suffix)
}

// name returns "topic-number", escaped as the folder's name.
func (p *partition) name() string { return filepath.Base(p.dir) }

// openTxns returns how many transactions have no end, counted per partition.
func (f *findings) openTxns() (n int) {
	for _, p := range f.partitions {
		n += len(p.open)
	}
	return n
}

// scan reads all of the folder's records once, checks them, and cuts off what
// kfake could not read. Otherwise it only mends indexes that are wrong, moves
// aside what belongs to no topic, and holds the place of lost records.
//
// It reads segment by segment, so it needs memory for one (100 MB unless the
// topic or the broker says otherwise) and for the producers of each partition.
func (s *store) scan() (*findings, error) {
	f := &findings{committed: map[producer]bool{}}
	var topics struct {
		Topics []topicEntry `json:"topics"`
	}
	if _, err := readJSON(filepath.Join(s.dir, "topics.json"), &topics); err != nil {
		return nil, s.explain(err)
	}
	f.topics = topics.Topics
	known := map[string]bool{}
	for _, t := range f.topics {
		for n := range t.Partitions {
			p := &partition{
				topic: t.Name, number: n, dir: s.partitionDir(t.Name, n),
				open: map[int64]producer{}, windows: map[int64]*seqWindow{},
			}
			known[p.name()] = true
			if err := s.scanPartition(f, p); err != nil {
				return nil, fmt.Errorf("partition %s/%d: %w", p.topic, p.number, err)
			}
			f.partitions = append(f.partitions, p)
		}
	}
	return f, errors.Join(s.setAside(f, known), s.cutLog("pids.log", f), s.cutLog("groups.log", f))
}

// partitionDir returns the folder of a partition, whether it exists or not.
func (s *store) partitionDir(topic string, number int32) string {
	return filepath.Join(s.dir, "partitions", fmt.Sprintf("%s-%d", url.PathEscape(topic), number))
}

// setAside moves partitions of topics that do not exist out of the way: a
// topic created with that name would append to their files.
func (s *store) setAside(f *findings, known map[string]bool) error {
	entries, err := os.ReadDir(filepath.Join(s.dir, "partitions"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		if known[e.Name()] {
			continue
		}
		to, err := s.keptPath(e.Name())
		if err != nil {
			return err
		}
		if err := os.Rename(filepath.Join(s.dir, "partitions", e.Name()), to); err != nil {
			return err
		}
		f.damaged = true
		s.log.Warn("the data folder has records of a partition that is in no topic: they are set aside", "partition", e.Name(), "kept", to)
	}
	return nil
}

// scanPartition reads p from its folder. A partition without one is empty,
// which is no damage after a kill: kfake makes the folder for the first record.
// After a clean end, everything that its summary names must be there.
func (s *store) scanPartition(f *findings, p *partition) error {
	entries, err := os.ReadDir(p.dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".dat"); ok {
			if base, err := strconv.ParseInt(name, 10, 64); err == nil {
				p.segments = append(p.segments, base)
			}
		}
	}
	slices.Sort(p.segments)

	var snap snapshot
	found, err := readJSON(filepath.Join(p.dir, "snapshot.json"), &snap)
	switch {
	case err != nil:
		s.complain(f, p, "its summary is damaged and is made anew; records that were deleted may be back", "error", err)
	case !found && s.clean:
		s.complain(f, p, "it is missing from the data folder: its records are lost")
	case s.clean:
		for _, seg := range snap.Segments {
			if info, err := os.Stat(p.file(seg.BaseOffset, ".dat")); err != nil {
				s.complain(f, p, "a file of it is missing from the data folder: its records are lost", "error", err)
			} else if info.Size() < seg.Size {
				s.complain(f, p, "a file of it is cut short: the records at its end are lost", "file", info.Name(), "bytes", seg.Size-info.Size())
			}
		}
	}
	for _, base := range p.segments {
		if err := s.scanSegment(f, p, base); err != nil {
			return err
		}
	}
	if p.next < snap.HighWatermark {
		// kfake counts from the last record that it has. A partition that
		// retention or DeleteRecords has emptied would start at 0 again, and
		// its groups' offsets would point at nothing, or at other records.
		s.log.Debug("partition ends before its last known offset: a marker holds the place",
			"topic", p.topic, "partition", p.number, "offset", snap.HighWatermark)
		return p.append(snap.HighWatermark-1, producer{-1, -1}, false)
	}
	return nil
}

// complain warns of damage.
func (s *store) complain(f *findings, p *partition, what string, args ...any) {
	f.damaged = true
	s.log.Warn("partition is damaged", append([]any{"topic", p.topic, "partition", p.number, "what", what}, args...)...)
}

// scanSegment reads the batches of a segment, cuts it off at the first that is
// not whole, and mends its index.
//
// The index is what tells kfake that a batch belongs to a transaction. It is
// written after the batch: a kill in between makes the batch look committed.
func (s *store) scanSegment(f *findings, p *partition, base int64) error {
	raw, err := os.ReadFile(p.file(base, ".dat"))
	if err != nil {
		return err
	}
	index, err := os.ReadFile(p.file(base, ".idx"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	var pos int
	var whole []byte // the index as it should be
	for pos < len(raw) {
		b, bad := parseBatch(raw[pos:])
		if bad != nil {
			if err := s.cut(p.file(base, ".dat"), fmt.Sprintf("%s.%d.dat.at%d", p.name(), base, pos), raw, pos); err != nil {
				return err
			}
			s.log.Warn("the records at the end of a file cannot be read and are cut off: a kill in the middle of a write, or damage",
				"topic", p.topic, "partition", p.number, "from_offset", max(p.next, base), "bytes", len(raw)-pos, "error", bad)
			f.damaged = true
			break
		}
		if at := len(whole); at+indexEntry <= len(index) && indexValid(index[at:]) {
			whole = append(whole, index[at:at+indexEntry]...)
			b.inTxn = index[at+indexEntry-1]&1 != 0
		} else {
			whole = append(whole, indexOf(b)...)
		}
		p.see(b)
		if b.control && b.commit {
			f.committed[b.producer] = true
		}
		pos += b.size
	}
	if bytes.Equal(index, whole) {
		return nil
	}
	return replace(p.file(base, ".idx"), whole)
}

// see takes the next batch into account: where the partition ends, which
// transactions are open in it, and the producer's sequence numbers. Any marker
// ends the producer's transaction, commit or abort, as in kfake.
func (p *partition) see(b batch) {
	p.next, p.epoch = b.last+1, b.leaderEpoch
	switch {
	case b.control:
		delete(p.open, b.producer.id)
		return
	case b.inTxn:
		p.open[b.producer.id] = b.producer
	}
	if b.producer.id < 0 || b.seq < 0 {
		return
	}
	w := p.windows[b.producer.id]
	if w == nil || w.Epoch != b.producer.epoch {
		w = &seqWindow{PID: b.producer.id, Topic: p.topic, Partition: p.number, Epoch: b.producer.epoch, Seen: true}
		p.windows[b.producer.id] = w
	}
	w.NextSeq = int32((int64(b.seq) + int64(b.count)) % math.MaxInt32)
	w.Entries[w.At] = seqEntry{FirstSeq: b.seq, NextSeq: w.NextSeq, Offset: b.first}
	w.At = (w.At + 1) % uint8(len(w.Entries))
	w.Count = min(w.Count+1, uint8(len(w.Entries)))
}

// append writes the marker that ends a transaction of who at offset, which may
// lie beyond the next one: then nothing stands between. The batch comes before
// its index, so that a kill in between leaves what scanSegment can mend.
func (p *partition) append(offset int64, who producer, commit bool) error {
	raw := markerBatch(offset, p.epoch, who, commit)
	b, err := parseBatch(raw)
	if err != nil {
		return err
	}
	if len(p.segments) == 0 {
		if err := os.MkdirAll(p.dir, 0o755); err != nil {
			return err
		}
		p.segments = []int64{offset}
	}
	last := p.segments[len(p.segments)-1]
	if err := appendTo(p.file(last, ".dat"), raw); err != nil {
		return err
	}
	if err := appendTo(p.file(last, ".idx"), indexOf(b)); err != nil {
		return err
	}
	p.see(b)
	return nil
}
