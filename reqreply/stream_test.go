package reqreply_test

import (
	"context"
	"iter"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
	"github.com/wherry-go/wherry/reqreply"
)

var count = reqreply.Method[int, *string]{Topic: "count"}

// counting answers n values; a negative one ends in an error after -n values.
func counting(_ context.Context, n int) iter.Seq2[*string, error] {
	return func(yield func(*string, error) bool) {
		for i := range max(n, -n) {
			text := strconv.Itoa(i)
			if !yield(&text, nil) {
				return
			}
		}
		if n < 0 {
			yield(nil, &reqreply.Error{Code: "end", Message: "no more"})
		}
	}
}

// values takes a stream to its end.
func values(seq iter.Seq2[*string, error]) (all []string, err error) {
	for v, err := range seq {
		switch {
		case err != nil:
			return all, err
		case v == nil:
			all = append(all, "null")
		default:
			all = append(all, *v)
		}
	}
	return all, nil
}

func TestAStreamOfValues(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "count:1", "count.reply:1")
	serve(t, k, &wherry.Consumer{}, count.StreamHandler(counting))
	c := caller(t, k, count)
	for _, n := range []int{3, 1, 0, 1000} {
		got, err := values(count.Stream(within(t, patience), c, n))
		require.NoError(t, err)
		require.Len(t, got, n)
		for i, v := range got {
			require.Equal(t, strconv.Itoa(i), v)
		}
	}
	got, err := values(count.Stream(within(t, patience), c, -2))
	require.Equal(t, []string{"0", "1"}, got, "what was before the error")
	var answer *reqreply.Error
	require.ErrorAs(t, err, &answer)
	require.Equal(t, "end", answer.Code)

	v, err := count.Call(within(t, patience), c, 3) // takes the first
	require.NoError(t, err)
	require.Equal(t, "0", *v)
	for v, err := range count.Stream(within(t, patience), c, 1000) { // ends early
		require.NoError(t, err)
		require.Equal(t, "0", *v)
		break
	}
	eventually(t, "the places are free", func() bool { return c.Status().Pending == 0 })
}

func TestNullValuesOfAStream(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "count:1", "count.reply:1")
	serve(t, k, &wherry.Consumer{}, count.StreamHandler(func(context.Context, int) iter.Seq2[*string, error] {
		return func(yield func(*string, error) bool) {
			for range 2 {
				if !yield(nil, nil) {
					return
				}
			}
		}
	}))
	got, err := values(count.Stream(within(t, patience), caller(t, k, count), 1))
	require.NoError(t, err)
	require.Equal(t, []string{"null", "null"}, got)
}

// byHand answers the next request with records as others write them.
func byHand(t *testing.T, k *kafkatest.Cluster, replies ...[]kgo.RecordHeader) {
	t.Helper()
	cl := k.Client(t, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	kafkatest.Run(t, kafkatest.RunFunc(func(ctx context.Context) error {
		rd := k.Client(t, kgo.ConsumeTopics("count"), kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()))
		for ctx.Err() == nil {
			rd.PollFetches(ctx).EachRecord(func(r *kgo.Record) {
				for i, headers := range replies {
					out := &kgo.Record{Topic: "count.reply", Value: []byte(strconv.Itoa(i))}
					out.Headers = append(slices.Clone(headers), kgo.RecordHeader{Key: "kafka_correlationId", Value: []byte(headerOf(r, "kafka_correlationId"))})
					_ = cl.ProduceSync(ctx, out)
				}
			})
		}
		return nil
	}))
}

func TestAStreamThatIsCutInTheMiddleEndsAtItsDeadline(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "count:1", "count.reply:1")
	c := caller(t, k, count)
	byHand(t, k, nil, nil) // two values and no end
	var got []string
	var last error
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for v, err := range count.Stream(ctx, c, 2) {
		if err != nil {
			last = err
			break
		}
		if got = append(got, *v); len(got) == 2 {
			cancel()
		}
	}
	require.Equal(t, []string{"0", "1"}, got)
	require.ErrorIs(t, last, context.Canceled)
}

