package embedded

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// This file is what is known of the files of kfake 01f206a7e32c (persist.go).
// A partition is a folder of segments, <offset>.dat, which hold record batches
// as Kafka sends them; beside each one an index, <offset>.idx.

const (
	batchHead  = 61 // bytes of a record batch before its records
	indexEntry = 15 // bytes of an index for each batch
	frameHead  = 10 // bytes before the JSON of an entry of pids.log and groups.log
	version    = 1  // of all of kfake's files
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// batch is the head of a record batch (message format v2).
type batch struct {
	first, last int64 // offsets
	size        int   // bytes
	leaderEpoch int32
	producer    producer
	seq, count  int32
	inTxn       bool // transactional data
	control     bool // the marker that ends a transaction
	commit      bool // the marker says commit
}

// producer is a producer id at one of its epochs.
type producer struct {
	id    int64
	epoch int16
}

// parseBatch reads the batch at the start of raw. An error means that no whole
// batch stands there.
func parseBatch(raw []byte) (batch, error) {
	if len(raw) < batchHead {
		return batch{}, errors.New("cut short")
	}
	be := binary.BigEndian
	size := 12 + int64(be.Uint32(raw[8:]))
	if size < batchHead || size > int64(len(raw)) {
		return batch{}, errors.New("cut short")
	}
	if raw[16] != 2 || be.Uint32(raw[17:]) != crc32.Checksum(raw[21:size], castagnoli) {
		return batch{}, errors.New("checksum is wrong")
	}
	attrs := be.Uint16(raw[21:])
	b := batch{
		first:       int64(be.Uint64(raw)),
		size:        int(size),
		leaderEpoch: int32(be.Uint32(raw[12:])),
		producer:    producer{int64(be.Uint64(raw[43:])), int16(be.Uint16(raw[51:]))},
		seq:         int32(be.Uint32(raw[53:])),
		count:       int32(be.Uint32(raw[57:])),
		control:     attrs&0x20 != 0,
	}
	b.last = b.first + int64(int32(be.Uint32(raw[23:])))
	b.inTxn = attrs&0x10 != 0 && !b.control
	if b.control {
		var rec kmsg.Record
		var key kmsg.ControlRecordKey
		b.commit = rec.ReadFrom(raw[batchHead:size]) == nil && key.ReadFrom(rec.Key) == nil &&
			key.Type == kmsg.ControlRecordKeyTypeCommit
	}
	return b, nil
}

// markerBatch returns the batch that ends a transaction of p.
func markerBatch(offset int64, leaderEpoch int32, p producer, commit bool) []byte {
	key := kmsg.ControlRecordKey{Type: kmsg.ControlRecordKeyTypeAbort}
	if commit {
		key.Type = kmsg.ControlRecordKeyTypeCommit
	}
	rec := kmsg.Record{Key: key.AppendTo(nil), Value: (&kmsg.EndTxnMarker{}).AppendTo(nil)}
	rec.Length = int32(len(rec.AppendTo(nil)) - 1) // its own varint is one byte
	now := time.Now().UnixMilli()
	b := kmsg.RecordBatch{
		FirstOffset: offset, PartitionLeaderEpoch: leaderEpoch, Magic: 2, Attributes: 0x30,
		FirstTimestamp: now, MaxTimestamp: now, ProducerID: p.id, ProducerEpoch: p.epoch,
		FirstSequence: -1, NumRecords: 1, Records: rec.AppendTo(nil),
	}
	raw := b.AppendTo(nil)
	binary.BigEndian.PutUint32(raw[8:], uint32(len(raw)-12))
	binary.BigEndian.PutUint32(raw[17:], crc32.Checksum(raw[21:], castagnoli))
	return raw
}

// indexOf returns the index entry of b. The timestamp in it is left 0: kfake
// reads it from the batches.
func indexOf(b batch) []byte {
	e := make([]byte, indexEntry)
	e[0] = version
	binary.LittleEndian.PutUint32(e[2:], uint32(b.leaderEpoch))
	if b.inTxn {
		e[14] = 1
	}
	e[1] = byte(crc32.Checksum(e[2:], castagnoli))
	return e
}

// indexValid reports whether the index entry at the start of e is whole. Its
// checksum is one byte: one damaged entry in 256 passes.
func indexValid(e []byte) bool { return byte(crc32.Checksum(e[2:indexEntry], castagnoli)) == e[1] }

// frame returns v as an entry of pids.log or groups.log.
func frame(v any) ([]byte, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	f := append(make([]byte, frameHead), data...)
	binary.LittleEndian.PutUint32(f, uint32(2+len(data)))
	binary.LittleEndian.PutUint16(f[8:], version)
	binary.LittleEndian.PutUint32(f[4:], crc32.Checksum(f[8:], castagnoli))
	return f, nil
}

// frames returns the JSON of the entries at the start of raw, and how many
// bytes they take; what follows is damaged.
func frames(raw []byte) (entries [][]byte, whole int) {
	for len(raw)-whole >= frameHead {
		f := raw[whole:]
		size := 8 + int64(binary.LittleEndian.Uint32(f))
		if size < frameHead || size > int64(len(f)) ||
			binary.LittleEndian.Uint32(f[4:]) != crc32.Checksum(f[8:size], castagnoli) {
			break
		}
		entries = append(entries, f[frameHead:size])
		whole += int(size)
	}
	return entries, whole
}

// pidEntry is an entry of pids.log. Its types are init (the id has a new epoch,
// or is new), endtx (a transaction of this epoch has ended, after the last of
// its markers) and timeout (aborted, with the new epoch). At a clean end kfake
// replaces all of them by one init for each id; only those have Commit set.
type pidEntry struct {
	Type    string `json:"type"`
	PID     int64  `json:"pid"`
	Epoch   int16  `json:"epoch"`
	TxID    string `json:"txid,omitempty"`
	Timeout int32  `json:"timeout,omitempty"`
	Commit  *bool  `json:"commit,omitempty"`
}

// topicEntry is a topic in topics.json.
type topicEntry struct {
	Name       string            `json:"name"`
	Partitions int32             `json:"partitions"`
	Configs    map[string]string `json:"configs"`
}

// snapshot is what kfake writes about a partition at a clean end. It is out of
// date as soon as the partition is written to again; kfake then reads all of
// its records instead. The high watermark remains a lower bound.
type snapshot struct {
	HighWatermark int64 `json:"high_watermark"`
	Segments      []struct {
		BaseOffset int64 `json:"base_offset"`
		Size       int64 `json:"size"`
	} `json:"segments"`
}

// seqWindow is what a partition knows of a producer's last five batches (as
// many as Kafka allows in flight), to tell when one is sent twice. Entries is
// a ring, At the place of the next one. A new epoch starts an empty window.
type seqWindow struct {
	PID       int64       `json:"pid"`
	Topic     string      `json:"topic"`
	Partition int32       `json:"partition"`
	Entries   [5]seqEntry `json:"entries"`
	Count     uint8       `json:"count"`
	At        uint8       `json:"at"`
	Epoch     int16       `json:"epoch"`
	Seen      bool        `json:"seen"`
	NextSeq   int32       `json:"next_seq"`
}

// seqEntry is one batch in a seqWindow.
type seqEntry struct {
	FirstSeq int32 `json:"first_seq"`
	NextSeq  int32 `json:"next_seq"`
	Offset   int64 `json:"offset"`
}

// readJSON reads the file at path into v, and reports whether it exists.
func readJSON(path string, v any) (bool, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return true, fmt.Errorf("%s: %w", filepath.Base(path), err)
	}
	return true, nil
}

// replace writes a file so that a reader finds the old or the new content.
func replace(path string, data []byte) error {
	tmp := path + ".tmp" // kfake removes what a kill leaves of these
	if err := os.WriteFile(tmp, data, 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
