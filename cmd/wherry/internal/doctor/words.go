package doctor

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// count is a number with its noun.
func count[N int | int64](n N, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// and joins words as people do.
func and(words []string) string {
	if n := len(words); n > 1 {
		return strings.Join(words[:n-1], ", ") + " and " + words[n-1]
	}
	return strings.Join(words, "")
}

// ids are numbers as words.
func ids(numbers []int32) []string {
	words := make([]string, len(numbers))
	for i, n := range numbers {
		words[i] = strconv.Itoa(int(n))
	}
	return words
}

// place is a partition, as the operator's other commands write it.
func place(topic string, partition int32) string {
	return topic + "/" + strconv.Itoa(int(partition))
}

// places are partitions of several topics, sorted: "orders/0, 2".
func places(byTopic map[string][]int32) []string {
	var all []string
	for topic, partitions := range byTopic {
		partitions = slices.Sorted(slices.Values(partitions))
		all = append(all, topic+"/"+strings.Join(ids(partitions), ", "))
	}
	slices.Sort(all)
	return all
}

// long is a duration as people say it, in two units at most.
func long(d time.Duration) string {
	const day = 24 * time.Hour
	two := func(n time.Duration, unit string, rest time.Duration, of string) string {
		if rest == 0 {
			return fmt.Sprintf("%d%s", n, unit)
		}
		return fmt.Sprintf("%d%s %d%s", n, unit, rest, of)
	}
	switch {
	case d < 0:
		return "-" + long(-d)
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	case d < time.Hour:
		return two(d/time.Minute, "m", d%time.Minute/time.Second, "s")
	case d < 2*day:
		return two(d/time.Hour, "h", d%time.Hour/time.Minute, "m")
	}
	return two(d/day, " days", d%day/time.Hour, "h")
}

// millis is a number of milliseconds as a setting writes it.
func millis(text string) string {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return text
	}
	return fmt.Sprintf("%d (%s)", n, long(time.Duration(n)*time.Millisecond))
}

func millisOf(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
