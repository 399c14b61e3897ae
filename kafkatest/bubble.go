package kafkatest

import (
	"bytes"
	"fmt"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// bubble is the synctest bubble of one Test, seen from outside.
type bubble struct {
	id string // as in the stacks: "synctest bubble 7"
}

var bubbleInStack = regexp.MustCompile(`^goroutine \d+ \[[^\]]*(synctest bubble \d+)`)

// bubbleID returns the name of the bubble that the caller is in.
func bubbleID() string {
	buf := make([]byte, 200) // the head of the caller's own stack
	if m := bubbleInStack.FindSubmatch(buf[:runtime.Stack(buf, false)]); m != nil {
		return string(m[1])
	}
	return ""
}

// explain fails t where the bubble ended in a deadlock, of which the runtime makes
// a panic that would end the tests of the whole process. It is to be deferred.
func (b *bubble) explain(t *testing.T) {
	p := recover()
	if p == nil {
		return
	}
	err, ok := p.(error)
	if !ok || !strings.HasPrefix(err.Error(), "deadlock: ") {
		panic(p)
	}
	advice := "Everything in the test waits for something that nothing in it will bring about, and no timer is running: a channel that nobody sends on, a WaitGroup that is never done."
	if strings.Contains(err.Error(), "main bubble goroutine has exited") {
		advice = "The test's function has returned and these goroutines have not: close every client and end every goroutine that it started, and wait for them (kafkatest.Run and Cluster.Client do)."
	}
	t.Fatalf("kafkatest: %v.\n%s\n\n%s", err, advice, b.stacks())
}

// stacks returns the stacks of the bubble's goroutines.
func (b *bubble) stacks() []byte {
	var in [][]byte
	for stack := range bytes.SplitSeq(stacks(), []byte("\n\n")) {
		if m := bubbleInStack.FindSubmatch(stack); m != nil && string(m[1]) == b.id {
			in = append(in, stack)
		}
	}
	return bytes.Join(in, []byte("\n\n"))
}

// inBubble tells whether t is the test of a synctest bubble. The clock of a bubble
// would tell as well, but would lie on a machine whose clock is wrong.
func inBubble(t testing.TB) (in bool) {
	d, ok := t.(*testing.T)
	if !ok {
		return false
	}
	defer func() {
		if p := recover(); p != nil {
			if !strings.Contains(fmt.Sprint(p), "synctest") {
				panic(p)
			}
			in = true
		}
	}()
	d.Deadline() // panics in a bubble, by its documentation
	return false
}

// clients are the open clients that were made with options of a Cluster. It is a
// hook of kgo.
type clients struct {
	mu   sync.Mutex
	open map[*kgo.Client]struct{}
}

var (
	_ kgo.HookNewClient    = (*clients)(nil)
	_ kgo.HookClientClosed = (*clients)(nil)
)

// OnNewClient enters a client.
func (c *clients) OnNewClient(cl *kgo.Client) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open == nil {
		c.open = map[*kgo.Client]struct{}{}
	}
	c.open[cl] = struct{}{}
}

// OnClientClosed takes a client away.
func (c *clients) OnClientClosed(cl *kgo.Client) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.open, cl)
}

// closeForgotten closes the clients of the test that are still open: the
// goroutines of one would outlive the bubble.
func (k *Cluster) closeForgotten() {
	k.clients.mu.Lock()
	forgotten := make([]*kgo.Client, 0, len(k.clients.open))
	for cl := range k.clients.open {
		forgotten = append(forgotten, cl)
	}
	k.clients.mu.Unlock()
	for _, cl := range forgotten {
		cl.CloseAllowingRebalance()
	}
}
