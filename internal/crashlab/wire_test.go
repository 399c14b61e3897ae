package crashlab

import (
	"bytes"
	"context"
	"encoding/binary"
	"net"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// frame is a request, or with key < 0 an answer, of n more bytes.
func frame(key int16, corr int32, n int) []byte {
	body := make([]byte, 0, 8+n)
	if key >= 0 {
		body = binary.BigEndian.AppendUint16(body, uint16(key))
		body = append(body, 0, 9)
	}
	body = binary.BigEndian.AppendUint32(body, uint32(corr))
	body = append(body, make([]byte, n)...)
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
}

// stub is a connection that takes what is written and answers with what is given.
type stub struct {
	net.Conn
	sent    bytes.Buffer
	answers *bytes.Buffer
	oneByte bool
}

func (s *stub) Write(p []byte) (int, error) { return s.sent.Write(p) }

func (s *stub) Read(p []byte) (int, error) {
	if s.oneByte {
		return iotest.OneByteReader(s.answers).Read(p)
	}
	return s.answers.Read(p)
}

func TestWire_EndsTheProcessAtTheRequestThatIsMeant(t *testing.T) {
	t.Parallel()
	type died struct{}
	for _, test := range []struct {
		name    string
		death   Death
		sent    int // frames that left
		oneByte bool
	}{
		{"before the second produce", Death{Key: kmsg.Produce, N: 2, After: false}, 2, false},
		{"after the second produce", Death{Key: kmsg.Produce, N: 2, After: true}, 4, false},
		{"after the second produce, byte by byte", Death{Key: kmsg.Produce, N: 2, After: true}, 4, true},
		{"after the only end", Death{Key: kmsg.EndTxn, N: 1, After: true}, 4, true},
		{"never", Death{Key: kmsg.EndTxn, N: 2, After: false}, 4, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := &stub{answers: &bytes.Buffer{}, oneByte: test.oneByte}
			var frames []byte
			for i, key := range []kmsg.Key{kmsg.Produce, kmsg.EndTxn, kmsg.Produce, kmsg.Produce} {
				frames = append(frames, frame(int16(key), int32(i), 5*i)...)
				s.answers.Write(frame(-1, int32(i), 3*i))
			}
			w := &Wire{
				DialFunc: func(context.Context, string, string) (net.Conn, error) { return s, nil },
				Death:    test.death, Die: func() { panic(died{}) },
			}
			c, err := w.Dial(t.Context(), "tcp", "")
			require.NoError(t, err)
			read, dead := 0, false
			func() {
				defer func() {
					if p := recover(); p != nil {
						require.Equal(t, died{}, p)
						dead = true
					}
				}()
				step := len(frames)
				if test.oneByte {
					step = 7
				}
				for begin := 0; begin < len(frames); begin += step {
					_, err := c.Write(frames[begin:min(begin+step, len(frames))])
					require.NoError(t, err)
				}
				buf := make([]byte, 1000)
				for {
					n, err := c.Read(buf)
					if err != nil {
						return
					}
					read += n
				}
			}()
			want, got := 0, s.sent.Len()
			for range test.sent {
				want += 4 + int(binary.BigEndian.Uint32(frames[want:]))
			}
			require.Equal(t, want, got)
			require.Equal(t, test.name != "never", dead)
			if test.death.N == 2 && test.death.Key == kmsg.EndTxn {
				require.NotZero(t, read)
				require.Equal(t, map[string]int{"Produce": 3, "EndTxn": 1, "TxnOffsetCommit": 0, "Heartbeat": 0, "InitProducerID": 0, "OffsetFetch": 0, "JoinGroup": 0}, w.Counts())
			}
		})
	}
}

func TestWire_CutsTheNetworkForATime(t *testing.T) {
	t.Parallel()
	for _, after := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := &Wire{
				DialFunc: func(context.Context, string, string) (net.Conn, error) {
					client, server := net.Pipe()
					go func() {
						defer server.Close()
						buf := make([]byte, 100)
						for {
							if _, err := server.Read(buf); err != nil {
								return
							}
							_, _ = server.Write(frame(-1, 0, 0))
						}
					}()
					return client, nil
				},
				Death: Death{Key: kmsg.Produce, N: 1, After: after, Cut: time.Minute},
			}
			idle, err := w.Dial(t.Context(), "tcp", "")
			require.NoError(t, err)
			c, err := w.Dial(t.Context(), "tcp", "")
			require.NoError(t, err)
			_, err = c.Write(frame(int16(kmsg.Produce), 0, 10))
			if after {
				require.NoError(t, err)
				_, err = c.Read(make([]byte, 100))
			}
			require.Error(t, err)
			_, err = idle.Read(make([]byte, 100))
			require.Error(t, err, "all connections of the process are closed")
			_, err = w.Dial(t.Context(), "tcp", "")
			require.ErrorIs(t, err, errCut)
			time.Sleep(time.Minute)
			c, err = w.Dial(t.Context(), "tcp", "")
			require.NoError(t, err)
			_, err = c.Write(frame(int16(kmsg.Produce), 0, 10))
			require.NoError(t, err, "once")
			require.NoError(t, c.Close())
		})
	}
}