func TestAStreamEndsInTimeThoughItsValuesWait(t *testing.T) {
	t.Parallel()
	kafkatest.Test(t, []string{"count:1", "count.reply:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		if !k.Virtual() {
			t.Skip("needs -tags synctests")
		}
		c := caller(t, k, count)
		byHand(t, k, nil, nil, nil, nil, nil)
		took := func(ctx context.Context, each func()) (n int, last error) {
			for _, err := range count.Stream(ctx, c, 5) {
				if err != nil {
					return n, err
				}
				n++
				time.Sleep(10 * time.Second) // the others come
				each()
			}
			return n, nil
		}
		n, err := took(within(t, 15*time.Second), func() {})
		require.Equal(t, 2, n)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		ctx, cancel := context.WithCancel(t.Context())
		n, err = took(ctx, cancel)
		require.Equal(t, 1, n)
		require.ErrorIs(t, err, context.Canceled)
	})
}

func TestValuesThatComeAgainArePassedOver(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "count:1", "count.reply:1")
	c := caller(t, k, count)
	seq := func(n string) []kgo.RecordHeader {
		return []kgo.RecordHeader{{Key: "wherry-reply-seq", Value: []byte(n)}}
	}
	byHand(t, k, seq("0"), seq("1"), seq("0"), seq("1"), append(seq("2"), kgo.RecordHeader{Key: "kafka_nest-is-disposed", Value: []byte{0}}))
	got, err := values(count.Stream(within(t, patience), c, 3))
	require.NoError(t, err)
	require.Equal(t, []string{"0", "1", "4"}, got)
}

func TestGatherTakesTheAnswersOfSeveralGroups(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "price:1", "price.reply:1")
	price := reqreply.Method[string, int]{Topic: "price"}
	for i, group := range []string{"shop-a", "shop-b", "shop-c"} {
		serve(t, k, &wherry.Consumer{Group: group}, price.Handler(func(context.Context, string) (int, error) {
			if i == 2 {
				return 0, &reqreply.Error{Code: "sold-out"}
			}
			return 10 + i, nil
		}))
	}
	c := caller(t, k, price)
	results, err := price.Gather(within(t, patience), c, "tea", 3)
	require.NoError(t, err)
	slices.SortFunc(results, func(a, b reqreply.Result[int]) int { return int(a.Group[5]) - int(b.Group[5]) })
	require.Equal(t, []int{10, 11, 0}, []int{results[0].Value, results[1].Value, results[2].Value})
	require.Equal(t, []string{"shop-a", "shop-b", "shop-c"}, []string{results[0].Group, results[1].Group, results[2].Group})
	var answer *reqreply.Error
	require.ErrorAs(t, results[2].Err, &answer)

	results, err = price.Gather(within(t, patience), c, "tea", 2)
	require.NoError(t, err)
	require.Len(t, results, 2)
	results, err = price.Gather(within(t, 500*time.Millisecond), c, "tea", 4)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Len(t, results, 3, "what there is")
	results, err = price.Gather(within(t, 500*time.Millisecond), c, "tea", 0)
	require.NoError(t, err)
	require.Len(t, results, 3)
	_, err = price.Gather(within(t, patience), c, "tea", -1)
	require.Error(t, err)
}

func TestGatherCountsAGroupOnce(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "count:1", "count.reply:1")
	c := caller(t, k, count)
	from := func(group string) []kgo.RecordHeader {
		return []kgo.RecordHeader{{Key: "wherry-reply-group", Value: []byte(group)}}
	}
	byHand(t, k, from("a"), from("a"), from("b"), nil, nil)
	results, err := count.Gather(within(t, patience), c, 1, 4)
	require.NoError(t, err)
	var got []string
	for _, r := range results {
		got = append(got, r.Group+*r.Value)
	}
	require.Equal(t, []string{"a0", "b2", "3", "4"}, got)
}
