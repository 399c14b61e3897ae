package doctor

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"
)

const (
	// abortWait is how much later than its timeout a coordinator aborts a
	// transaction: it looks every 10 s
	// (transaction.abort.timed.out.transaction.cleanup.interval.ms).
	abortWait = 20 * time.Second
	// patience is added to the longest timeout before a producer without a
	// transaction counts as hanging (KIP-664 has 5 minutes).
	patience = 5 * time.Minute
	// heldBack is how many records may lie beyond the last stable offset.
	heldBack = 10_000
)

// transactions looks at those that are open.
func (e *exam) transactions() {
	owned := map[int64]bool{}
	for _, tx := range e.Transactions {
		owned[tx.ProducerID] = true
		age := e.brokerNow().Sub(tx.Began)
		if age <= e.OpenLong && age <= tx.Timeout+abortWait {
			continue
		}
		f := Finding{
			Check: "transaction-open", Severity: Warning,
			What:  fmt.Sprintf("transaction of %s has been open for %s (%s, timeout %s)", tx.ID, long(age), tx.State, long(tx.Timeout)),
			Where: e.touched(tx),
			Why:   "Readers with read_committed see nothing beyond its first record in these partitions, whoever wrote it; a group whose offsets are in it cannot hand a partition on.",
			Mend:  fmt.Sprintf("Let the process that has it end it, or end the process: the broker aborts it %s after it began. To see it:", long(tx.Timeout)),
		}
		if age > tx.Timeout+abortWait {
			f.Check, f.Severity = "transaction-hangs", Error
			f.What += ": the broker should have aborted it"
			f.Mend = "See whether all its partitions have leaders, and the log of its coordinator. If its process is gone, abort it in each partition:"
		}
		f.Commands = e.aborts(tx)
		e.find(f)
	}
	e.orphans(owned)
}

// aborts are the commands that show a transaction, and that abort it where it
// hangs and its first offset is known.
func (e *exam) aborts(tx Transaction) []string {
	all := []string{e.tool("kafka-transactions describe --transactional-id %s", quoted(tx.ID))}
	if e.brokerNow().Sub(tx.Began) <= tx.Timeout+abortWait {
		return all
	}
	for _, t := range e.Topics {
		for _, p := range t.Partitions {
			for _, pr := range p.Producers {
				if pr.ID == tx.ProducerID && pr.OpenFrom >= 0 {
					all = append(all, e.tool("kafka-transactions abort --topic %s --partition %d --start-offset %d", t.Name, p.ID, pr.OpenFrom))
				}
			}
		}
	}
	return all
}

// touched are the partitions of a transaction, with the groups for those of
// __consumer_offsets.
func (e *exam) touched(tx Transaction) []string {
	all := maps.Clone(tx.Partitions)
	var groups []string
	for _, g := range e.Groups {
		if p, ok := e.offsetsPartition(g.Name); ok && slices.Contains(all["__consumer_offsets"], p) {
			groups = append(groups, "perhaps offsets of group "+g.Name)
		}
	}
	return append(places(all), groups...)
}

// orphans are transactions that are open in a partition and that no coordinator
// knows (KIP-664): nobody will end them.
func (e *exam) orphans(owned map[int64]bool) {
	longest := 15 * time.Minute // transaction.max.timeout.ms, if it is not told
	for _, b := range e.alive() {
		if n, err := strconv.ParseInt(b.Settings["transaction.max.timeout.ms"].Value, 10, 64); err == nil {
			longest = time.Duration(n) * time.Millisecond
		}
	}
	for _, t := range e.Topics {
		for _, p := range t.Partitions {
			for _, pr := range p.Producers {
				if pr.OpenFrom < 0 || owned[pr.ID] {
					continue
				}
				age := e.brokerNow().Sub(pr.Last)
				if age <= e.OpenLong {
					continue // it may have ended, or begun, while we looked
				}
				f := Finding{
					Check: "transaction-hangs", Severity: Warning,
					What: fmt.Sprintf("producer %d has a transaction open in %s from offset %d, written to %s ago, that no coordinator tells of", pr.ID, place(t.Name, p.ID), pr.OpenFrom, long(age)),
					Why:  "It may be one that this user may not see. If it hangs, nobody will end it: readers with read_committed stand still there, and compaction does too.",
					Mend: "If nothing has it open:",
					Commands: []string{
						e.tool("kafka-transactions abort --topic %s --partition %d --start-offset %d", t.Name, p.ID, pr.OpenFrom),
					},
				}
				if age > longest+patience {
					f.Severity = Error
					f.Why = "It hangs: it is older than the longest timeout that the brokers allow, so nobody will end it. Readers with read_committed stand still there, and compaction does too."
				}
				e.find(f)
			}
		}
	}
}

// stable looks at how far the last stable offset is behind the end.
func (e *exam) stable(t *Topic) {
	behind := map[string][]int32{}
	most := int64(0)
	for _, p := range t.Partitions {
		if p.Stable >= 0 && p.End-p.Stable >= heldBack {
			behind[t.Name] = append(behind[t.Name], p.ID)
			most = max(most, p.End-p.Stable)
		}
	}
	e.partitions(behind, Finding{
		Check: "stable-offset", Severity: Warning, What: fmt.Sprintf("topic %s has %%s where readers with read_committed are held back, by up to %d records", t.Name, most),
		Why:  "An open transaction began so many records ago; nobody who reads committed records alone sees those after it until it ends, whoever wrote them.",
		Mend: "See which transaction it is, among these findings or by",
		Commands: []string{
			e.tool("kafka-transactions describe-producers --topic %s --partition %d", t.Name, append(behind[t.Name], 0)[0]),
		},
	})
}

// transactional notes that a topic's readers need to be of a kind.
func (e *exam) transactional(t *Topic) {
	written := false
	for _, p := range t.Partitions {
		written = written || slices.ContainsFunc(p.Producers, func(pr Producer) bool { return pr.Transactional })
	}
	if !written {
		return
	}
	e.find(Finding{
		Check: "read-committed", Severity: Note, What: fmt.Sprintf("topic %s is written in transactions", t.Name),
		Why:  "Readers that do not ask for committed records alone also see those of transactions that were aborted: effects twice, or of what never was. How its readers are set cannot be seen from here.",
		Mend: "See that each reads committed: kgo.FetchIsolationLevel(kgo.ReadCommitted()); Java and Spring: isolation.level=read_committed, which is not their default; kcat: -X isolation.level=read_committed, its default; KafkaJS: readUncommitted: false, its default.",
	})
}
