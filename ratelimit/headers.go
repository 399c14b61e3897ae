package ratelimit

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// headers sets the fields of an answer.
func (h *HTTP) headers(to http.Header, policy string, d *Decision) {
	if h.Headers == 0 || h.Headers&IETF != 0 {
		ietf(to, policy, d)
	}
	if h.Headers&Throttler != 0 {
		throttler(to, d)
	}
}

// policies is the RateLimit-Policy of a Limiter.
func policies(r *Rules) string {
	var all []string
	for _, t := range r.Tiers {
		all = append(all, sfString(t.Name)+";q="+strconv.Itoa(t.Limit)+";w="+seconds(t.Per))
	}
	return strings.Join(all, ", ")
}

func ietf(to http.Header, policy string, d *Decision) {
	to.Set("RateLimit-Policy", policy)
	t, left, ok := d.Least()
	if !ok {
		return
	}
	value := sfString(t.Name) + ";r=" + strconv.Itoa(left.Remaining)
	if left.Reset > 0 {
		value += ";t=" + seconds(left.Reset)
	}
	to.Set("RateLimit", value)
	if wait := max(d.Wait, left.Reset); !d.OK && d.Wait > 0 {
		to.Set("Retry-After", seconds(wait)) // not before t (section 6 of the draft)
	}
}

func throttler(to http.Header, d *Decision) {
	for i := range d.Tiers {
		t, left, ok := d.Tier(i)
		if !ok {
			continue
		}
		suffix := "-" + t.Name
		if t.Name == defaultName {
			suffix = ""
		}
		if left.Refused {
			if d.Wait > 0 {
				to.Set("Retry-After"+suffix, seconds(max(left.Reset, d.Wait)))
			}
			continue
		}
		to.Set("X-RateLimit-Limit"+suffix, strconv.Itoa(t.Limit))
		to.Set("X-RateLimit-Remaining"+suffix, strconv.Itoa(left.Remaining))
		to.Set("X-RateLimit-Reset"+suffix, seconds(left.Reset))
	}
}

// seconds is d in whole seconds, rounded up: who waits so long is not early.
func seconds(d time.Duration) string {
	n := int64(d / time.Second)
	if d%time.Second > 0 {
		n++
	}
	return strconv.FormatInt(n, 10)
}

// sfString writes a String of RFC 9651, section 4.1.6. s is printable ASCII.
func sfString(s string) string {
	return `"` + quoted.Replace(s) + `"`
}

var quoted = strings.NewReplacer(`\`, `\\`, `"`, `\"`)

// token reports whether s is a token of RFC 9110, section 5.6.2.
func token(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && !strings.ContainsRune("!#$%&'*+-.^_`|~", r)
	})
}
