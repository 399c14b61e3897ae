package doctor_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry/cmd/wherry/internal/doctor"
	"github.com/wherry-go/wherry/internal/lane"
)

// set is the metadata that a Consumer commits with an offset.
func set(id [16]byte, base int64) string {
	text, _ := lane.Encode(id, base, []lane.Run{{Begin: base + 2, End: base + 5}}, lane.MaxText)
	return text
}

func TestExamine_Groups(t *testing.T) {
	t.Parallel()
	state := func(s string) func(*patient) { return func(p *patient) { p.Groups[0].State = s } }
	commit := func(i int, offset int64, metadata string) func(*patient) {
		return func(p *patient) { p.Groups[0].Commits[i].Offset, p.Groups[0].Commits[i].Metadata = offset, metadata }
	}
	idle := func(n int) func(*patient) {
		return func(p *patient) {
			for range n {
				p.Groups[0].Members = append(p.Groups[0].Members, doctor.Member{ID: "idle", Client: "c", Host: "/h", Subscribed: []string{"orders"}})
			}
		}
	}
	check(t, map[string]row{
		"there is none": {
			func(p *patient) { p.Groups = []doctor.Group{{Name: "biling"}} },
			[]string{"error group-missing"},
			[]string{"there is no group biling", "kafka-consumer-groups --bootstrap-server kafka:9092 --list"},
		},
		"empty, with a lag": {
			func(p *patient) { state("Empty")(p); p.Groups[0].Members = nil },
			[]string{"warning group-empty"},
			[]string{"group billing has no members, and a lag of 100"},
		},
		"empty, without": {
			func(p *patient) {
				state("EMPTY")(p)
				p.Groups[0].Members, p.Groups[0].Commits = nil, p.Groups[0].Commits[:1]
			},
			[]string{"note group-empty"},
			nil,
		},
		"sharing out":         {state("PreparingRebalance"), []string{"note group-state"}, []string{"PreparingRebalance"}},
		"stable, in any case": {state("STABLE"), nil, nil},
		"more members than partitions": {
			idle(2), []string{"note idle-members"}, []string{"2 members of group billing without a partition: 4 members for 3 partitions", "idle (c at h)"},
		},
		"as many, and one idle": {idle(1), []string{"warning idle-members"}, []string{"There are enough partitions"}},
		"static members": {
			func(p *patient) { p.Groups[0].Members[1].Instance = "billing-2" },
			[]string{"note static-members"},
			[]string{"billing-2 (billing at 10.0.0.2)"},
		},
		"an offset at the end": {commit(0, 100, ""), nil, nil},
		"an offset beyond": {
			commit(0, 101, ""),
			[]string{"error offset-ahead"},
			[]string{"orders/0: committed 101, the end is 100", "OffsetRangeError", "--group billing --reset-offsets --to-earliest --execute --topic orders:0"},
		},
		"an offset at the start": {commit(0, 10, ""), nil, nil},
		"an offset before it":    {commit(0, 9, ""), []string{"error offset-behind"}, []string{"orders/0: committed 9, the first is 10"}},
		"a name that a shell would read": {
			func(p *patient) { p.Groups[0].Name = "it's $(mine)"; commit(0, 101, "")(p) },
			[]string{"error offset-ahead"},
			[]string{`--group 'it'\''s $(mine)' --reset-offsets`},
		},
		"no offset": {commit(0, -1, ""), nil, nil},
		"an end that is not known": {
			func(p *patient) { p.topic("orders").Partitions[0].End = -1; commit(0, 101, "")(p) }, nil, nil,
		},
		"a finished set": {commit(0, 50, set([16]byte{7}, 50)), nil, nil},
		"of another topic": {
			commit(0, 50, set([16]byte{8}, 50)),
			[]string{"warning finished-set"},
			[]string{"orders/0 at offset 50"},
		},
		"of another offset":  {commit(0, 51, set([16]byte{7}, 50)), []string{"warning finished-set"}, nil},
		"garbled by a store": {commit(0, 50, set([16]byte{7}, 50)[:22]+"\uFFFD\uFFFD"), []string{"warning finished-set"}, nil},
		"others' metadata":   {commit(0, 50, "consumer-1-2f5d7d7e-0c0f"), nil, nil},
		"text":               {commit(0, 50, "manual reset by ada, 27 Nov"), nil, nil},
	})
}

func TestExamine_HeldOffsets(t *testing.T) {
	t.Parallel()
	// Of three partitions "billing" is in the one that Java's hash says.
	const partition = 1
	held := func(age time.Duration, at int32) func(*patient) {
		return func(p *patient) {
			p.Groups[0].Commits[1].Held = true
			if age > 0 {
				p.Transactions = []doctor.Transaction{{ID: "billing-1", State: "Ongoing", Timeout: time.Hour, Began: now.Add(-age), Partitions: map[string][]int32{"__consumer_offsets": {at}}}}
			}
		}
	}
	check(t, map[string]row{
		"for a moment":           {held(10*time.Second, partition), []string{"note offsets-held"}, []string{"that of billing-1, for 10s", "Nothing needs to be done", "orders/1"}},
		"for longer":             {held(11*time.Second, partition), []string{"note offsets-held"}, []string{"Look again"}},
		"for a minute":           {held(time.Minute, partition), []string{"note offsets-held"}, nil},
		"for more than a minute": {held(61*time.Second, partition), []string{"warning transaction-open", "warning offsets-held"}, []string{"for 1m 1s", "perhaps offsets of group billing"}},
		"by one that is unseen":  {held(0, 0), []string{"note offsets-held"}, []string{"for how long is not known"}},
		"by another group's":     {held(30*time.Second, (partition+1)%3), []string{"note offsets-held"}, []string{"for how long is not known"}},
		"where offsets are kept is not known": {
			func(p *patient) { held(30*time.Second, partition)(p); p.without("__consumer_offsets") },
			[]string{"note offsets-held"},
			[]string{"for how long is not known"},
		},
	})
}

