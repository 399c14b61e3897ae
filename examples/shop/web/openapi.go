package web

import (
	"maps"
	"net/http"
	"slices"
	"strconv"

	"github.com/danielgtaylor/huma/v2"
)

// early are what any request may be answered with before its operation is asked,
// and 500.
var early = []int{
	http.StatusBadRequest, http.StatusRequestTimeout, http.StatusRequestEntityTooLarge,
	http.StatusRequestHeaderFieldsTooLarge, http.StatusInternalServerError,
}

// document makes an operation's document say what is really answered: the
// envelope around the bodies that the operation declares, what is answered
// before it is asked, and the header fields.
func (s *Server) document(doc *huma.OpenAPI, op *huma.Operation) {
	schemas := doc.Components.Schemas.Map()
	schemas["Failure"], schemas["Problem"] = failureSchema(), problemSchema()
	// The body is read and bounded before, see bounded.
	op.MaxBodyBytes, op.BodyReadTimeout = 0, 0
	if op.SkipValidateBody {
		delete(op.Responses, "422") // huma's answer to a body that it finds invalid
	}
	delete(op.Responses, "default") // all errors are named
	failing := early
	isLimited := s.Limits != nil && op.Path != healthPath
	if isLimited {
		failing = append(slices.Clone(early), http.StatusTooManyRequests)
		if !s.Limits.FailOpen {
			failing = append(failing, http.StatusServiceUnavailable)
		}
	}
	for _, code := range failing {
		if status := strconv.Itoa(code); op.Responses[status] == nil {
			op.Responses[status] = &huma.Response{Description: http.StatusText(code)}
		}
	}
	for status, response := range op.Responses {
		if response.Headers == nil {
			response.Headers = map[string]*huma.Header{}
		}
		if op.Path != healthPath {
			response.Headers["traceresponse"] = header(false, `^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$`, "the trace of the request, in the form of traceparent (W3C Trace Context)")
		}
		if isLimited && status != strconv.Itoa(http.StatusRequestHeaderFieldsTooLarge) {
			always := !s.Limits.FailOpen // else they are missing while the store is away
			response.Headers["RateLimit-Policy"] = header(always, `^"[^"]+";q=\d+;w=\d+(, "[^"]+";q=\d+;w=\d+)*$`, "the limits: q requests in w seconds (draft-ietf-httpapi-ratelimit-headers-10)")
			response.Headers["RateLimit"] = header(always, `^"[^"]+";r=\d+(;t=\d+)?$`, "the limit that has least left: r requests, more in t seconds")
		}
		if code, _ := strconv.Atoi(status); code >= http.StatusBadRequest {
			response.Content = map[string]*huma.MediaType{
				"application/json":         {Schema: &huma.Schema{Ref: "#/components/schemas/Failure"}},
				"application/problem+json": {Schema: &huma.Schema{Ref: "#/components/schemas/Problem"}},
			}
		} else if body := response.Content["application/json"]; body != nil {
			body.Schema = successSchema(body.Schema)
		}
	}
	if r := op.Responses[strconv.Itoa(http.StatusTooManyRequests)]; r != nil {
		r.Headers["Retry-After"] = header(true, `^\d+$`, "seconds until there is room")
	}
}

func header(required bool, pattern, description string) *huma.Header {
	return &huma.Header{Description: description, Required: required, Schema: &huma.Schema{Type: huma.TypeString, Pattern: pattern}}
}

// successSchema is the schema of success with data of the given schema.
func successSchema(data *huma.Schema) *huma.Schema {
	return object(map[string]*huma.Schema{
		"success":   {Type: huma.TypeBoolean, Enum: []any{true}},
		"message":   {Type: huma.TypeString},
		"timestamp": {Type: huma.TypeString, Format: "date-time"},
		"data":      data,
	})
}

// failureSchema is the schema of failure.
func failureSchema() *huma.Schema {
	return object(map[string]*huma.Schema{
		"success":    {Type: huma.TypeBoolean, Enum: []any{false}},
		"statusCode": {Type: huma.TypeInteger},
		"message": {OneOf: []*huma.Schema{
			{Type: huma.TypeString},
			{Type: huma.TypeArray, Items: &huma.Schema{Type: huma.TypeString}},
		}},
		"timestamp": {Type: huma.TypeString, Format: "date-time"},
		"path":      {Type: huma.TypeString},
		"data":      {Enum: []any{nil}},
	})
}

// problemSchema is the schema of problem.
func problemSchema() *huma.Schema {
	s := object(map[string]*huma.Schema{
		"type":     {Type: huma.TypeString, Format: "uri-reference"},
		"title":    {Type: huma.TypeString},
		"status":   {Type: huma.TypeInteger},
		"detail":   {Type: huma.TypeString},
		"instance": {Type: huma.TypeString, Format: "uri-reference"},
	})
	s.Description = "problem details (RFC 9457), for clients whose Accept names them"
	s.Properties["errors"] = &huma.Schema{Type: huma.TypeArray, Items: object(map[string]*huma.Schema{"detail": {Type: huma.TypeString}}), Description: "all that is wrong with a body"}
	s.Properties["violated-policies"] = &huma.Schema{Type: huma.TypeArray, Items: &huma.Schema{Type: huma.TypeString}, Description: "the limits that refused, where type is quota-exceeded"}
	return s
}

// object is a schema of an object that has these properties, all of them, and no
// others.
func object(properties map[string]*huma.Schema) *huma.Schema {
	return &huma.Schema{Type: huma.TypeObject, Properties: properties, Required: slices.Sorted(maps.Keys(properties)), AdditionalProperties: false}
}

// forgetHumasErrors removes the schemas of huma's own error body, which is never
// answered.
func forgetHumasErrors(doc *huma.OpenAPI) {
	schemas := doc.Components.Schemas.Map()
	delete(schemas, "ErrorModel")
	delete(schemas, "ErrorDetail")
}
