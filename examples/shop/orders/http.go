package orders

import (
	"context"
	"errors"
	"mime"
	"net/http"
	"reflect"

	"github.com/danielgtaylor/huma/v2"

	"github.com/wherry-go/wherry/examples/shop/events"
)

// maxBody is the largest body that is read, in bytes: Express's "100kb", with
// one more because huma's limit is the first size that it refuses.
const maxBody = 100<<10 + 1

// Routes adds the HTTP interface of the service to api. Bodies are bare here:
// who owns api puts them into its envelope, with the responses' descriptions
// as messages.
func (s *Service) Routes(api huma.API) {
	body := &huma.RequestBody{Description: "the order"}
	huma.Register(api, huma.Operation{
		OperationID:   "place-order",
		Method:        http.MethodPost,
		Path:          "/orders",
		Summary:       "Place an order",
		DefaultStatus: http.StatusCreated,
		Responses:     map[string]*huma.Response{"201": {Description: "Order created successfully"}},
		RequestBody:   body,
		MaxBodyBytes:  maxBody,
		Errors: []int{
			http.StatusBadRequest, http.StatusNotFound, http.StatusRequestEntityTooLarge,
			http.StatusUnsupportedMediaType, http.StatusServiceUnavailable,
		},
		// huma would stop at its own words for what is wrong with a body.
		SkipValidateBody: true,
	}, s.post)
	// huma knows a raw body as a string of bytes only.
	body.Content["application/json"].Schema = api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[NewOrder](), true, "NewOrder")

	huma.Register(api, huma.Operation{
		OperationID: "list-orders",
		Method:      http.MethodGet,
		Path:        "/orders",
		Summary:     "List all orders, the oldest first",
		Responses:   map[string]*huma.Response{"200": {Description: "Orders retrieved successfully"}},
		Errors:      []int{http.StatusServiceUnavailable},
	}, s.list)

	huma.Register(api, huma.Operation{
		OperationID: "get-order",
		Method:      http.MethodGet,
		Path:        "/orders/{id}",
		Summary:     "One order",
		Responses:   map[string]*huma.Response{"200": {Description: "Order retrieved successfully"}},
		Errors:      []int{http.StatusNotFound, http.StatusServiceUnavailable},
	}, s.one(s.Find))

	huma.Register(api, huma.Operation{
		OperationID: "cancel-order",
		Method:      http.MethodPost,
		Path:        "/orders/{id}/cancel",
		Summary:     "Cancel an order that is not paid yet",
		Responses:   map[string]*huma.Response{"200": {Description: "Order cancelled successfully"}},
		Errors:      []int{http.StatusNotFound, http.StatusConflict, http.StatusServiceUnavailable},
	}, s.one(s.Cancel))
}

// postInput has the body as it came. huma would decode it into a struct, where
// missing, null and wrong properties look alike, and in any case of letters.
type postInput struct {
	RawBody []byte `contentType:"application/json"`
}

// Resolve refuses a body of another type. No type at all is taken for JSON.
func (*postInput) Resolve(ctx huma.Context) []error {
	given := ctx.Header("Content-Type")
	if kind, _, err := mime.ParseMediaType(given); given == "" || err == nil && kind == "application/json" {
		return nil
	}
	return []error{huma.Error415UnsupportedMediaType("the body must be application/json")}
}

// orderOutput is an order as it was placed, found or cancelled.
type orderOutput struct{ Body events.Order }

func (s *Service) post(ctx context.Context, in *postInput) (*orderOutput, error) {
	n, err := parseNewOrder(in.RawBody)
	if err != nil {
		return nil, s.status(err)
	}
	order, err := s.Place(ctx, n)
	if err != nil {
		return nil, s.status(err)
	}
	return &orderOutput{order}, nil
}

// oneInput names an order.
type oneInput struct {
	ID string `path:"id" doc:"the order's id"`
}

// one answers with the order that do returns.
func (s *Service) one(do func(ctx context.Context, id string) (events.Order, error)) func(context.Context, *oneInput) (*orderOutput, error) {
	return func(ctx context.Context, in *oneInput) (*orderOutput, error) {
		order, err := do(ctx, in.ID)
		if err != nil {
			return nil, s.status(err)
		}
		return &orderOutput{order}, nil
	}
}

// listOutput has all orders: [] when there are none, never null.
type listOutput struct {
	Body []events.Order `nullable:"false"`
}

func (s *Service) list(ctx context.Context, _ *struct{}) (*listOutput, error) {
	select {
	case <-s.Ready():
	default: // List would wait
		return nil, s.status(ErrNotReady)
	}
	orders, err := s.List(ctx)
	if err != nil {
		return nil, s.status(err)
	}
	return &listOutput{orders}, nil
}

// status returns err as the answer to a client. What it does not know is
// returned as it is, for a 500 that tells nothing of it.
func (s *Service) status(err error) error {
	if invalid, ok := errors.AsType[*InvalidError](err); ok {
		details := make([]error, len(invalid.Messages))
		for i, m := range invalid.Messages {
			details[i] = errors.New(m)
		}
		return huma.Error400BadRequest("Bad Request", details...)
	}
	if malformed, ok := errors.AsType[*MalformedError](err); ok {
		return huma.Error400BadRequest(malformed.Error())
	}
	if unknown, ok := errors.AsType[*UnknownUserError](err); ok {
		return huma.Error404NotFound(unknown.Error())
	}
	if unknown, ok := errors.AsType[*UnknownOrderError](err); ok {
		return huma.Error404NotFound(unknown.Error())
	}
	if paid, ok := errors.AsType[*PaidError](err); ok {
		return huma.Error409Conflict(paid.Error())
	}
	if unconfirmed, ok := errors.AsType[*UnconfirmedError](err); ok {
		s.Logger.Warn("orders: order not confirmed", "order", unconfirmed.OrderID, "error", unconfirmed.Err)
		return huma.Error503ServiceUnavailable("Order " + unconfirmed.OrderID + " could not be confirmed: look at it in GET /orders before you try again")
	}
	if errors.Is(err, ErrNotReady) {
		return huma.Error503ServiceUnavailable("The orders service is not ready yet")
	}
	return err
}
