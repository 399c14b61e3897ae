package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/otlptranslator"
	"go.opentelemetry.io/contrib/exporters/autoexport"
	"go.opentelemetry.io/contrib/instrumentation/runtime"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	prometheusexporter "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/exemplar"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
)

// flushTimeout is how long the end of a process waits for a collector.
const flushTimeout = 5 * time.Second

// telemetry is a process's OpenTelemetry. Its providers are the global ones, which
// the library and everybody else take by default.
type telemetry struct {
	// metrics answers GET /metrics; nil where OTEL_SDK_DISABLED is true.
	metrics http.Handler
	// flush sends what is left, and ends it.
	flush func()
}

// startTelemetry sets OpenTelemetry up from its usual environment variables. Traces
// and metrics are made in any case, for the log and GET /metrics; they are sent
// only where a variable names an exporter or a collector.
//
// Traces are carried by traceparent and tracestate alone. OpenTelemetry's default
// is to carry baggage, too, and that is a stranger's words in every record.
func startTelemetry(ctx context.Context, getenv func(string) string, log *slog.Logger) (*telemetry, error) {
	otel.SetTextMapPropagator(propagation.TraceContext{})
	t := &telemetry{flush: func() {}}
	if strings.EqualFold(getenv("OTEL_SDK_DISABLED"), "true") {
		return t, nil
	}
	otel.SetErrorHandler(&seldom{log: log})
	about, err := resource.New(ctx, resource.WithAttributes(semconv.ServiceName("shop")), resource.WithTelemetrySDK(), resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	registry := prometheus.NewRegistry()
	scraped, err := prometheusexporter.New(
		prometheusexporter.WithRegisterer(registry),
		prometheusexporter.WithoutScopeInfo(),
		prometheusexporter.WithTranslationStrategy(otlptranslator.UnderscoreEscapingWithSuffixes))
	if err != nil {
		return nil, err
	}
	// Without an exporter spans have ids, for the log and for others, and nothing
	// else: who would keep the rest?
	traces := []trace.TracerProviderOption{trace.WithSampler(trace.NeverSample())}
	metrics := []metric.Option{
		metric.WithResource(about), metric.WithReader(scraped), metric.WithView(durations, noSizes),
		// An exemplar has the attributes that durations leaves out, and Prometheus refuses long ones.
		metric.WithExemplarFilter(exemplar.AlwaysOffFilter),
	}
	if set(getenv, "OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") {
		exporter, err := autoexport.NewSpanExporter(ctx)
		if err != nil {
			return nil, fmt.Errorf("OTEL_TRACES_EXPORTER=%s: %w", getenv("OTEL_TRACES_EXPORTER"), err)
		}
		if !autoexport.IsNoneSpanExporter(exporter) {
			traces = []trace.TracerProviderOption{trace.WithResource(about), trace.WithBatcher(exporter)} // and the environment's sampler
		}
	}
	if set(getenv, "OTEL_METRICS_EXPORTER", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT") {
		reader, err := autoexport.NewMetricReader(ctx)
		if err != nil {
			return nil, fmt.Errorf("OTEL_METRICS_EXPORTER=%s: %w", getenv("OTEL_METRICS_EXPORTER"), err)
		}
		if !autoexport.IsNoneMetricReader(reader) {
			metrics = append(metrics, metric.WithReader(reader))
		}
	}
	tp, mp := trace.NewTracerProvider(traces...), metric.NewMeterProvider(metrics...)
	otel.SetTracerProvider(tp)
	otel.SetMeterProvider(mp)
	if err := runtime.Start(runtime.WithMeterProvider(mp)); err != nil {
		return nil, err
	}
	t.metrics = promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
	t.flush = func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTimeout)
		defer cancel()
		if err := errors.Join(tp.Shutdown(ctx), mp.Shutdown(ctx)); err != nil {
			log.Warn("telemetry: not all was sent", "error", err)
		}
	}
	return t, nil
}

// durations bounds the attributes of http.server.request.duration: OpenTelemetry
// would also take the address from the Host field, which is whatever a client
// writes.
var durations = metric.NewView(
	metric.Instrument{Name: "http.server.request.duration"},
	metric.Stream{AttributeFilter: attribute.NewAllowKeysFilter(semconv.HTTPRequestMethodKey, semconv.HTTPRouteKey, semconv.HTTPResponseStatusCodeKey)},
)

// noSizes leaves out how long bodies are: the shop's are all short.
var noSizes = metric.NewView(metric.Instrument{Name: "http.server.*.body.size"}, metric.Stream{Aggregation: metric.AggregationDrop{}})

// set reports whether any of the variables is.
func set(getenv func(string) string, names ...string) bool {
	for _, name := range names {
		if getenv(name) != "" {
			return true
		}
	}
	return false
}

// seldom logs an error, and then none for a minute: a collector that is away fails
// every few seconds.
type seldom struct {
	log  *slog.Logger
	mu   sync.Mutex
	last time.Time
}

// Handle is called by OpenTelemetry, from any goroutine.
func (s *seldom) Handle(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Since(s.last) > time.Minute {
		s.last = time.Now()
		s.log.Warn("telemetry: traces or metrics are not sent", "error", err)
	}
}
