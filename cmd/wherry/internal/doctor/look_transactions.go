package doctor

import (
	"context"
	"time"
)

// openStates are the states of a transaction that is not over.
var openStates = []string{"Ongoing", "PrepareCommit", "PrepareAbort"}

// nobodys is a name that no topic and no transactional id has.
const nobodys = "wherry-doctor-asks-for-rights"

// transactions asks for those that are open. Brokers tell of those alone that
// the user may describe.
func (g *gathering) transactions(ctx context.Context) {
	ctx, cancel := g.within(ctx)
	defer cancel()
	const needs = "DESCRIBE on TRANSACTIONAL_ID *"
	// For want of rights a list is short, without an error. One that nobody has
	// is denied then, and otherwise not found.
	if _, err := g.adm.DescribeTransactions(ctx, nobodys); denied(err) {
		g.missed("open transactions, but for those that this user may see", needs, err)
	}
	listed, err := g.adm.ListTransactions(ctx, nil, openStates)
	if err != nil {
		g.missed("open transactions", needs, err)
	}
	if len(listed) == 0 {
		return
	}
	all, err := g.adm.DescribeTransactions(ctx, listed.TransactionalIDs()...)
	if err != nil {
		g.missed("some open transactions", needs, err)
	}
	for _, d := range all.Sorted() {
		if d.Err != nil || d.StartTimestamp <= 0 {
			continue // it has ended meanwhile
		}
		g.facts.Transactions = append(g.facts.Transactions, Transaction{
			ID: d.TxnID, State: d.State, ProducerID: d.ProducerID, Timeout: time.Duration(d.TimeoutMillis) * time.Millisecond,
			Began: time.UnixMilli(d.StartTimestamp), Partitions: partitionsOf(d.Topics),
		})
	}
}
