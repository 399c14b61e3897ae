package wherry_test

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/dlq"
)

// crashTopicNames are those that exist before the first Consumer.
var crashTopicNames = []string{"orders:4", "payments:2", "orders.dead:2"}

// pass lets time pass in small steps, which grow, until ok, or for so long.
func (w *world) pass(limit time.Duration, ok func() bool) bool {
	w.t.Helper()
	end, step := time.Now().Add(limit), time.Millisecond
	for !ok() {
		if !time.Now().Before(end) {
			return false
		}
		w.k.Sleep(w.t, step)
		if step = min(step+step/8+1, 20*time.Second); !w.k.Virtual() {
			step = min(step, 50*time.Millisecond)
		}
	}
	return true
}

// settle returns when all orders have come to their end and the group's offsets
// have reached those of its topics.
func (w *world) settle() {
	w.t.Helper()
	all := func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(w.resolved) == len(w.fates) || len(w.faults) > 0
	}
	// Under topics with waits of an hour, and once more after a crash.
	if !w.pass(4*time.Hour, all) {
		require.Fail(w.t, "not all orders came to their end", "%s", w.missing())
	}
	var why string
	if !w.pass(2*time.Hour, func() bool { why = w.uncommitted(); return why == "" }) {
		require.Fail(w.t, "the group's offsets do not reach the end", "%s", why)
	}
}

func (w *world) missing() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var b strings.Builder
	for _, f := range w.fates {
		if !w.resolved[f.ID] {
			fmt.Fprintf(&b, "%s %s (%s) of %s/%d:", f.at.topic, f.ID, f.Kind, f.key, f.at.offset)
			for _, c := range w.calls {
				if c.f == f {
					fmt.Fprintf(&b, " %s#%d %v-%v ok=%v cut=%v dead=%v;", c.process.name, c.attempt, c.begin.Sub(w.begun), c.end.Sub(w.begun), c.ok, c.cut, c.dead)
				}
			}
			b.WriteByte('\n')
		}
		if b.Len() > 3000 {
			break
		}
	}
	for _, m := range w.procs {
		fmt.Fprintf(&b, "%s dead=%v: %+v\n", m.name, m.dead, m.consumer.Status())
	}
	return b.String()
}

// uncommitted says which partition the group has not read to its end.
func (w *world) uncommitted() string {
	adm := kadm.NewClient(w.reader())
	at, err := adm.FetchOffsets(w.t.Context(), crashGroup)
	if err != nil {
		return err.Error()
	}
	ends, err := adm.ListEndOffsets(w.t.Context())
	if err != nil {
		return err.Error()
	}
	why := ""
	ends.Each(func(e kadm.ListedOffset) {
		if e.Topic != "orders" && !strings.Contains(e.Topic, ".retry.") || strings.HasSuffix(e.Topic, ".keys") {
			return
		}
		o, ok := at.Lookup(e.Topic, e.Partition)
		if e.Offset > 0 && (!ok || o.At != e.Offset) {
			why += fmt.Sprintf("%s/%d: %d of %d; ", e.Topic, e.Partition, o.At, e.Offset)
		}
	})
	return why
}

// reader is a client that no fault hits.
func (w *world) reader() *kgo.Client {
	if w.own == nil {
		w.own = w.k.Client(w.t, kgo.ClientID("reader"))
	}
	return w.own
}

// log returns all records of a topic, partition by partition.
func (w *world) log(topic string) (all []*kgo.Record) {
	w.t.Helper()
	ends, err := kadm.NewClient(w.reader()).ListEndOffsets(w.t.Context(), topic)
	require.NoError(w.t, err)
	var left int64
	ends.Each(func(e kadm.ListedOffset) { left += e.Offset })
	cl := w.k.Client(w.t, kgo.ClientID("reader"), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	defer cl.Close()
	for left > int64(len(all)) {
		fetches := cl.PollFetches(w.t.Context())
		require.NoError(w.t, fetches.Err())
		all = append(all, fetches.Records()...)
	}
	slices.SortFunc(all, func(a, b *kgo.Record) int {
		return cmp.Or(cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Offset, b.Offset))
	})
	return all
}

