package web

import (
	"maps"
	"slices"
	"strconv"

	"github.com/danielgtaylor/huma/v2"
)

// documentEnvelope makes an operation's document say what is really answered:
// the envelope around the bodies that the operation declares.
func documentEnvelope(doc *huma.OpenAPI, op *huma.Operation) {
	doc.Components.Schemas.Map()["Failure"] = failureSchema()
	if op.SkipValidateBody {
		delete(op.Responses, "422") // huma's answer to a body that it finds invalid
	}
	for status, response := range op.Responses {
		code, err := strconv.Atoi(status)
		// err: the status "default", which stands for all errors.
		if failed := err != nil || code >= 400; failed {
			response.Content = map[string]*huma.MediaType{"application/json": {Schema: &huma.Schema{Ref: "#/components/schemas/Failure"}}}
		} else if body := response.Content["application/json"]; body != nil {
			body.Schema = successSchema(body.Schema)
		}
	}
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

// object is a schema of an object that has all of the properties.
func object(properties map[string]*huma.Schema) *huma.Schema {
	return &huma.Schema{Type: huma.TypeObject, Properties: properties, Required: slices.Sorted(maps.Keys(properties))}
}

// forgetProblemDetails removes the schemas of huma's own error body, which is
// never answered.
func forgetProblemDetails(doc *huma.OpenAPI) {
	schemas := doc.Components.Schemas.Map()
	delete(schemas, "ErrorModel")
	delete(schemas, "ErrorDetail")
}
