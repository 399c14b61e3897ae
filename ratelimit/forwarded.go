package ratelimit

import (
	"net/netip"
	"strings"
)

// lastForwarded takes the last element of a Forwarded field (RFC 7239, section
// 4) off it. It looks for the comma from the right, and so is not misled by what
// stands on the left: a quote there that does not end was not written by the
// proxy whose element is the last.
func lastForwarded(list string) (rest, element string) {
	inside := false
	for i := len(list) - 1; i >= 0; i-- {
		switch list[i] {
		case '"':
			if !inside || !escaped(list, i) {
				inside = !inside
			}
		case ',':
			if !inside {
				return list[:i], list[i+1:]
			}
		}
	}
	return "", list
}

// escaped reports whether an odd number of backslashes stands before i.
func escaped(s string, i int) bool {
	n := 0
	for i--; i >= 0 && s[i] == '\\'; i-- {
		n++
	}
	return n%2 == 1
}

// forwardedFor returns the address of the parameter "for" of one element, the
// zero Addr where it has none, two, or something else: "unknown", "_hidden".
func forwardedFor(element string) (addr netip.Addr) {
	found := false
	for rest := element; rest != ""; {
		var pair string
		pair, rest = firstPair(rest)
		name, value, ok := strings.Cut(strings.Trim(pair, " \t"), "=")
		if !ok || !strings.EqualFold(name, "for") {
			continue
		}
		if found {
			return netip.Addr{}
		}
		found = true
		if inner, ok := strings.CutPrefix(value, `"`); ok {
			if value, ok = strings.CutSuffix(inner, `"`); !ok {
				return netip.Addr{}
			}
		}
		addr = address(value)
	}
	return addr
}

// firstPair takes the first "name=value" off an element.
func firstPair(element string) (pair, rest string) {
	inside := false
	for i := 0; i < len(element); i++ {
		switch c := element[i]; {
		case c == '\\' && inside:
			i++
		case c == '"':
			inside = !inside
		case c == ';' && !inside:
			return element[:i], element[i+1:]
		}
	}
	return element, ""
}
