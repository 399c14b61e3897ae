package apache

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
)

// Ports are taken below 32768, where neither Linux nor macOS takes those of
// outgoing connections: a port found free stays free until Java listens on it.
const (
	firstPort = 20000
	lastPort  = 32000
	blockSize = 10
)

// ports finds a block of ports of which none is in use, and returns the first
// of n. The block's own port is listened on meanwhile, so that two clusters,
// also of different processes, do not take the same block.
func ports(ctx context.Context, n int) (guard net.Listener, first int, err error) {
	for range 100 {
		base := firstPort + blockSize*rand.IntN((lastPort-firstPort)/blockSize)
		if guard, err = listen(ctx, base); err != nil {
			continue
		}
		free := true
		for port := base + 1; port <= base+n && free; port++ {
			l, err := listen(ctx, port)
			if free = err == nil; free {
				_ = l.Close()
			}
		}
		if free {
			return guard, base + 1, nil
		}
		_ = guard.Close()
	}
	return nil, 0, errors.Join(errors.New("no free ports between 20000 and 32000 on 127.0.0.1"), err)
}

// listen opens a port of the loopback address.
func listen(ctx context.Context, port int) (net.Listener, error) {
	return new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
}
