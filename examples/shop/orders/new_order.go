package orders

import (
	"github.com/wherry-go/wherry/examples/shop/events"
	"github.com/wherry-go/wherry/examples/shop/request"
)

// NewOrder is the body of POST /orders. Its tags are for the OpenAPI document;
// parseNewOrder has the rules. A client has to give the status that every order
// begins with, because those of the original do.
type NewOrder struct {
	TotalAmount string `json:"totalAmount" doc:"a positive decimal number" pattern:"^[+]?([0-9]*[.])?[0-9]+$" maxLength:"32" example:"99.99"`
	Status      string `json:"status" enum:"pending"`
	UserID      string `json:"userId" minLength:"1" maxLength:"100" example:"user1"`
}

// parseNewOrder reads the body of POST /orders. Its error is one of package
// request's.
func parseNewOrder(body []byte) (n NewOrder, err error) {
	err = request.Object(body,
		request.Property{Name: "totalAmount", Text: &n.TotalAmount, Rules: []request.Rule{
			request.NotEmpty, request.MaxLength(32), request.IsPositive, request.IsNumberString,
		}},
		request.Property{Name: "status", Text: &n.Status, Rules: []request.Rule{
			request.NotEmpty, request.IsString, request.IsIn(events.Pending),
		}},
		request.Property{Name: "userId", Text: &n.UserID, Rules: []request.Rule{
			request.NotEmpty, request.MaxLength(100), request.IsString,
		}},
	)
	return n, err
}
