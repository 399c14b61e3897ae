package orders

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/wherry-go/wherry/examples/shop/events"
)

// NewOrder is the body of POST /orders. Its tags are for the OpenAPI document;
// parseNewOrder has the rules. A client has to give the status that every order
// begins with, because those of the original do.
type NewOrder struct {
	TotalAmount string `json:"totalAmount" doc:"a positive decimal number" pattern:"^[+]?([0-9]*[.])?[0-9]+$" maxLength:"32" example:"99.99"`
	Status      string `json:"status" enum:"pending"`
	UserID      string `json:"userId" minLength:"1" maxLength:"100" example:"user1"`
}

// MalformedError says that a body is no JSON object at all.
type MalformedError struct{ Err error }

func (e *MalformedError) Error() string { return e.Err.Error() }

// Unwrap returns what is wrong with the JSON.
func (e *MalformedError) Unwrap() error { return e.Err }

// InvalidError has everything that is wrong with the properties of a body, in
// the words and the order of class-validator.
type InvalidError struct{ Messages []string }

func (e *InvalidError) Error() string { return strings.Join(e.Messages, ", ") }

// parseNewOrder reads the body of POST /orders. Its error is a
// *MalformedError or an *InvalidError.
func parseNewOrder(body []byte) (NewOrder, error) {
	var n NewOrder
	var properties map[string]json.RawMessage // unlike a struct, it tells upper from lower case
	if !bytes.HasPrefix(bytes.TrimLeft(body, " \t\r\n"), []byte("{")) && json.Valid(body) {
		return n, &MalformedError{errors.New("the body must be a JSON object")}
	}
	if err := json.Unmarshal(body, &properties); err != nil {
		return n, &MalformedError{fmt.Errorf("malformed JSON: %w", err)}
	}
	known := []struct {
		name  string
		value *string
		rules []rule
	}{
		{"totalAmount", &n.TotalAmount, []rule{notEmpty, shorter(32), positive, numberString}},
		{"status", &n.Status, []rule{notEmpty, isString, oneOf(events.Pending)}},
		{"userId", &n.UserID, []rule{notEmpty, shorter(100), isString}},
	}
	given := map[string]value{}
	for _, p := range known {
		given[p.name] = parseValue(properties[p.name])
		delete(properties, p.name)
		*p.value = given[p.name].text
	}
	var messages []string
	for _, name := range slices.Sorted(maps.Keys(properties)) {
		messages = append(messages, fmt.Sprintf("property %.100s should not exist", name))
	}
	for _, p := range known {
		for _, broken := range p.rules {
			if m := broken(given[p.name]); m != "" {
				messages = append(messages, p.name+" "+m)
			}
		}
	}
	if messages != nil {
		return n, &InvalidError{messages}
	}
	return n, nil
}

// value is a property's value: a string, empty (missing, null or ""), or
// something else.
type value struct {
	text     string
	isString bool
	isEmpty  bool
}

// parseValue tells missing and null, which are empty, from a wrong type.
func parseValue(raw json.RawMessage) (v value) {
	if raw == nil || string(raw) == "null" {
		return value{isEmpty: true}
	}
	v.isString = json.Unmarshal(raw, &v.text) == nil
	v.isEmpty = v.isString && v.text == ""
	return v
}

// A rule returns what is wrong with a value, without the property's name; ""
// if nothing is.
type rule func(value) string

// notEmpty is IsNotEmpty: a number, a list and a space are something.
func notEmpty(v value) string {
	if v.isEmpty {
		return "should not be empty"
	}
	return ""
}

// isString is IsString.
func isString(v value) string {
	if !v.isString {
		return "must be a string"
	}
	return ""
}

// number is what class-validator's IsNumberString takes: no exponent, no
// NaN, no Infinity.
var number = regexp.MustCompile(`^[+-]?([0-9]*[.])?[0-9]+$`)

// numberString is IsNumberString.
func numberString(v value) string {
	if !number.MatchString(v.text) {
		return "must be a number string"
	}
	return ""
}

// positive goes beyond IsNumberString, which takes "-1" and "0": an order of
// nothing, or one that pays its user, is a mistake. It is IsPositive's wording.
func positive(v value) string {
	if number.MatchString(v.text) && (v.text[0] == '-' || !strings.ContainsAny(v.text, "123456789")) {
		return "must be a positive number"
	}
	return ""
}

// shorter is MaxLength. Without it, a value could fill the whole body, and the
// answers and log lines that repeat it.
func shorter(limit int) rule {
	return func(v value) string {
		if utf8.RuneCountInString(v.text) > limit {
			return fmt.Sprintf("must be shorter than or equal to %d characters", limit)
		}
		return ""
	}
}

// oneOf is IsIn, for values that are strings at all.
func oneOf(values ...string) rule {
	return func(v value) string {
		if v.isString && !v.isEmpty && !slices.Contains(values, v.text) {
			return "must be one of the following values: " + strings.Join(values, ", ")
		}
		return ""
	}
}
