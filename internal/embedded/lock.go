package embedded

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// holder is what the lock file says: who holds the folder, or held it last.
type holder struct {
	PID     int       `json:"pid"`
	Command string    `json:"command"`
	Address string    `json:"address,omitempty"`
	Started time.Time `json:"started"`
	Closed  bool      `json:"closed"` // the run has ended cleanly
}

// String describes the process for people: "process 7 (wherry), started …".
func (h holder) String() string {
	if h.PID == 0 {
		return "unknown"
	}
	s := fmt.Sprintf("process %d (%s), started %s", h.PID, h.Command, h.Started.Format(time.DateTime))
	if h.Address != "" {
		s += ", address " + h.Address
	}
	return s
}

// errHeld is returned by flock when another open file has the lock.
var errHeld = errors.New("held")

// lock is the exclusive right to a folder. The operating system frees it when
// the process ends, however it ends; the file stays.
type lock struct {
	file   *os.File
	holder holder
}

// takeLock locks the file at path and writes this process into it, as one that
// has not closed the folder. It also returns what the file said before; the
// zero holder when it was new or cannot be read, which counts as not closed.
//
// It does not wait: when the folder is held, the error names who holds it.
func takeLock(path string) (*lock, holder, error) {
	var before holder
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, before, fmt.Errorf("cannot be written to: %w", err)
	}
	held := flock(f)
	if data, err := os.ReadFile(path); err == nil {
		// An empty file, or one that was cut short, tells nothing.
		_ = json.NewDecoder(bytes.NewReader(data)).Decode(&before)
	}
	switch {
	case errors.Is(held, errHeld):
		err = fmt.Errorf("is in use by %s: stop that one, connect to it, or choose another folder", before)
	case held != nil:
		err = fmt.Errorf("cannot be locked: %w", held)
	}
	l := &lock{file: f, holder: holder{PID: os.Getpid(), Command: filepath.Base(os.Args[0]), Started: time.Now().Round(time.Second)}}
	if err == nil {
		err = l.write()
	}
	if err != nil {
		if held == nil {
			_ = unflock(f)
		}
		_ = f.Close()
		return nil, before, err
	}
	return l, before, nil
}

// at notes the address for those who find the folder in use.
func (l *lock) at(address string) error {
	l.holder.Address = address
	return l.write()
}

// release frees the folder. clean becomes the note for the next start.
func (l *lock) release(clean bool) error {
	l.holder.Closed = clean
	return errors.Join(l.write(), unflock(l.file), l.file.Close())
}

// write replaces the content of the file. It truncates last, so that a reader
// always finds a whole value in front.
func (l *lock) write() error {
	data, err := json.Marshal(l.holder)
	if err != nil {
		return err
	}
	data = append(data, '\n')
	if _, err := l.file.WriteAt(data, 0); err != nil {
		return err
	}
	if err := l.file.Truncate(int64(len(data))); err != nil {
		return err
	}
	return l.file.Sync()
}
