package dlq

import (
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// reading reads the values of headers and collects what is garbled in them.
// What is not there, or garbled, is -1 as a number and else zero.
type reading struct {
	headers []kgo.RecordHeader
	faults  []error
	oldest  bool // of a header that is there more than once, the first counts
}

func (in *reading) fault(format string, args ...any) {
	in.faults = append(in.faults, fmt.Errorf(format, args...))
}

// value returns nil where the header is absent or null.
func (in *reading) value(key string) []byte {
	for i := range in.headers {
		if !in.oldest {
			i = len(in.headers) - 1 - i
		}
		if in.headers[i].Key == key {
			return in.headers[i].Value
		}
	}
	return nil
}

// text returns the first of the headers that is not empty.
func (in *reading) text(keys ...string) string {
	for _, key := range keys {
		if v := in.value(key); len(v) > 0 {
			return strings.ToValidUTF8(string(v), "\uFFFD")
		}
	}
	return ""
}

// number parses text as a number not below -1, which says "unknown" in Java.
func (in *reading) number(key, text string, bits int) int64 {
	n, err := strconv.ParseInt(text, 10, bits)
	if err != nil || n < -1 {
		in.fault("%s is %.40q, which is no number that it can be", key, text)
		return -1
	}
	return n
}

func (in *reading) decimal(key string) int64 {
	if v := in.value(key); v != nil {
		return in.number(key, string(v), 64)
	}
	return -1
}

func (in *reading) partition(key string) int32 {
	if v := in.value(key); v != nil {
		return int32(in.number(key, string(v), 32))
	}
	return -1
}

// count is 0 where it is not known.
func (in *reading) count(key string) int {
	if v := in.value(key); v != nil {
		return max(int(in.number(key, string(v), 32)), 0)
	}
	return 0
}

// millis reads milliseconds since 1970 in decimal.
func (in *reading) millis(key string) time.Time { return unixMilli(in.decimal(key)) }

func unixMilli(ms int64) time.Time {
	if ms < 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}

// instant reads a time as RFC 3339, of which ISO 8601 as JavaScript writes it is
// a form.
func (in *reading) instant(key string) time.Time {
	v := in.value(key)
	if v == nil {
		return time.Time{}
	}
	return in.parseInstant(key, string(v))
}

func (in *reading) parseInstant(key, text string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		in.fault("%s is %.40q, which is no time", key, text)
	}
	return t
}

// int32 and int64 read what Java's ByteBuffer writes: big-endian.
func (in *reading) int32(key string) int32 {
	v := in.value(key)
	switch {
	case v == nil:
		return -1
	case len(v) != 4:
		in.fault("%s has %d bytes instead of 4", key, len(v))
		return -1
	}
	return max(int32(binary.BigEndian.Uint32(v)), -1)
}

func (in *reading) int64(key string) int64 {
	v := in.value(key)
	switch {
	case v == nil:
		return -1
	case len(v) != 8:
		in.fault("%s has %d bytes instead of 8", key, len(v))
		return -1
	}
	return max(int64(binary.BigEndian.Uint64(v)), -1)
}

// bigInteger reads what Java's BigInteger.toByteArray writes: big-endian two's
// complement in as few bytes as will do.
func (in *reading) bigInteger(key string) int64 {
	v := in.value(key)
	switch {
	case v == nil:
		return -1
	case len(v) == 0 || len(v) > 8:
		in.fault("%s has %d bytes, 1 to 8 are a long", key, len(v))
		return -1
	}
	n := int64(int8(v[0]))
	for _, b := range v[1:] {
		n = n<<8 | int64(b)
	}
	return max(n, -1)
}

// attempts reads an int32, or one byte as Spring Kafka wrote it once.
func (in *reading) attempts(key string) int {
	switch v := in.value(key); len(v) {
	case 0:
		return 0
	case 1:
		return int(v[0])
	case 4:
		if n := binary.BigEndian.Uint32(v); n <= math.MaxInt32 {
			return int(n)
		}
		fallthrough
	default:
		in.fault("%s is %x, which is no number of attempts", key, v[:min(len(v), 16)])
		return 0
	}
}
