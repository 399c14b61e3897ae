package web

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPrefersProblem(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		accept []string
		want   bool
	}{
		{nil, false},
		{[]string{""}, false},
		{[]string{"*/*"}, false},
		{[]string{"application/*"}, false},
		{[]string{"application/json"}, false},
		{[]string{"text/html"}, false},
		{[]string{"application/problem+json"}, true},
		{[]string{"Application/Problem+JSON"}, true},
		{[]string{"application/problem+json;charset=utf-8"}, true},
		{[]string{"application/problem+json, */*"}, true},
		{[]string{"application/json, application/problem+json"}, true},
		{[]string{"application/json", "application/problem+json"}, true},
		{[]string{"application/json;q=0.9, application/problem+json"}, true},
		{[]string{"application/json , application/problem+json ; q=0.5"}, false},
		{[]string{"application/problem+json;q=0.5, */*"}, false},
		{[]string{"application/problem+json;q=0.5, application/*;q=0.4, */*"}, true},
		{[]string{"application/problem+json;q=0.2, application/json;q=0.1, */*"}, true},
		{[]string{"application/problem+json;q=0"}, false},
		{[]string{"application/problem+json;q=0.0, application/json;q=0"}, false},
		{[]string{"application/problem+json;q=2"}, false},
		{[]string{"application/problem+json;q=NaN"}, false},
		{[]string{"application/problem+json;q=x"}, false},
		{[]string{"application/problem+json;;;, ,,"}, false},
		{[]string{"application/problem+xml"}, false},
		{[]string{"application/problem+json;q=0.1", "application/problem+json;q=0.9", "application/json;q=0.5"}, true},
	} {
		require.Equal(t, test.want, prefersProblem(test.accept), "%q", test.accept)
	}
}
