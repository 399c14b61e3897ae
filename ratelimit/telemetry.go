package ratelimit

import (
	"context"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// metrics are a Limiter's instruments, and the attributes that its tiers have.
type metrics struct {
	refusals  metric.Int64Counter
	throttled metric.Float64Histogram
	errors    metric.Int64Counter
	limiter   metric.MeasurementOption
	tiers     []metric.MeasurementOption
}

func newMetrics(provider metric.MeterProvider, r *Rules) (m metrics) {
	if provider == nil {
		provider = otel.GetMeterProvider()
	}
	meter := provider.Meter("github.com/wherry-go/wherry/ratelimit")
	// An SDK refuses an instrument only for its name, which is fixed here.
	m.refusals, _ = meter.Int64Counter("wherry.ratelimit.refused", metric.WithUnit("{event}"), metric.WithDescription("Events that a tier refused at their first or a later try."))
	m.throttled, _ = meter.Float64Histogram("wherry.ratelimit.throttled", metric.WithUnit("s"), metric.WithDescription("How long events that had to wait did."))
	m.errors, _ = meter.Int64Counter("wherry.ratelimit.store.errors", metric.WithUnit("{event}"), metric.WithDescription("Events that the store could not decide on."))
	limiter := attribute.String("wherry.limiter", r.Name)
	m.limiter = metric.WithAttributeSet(attribute.NewSet(limiter))
	for _, t := range r.Tiers {
		m.tiers = append(m.tiers, metric.WithAttributeSet(attribute.NewSet(limiter, attribute.String("wherry.tier", t.Name))))
	}
	return m
}

// refused counts a refusal for each tier that refuses.
func (m *metrics) refused(ctx context.Context, d *Decision) {
	if !m.refusals.Enabled(ctx) {
		return
	}
	for i := range m.tiers {
		if d.Tiers[i].Refused {
			m.refusals.Add(ctx, 1, m.tiers[i])
		}
	}
}

func (m *metrics) failed(ctx context.Context) { m.errors.Add(ctx, 1, m.limiter) }

func (m *metrics) waited(ctx context.Context, since time.Time) {
	m.throttled.Record(ctx, time.Since(since).Seconds(), m.limiter)
}
