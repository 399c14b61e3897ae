package orders

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry/examples/shop/request"
)

// FuzzNewOrder: whatever the body, either it is refused with something to say
// or it is an order that survives being written and read again.
func FuzzNewOrder(f *testing.F) {
	for _, seed := range []string{
		`{"totalAmount":"99.99","status":"pending","userId":"user1"}`, `{`, `[]`, `null`, `{"x":1}`, ``,
		`{"totalAmount":"-0","status":"","userId":null}`, `{"totalAmount":"1","totalAmount":{}}`, `{"userId":"\ud800"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		n, err := parseNewOrder(body)
		invalid, isInvalid := errors.AsType[*request.InvalidError](err)
		malformed, isMalformed := errors.AsType[*request.MalformedError](err)
		switch {
		case isInvalid:
			require.NotEmpty(t, invalid.Messages)
			require.True(t, json.Valid(body))
		case isMalformed:
			require.NotEmpty(t, malformed.Error())
		default:
			require.NoError(t, err)
			require.NotEmpty(t, n.UserID)
			require.Regexp(t, `[1-9]`, n.TotalAmount)
			b, err := json.Marshal(n)
			require.NoError(t, err)
			again, err := parseNewOrder(b)
			require.NoError(t, err)
			require.Equal(t, n, again)
		}
	})
}
