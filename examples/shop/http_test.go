package main

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPostThatIsRefused(t *testing.T) {
	t.Parallel()
	p := start(t)
	p.ready()
	valid := func(totalAmount string) string {
		return `{"totalAmount":` + totalAmount + `,"status":"pending","userId":"user1"}`
	}
	amount := []any{"totalAmount must be a number string"}
	positive := []any{"totalAmount must be a positive number"}
	everything := []any{
		"totalAmount should not be empty", "totalAmount must be a number string",
		"status should not be empty", "status must be a string",
		"userId should not be empty", "userId must be a string",
	}
	for _, test := range []struct {
		name, body string
		status     int
		message    any
	}{
		{"no properties", `{}`, 400, everything},
		{"nulls", `{"totalAmount":null,"status":null,"userId":null}`, 400, everything},
		{"everything wrong at once", `{"totalAmount":"x","status":5,"userId":"","b":1,"a":2}`, 400, []any{
			"property a should not exist", "property b should not exist",
			"totalAmount must be a number string", "status must be a string", "userId should not be empty",
		}},
		{"an unknown property", `{"totalAmount":"99.99","status":"pending","userId":"user1","x":1}`, 400, []any{"property x should not exist"}},
		{"a property in the wrong case", `{"totalAmount":"99.99","status":"pending","userId":"user1","UserId":"user2"}`, 400, []any{"property UserId should not exist"}},
		{"amount is a number", valid(`99.99`), 400, amount},
		{"amount is a word", valid(`"lots"`), 400, amount},
		{"amount is NaN", valid(`"NaN"`), 400, amount},
		{"amount is infinite", valid(`"Infinity"`), 400, amount},
		{"amount has an exponent", valid(`"1e999"`), 400, amount},
		{"amount is hexadecimal", valid(`"0x10"`), 400, amount},
		{"amount has a space", valid(`" 1"`), 400, amount},
		{"amount has two lines", valid(`"1\n"`), 400, amount},
		{"amount has a comma", valid(`"1,50"`), 400, amount},
		{"amount ends in a point", valid(`"1."`), 400, amount},
		{"amount is in other digits", valid(`"١٢"`), 400, amount},
		{"amount is negative", valid(`"-1"`), 400, positive},
		{"amount is nothing", valid(`"0.00"`), 400, positive},
		{"amount is endless", valid(`"` + strings.Repeat("9", 33) + `"`), 400, []any{"totalAmount must be shorter than or equal to 32 characters"}},
		{"status is another", `{"totalAmount":"1","status":"paid","userId":"user1"}`, 400, []any{"status must be one of the following values: pending"}},
		{"user is a number", `{"totalAmount":"1","status":"pending","userId":1}`, 400, []any{"userId must be a string"}},
		{"user is an object", `{"totalAmount":"1","status":"pending","userId":{"$ne":""}}`, 400, []any{"userId must be a string"}},
		{"user is endless", `{"totalAmount":"1","status":"pending","userId":"` + strings.Repeat("u", 101) + `"}`, 400, []any{"userId must be shorter than or equal to 100 characters"}},
		{"user in quotes", `{"totalAmount":"1","status":"pending","userId":"\"user1\""}`, 404, `User with ID "user1" not found`},
		{"unknown user", `{"totalAmount":"1","status":"pending","userId":"nobody"}`, 404, "User with ID nobody not found"},
		{"no JSON", `{"totalAmount":`, 400, "malformed JSON: unexpected end of JSON input"},
		{"JSON and more", seedOrder + `}`, 400, "malformed JSON: invalid character '}' after top-level value"},
		{"an array", `[]`, 400, "the body must be a JSON object"},
		{"a null", `null`, 400, "the body must be a JSON object"},
		{"nothing", ``, 400, "request body is required"},
		{"100 kB is taken", `{"x":"` + strings.Repeat("y", 102_400-8) + `"}`, 400, append([]any{"property x should not exist"}, everything...)},
		{"more than 100 kB", `{"x":"` + strings.Repeat("y", 102_400-7) + `"}`, 413, "request entity too large"},
		{"far more than 100 kB", strings.Repeat("y", 2<<20), 413, "request entity too large"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			out, err := p.do(http.MethodPost, "/orders", "application/json", test.body)
			require.NoError(t, err)
			require.Equal(t, test.status, out.Status)
			require.Equal(t, test.message, out.Message)
			require.Equal(t, test.status, out.StatusCode)
			require.False(t, out.Success)
			require.Equal(t, "/orders", out.Path)
			require.Equal(t, "null", string(out.Data))
			require.Equal(t, "application/json; charset=utf-8", out.Header.Get("Content-Type"))
			require.Regexp(t, `^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$`, out.Timestamp)
		})
	}
	t.Cleanup(func() {
		require.Empty(t, p.list(), "nothing that was refused was placed")
	})
}

