package main

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	metricsv1 "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	resourcev1 "go.opentelemetry.io/proto/otlp/resource/v1"
	"google.golang.org/protobuf/proto"

	"github.com/wherry-go/wherry/examples/shop/events"
)

const someTrace = "4bf92f3577b34da6a3ce929d0e0e4736"

// placeTraced places an order within someTrace and returns the order's id.
func (a api) placeTraced() string {
	a.t.Helper()
	req, err := http.NewRequest(http.MethodPost, a.url+"/orders", strings.NewReader(seedOrder))
	require.NoError(a.t, err)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Traceparent", "00-"+someTrace+"-00f067aa0ba902b7-01")
	resp, err := http.DefaultClient.Do(req)
	require.NoError(a.t, err)
	defer resp.Body.Close()
	require.Equal(a.t, http.StatusCreated, resp.StatusCode)
	require.Regexp(a.t, "^00-"+someTrace+"-", resp.Header.Get("traceresponse"))
	body, err := io.ReadAll(resp.Body)
	require.NoError(a.t, err)
	id := regexp.MustCompile(`"id":"([^"]+)"`).FindSubmatch(body)
	require.NotNil(a.t, id)
	return string(id[1])
}

func TestTrace_AllServicesLogAnOrderUnderTheTraceOfItsRequest(t *testing.T) {
	t.Parallel()
	p := start(t)
	p.ready()
	id := p.placeTraced()
	p.paid(id)
	for _, line := range []string{
		"orders: order placed", "billing: paid", "orders: order paid",
		"notifications: your order was received", "notifications: your payment was received",
	} {
		eventually(t, line, func() bool { return len(p.logs.lines(line, "order="+id, "trace_id="+someTrace, "span_id=")) == 1 })
	}
	require.Len(t, p.logs.lines("http: request", `route="POST /orders"`, "status=201", "trace_id="+someTrace), 1)
	require.Len(t, p.logs.lines("auth: asked for a user", "user=user1", "trace_id="+someTrace), 1)
	for _, topic := range []string{events.OrdersInbox, events.OrderCreated.Topic, events.PaymentCreated.Topic, events.OrdersTable} {
		for _, r := range read(t, p.brokers, topic, 1) {
			trace := ""
			for _, h := range r.Headers {
				if h.Key == "traceparent" {
					trace = string(h.Value)
				}
			}
			if topic != events.OrdersTable { // a row belongs to no request
				require.Contains(t, trace, someTrace, topic)
			}
		}
	}

	other := p.place().ID
	p.paid(other)
	require.Empty(t, p.logs.lines(other, someTrace), "another request is another trace")
}

func TestTrace_RetriesAndDeadLettersAreLoggedUnderIt(t *testing.T) {
	t.Parallel()
	p := start(t, "-payments", "fail", "-retry-initial", "1ms")
	p.ready()
	p.placeTraced()
	for _, line := range []string{
		"retry: failed, trying again", "dlq: record dead-lettered", "billing: payment failed", "orders: order cancelled",
		"notifications: your payment failed", "notifications: your order was cancelled",
	} {
		eventually(t, line, func() bool { return len(p.logs.lines(line, "trace_id="+someTrace)) > 0 })
	}
}

// page is GET /metrics.
func (a api) page() string {
	a.t.Helper()
	resp, err := http.Get(a.url + "/metrics")
	require.NoError(a.t, err)
	defer resp.Body.Close()
	require.Equal(a.t, http.StatusOK, resp.StatusCode)
	b, err := io.ReadAll(resp.Body)
	require.NoError(a.t, err)
	return string(b)
}

func TestMetrics_ForPrometheus(t *testing.T) {
	t.Parallel()
	c := launch(t, nil, "-http", "127.0.0.1:0", "-data", "", "-limits", "1/1h", "-payments", "fail", "-retry-initial", "1ms")
	c.started(t)
	c.ready()
	c.place()
	require.Equal(t, http.StatusTooManyRequests, c.post(seedOrder).Status)
	eventually(t, "the dead letter", func() bool { return strings.Contains(c.page(), "wherry_") && len(c.stderr.lines("dead-lettered")) > 0 })
	page := c.page()
	for _, want := range []string{
		`http_server_request_duration_seconds_count{http_request_method="POST",http_response_status_code="201",http_route="/orders"} 1`,
		`http_server_request_duration_seconds_count{http_request_method="POST",http_response_status_code="429",http_route="/orders"} 1`,
		`wherry_ratelimit_refused_total{wherry_limiter="http",wherry_tier="1h"} 1`,
		`messaging_process_duration_seconds_count{`,
		`messaging_client_consumed_messages_total{`,
		`messaging_client_sent_messages_total{`,
		`go_goroutine_count `,
		`target_info{service_name="shop",`,
	} {
		require.Contains(t, page, want)
	}
	require.NotContains(t, page, "/healthz")
	require.NotContains(t, page, "server_address", "it is whatever a client says")
	require.Empty(t, c.stderr.lines("/metrics"), "who watches is not logged")
	require.Empty(t, c.stderr.lines("telemetry: "))
}

