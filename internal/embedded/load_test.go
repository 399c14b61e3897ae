package embedded_test

import (
	"context"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Kills under load, of a broker whose clients live on: what was acknowledged
// is there, once; a transaction is in all its topics, or in none.
func TestKill9UnderLoad(t *testing.T) {
	t.Parallel()
	const kills = 3
	dir, addr := t.TempDir(), freeAddr(t)
	cmd, _ := startChildAt(t, dir, addr)
	for _, name := range []string{"t", "a", "b"} {
		topic(t, addr, name, 2, nil)
	}
	ctx, stop := context.WithCancel(timeout(t))
	defer stop()
	soon := kgo.RetryBackoffFn(func(int) time.Duration { return 20 * time.Millisecond })

	var load sync.WaitGroup
	plain, pairs := make(chan string, 1<<20), make(chan string, 1<<20) // acknowledged
	load.Go(func() {
		cl := client(t, addr, soon)
		for i := 0; ctx.Err() == nil; i++ {
			v := strconv.Itoa(i)
			cl.Produce(context.WithoutCancel(ctx), &kgo.Record{Key: []byte(v), Value: []byte(v)}, func(_ *kgo.Record, err error) {
				if err == nil {
					plain <- v
				}
			})
			if i%100 == 0 {
				_ = cl.Flush(ctx)
			}
		}
		_ = cl.Flush(context.WithoutCancel(ctx))
	})
	load.Go(func() {
		for i := 0; ctx.Err() == nil; {
			cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.TransactionalID("x"), kgo.ProducerLinger(0), soon, kgo.MetadataMinAge(20*time.Millisecond))
			for err == nil && ctx.Err() == nil {
				i++
				v := strconv.Itoa(i)
				if err = pair(ctx, cl, v); err == nil {
					pairs <- v
				}
			}
			cl.Close()
		}
	})
	var acked, committed []string
	for round := range kills + 1 {
		for range 2000 {
			acked = append(acked, <-plain)
		}
		for range 20 {
			committed = append(committed, <-pairs)
		}
		if round == kills {
			break
		}
		require.NoError(t, cmd.Process.Kill())
		_ = cmd.Wait()
		acked, committed = drain(acked, plain), drain(committed, pairs)
		cmd, _ = startChildAt(t, dir, addr)
	}
	stop()
	load.Wait()
	acked, committed = drain(acked, plain), drain(committed, pairs)

	found := count(read(t, addr, "t"))
	for _, v := range acked {
		require.Equal(t, 1, found[v], "record %s of the idempotent producer", v)
	}
	for v, n := range found {
		require.Equal(t, 1, n, "record %s of the idempotent producer", v)
	}
	a, b := count(read(t, addr, "a")), count(read(t, addr, "b"))
	for _, v := range committed {
		require.Equal(t, 1, a[v], "committed record %s", v)
	}
	require.Equal(t, a, b, "no transaction is torn")
}

// pair commits a transaction that writes v to two topics.
func pair(ctx context.Context, cl *kgo.Client, v string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if err := cl.BeginTransaction(); err != nil {
		return err
	}
	err := cl.ProduceSync(
		ctx, &kgo.Record{Topic: "a", Key: []byte(v), Value: []byte(v)}, &kgo.Record{Topic: "b", Key: []byte(v), Value: []byte(v)},
	).FirstErr()
	if err != nil {
		return err
	}
	return commit(ctx, cl)
}

func count(values []string) map[string]int {
	n := map[string]int{}
	for _, v := range values {
		n[v]++
	}
	return n
}

// drain appends what is in the channel now.
func drain(to []string, from <-chan string) []string {
	for {
		select {
		case v := <-from:
			to = append(to, v)
		default:
			return to
		}
	}
}
