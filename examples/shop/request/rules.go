package request

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// A Rule returns what is wrong with a value, without the property's name; ""
// if nothing is. They are named for class-validator's, whose words they have.
type Rule func(value) string

// NotEmpty is IsNotEmpty: a number, a list and a space are something.
func NotEmpty(v value) string {
	if v.isEmpty {
		return "should not be empty"
	}
	return ""
}

// IsString is IsString.
func IsString(v value) string {
	if !v.isString {
		return "must be a string"
	}
	return ""
}

// number is what class-validator's IsNumberString takes: no exponent, no
// NaN, no Infinity.
var number = regexp.MustCompile(`^[+-]?([0-9]*[.])?[0-9]+$`)

// IsNumberString is IsNumberString.
func IsNumberString(v value) string {
	if !number.MatchString(v.text) {
		return "must be a number string"
	}
	return ""
}

// IsPositive goes beyond IsNumberString, which takes "-1" and "0": an order of
// nothing, or one that pays its user, is a mistake.
func IsPositive(v value) string {
	if number.MatchString(v.text) && (v.text[0] == '-' || !strings.ContainsAny(v.text, "123456789")) {
		return "must be a positive number"
	}
	return ""
}

// MaxLength is MaxLength, in characters. Without it, a value could fill the
// whole body, and the answers and log lines that repeat it.
func MaxLength(limit int) Rule {
	return func(v value) string {
		if utf8.RuneCountInString(v.text) > limit {
			return fmt.Sprintf("must be shorter than or equal to %d characters", limit)
		}
		return ""
	}
}

// MinLength is MinLength, in characters.
func MinLength(limit int) Rule {
	return func(v value) string {
		if utf8.RuneCountInString(v.text) < limit {
			return fmt.Sprintf("must be longer than or equal to %d characters", limit)
		}
		return ""
	}
}

// email is a valid e-mail address as HTML has it (HTML Living Standard,
// 4.10.5.1.5), with a dot in its domain.
var email = regexp.MustCompile("^[a-zA-Z0-9.!#$%&'*+/=?^_`{|}~-]+@[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?" +
	`(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)+$`)

// IsEmail is IsEmail, for addresses of up to 254 characters (RFC 5321, 4.5.3.1.3).
func IsEmail(v value) string {
	if len(v.text) > 254 || !email.MatchString(v.text) {
		return "must be an email"
	}
	return ""
}

// IsIn is IsIn, for values that are strings at all.
func IsIn(values ...string) Rule {
	return func(v value) string {
		if v.isString && !v.isEmpty && !slices.Contains(values, v.text) {
			return "must be one of the following values: " + strings.Join(values, ", ")
		}
		return ""
	}
}