// collector is an OTLP collector that keeps what it gets.
type collector struct {
	url string
	mu  sync.Mutex
	// spans are the names of someTrace's, of each service.
	spans map[string][]string
	// metrics are the names of each service's.
	metrics map[string][]string
}

func newCollector(t *testing.T) *collector {
	t.Helper()
	c := &collector{spans: map[string][]string{}, metrics: map[string][]string{}}
	srv := httptest.NewServer(c)
	t.Cleanup(srv.Close)
	c.url = srv.URL
	return c
}

func (c *collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b, err := io.ReadAll(r.Body)
	var traces tracev1.ExportTraceServiceRequest
	var metrics metricsv1.ExportMetricsServiceRequest
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err != nil || r.Header.Get("Content-Type") != "application/x-protobuf":
		w.WriteHeader(http.StatusBadRequest)
	case r.URL.Path == "/v1/traces" && proto.Unmarshal(b, &traces) == nil:
		for _, rs := range traces.GetResourceSpans() {
			name := serviceName(rs.GetResource())
			for _, ss := range rs.GetScopeSpans() {
				for _, span := range ss.GetSpans() {
					if hex.EncodeToString(span.GetTraceId()) == someTrace {
						c.spans[name] = append(c.spans[name], span.GetName())
					}
				}
			}
		}
	case r.URL.Path == "/v1/metrics" && proto.Unmarshal(b, &metrics) == nil:
		for _, rm := range metrics.GetResourceMetrics() {
			name := serviceName(rm.GetResource())
			for _, sm := range rm.GetScopeMetrics() {
				for _, m := range sm.GetMetrics() {
					c.metrics[name] = append(c.metrics[name], m.GetName())
				}
			}
		}
	default:
		w.WriteHeader(http.StatusBadRequest)
	}
}

func serviceName(r *resourcev1.Resource) string {
	for _, a := range r.GetAttributes() {
		if a.GetKey() == "service.name" {
			return a.GetValue().GetStringValue()
		}
	}
	return ""
}

// has reports whether all of these spans, or metrics, of a service have come.
func (c *collector) has(of map[string][]string, service string, names ...string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !slices.ContainsFunc(names, func(name string) bool { return !slices.Contains(of[service], name) })
}

// sender is what a process needs to send to the collector, as its users set it.
func (c *collector) sender(service string) []string {
	return []string{
		"OTEL_EXPORTER_OTLP_ENDPOINT=" + c.url, "OTEL_SERVICE_NAME=" + service,
		"OTEL_BSP_SCHEDULE_DELAY=100", "OTEL_METRIC_EXPORT_INTERVAL=100",
	}
}

func TestOTLP_OneTraceOfTwoProcessesAndTheirMetricsReachTheCollector(t *testing.T) {
	t.Parallel()
	c := newCollector(t)
	shop := launch(t, c.sender("the-shop"), "-http", "127.0.0.1:0", "-data", "", "-services", "orders,auth,notifications")
	shop.started(t)
	broker := regexp.MustCompile(`shop: starting.* brokers=(\S+)`).FindStringSubmatch(shop.stderr.String())[1]
	billing := launch(t, c.sender("the-billing"), "-http", "127.0.0.1:0", "-brokers", broker, "-services", "billing")
	billing.started(t)
	shop.ready()
	billing.ready()
	shop.paid(shop.placeTraced())

	eventually(t, "the spans of the shop", func() bool {
		return c.has(c.spans, "the-shop", "POST /orders", "send orders.inbox", "process orders.inbox", "send order.created", "process order.created", "process payment.created")
	})
	eventually(t, "the spans of billing", func() bool {
		return c.has(c.spans, "the-billing", "process order.created", "send payment.created")
	})
	eventually(t, "the metrics of both", func() bool {
		return c.has(c.metrics, "the-shop", "http.server.request.duration", "messaging.process.duration", "go.goroutine.count") &&
			c.has(c.metrics, "the-billing", "messaging.process.duration", "messaging.client.sent.messages")
	})
}

