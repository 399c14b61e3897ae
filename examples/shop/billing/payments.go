package billing

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"regexp"
	"strings"

	"github.com/wherry-go/wherry"
)

// Payments says how payments go. It stands in for a payment provider, whose
// troubles it plays; [ParsePayments] makes one. With the zero value all payments
// succeed.
type Payments struct {
	always bool     // every attempt fails
	flaky  bool     // the first two attempts fail
	above  *big.Rat // every attempt of an amount above it fails; nil means no limit
	hangs  bool     // those above the limit get no answer instead
}

// ParsePayments reads how payments go:
//
//	ok       they succeed
//	fail     they fail, however often they are tried
//	flaky    the first two attempts for an order fail, the third succeeds
//	above=N  those of more than N, a whole number, fail however often they are tried
func ParsePayments(text string) (p Payments, err error) {
	limit, above := strings.CutPrefix(text, "above=")
	switch {
	case text == "ok":
		return p, nil
	case text == "fail":
		return Payments{always: true}, nil
	case text == "flaky":
		return Payments{flaky: true}, nil
	case above && whole.MatchString(limit):
		p.above, _ = new(big.Rat).SetString(limit)
		return p, nil
	}
	return p, errors.New("choose from ok, fail, flaky, above=N (N a whole number)")
}

var (
	whole = regexp.MustCompile(`^[0-9]{1,18}$`)
	// An amount without exponent, and short: a few bytes like 1e999999999 would
	// keep the arithmetic busy for ever.
	amount = regexp.MustCompile(`^[+]?([0-9]{0,32}[.])?[0-9]{1,32}$`)
)

// DeclinedError says that a payment was declined.
type DeclinedError struct {
	Amount string
	Why    string
}

func (e *DeclinedError) Error() string {
	return fmt.Sprintf("the payment of %s was declined: %s", e.Amount, e.Why)
}

// errNoAnswer is the trouble that passes.
var errNoAnswer = errors.New("the payment provider did not answer")

// charge takes the money, or says why it could not. attempt counts from 1.
func (p Payments) charge(ctx context.Context, attempt int, total string) error {
	if !amount.MatchString(total) {
		return wherry.Permanent(fmt.Errorf("%.40q is no amount", total)) // now and for ever
	}
	value, _ := new(big.Rat).SetString(total)
	switch {
	case p.always:
		return &DeclinedError{total, "all are"}
	case p.above != nil && value.Cmp(p.above) > 0 && p.hangs:
		<-ctx.Done()
		return fmt.Errorf("%w: %w", errNoAnswer, context.Cause(ctx))
	case p.above != nil && value.Cmp(p.above) > 0:
		return &DeclinedError{total, "it is above " + p.above.RatString()}
	case p.flaky && attempt <= 2:
		return errNoAnswer
	}
	return nil
}
