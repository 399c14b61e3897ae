// Package request reads what services are sent over HTTP: a JSON body, with all
// that is wrong with it at once, a bearer token, an idempotency key.
package request

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"
)

// MalformedError says that a body is no JSON object, or a header not what it
// should be.
type MalformedError struct{ Err error }

func (e *MalformedError) Error() string { return e.Err.Error() }

// Unwrap returns what is wrong.
func (e *MalformedError) Unwrap() error { return e.Err }

// InvalidError has everything that is wrong with the properties of a body, in
// the words and the order of class-validator.
type InvalidError struct{ Messages []string }

func (e *InvalidError) Error() string { return strings.Join(e.Messages, ", ") }

// A Property is one that a body must have. All of them are texts.
type Property struct {
	Name string
	// Text is set to what the body has, "" where that is no text.
	Text *string
	// Rules are asked in this order, all of them.
	Rules []Rule
}

// Object reads a body that is a JSON object of these properties and no others.
// Its error is a [*MalformedError] or an [*InvalidError].
func Object(body []byte, properties ...Property) error {
	if !utf8.Valid(body) { // encoding/json would make all such bytes one character
		return &MalformedError{errors.New("malformed JSON: the body is not UTF-8")}
	}
	var given map[string]json.RawMessage // unlike a struct, it tells upper from lower case
	if !bytes.HasPrefix(bytes.TrimLeft(body, " \t\r\n"), []byte("{")) && json.Valid(body) {
		return &MalformedError{errors.New("the body must be a JSON object")}
	}
	if err := json.Unmarshal(body, &given); err != nil {
		return &MalformedError{fmt.Errorf("malformed JSON: %w", err)}
	}
	var broken []string
	for _, p := range properties {
		v := parseValue(given[p.Name])
		delete(given, p.Name)
		*p.Text = v.text
		for _, rule := range p.Rules {
			if m := rule(v); m != "" {
				broken = append(broken, p.Name+" "+m)
			}
		}
	}
	var messages []string
	for _, name := range slices.Sorted(maps.Keys(given)) {
		messages = append(messages, fmt.Sprintf("property %.100s should not exist", name))
	}
	if messages = append(messages, broken...); messages != nil {
		return &InvalidError{messages}
	}
	return nil
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