func TestOTLP_WhatIsLeftIsSentAtTheEnd(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("a process cannot be sent a signal there")
	}
	c := newCollector(t)
	shop := launch(t, append(c.sender("the-shop"), "OTEL_BSP_SCHEDULE_DELAY=3600000", "OTEL_METRIC_EXPORT_INTERVAL=3600000"), "-http", "127.0.0.1:0", "-data", "")
	shop.started(t)
	shop.ready()
	shop.paid(shop.placeTraced())
	require.False(t, c.has(c.spans, "the-shop", "POST /orders"))
	require.NoError(t, shop.cmd.Process.Signal(syscall.SIGTERM))
	require.Zero(t, shop.code(t))
	require.True(t, c.has(c.spans, "the-shop", "POST /orders", "process payment.created"))
	require.True(t, c.has(c.metrics, "the-shop", "http.server.request.duration"))
}

func TestOTLP_ACollectorThatIsAwayDisturbsNobody(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("a process cannot be sent a signal there")
	}
	shop := launch(t, (&collector{url: "http://" + freeAddr(t)}).sender("the-shop"), "-http", "127.0.0.1:0", "-data", "")
	shop.started(t)
	shop.ready()
	shop.paid(shop.placeTraced())
	eventually(t, "a line about it", func() bool { return len(shop.stderr.lines("telemetry: traces or metrics are not sent")) > 0 })
	shop.paid(shop.place().ID)
	require.NoError(t, shop.cmd.Process.Signal(syscall.SIGTERM))
	require.Zero(t, shop.code(t))
}

func TestTelemetry_WhatFailsAgainAndAgainIsToldOnceInAMinute(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var buf bytes.Buffer
		s := &seldom{log: slog.New(slog.NewTextHandler(&buf, nil))}
		for range 125 {
			s.Handle(errors.New("connection refused"))
			time.Sleep(time.Second)
		}
		require.Equal(t, 3, strings.Count(buf.String(), "connection refused"))
	})
}

func TestOTLP_NothingIsSentUnlessAVariableSaysSo(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		env  []string
		want bool
	}{
		"no variable":         {nil, false},
		"none":                {[]string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:1", "OTEL_TRACES_EXPORTER=none", "OTEL_METRICS_EXPORTER=none"}, false},
		"disabled":            {[]string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:1", "OTEL_SDK_DISABLED=true"}, false},
		"an endpoint":         {[]string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:1"}, true},
		"an exporter":         {[]string{"OTEL_TRACES_EXPORTER=otlp", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://127.0.0.1:1/v1/traces"}, true},
		"an endpoint of some": {[]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://127.0.0.1:1/v1/traces"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if runtime.GOOS == "windows" {
				t.Skip("a process cannot be sent a signal there")
			}
			c := launch(t, test.env, "-http", "127.0.0.1:0", "-data", "", "-services", "orders,auth")
			c.started(t)
			c.ready()
			c.list()
			require.NoError(t, c.cmd.Process.Signal(syscall.SIGTERM))
			require.Zero(t, c.code(t))
			require.Equal(t, test.want, len(c.stderr.lines("telemetry: ")) > 0, "it tries to, in vain")
		})
	}
}

func TestTelemetry_FaultsOfTheEnvironmentAreTold(t *testing.T) {
	t.Parallel()
	c := launch(t, []string{"OTEL_TRACES_EXPORTER=nope"}, "-http", "127.0.0.1:0", "-data", "")
	require.Equal(t, 1, c.code(t))
	require.NotEmpty(t, c.stderr.lines("shop: OTEL_TRACES_EXPORTER=nope: unknown exporter"))
}

func TestTelemetry_DisabledLeavesATraceAloneAndHasNoMetrics(t *testing.T) {
	t.Parallel()
	c := launch(t, []string{"OTEL_SDK_DISABLED=true"}, "-http", "127.0.0.1:0", "-data", "")
	c.started(t)
	c.ready()
	o := c.place()
	c.paid(o.ID)
	require.Empty(t, c.stderr.lines("trace_id"))
	out := c.get("/metrics")
	require.Equal(t, http.StatusNotFound, out.Status)
	require.Empty(t, out.Header.Get("traceresponse"))
}
