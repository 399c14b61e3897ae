package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/examples/checkout/contract"
	"github.com/wherry-go/wherry/examples/checkout/shipping"
	"github.com/wherry-go/wherry/kafkatest"
)

// world is what the participants have done for one checkout, each thing with how
// often.
type world map[string]int

// The two worlds that are whole.
func sold() world { return world{"stock -2": 1, "charge 9999": 1, "label": 1, "sale 9999": 1} }

func takenBack() world {
	return world{"stock -2": 1, "stock 2": 1, "charge 9999": 1, "refund 9999": 1, "cancelled label": 1}
}

// worlds are those of all checkouts, by id. dir has the data of the payments and
// of shipping.
func worlds(t *testing.T, k *kafkatest.Cluster, dir string) map[string]world {
	t.Helper()
	all := map[string]world{}
	did := func(id, what string) {
		if all[id] == nil {
			all[id] = world{}
		}
		all[id][what]++
	}
	for _, r := range read(t, k, contract.StockMoved.Topic) {
		m, err := contract.StockMoved.Decode(r)
		require.NoError(t, err)
		did(m.Checkout, fmt.Sprint("stock ", m.Quantity))
	}
	// The topic of sales is compacted: two of one number are one.
	sales := map[string]int64{}
	for _, r := range read(t, k, contract.Entries.Topic) {
		e, err := contract.Entries.Decode(r)
		require.NoError(t, err)
		sales[string(r.Key)] = e.Amount
	}
	for id, amount := range sales {
		did(id, fmt.Sprint("sale ", amount))
	}
	book, err := os.ReadFile(filepath.Join(dir, "payments.jsonl"))
	require.NoError(t, err)
	for text := range strings.Lines(string(book)) {
		var line struct {
			Key, Did string
			Amount   int64
		}
		require.NoError(t, json.Unmarshal([]byte(text), &line))
		parts := strings.Split(line.Key, "/")
		require.Len(t, parts, 3, line.Key)
		did(parts[1], fmt.Sprint(line.Did, " ", line.Amount))
	}
	db, err := sql.Open("sqlite3", shipping.DSN(filepath.Join(dir, "shipping.db")))
	require.NoError(t, err)
	defer db.Close()
	rows, err := db.Query("SELECT checkout, cancelled FROM labels")
	require.NoError(t, err)
	defer rows.Close()
	for rows.Next() {
		var id string
		var cancelled bool
		require.NoError(t, rows.Scan(&id, &cancelled))
		if cancelled {
			did(id, "cancelled label")
		} else {
			did(id, "label")
		}
	}
	require.NoError(t, rows.Err())
	return all
}

// read returns what is committed in a topic.
func read(t *testing.T, k *kafkatest.Cluster, topic string) (records []*kgo.Record) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cl := k.Client(t, kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords())
	ends, err := kadm.NewClient(cl).ListEndOffsets(ctx, topic)
	require.NoError(t, err)
	next := map[int32]int64{}
	for {
		whole := true
		ends.Each(func(o kadm.ListedOffset) { whole = whole && next[o.Partition] >= o.Offset })
		if whole {
			return records
		}
		fetches := cl.PollFetches(ctx)
		require.NoError(t, fetches.Err())
		for r := range fetches.RecordsAll() {
			next[r.Partition] = r.Offset + 1
			if !r.Attrs.IsControl() {
				records = append(records, r)
			}
		}
	}
}