// outcome is what a run came to.
type outcome struct {
	repeated int           // orders that were handled to their end more than once
	oldest   time.Duration // how long before the crash the first of those had ended
	extra    int           // payments that are there twice
}

// check is pure but for reading the topics: it compares what is there with what
// must be.
func (w *world) check() outcome {
	w.t.Helper()
	payments, letters := w.log("payments"), w.log("orders.dead")
	w.mu.Lock()
	defer w.mu.Unlock()
	got := w.checkPayments(payments)
	w.checkLetters(letters)
	w.checkTimes()
	w.checkOrder(payments)
	got.repeated, got.oldest = w.repeats()
	require.Empty(w.t, w.faults)
	return got
}

func (w *world) checkPayments(payments []*kgo.Record) (got outcome) {
	there := map[string]map[int]map[int]int{} // order, attempt, part
	for _, r := range payments {
		p, err := receipts.Decode(r)
		if err != nil {
			w.fault("payment %d/%d: %v", r.Partition, r.Offset, err)
			continue
		}
		f := w.byID[p.ID]
		switch {
		case p.Fails:
			w.fault("no half outputs: %s (%s) attempt %d of %s failed, and its output is there", p.ID, f.Kind, p.Attempt, p.Process)
		case f.letter != "" && f.Kind != "rejected":
			w.fault("%s (%s) has a payment", p.ID, f.Kind)
		}
		if there[p.ID] == nil {
			there[p.ID] = map[int]map[int]int{}
		}
		if there[p.ID][p.Attempt] == nil {
			there[p.ID][p.Attempt] = map[int]int{}
		}
		there[p.ID][p.Attempt][p.Part]++
		if there[p.ID][p.Attempt][p.Part] > 1 {
			got.extra++
		}
	}
	for _, f := range w.fates {
		if f.parts == 0 {
			continue
		}
		whole := false
		for _, parts := range there[f.ID] {
			whole = whole || len(parts) == f.parts
		}
		if !whole {
			w.fault("lost: %s (%s) at %v has payments %v of %d", f.ID, f.Kind, f.at, there[f.ID], f.parts)
		}
	}
	return got
}

func (w *world) checkLetters(letters []*kgo.Record) {
	seen := map[string]int{}
	for _, r := range letters {
		l, err := dlq.Read(r)
		if err != nil {
			w.fault("letter %d/%d: %v", r.Partition, r.Offset, err)
			continue
		}
		f := w.at[coord{l.Topic, l.Partition, l.Offset}]
		switch {
		case f == nil:
			w.fault("a letter of nobody: %s/%d@%d", l.Topic, l.Partition, l.Offset)
			continue
		case f.letter == "":
			w.fault("%s (%s) is dead-lettered: %s after %d: %s", f.ID, f.Kind, l.Cause, l.Attempts, l.Error)
		case f.letter != l.Cause:
			w.fault("%s (%s) is dead-lettered as %s: %s", f.ID, f.Kind, l.Cause, l.Error)
		case f.tries > 0 && l.Attempts != f.tries:
			w.fault("%s (%s) is dead-lettered after %d attempts", f.ID, f.Kind, l.Attempts)
		case string(l.Value) != string(f.record().Value) || string(l.Key) != f.key:
			w.fault("%s (%s): the letter has other bytes", f.ID, f.Kind)
		}
		seen[f.ID]++
	}
	for _, f := range w.fates {
		if f.letter != "" && seen[f.ID] == 0 {
			w.fault("lost: %s (%s) at %v has no letter", f.ID, f.Kind, f.at)
		}
	}
}

