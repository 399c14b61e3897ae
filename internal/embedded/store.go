package embedded

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
)

// The names that this package adds to kfake's folder.
const (
	lockFile      = "wherry.lock"
	damagedDir    = "damaged"
	compactingDir = "compacting"
	stagingDir    = "compacting.new"
)

// kfakeFiles are the top-level names of kfake's own folder.
var kfakeFiles = []string{
	"meta.json", "topics.json", "acls.json", "sasl.json", "broker_configs.json", "quotas.json",
	"groups.log", "pids.log", "seq_windows.json", "session_state.json", "partitions",
}

// store is the locked data folder of a running broker. A nil store is a broker
// that keeps all in memory; its methods do nothing then.
type store struct {
	dir  string
	log  *slog.Logger
	lock *lock

	// clean says whether the folder holds everything that was acknowledged,
	// and nothing half done. It is written to the lock file in the end, and
	// says no while the broker runs.
	clean bool
}

// openStore makes and locks dir. It changes nothing else in it. "" returns a
// nil store.
//
// An error leaves the folder unlocked and as clean as it was: it is in use,
// cannot be made or written, belongs to something else, or lacks a file
// without which nothing in it can be read.
func openStore(dir string, log *slog.Logger) (*store, error) {
	if dir == "" {
		return nil, nil
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("data folder %q: %w", dir, err)
	}
	if err := os.MkdirAll(abs, 0o755); err != nil {
		return nil, fmt.Errorf("data folder %q cannot be made: %w: choose another folder", dir, err)
	}
	l, before, err := takeLock(filepath.Join(abs, lockFile))
	if err != nil {
		return nil, fmt.Errorf("data folder %q: %w", dir, err)
	}
	s := &store{dir: abs, log: log, lock: l, clean: before.Closed}
	if err := s.check(); err != nil {
		return nil, errors.Join(err, s.unlock())
	}
	if !s.holdsData() {
		s.clean = true
	} else if !s.clean {
		log.Warn("the last run did not end cleanly: transactions that were open are aborted, one that was just being "+
			"committed may be torn or handled again, and if the machine itself went down, acknowledged records may be lost",
			"data", s.dir, "last_run", before.String())
	}
	return s, nil
}

// holdsData reports whether kfake has written to the folder before. It decides
// by the same file.
func (s *store) holdsData() bool { return exists(filepath.Join(s.dir, "meta.json")) }

// check refuses a folder that is not this broker's, or that has lost the
// files without which kfake takes it for a new one and overwrites the rest.
func (s *store) check() error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return fmt.Errorf("data folder %q: %w", s.dir, err)
	}
	var ours, foreign []string
	for _, e := range entries {
		switch name := e.Name(); {
		case slices.Contains(kfakeFiles, name):
			ours = append(ours, name)
		case slices.Contains([]string{lockFile, damagedDir, compactingDir, stagingDir, "lost+found"}, name):
		case strings.HasPrefix(name, "."), strings.HasSuffix(name, ".tmp"):
		default:
			foreign = append(foreign, name)
		}
	}
	switch {
	case len(ours) == 0 && len(foreign) > 0:
		return fmt.Errorf("folder %q holds other things (%s) and no data of this broker: name an empty or a new folder",
			s.dir, strings.Join(foreign, ", "))
	case len(ours) == 0:
		return nil
	case !slices.Contains(ours, "meta.json"):
		return s.damage("meta.json", "is missing")
	case !slices.Contains(ours, "topics.json") && slices.Contains(ours, "partitions"):
		return s.damage("topics.json", "is missing")
	}
	parts := filepath.Join(s.dir, "partitions")
	if info, err := os.Stat(parts); err == nil && !info.IsDir() {
		return s.damage("partitions", "is a file, not a folder")
	}
	return nil
}

// damage is the error for a file without which the folder is of no use.
func (s *store) damage(name, what string) error {
	return fmt.Errorf("data folder %q is damaged: %s %s: put that file back from a copy, or move the folder away to start empty",
		s.dir, name, what)
}

// explain turns the error of kfake's start into one that says what to do.
func (s *store) explain(err error) error {
	if s == nil {
		return err
	}
	return fmt.Errorf("data folder %q cannot be read: %w: put the file back from a copy, or move the folder away to start empty", s.dir, err)
}

// close ends kfake, which writes all its state to the folder meanwhile. From
// then on the folder is clean, unless kfake complained (a full disk) or a
// compaction has to be undone.
func (s *store) close(cluster *kfake.Cluster, kernel *kernelLog) error {
	err := kernel.during(cluster.Close)
	if s == nil {
		return err
	}
	s.clean = err == nil && !exists(filepath.Join(s.dir, compactingDir))
	if err != nil {
		return fmt.Errorf("the state of the broker could not be saved in %q (the next start repairs what it can): %w", s.dir, err)
	}
	return nil
}

// unlock frees the folder, with a note of whether it is clean.
func (s *store) unlock() error {
	if s == nil {
		return nil
	}
	if err := s.lock.release(s.clean); err != nil {
		return fmt.Errorf("local broker: data folder %q: %w", s.dir, err)
	}
	return nil
}

// keptPath returns a new path in the folder for damage.
func (s *store) keptPath(name string) (string, error) {
	dir := filepath.Join(s.dir, damagedDir)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	return filepath.Join(dir, fmt.Sprintf("%s.%d", name, time.Now().UnixNano())), nil
}

// exists reports whether something stands at path that can be looked at.
func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// at notes the broker's address in the lock file.
func (s *store) at(address string) error {
	if s == nil {
		return nil
	}
	return s.lock.at(address)
}
