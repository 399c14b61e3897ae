package saga

import (
	"context"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/wherry-go/wherry"
)

// An Engine runs the sagas of one name.
type Engine[S any] struct {
	Client         *kgo.Client
	Definitions    []Definition[S]
	Concurrency    int
	MaxActive      int
	Retention      time.Duration
	MaxEarly       int
	EventTTL       time.Duration
	Topics         wherry.TopicSpec
	OnStuck        func(ctx context.Context, s Stuck)
	Opts           []kgo.Opt
	TracerProvider trace.TracerProvider
	Propagator     propagation.TextMapPropagator
	MeterProvider  metric.MeterProvider
	Logger         *slog.Logger
}

// Stuck says which saga is.
type Stuck struct {
	ID, Step string
	Since    time.Time
	Err      string
}