func TestExamine_Transactions(t *testing.T) {
	t.Parallel()
	open := func(age, timeout time.Duration) func(*patient) {
		return func(p *patient) {
			p.Transactions = []doctor.Transaction{{ID: "pay-1", State: "Ongoing", ProducerID: 7, Timeout: timeout, Began: now.Add(-age), Partitions: map[string][]int32{"orders": {2, 0}, "audit": {1}}}}
		}
	}
	producer := func(pr doctor.Producer) func(*patient) {
		return func(p *patient) { p.topic("orders").Partitions[1].Producers = []doctor.Producer{pr} }
	}
	silent := func(d time.Duration) doctor.Producer {
		return doctor.Producer{ID: 9, OpenFrom: 42, Last: now.Add(-d)}
	}
	check(t, map[string]row{
		"a minute":                        {open(time.Minute, time.Hour), nil, nil},
		"more than a minute":              {open(time.Minute+time.Second, time.Hour), []string{"warning transaction-open"}, []string{"transaction of pay-1 has been open for 1m 1s (Ongoing, timeout 1h)", "audit/1; orders/0, 2", "describe --transactional-id pay-1"}},
		"within what a coordinator needs": {open(30*time.Second, 10*time.Second), nil, nil},
		"beyond its timeout":              {open(31*time.Second, 10*time.Second), []string{"error transaction-hangs"}, []string{"the broker should have aborted it"}},
		"by the brokers' clock":           {func(p *patient) { open(59*time.Second, time.Hour)(p); p.Clocks[0].Ahead = 900 * time.Millisecond }, nil, nil},
		"by the brokers' clock, which goes": {func(p *patient) {
			open(59500*time.Millisecond, time.Hour)(p)
			p.Clocks[0].Ahead = 900 * time.Millisecond
		}, []string{"warning transaction-open"}, nil},
		"it hangs where one can see": {
			func(p *patient) {
				open(31*time.Second, 10*time.Second)(p)
				producer(doctor.Producer{ID: 7, OpenFrom: 42, Last: now})(p)
			},
			[]string{"error transaction-hangs"},
			[]string{"kafka-transactions --bootstrap-server kafka:9092 abort --topic orders --partition 1 --start-offset 42"},
		},
		"nobody's, a minute":           {producer(silent(time.Minute)), nil, nil},
		"nobody's, more than a minute": {producer(silent(time.Minute + time.Second)), []string{"warning transaction-hangs"}, []string{"producer 9 has a transaction open in orders/1 from offset 42", "may not see"}},
		"nobody's, 20 minutes":         {producer(silent(20 * time.Minute)), []string{"warning transaction-hangs"}, nil},
		"nobody's, longer than any":    {producer(silent(20*time.Minute + time.Second)), []string{"error transaction-hangs"}, []string{"nobody will end it", "--start-offset 42"}},
		"nobody's, brokers allow more": {
			func(p *patient) {
				producer(silent(21 * time.Minute))(p)
				p.set("transaction.max.timeout.ms", "3600000")
			},
			[]string{"warning transaction-hangs"},
			nil,
		},
		"a producer without one": {producer(doctor.Producer{ID: 9, OpenFrom: -1, Last: now.Add(-time.Hour)}), nil, nil},
		"one that had one":       {producer(doctor.Producer{ID: 9, OpenFrom: -1, Transactional: true}), []string{"note read-committed"}, []string{"kgo.ReadCommitted()", "KafkaJS"}},
		"held back by 9,999": {
			func(p *patient) { p.topic("balances").Partitions[0].End = 10_099 }, nil, nil,
		},
		"held back by 10,000": {
			func(p *patient) { p.topic("balances").Partitions[1].End = 10_100 },
			[]string{"warning stable-offset"},
			[]string{"topic balances has 1 partition where readers with read_committed are held back, by up to 10000 records", "--topic balances --partition 1"},
		},
		"stable offset not known": {
			func(p *patient) {
				p.topic("balances").Partitions[0].Stable = -1
				p.topic("balances").Partitions[0].End = 20_000
			}, nil, nil,
		},
	})
}

func TestLag_IsWhatIsThereAndNotCommitted(t *testing.T) {
	t.Parallel()
	p := healthy()
	require.Equal(t, doctor.Lag{Total: 100, Partitions: 3, Most: 90, Where: "orders/2"}, p.Lag(&p.Groups[0]))
	p.Groups[0].Commits[2].Offset = 0 // ten of them are gone
	require.EqualValues(t, 100, p.Lag(&p.Groups[0]).Total)
	p.Groups[0].Commits[0].Offset = 200 // beyond the end is no lag
	require.EqualValues(t, 100, p.Lag(&p.Groups[0]).Total)
	p.Groups[0].Commits = append(p.Groups[0].Commits, doctor.Commit{Topic: "gone", Offset: 1}, doctor.Commit{Topic: "orders", Offset: -1})
	require.Equal(t, 3, p.Lag(&p.Groups[0]).Partitions)
}
