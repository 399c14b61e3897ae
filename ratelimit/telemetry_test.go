package ratelimit_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/wherry-go/wherry/ratelimit"
)

func TestTelemetry_CountsRefusalsWaitsAndAStoreThatIsAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reader := metric.NewManualReader()
		var down atomic.Bool
		var lines bytes.Buffer
		m := &ratelimit.Memory{}
		l := &ratelimit.Limiter{
			Name: "api", Tiers: tiers(), FailOpen: true, MeterProvider: metric.NewMeterProvider(metric.WithReader(reader)), Logger: slog.New(slog.NewTextHandler(&lines, nil)),
			Store: storeThat{func(ctx context.Context, r *ratelimit.Rules, key string, cost int) (ratelimit.Decision, error) {
				if down.Load() {
					return ratelimit.Decision{}, io.ErrUnexpectedEOF
				}
				return m.Take(ctx, r, key, cost)
			}},
		}
		for range 5 {
			allow(t, l, "k")
		}
		require.NoError(t, l.Wait(t.Context(), "k")) // refused once more, then again when it is first
		down.Store(true)
		for range 7 {
			require.True(t, allow(t, l, "k"))
		}
		down.Store(false)
		require.True(t, allow(t, l, "k"))

		var all metricdata.ResourceMetrics
		require.NoError(t, reader.Collect(t.Context(), &all))
		got := map[string]any{}
		for _, each := range all.ScopeMetrics[0].Metrics {
			got[each.Name] = each.Data
		}
		refused := got["wherry.ratelimit.refused"].(metricdata.Sum[int64]).DataPoints
		require.Len(t, refused, 1)
		require.EqualValues(t, 4, refused[0].Value)
		require.Equal(t, attribute.NewSet(attribute.String("wherry.limiter", "api"), attribute.String("wherry.tier", "short")), refused[0].Attributes)
		throttled := got["wherry.ratelimit.throttled"].(metricdata.Histogram[float64]).DataPoints
		require.EqualValues(t, 1, throttled[0].Count)
		require.InDelta(t, 5, throttled[0].Sum, 0.001)
		require.EqualValues(t, 7, got["wherry.ratelimit.store.errors"].(metricdata.Sum[int64]).DataPoints[0].Value)

		log := lines.String()
		require.Equal(t, 1, strings.Count(log, "level=ERROR"), "once, not seven times: %s", log)
		require.Equal(t, 1, strings.Count(log, "the store answers again"))
	})
}
