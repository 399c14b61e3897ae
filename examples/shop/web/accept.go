package web

import (
	"mime"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// prefersProblem reports whether a client that sends these Accept fields (RFC
// 9110, section 12.5.1) wants problem details rather than the envelope: it has
// to name their type, and not to like application/json better. Clients that do
// not know of problem details name none, or take anything.
func prefersProblem(accept []string) bool {
	problem, named := quality(accept, "application/problem+json")
	envelope, _ := quality(accept, "application/json")
	return named && problem > 0 && problem >= envelope
}

// quality is how much a media type of application is wanted, 0 to 1: the weight
// of the range that says most about it. named is whether that is the type itself.
func quality(accept []string, kind string) (q float64, named bool) {
	best := 0 // how much the range says: 3 for the type itself, 1 for */*
	for _, line := range accept {
		for element := range strings.SplitSeq(line, ",") {
			media, params, err := mime.ParseMediaType(element)
			if err != nil {
				continue // not a media range, or none at all
			}
			weight := 1.0
			if given, ok := params["q"]; ok {
				if weight, err = strconv.ParseFloat(given, 64); err != nil || !(weight >= 0 && weight <= 1) {
					continue
				}
			}
			says := map[string]int{kind: 3, "application/*": 2, "*/*": 1}[media]
			if says > best || says > 0 && says == best && weight > q {
				best, q = says, weight
			}
		}
	}
	return q, best == 3
}

// withoutAccept is a request whose Accept fields are kept from huma, which knows
// no other type than JSON and panics at some that are malformed (";", say).
type withoutAccept struct{ humaContext }

type humaContext = huma.Context // whose name is that of one of its methods

func (c withoutAccept) Header(name string) string {
	if name == "Accept" {
		return ""
	}
	return c.humaContext.Header(name)
}

// Unwrap is for humago.
func (c withoutAccept) Unwrap() huma.Context { return c.humaContext }
