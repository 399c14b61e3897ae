package ratelimit_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/ratelimit"
)

type Order struct{ ID string }

var OrderPlaced = wherry.Event[Order]{Topic: "order.placed"}

// A tenant with many records waits, and the one behind him does not.
func ExampleLimiter_Wrap() {
	broker := kfake.MustCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "order.placed")) // yours is kgo.SeedBrokers("host:9092")
	defer broker.Close()
	cl, _ := kgo.NewClient(kgo.SeedBrokers(broker.ListenAddrs()...))
	defer cl.Close()
	for _, tenant := range []string{"noisy", "noisy", "noisy", "quiet"} {
		r, _ := OrderPlaced.Record(tenant, Order{ID: "of " + tenant})
		_ = cl.ProduceSync(context.Background(), r).FirstErr()
	}

	limit := &ratelimit.Limiter{Tiers: []ratelimit.Tier{{Name: "short", Limit: 2, Per: 200 * time.Millisecond}}}
	ctx, stop := context.WithCancel(context.Background())
	handled := 0
	err := (&wherry.Consumer{
		Client: cl, Group: "billing",
		Order:       wherry.ByKey, // a tenant is a key
		Concurrency: 1,
		Policies:    []wherry.Policy{limit},
		Handlers: []wherry.Route{
			OrderPlaced.Handler(func(_ context.Context, o Order) error {
				fmt.Println("order", o.ID)
				if handled++; handled == 4 {
					stop()
				}
				return nil
			}),
		},
	}).Run(ctx)
	fmt.Println("stopped:", err)
	// Output:
	// order of noisy
	// order of noisy
	// order of quiet
	// order of noisy
	// stopped: <nil>
}

func ExampleHTTP() {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /orders", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "[]") })
	limited, err := (&ratelimit.HTTP{
		Limiter: &ratelimit.Limiter{Tiers: []ratelimit.Tier{
			{Name: "short", Limit: 1, Per: 5 * time.Second},
			{Name: "long", Limit: 25, Per: 90 * time.Second},
		}},
		Proxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, // whose X-Forwarded-For is believed
	}).Handler(mux)
	if err != nil {
		fmt.Println(err)
		return
	}
	for range 2 {
		w := httptest.NewRecorder()
		limited.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/orders", nil))
		fmt.Println(w.Code, w.Header().Get("RateLimit"))
		fmt.Println(w.Body)
	}
	// Output:
	// 200 "short";r=0;t=5
	// []
	// 429 "short";r=0;t=5
	// {"status":429,"title":"Too many requests: a quota is exceeded","type":"https://iana.org/assignments/http-problem-types#quota-exceeded","violated-policies":["short"]}
}

func ExampleLimiter_Wait() {
	limit := &ratelimit.Limiter{Tiers: []ratelimit.Tier{{Limit: 1, Per: 50 * time.Millisecond}}}
	began := time.Now()
	for range 3 {
		if err := limit.Wait(context.Background(), "the neighbour's API"); err != nil {
			fmt.Println(err)
		}
	}
	fmt.Println(time.Since(began) >= 100*time.Millisecond)
	// Output: true
}
