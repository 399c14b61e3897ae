package orders

import (
	"context"
	"errors"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/wherry-go/wherry/examples/shop/events"
	"github.com/wherry-go/wherry/examples/shop/request"
)

// Routes adds the HTTP interface of the service to api. Bodies are bare here:
// who owns api puts them into its envelope, with the responses' descriptions
// as messages.
func (s *Service) Routes(api huma.API) {
	request.Register[NewOrder](api, huma.Operation{
		OperationID:   "place-order",
		Method:        http.MethodPost,
		Path:          "/orders",
		Summary:       "Place an order",
		Description:   "Without a token anybody places orders for any user, as in the original. With one, for its user only.",
		DefaultStatus: http.StatusCreated,
		Security:      request.MaySecure(api),
		Responses:     map[string]*huma.Response{"201": {Description: "Order created successfully"}},
		Errors:        []int{http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusUnprocessableEntity},
	}, s.post)

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

type postInput struct {
	request.Raw
	request.Bearer
	request.IdempotencyKey
}

// orderOutput is an order as it was placed, found or cancelled.
type orderOutput struct{ Body events.Order }

func (s *Service) post(ctx context.Context, in *postInput) (*orderOutput, error) {
	user, err := in.User(s.subject)
	if errors.Is(err, request.ErrNoToken) {
		err = nil // none is needed
	}
	if err != nil {
		return nil, s.status(ctx, err)
	}
	n, err := parseNewOrder(in.RawBody)
	if err != nil {
		return nil, s.status(ctx, err)
	}
	if user != "" && user != n.UserID {
		return nil, huma.Error403Forbidden("The token is not that of user " + n.UserID)
	}
	key, err := in.Key()
	if err != nil {
		return nil, s.status(ctx, err)
	}
	order, err := s.Place(ctx, n, key)
	if err != nil {
		return nil, s.status(ctx, err)
	}
	return &orderOutput{order}, nil
}

// subject returns whose a token is.
func (s *Service) subject(token string) (string, error) {
	if s.Subject == nil {
		return "", errors.New("there is nobody who reads tokens")
	}
	return s.Subject(token)
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
			return nil, s.status(ctx, err)
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
		return nil, s.status(ctx, ErrNotReady)
	}
	orders, err := s.List(ctx)
	if err != nil {
		return nil, s.status(ctx, err)
	}
	return &listOutput{orders}, nil
}

// status returns err as the answer to a client. What it does not know is
// returned as it is, for a 500 that tells nothing of it.
func (s *Service) status(ctx context.Context, err error) error {
	if answer := request.Status(err); answer != nil {
		return answer
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
	if reused, ok := errors.AsType[*ReusedKeyError](err); ok {
		return huma.Error422UnprocessableEntity(reused.Error())
	}
	if unanswered, ok := errors.AsType[*UnansweredError](err); ok {
		s.Logger.WarnContext(ctx, "orders: user not looked up", "user", unanswered.UserID, "error", unanswered.Err)
		return huma.Error503ServiceUnavailable(unanswered.Error())
	}
	if unconfirmed, ok := errors.AsType[*UnconfirmedError](err); ok {
		s.Logger.WarnContext(ctx, "orders: order not confirmed", "order", unconfirmed.OrderID, "error", unconfirmed.Err)
		return huma.Error503ServiceUnavailable("Order " + unconfirmed.OrderID + " could not be confirmed: look at it in GET /orders before you try again")
	}
	if unread, ok := errors.AsType[*UnreadError](err); ok {
		s.Logger.WarnContext(ctx, "orders: orders not looked up", "error", unread.Err)
		return huma.Error503ServiceUnavailable("Orders cannot be looked up now: try again later")
	}
	if errors.Is(err, ErrNotReady) {
		return huma.Error503ServiceUnavailable("The orders service is not ready yet")
	}
	return err
}
