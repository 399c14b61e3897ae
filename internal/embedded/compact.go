package embedded

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kfake"
)

// compact compacts the compacted topics and applies the retention that topics
// ask for, once, before clients come. Two traps of kfake are avoided:
//
//   - Inside an open transaction it would lose the last committed value of a
//     key, should the transaction abort: with one open there is no compaction.
//   - It deletes a partition's files before it writes the new ones: the old
//     ones are kept under a second name until all is done, and are put back at
//     the next start if it came to nothing.
func (s *store) compact(cluster *kfake.Cluster, kernel *kernelLog, found *findings) error {
	if s == nil {
		return nil
	}
	due := false
	var dirs []string
	for _, t := range found.topics {
		policy, retention := t.Configs["cleanup.policy"], limited(t.Configs, "retention.ms") || limited(t.Configs, "retention.bytes")
		compacted := strings.Contains(policy, "compact")
		if compacted && retention && !strings.Contains(policy, "delete") {
			s.log.Warn("nothing is compacted or expires: kfake would delete the old keys of a compacted topic that has a retention, "+
				"where Apache Kafka ignores it: set its retention.ms and retention.bytes to -1", "topic", t.Name)
			return nil
		}
		due = due || compacted || retention
		for n := range t.Partitions {
			if dir := s.partitionDir(t.Name, n); compacted && exists(dir) {
				dirs = append(dirs, dir)
			}
		}
	}
	if !due {
		return nil
	}
	if n := found.openTxns(); n > 0 {
		s.log.Debug("no compaction at this start: transactions are open", "partitions", n)
		return nil
	}
	if err := s.backUp(dirs); err != nil {
		return fmt.Errorf("data folder %q: preparing a compaction: %w", s.dir, err)
	}
	if err := kernel.during(cluster.Compact); err != nil {
		return fmt.Errorf("data folder %q: compaction: %w: the next start puts the former files back", s.dir, err)
	}
	return s.dropBackup()
}

// limited reports whether the topic's config key sets a limit; -1 is none.
func limited(configs map[string]string, key string) bool {
	n, err := strconv.ParseInt(configs[key], 10, 64)
	return err == nil && n >= 0
}

// backUp links the segments of the partitions in dirs into the folder
// compacting, which appears only when it is complete.
func (s *store) backUp(dirs []string) error {
	staging := filepath.Join(s.dir, stagingDir)
	if err := os.RemoveAll(staging); err != nil {
		return err
	}
	for _, dir := range dirs {
		to := filepath.Join(staging, filepath.Base(dir))
		if err := os.MkdirAll(to, 0o755); err != nil {
			return err
		}
		if err := linkSegments(dir, to); err != nil {
			return err
		}
	}
	if len(dirs) == 0 {
		return nil
	}
	return os.Rename(staging, filepath.Join(s.dir, compactingDir))
}

// dropBackup removes the folder compacting: first its name, then its files.
func (s *store) dropBackup() error {
	staging := filepath.Join(s.dir, stagingDir)
	err := os.Rename(filepath.Join(s.dir, compactingDir), staging)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return errors.Join(err, os.RemoveAll(staging))
}

// undoCompaction puts back the files of a compaction that did not end. It can
// be repeated when it is cut short itself.
func (s *store) undoCompaction() error {
	backup := filepath.Join(s.dir, compactingDir)
	entries, err := os.ReadDir(backup)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	s.clean = false
	s.log.Warn("the last run ended in the middle of a compaction: the former files are put back", "data", s.dir)
	for _, e := range entries {
		dir := filepath.Join(s.dir, "partitions", e.Name())
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := removeSegments(dir); err != nil {
			return err
		}
		if err := linkSegments(filepath.Join(backup, e.Name()), dir); err != nil {
			return err
		}
	}
	return s.dropBackup()
}

// linkSegments gives the segments and indexes in one folder a second name in
// another; where the file system has no links, it copies them.
func linkSegments(from, to string) error {
	names, err := segmentFiles(from)
	if err != nil {
		return err
	}
	for _, name := range names {
		src, dst := filepath.Join(from, name), filepath.Join(to, name)
		if os.Link(src, dst) != nil {
			if err := copyFile(src, dst); err != nil {
				return err
			}
		}
	}
	return nil
}

// removeSegments removes the segments and indexes in dir, and leaves the rest.
func removeSegments(dir string) error {
	names, err := segmentFiles(dir)
	for _, name := range names {
		err = errors.Join(err, os.Remove(filepath.Join(dir, name)))
	}
	return err
}

// segmentFiles returns the names of the segments and indexes in dir.
func segmentFiles(dir string) (names []string, err error) {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if ext := filepath.Ext(e.Name()); ext == ".dat" || ext == ".idx" {
			names = append(names, e.Name())
		}
	}
	return names, err
}

// copyFile copies a file, over another one if there is one.
func copyFile(from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = src.Close() }()
	dst, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	return errors.Join(err, dst.Close())
}