// checkTimes: no attempt comes before it is due, and none is beyond those that
// are allowed.
func (w *world) checkTimes() {
	type try struct {
		f *fate
		n int
		m *member
	}
	ended := map[try]time.Time{}
	delays := placeDelays
	if w.row.how != inPlace {
		delays = crashDelays
	}
	of := func(c call, n int) try {
		if w.row.how == inPlace {
			return try{c.f, n, c.process} // a restart begins anew
		}
		return try{c.f, n, nil}
	}
	calls := slices.Clone(w.calls)
	slices.SortStableFunc(calls, func(a, b call) int { return a.begin.Compare(b.begin) })
	for _, c := range calls {
		if !c.done || c.cut || c.ok {
			continue
		}
		if at, ok := ended[of(c, c.attempt)]; !ok || c.end.Before(at) {
			ended[of(c, c.attempt)] = c.end
		}
	}
	for _, c := range calls {
		if c.attempt >= len(delays) {
			w.fault("%s (%s): attempt %d", c.f.ID, c.f.Kind, c.attempt)
			continue
		}
		if c.attempt == 1 {
			continue
		}
		before, ok := ended[of(c, c.attempt-1)]
		switch {
		case !ok:
			w.fault("%s (%s): attempt %d without one before", c.f.ID, c.f.Kind, c.attempt)
		case c.begin.Before(before.Add(delays[c.attempt])):
			w.fault("early: %s (%s): attempt %d of %s %v after the one before", c.f.ID, c.f.Kind, c.attempt, c.process.name, c.begin.Sub(before))
		}
	}
}

// last reports whether a call was the end of its order.
func (w *world) last(c call) bool {
	switch {
	case !c.done || c.dead || c.cut:
		return false
	case c.ok:
		return true
	}
	return c.f.Kind == "permanent" || c.f.letter != "" && c.attempt == c.f.tries
}

// checkOrder: the first time that an order is begun comes after the first time
// that the one before it, of its key or its partition, ended.
func (w *world) checkOrder(payments []*kgo.Record) {
	if w.row.order == wherry.Unordered || w.row.how == byTopics || w.row.how == keepOrder && w.row.order == wherry.Unordered {
		return
	}
	begun, ended := map[*fate]time.Time{}, map[*fate]time.Time{}
	first := func(m map[*fate]time.Time, f *fate, at time.Time) {
		if before, ok := m[f]; !ok || at.Before(before) {
			m[f] = at
		}
	}
	for _, c := range w.calls {
		first(begun, c.f, c.begin)
		if w.last(c) {
			first(ended, c.f, c.end)
		}
	}
	paid := map[string]int{}
	for i, r := range payments {
		if p, err := receipts.Decode(r); err == nil && p.Part == 0 {
			if _, ok := paid[p.ID]; !ok {
				paid[p.ID] = i
			}
		}
	}
	byPlace := slices.Clone(w.fates)
	slices.SortFunc(byPlace, func(a, b *fate) int {
		return cmp.Or(cmp.Compare(a.at.partition, b.at.partition), cmp.Compare(a.at.offset, b.at.offset))
	})
	before, beforePaid := map[string]*fate{}, map[string]*fate{}
	for _, f := range byPlace {
		if f.Kind == "undecodable" {
			continue
		}
		key := f.key
		if w.row.order == wherry.ByPartition && w.row.how == inPlace {
			key = strconv.Itoa(int(f.at.partition))
		}
		if p := before[key]; p != nil && begun[f].Before(ended[p]) {
			w.fault("order: %s (%s) of %s is begun at %v, before %s (%s) has ended at %v", f.ID, f.Kind, f.key, begun[f].Sub(w.begun), p.ID, p.Kind, ended[p].Sub(w.begun))
		}
		before[key] = f
		if f.parts > 0 {
			if p := beforePaid[f.key]; p != nil && paid[f.ID] < paid[p.ID] {
				w.fault("order: the payment of %s of %s comes before that of %s", f.ID, f.key, p.ID)
			}
			beforePaid[f.key] = f
		}
	}
}

// repeats counts the orders that came to their end more than once.
func (w *world) repeats() (n int, oldest time.Duration) {
	var crashed time.Time
	for _, m := range w.procs {
		if !m.crashed.IsZero() && crashed.IsZero() {
			crashed = m.crashed
		}
	}
	ends := map[*fate][]time.Time{}
	for _, c := range w.calls {
		if w.last(c) {
			ends[c.f] = append(ends[c.f], c.end)
		}
	}
	for _, at := range ends {
		if len(at) < 2 {
			continue
		}
		n++
		if !crashed.IsZero() {
			oldest = max(oldest, crashed.Sub(slices.MinFunc(at, time.Time.Compare)))
		}
	}
	return n, oldest
}

// counted returns how many requests of each kind a process has made.
func (m *member) counted() map[kmsg.Key]int {
	m.w.mu.Lock()
	defer m.w.mu.Unlock()
	return maps.Clone(m.counts)
}
