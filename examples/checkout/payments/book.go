package payments

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/wherry-go/wherry/examples/checkout/contract"
	"github.com/wherry-go/wherry/reqreply"
)

// book is the provider's: it does each thing once for a key, however often it is
// asked. It is a file of one line for each thing that was done, the same that
// the service in NestJS keeps.
type book struct {
	mu    sync.Mutex
	file  *os.File
	lines map[string]map[string]line // by key, and by what was done
}

// line is what was done. A refund of what was never charged has no amount: it
// is there so that a charge that comes after it is refused.
type line struct {
	Key     string `json:"key"`
	Did     string `json:"did"`
	Payment string `json:"payment"`
	Amount  int64  `json:"amount"`
}

const (
	charged  = "charge"
	refunded = "refund"
)

// open reads the file, made if it is missing.
func open(path string) (*book, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	b := &book{file: f, lines: map[string]map[string]line{}}
	var whole int64 // without what a crash left of the last line
	for r := bufio.NewReader(f); ; {
		text, err := r.ReadBytes('\n')
		if err != nil {
			break
		}
		var l line
		if err := json.Unmarshal(text, &l); err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
		}
		b.remember(l)
		whole += int64(len(text))
	}
	_, err = f.Seek(whole, 0)
	if err = errors.Join(f.Truncate(whole), err); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return b, nil
}

func (b *book) remember(l line) {
	if b.lines[l.Key] == nil {
		b.lines[l.Key] = map[string]line{}
	}
	b.lines[l.Key][l.Did] = l
}

// charge charges once for a key, and never after a refund of it.
func (b *book) charge(key string, c contract.Charge) (contract.Payment, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, too := b.lines[key][refunded]; too {
		return contract.Payment{}, &reqreply.Error{Code: "refunded", Message: "it was called off before"}
	}
	l, done := b.lines[key][charged]
	if !done {
		l = line{Key: key, Did: charged, Payment: "pay-" + key, Amount: c.Amount}
		if err := b.append(l); err != nil {
			return contract.Payment{}, err
		}
	}
	return contract.Payment{ID: l.Payment}, nil
}

// refund gives back what was charged for a key, once.
func (b *book) refund(key string) (contract.Payment, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, done := b.lines[key][refunded]; !done {
		was := b.lines[key][charged]
		if err := b.append(line{Key: key, Did: refunded, Payment: was.Payment, Amount: was.Amount}); err != nil {
			return contract.Payment{}, err
		}
	}
	return contract.Payment{ID: b.lines[key][charged].Payment}, nil
}

// append writes a line and only then goes by it.
func (b *book) append(l line) error {
	text, err := json.Marshal(l)
	if err != nil {
		return err
	}
	if _, err := b.file.Write(append(text, '\n')); err != nil {
		return err
	}
	if err := b.file.Sync(); err != nil {
		return err
	}
	b.remember(l)
	return nil
}

func (b *book) close() error { return b.file.Close() }
