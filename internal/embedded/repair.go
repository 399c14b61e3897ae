package embedded

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
)

// repair makes the folder whole before kfake reads it: what a scan finds
// damaged, an unfinished compaction, and all that a kill leaves. In a folder
// that was closed cleanly and is not damaged it changes nothing, so that open
// transactions can go on.
//
// It returns what it has found, for the compaction. Its error is one of
// reading or writing files; all else is a warning in the log.
func (s *store) repair() (*findings, error) {
	if s == nil || !s.holdsData() {
		return &findings{}, nil
	}
	if err := s.undoCompaction(); err != nil {
		return nil, fmt.Errorf("data folder %q: undoing a compaction: %w", s.dir, err)
	}
	killed := !s.clean
	f, err := s.scan()
	if err != nil {
		return nil, fmt.Errorf("data folder %q: %w", s.dir, err)
	}
	if f.damaged {
		s.clean = false
	}
	if s.clean {
		return f, nil
	}
	if killed {
		err = s.writeWindows(f)
	}
	if err := errors.Join(err, s.endTransactions(f)); err != nil {
		return nil, fmt.Errorf("data folder %q: %w", s.dir, err)
	}
	return f, nil
}

// writeWindows writes down the sequence numbers of idempotent producers, which
// kfake does at a clean end only: with them, what a producer sends again after
// a kill is not stored twice.
func (s *store) writeWindows(f *findings) error {
	var all struct {
		Version int         `json:"version"`
		Windows []seqWindow `json:"windows"`
	}
	path := filepath.Join(s.dir, "seq_windows.json")
	if _, err := readJSON(path, &all); err != nil {
		s.log.Warn("the producers' sequence numbers are damaged and are read from the records", "error", err)
		f.damaged, all.Windows = true, nil
	}
	type key struct {
		topic     string
		partition int32
		pid       int64
	}
	windows := map[key]seqWindow{}
	for _, w := range all.Windows {
		windows[key{w.Topic, w.Partition, w.PID}] = w
	}
	for _, p := range f.partitions {
		for pid, w := range p.windows {
			// A compaction may have taken the producer's last records.
			at := key{p.topic, p.number, pid}
			if old, ok := windows[at]; !ok || old.Epoch < w.Epoch || old.Epoch == w.Epoch && old.NextSeq <= w.NextSeq {
				windows[at] = *w
			}
		}
	}
	all.Version, all.Windows = version, slices.Collect(maps.Values(windows))
	data, err := json.Marshal(all)
	if err != nil {
		return err
	}
	return replace(path, data)
}

// endTransactions writes the markers of all transactions that are open in some
// partition, and takes the right to go on from their producers.
//
// kfake only notes such an abort in memory: without a marker, consumers skip
// everything that the producer commits later, and the next start counts the
// aborted records as part of the next commit.
func (s *store) endTransactions(f *findings) error {
	// What kfake noted at its last clean end is about transactions that are
	// ended here.
	if err := os.Remove(filepath.Join(s.dir, "session_state.json")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	pids, err := s.readPids()
	if err != nil {
		return err
	}
	aborts, commits := map[producer]int{}, map[producer]int{}
	for _, p := range f.partitions {
		for _, who := range p.open {
			if f.committed[who] && pids[who.id].undecided(who) {
				commits[who]++
			} else {
				aborts[who]++
			}
		}
	}
	for who, n := range aborts {
		s.log.Warn("aborted a transaction that was open when the last run ended",
			"transactional_id", pids[who.id].TxID, "producer_id", who.id, "partitions", n)
		// Before the markers: a client that has outlived the broker must not
		// be able to commit the rest of its transaction.
		next := pidEntry{Type: "timeout", PID: who.id, Epoch: max(who.epoch, pids[who.id].Epoch)}
		if next.Epoch < math.MaxInt16-1 {
			next.Epoch++
		}
		if err := s.logPid(next); err != nil {
			return err
		}
	}
	for _, p := range f.partitions {
		for _, who := range p.open {
			if err := p.append(p.next, who, commits[who] > 0); err != nil {
				return err
			}
		}
	}
	for who, n := range commits {
		s.log.Warn("completed a commit that was being written when the last run ended; the group offsets in it may be missing",
			"transactional_id", pids[who.id].TxID, "producer_id", who.id, "partitions", n)
		yes, last := true, pids[who.id].pidEntry
		if err := s.logPid(pidEntry{Type: "endtx", PID: who.id, Epoch: who.epoch, Commit: &yes}); err != nil {
			return err
		}
		last.Type, last.Epoch, last.Commit = "init", who.epoch+1, &yes
		if err := s.logPid(last); err != nil {
			return err
		}
	}
	return nil
}

// pidState is what pids.log says of a producer id.
type pidState struct {
	pidEntry      // its last entry that has the id's name and timeout
	ended    bool // a transaction of the current epoch has ended
}

// undecided reports whether who has not ended a transaction before the one
// that is open: then a commit marker of who belongs to the open one. It is
// sure only of an epoch that began in the last run, because kfake drops the
// ends from its log at a clean end. (Newer clients begin an epoch with each
// transaction, KIP-890; older ones when they start.)
func (p pidState) undecided(who producer) bool {
	return p.Type != "" && p.Epoch == who.epoch && !p.ended && p.Commit == nil
}

// readPids reads pids.log, which [store.scan] has left whole.
func (s *store) readPids() (map[int64]pidState, error) {
	raw, err := os.ReadFile(filepath.Join(s.dir, "pids.log"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	pids := map[int64]pidState{}
	entries, _ := frames(raw)
	for _, data := range entries {
		var e pidEntry
		if err := json.Unmarshal(data, &e); err != nil {
			return nil, fmt.Errorf("pids.log: %w", err)
		}
		if e.Type == "init" {
			pids[e.PID] = pidState{pidEntry: e}
		} else if p, ok := pids[e.PID]; ok {
			p.ended = e.Type == "endtx"
			p.Epoch = e.Epoch
			pids[e.PID] = p
		}
	}
	return pids, nil
}

// logPid appends an entry to pids.log. The last entry of an id counts.
func (s *store) logPid(e pidEntry) error {
	data, err := frame(e)
	if err != nil {
		return err
	}
	return appendTo(filepath.Join(s.dir, "pids.log"), data)
}

// cutLog cuts a log off at its first damaged entry. kfake ignores what follows
// and appends behind it: the next start would not see what was appended.
func (s *store) cutLog(name string, f *findings) error {
	path := filepath.Join(s.dir, name)
	raw, err := os.ReadFile(path)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return err
	}
	_, whole := frames(raw)
	if whole == len(raw) {
		return nil
	}
	what := map[string]string{"pids.log": "transactional ids", "groups.log": "group offsets"}[name]
	s.log.Warn("the end of a log cannot be read and is cut off: a kill in the middle of a write, or damage",
		"file", name, "bytes", len(raw)-whole, "lost", "the latest "+what)
	f.damaged = true
	return s.cut(path, name, raw, whole)
}

// cut truncates the file at path, whose content is raw, to size bytes, and
// keeps the rest as name in the folder for damage.
func (s *store) cut(path, name string, raw []byte, size int) error {
	kept, err := s.keptPath(name)
	if err != nil {
		return err
	}
	if err := os.WriteFile(kept, raw[size:], 0o644); err != nil {
		return err
	}
	s.log.Debug("kept what is cut off", "file", kept)
	return os.Truncate(path, int64(size))
}

// appendTo appends data to the file at path in one write, and makes the file if
// it is missing. It does not sync.
func appendTo(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}
