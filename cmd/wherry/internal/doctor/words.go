package doctor

import (
	"fmt"
	"regexp"
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

// places are partitions of several topics, sorted: "orders/0, 2" or "orders/0-7".
func places(byTopic map[string][]int32) []string {
	var all []string
	for topic, partitions := range byTopic {
		all = append(all, topic+"/"+ranges(partitions))
	}
	slices.Sort(all)
	return all
}

// ranges are numbers with those in a row, from three on, in one.
func ranges(numbers []int32) string {
	numbers = slices.Sorted(slices.Values(numbers))
	var all []string
	for i := 0; i < len(numbers); {
		j := i
		for j+1 < len(numbers) && numbers[j+1] == numbers[j]+1 {
			j++
		}
		if j-i < 2 {
			all = append(all, ids(numbers[i:i+1])...)
			i++
			continue
		}
		all = append(all, ids(numbers[i : i+1])[0]+"-"+ids(numbers[j : j+1])[0])
		i = j + 1
	}
	return strings.Join(all, ", ")
}

var harmless = regexp.MustCompile(`^[A-Za-z0-9._:/@+=,-]+$`)

// quoted is a name as a shell takes it: groups and transactional ids are called
// as their makers like.
func quoted(name string) string {
	if harmless.MatchString(name) {
		return name
	}
	return "'" + strings.ReplaceAll(name, "'", `'\''`) + "'"
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
