package auth

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	"golang.org/x/crypto/argon2"
	"golang.org/x/sync/semaphore"
)

// cost is what a hash costs: passes over so many KiB of memory, in so many lanes.
type cost struct {
	memory, passes uint32
	lanes          uint8
}

// uniform is the second recommended option of RFC 9106 (section 4): 64 MiB. most
// is what is believed of a hash that is read back.
var (
	uniform = cost{memory: 64 << 10, passes: 3, lanes: 4}
	most    = cost{memory: 256 << 10, passes: 16, lanes: 16}
)

const (
	saltSize = 16 // bytes, as recommended there
	hashSize = 32

	// together is how many hashes are made at once: 128 MiB. More wait in line.
	together = 2
)

// passwords hashes passwords with argon2id, and checks them. Hashes are texts in
// the PHC format, which say how they were made: $argon2id$v=19$m=65536,t=3,p=4$salt$hash.
type passwords struct {
	cost cost // of new ones
	room *semaphore.Weighted
	made atomic.Int64 // for tests
}

func newPasswords() *passwords {
	return &passwords{cost: uniform, room: semaphore.NewWeighted(together)}
}

// hash returns the hash of a password. It waits for its turn until ctx is done.
func (p *passwords) hash(ctx context.Context, password string) (string, error) {
	salt := make([]byte, saltSize)
	_, _ = rand.Read(salt) // it never fails
	sum, err := p.sum(ctx, password, salt, p.cost, hashSize)
	return format(p.cost, salt, sum), err
}

// nobody returns the hash of no password, which costs as much to check as any.
func (p *passwords) nobody() string {
	salt, sum := make([]byte, saltSize), make([]byte, hashSize)
	_, _ = rand.Read(salt)
	_, _ = rand.Read(sum)
	return format(p.cost, salt, sum)
}

// is reports whether hash is that of the password.
func (p *passwords) is(ctx context.Context, password, hash string) (bool, error) {
	c, salt, want, err := parse(hash)
	if err != nil {
		return false, err
	}
	sum, err := p.sum(ctx, password, salt, c, len(want))
	return err == nil && subtle.ConstantTimeCompare(sum, want) == 1, err
}

func (p *passwords) sum(ctx context.Context, password string, salt []byte, c cost, size int) ([]byte, error) {
	if err := p.room.Acquire(ctx, 1); err != nil {
		return nil, &BusyError{context.Cause(ctx)}
	}
	defer p.room.Release(1)
	p.made.Add(1)
	return argon2.IDKey([]byte(password), salt, c.passes, c.memory, c.lanes, uint32(size)), nil //nolint:gosec // a few bytes
}

var base = base64.RawStdEncoding.Strict()

func format(c cost, salt, sum []byte) string {
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, c.memory, c.passes, c.lanes, base.EncodeToString(salt), base.EncodeToString(sum))
}

// parse reads what format writes. Its error does not tell the hash.
func parse(hash string) (c cost, salt, sum []byte, err error) {
	parts := strings.Split(hash, "$")
	if len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" || parts[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return c, nil, nil, errors.New("a password's hash is not one of argon2id")
	}
	if n, err := fmt.Sscanf(parts[3]+"\n", "m=%d,t=%d,p=%d\n", &c.memory, &c.passes, &c.lanes); n != 3 || err != nil {
		return c, nil, nil, errors.New("a password's hash has no parameters")
	}
	salt, bad := base.DecodeString(parts[4])
	sum, worse := base.DecodeString(parts[5])
	within := c.memory >= 8*uint32(c.lanes) && c.memory <= most.memory && c.passes > 0 && c.passes <= most.passes && c.lanes > 0 && c.lanes <= most.lanes
	if bad != nil || worse != nil || len(salt) < 8 || len(sum) < 16 || len(sum) > 128 || !within {
		return c, nil, nil, errors.New("a password's hash is out of bounds")
	}
	return c, salt, sum, nil
}
