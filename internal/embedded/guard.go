package embedded

import (
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// maxRequest is the largest request that is read, in bytes: Apache Kafka's
// default (socket.request.max.bytes).
const maxRequest = 100 << 20

// guarded is a client's connection that ends at the first request which is
// none: kfake allocates whatever size the first four bytes name (1.2 GB for
// an HTTP client) and panics at an unknown request key.
//
// Each request is a size (4 bytes, not counted in it), then a key and a
// version (2 bytes each), a correlation id (4 bytes) and more.
type guarded struct {
	net.Conn
	log *slog.Logger

	head    [8]byte
	pending []byte // what of head was not handed out yet
	left    int    // bytes of the request after head
}

// Read hands out at most the rest of the current request.
func (g *guarded) Read(p []byte) (int, error) {
	if len(g.pending) == 0 && g.left == 0 {
		if err := g.next(); err != nil {
			return 0, err
		}
	}
	if len(g.pending) > 0 {
		n := copy(p, g.pending)
		g.pending = g.pending[n:]
		return n, nil
	}
	n, err := g.Conn.Read(p[:min(len(p), g.left)])
	g.left -= n
	return n, err
}

// next reads the head of the next request and checks it.
func (g *guarded) next() error {
	if _, err := io.ReadFull(g.Conn, g.head[:]); err != nil {
		return err
	}
	size, key := binary.BigEndian.Uint32(g.head[:4]), int16(binary.BigEndian.Uint16(g.head[4:6]))
	if size < 8 || size > maxRequest || kmsg.RequestForKey(key) == nil {
		err := fmt.Errorf("not a Kafka request: size %d, key %d", size, key)
		g.log.Warn("closed a connection that does not speak Kafka without encryption",
			"remote", g.RemoteAddr().String(), "first_bytes", fmt.Sprintf("%q", g.head[:]))
		return err
	}
	g.pending, g.left = g.head[:], int(size)-4
	return nil
}