func TestAmountsThatAreTaken(t *testing.T) {
	t.Parallel()
	p := start(t, "-services", "orders,auth")
	p.ready()
	for _, amount := range []string{"99.99", "1", "0.01", ".5", "+5", "007", strings.Repeat("9", 32)} {
		out := p.post(`{"totalAmount":"` + amount + `","status":"pending","userId":"user2"}`)
		require.Equal(t, http.StatusCreated, out.Status, "%s: %v", amount, out.Message)
		require.Contains(t, string(out.Data), `"totalAmount":"`+amount+`"`)
	}
}

func TestContentTypes(t *testing.T) {
	t.Parallel()
	p := start(t, "-services", "orders,auth")
	p.ready()
	for kind, status := range map[string]int{
		"application/json":                  http.StatusCreated,
		"Application/JSON; charset=utf-8":   http.StatusCreated,
		"":                                  http.StatusCreated,
		"text/plain":                        http.StatusUnsupportedMediaType,
		"application/x-www-form-urlencoded": http.StatusUnsupportedMediaType,
		"application/jsonp":                 http.StatusUnsupportedMediaType,
		";":                                 http.StatusUnsupportedMediaType,
	} {
		out, err := p.do(http.MethodPost, "/orders", kind, seedOrder)
		require.NoError(t, err)
		require.Equal(t, status, out.Status, "%q: %v", kind, out.Message)
		if status != http.StatusCreated {
			require.Equal(t, "the body must be application/json", out.Message)
		}
	}
}

func TestUnknownRoutesAndMethodsAreAnsweredInTheEnvelope(t *testing.T) {
	t.Parallel()
	p := start(t, "-services", "orders")
	for _, test := range []struct {
		method, path string
		status       int
		allow        string
	}{
		{"GET", "/nope", 404, ""},
		{"POST", "/orders/1/pay", 404, ""},
		{"POST", "/orders/1", 405, "GET, HEAD"},
		{"GET", "/orders/1/cancel", 405, "POST"},
		{"GET", "/", 404, ""},
		{"GET", "/docs", 404, ""},
		{"DELETE", "/orders", 405, "GET, HEAD, POST"},
		{"POST", "/healthz", 405, "GET, HEAD"},
		{"PUT", "/openapi.json", 405, "GET, HEAD"},
	} {
		out, err := p.do(test.method, test.path, "", "")
		require.NoError(t, err)
		require.Equal(t, test.status, out.Status)
		require.Equal(t, test.status, out.StatusCode)
		require.Equal(t, "Cannot "+test.method+" "+test.path, out.Message)
		require.Equal(t, test.path, out.Path)
		require.Equal(t, test.allow, out.Header.Get("Allow"))
		require.Equal(t, "application/json; charset=utf-8", out.Header.Get("Content-Type"))
	}
}

func TestOpenAPIDocumentSaysWhatIsAnswered(t *testing.T) {
	t.Parallel()
	p := start(t, "-services", "orders")
	resp, err := http.Get(p.url + "/openapi.json")
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, "application/openapi+json", resp.Header.Get("Content-Type"))
	var doc struct {
		OpenAPI string
		Paths   map[string]map[string]struct {
			Responses map[string]struct {
				Content map[string]struct{ Schema map[string]any }
			}
			RequestBody struct {
				Required bool
				Content  map[string]struct{ Schema map[string]any }
			}
		}
		Components struct{ Schemas map[string]any }
	}
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&doc))
	require.Equal(t, "3.1.0", doc.OpenAPI)
	post := doc.Paths["/orders"]["post"]
	require.True(t, post.RequestBody.Required)
	require.Equal(t, "#/components/schemas/NewOrder", post.RequestBody.Content["application/json"].Schema["$ref"])
	created := post.Responses["201"].Content["application/json"].Schema
	require.ElementsMatch(t, []any{"success", "message", "timestamp", "data"}, created["required"])
	require.Equal(t, "#/components/schemas/Order", created["properties"].(map[string]any)["data"].(map[string]any)["$ref"])
	require.Equal(t, "#/components/schemas/Failure", post.Responses["400"].Content["application/json"].Schema["$ref"])
	require.Contains(t, post.Responses, "422", "of an idempotency key")
	require.Contains(t, doc.Paths["/orders/{id}"]["get"].Responses, "404")
	cancel := doc.Paths["/orders/{id}/cancel"]["post"].Responses
	require.Equal(t, "#/components/schemas/Order", cancel["200"].Content["application/json"].Schema["properties"].(map[string]any)["data"].(map[string]any)["$ref"])
	require.Equal(t, "#/components/schemas/Failure", cancel["409"].Content["application/json"].Schema["$ref"])
	var names []string
	for name := range doc.Components.Schemas {
		names = append(names, name)
	}
	require.ElementsMatch(t, []string{"NewOrder", "Order", "Failure", "Problem"}, names)
}
