package web

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/wherry-go/wherry/ratelimit"
)

// Limits of a request. A handler has to be done before writeTimeout, which
// begins with the request's header.
const (
	headerTimeout = 5 * time.Second  // a client that sends its header byte by byte holds a connection no longer
	readTimeout   = 10 * time.Second // header and body
	writeTimeout  = 20 * time.Second // longer than an order may take to be placed
	idleTimeout   = time.Minute      // between two requests of a connection
	drainTimeout  = 10 * time.Second // longer than an order may take to be placed
)

// Server is the HTTP server of a process. Set the fields, then call Listen and
// Run, once each.
type Server struct {
	// Addr is the "host:port" to listen on; port 0 means a free one. Required.
	Addr string
	// Routes add the services' operations.
	Routes []func(huma.API)
	// Health tells for each service, by name, whether it is ready. Required.
	Health func() map[string]bool
	// Logger gets a line for each request, and what goes wrong. Required.
	Logger *slog.Logger
	// Limits are how many requests a client may make to each route. nil means
	// any number.
	Limits *ratelimit.Limiter
	// Proxies are the networks of the proxies before this server, whose
	// X-Forwarded-For is believed.
	Proxies []netip.Prefix
	// Metrics answers GET /metrics. nil means that there is none.
	Metrics http.Handler

	listener net.Listener
}

// Listen takes the port, so that a process whose port is taken finds out before
// it does anything else. Clients that connect wait for Run.
func (s *Server) Listen(ctx context.Context) (err error) {
	s.listener, err = (&net.ListenConfig{}).Listen(ctx, "tcp", s.Addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("the HTTP port of %s is taken by another program: stop it, or choose another address with -http: %w", s.Addr, err)
	}
	if err != nil {
		return fmt.Errorf("listening for HTTP: %w", err)
	}
	return nil
}

// Address is the "host:port" that Listen has taken.
func (s *Server) Address() string { return s.listener.Addr().String() }

// Run answers requests until ctx is done. Then it takes no more, lets those in
// hand end, for 10 s at most, and returns nil. Listen must have been called.
func (s *Server) Run(ctx context.Context) error {
	handler, err := s.Handler()
	if err != nil {
		return err
	}
	srv := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    2 * maxHeader, // beyond that it has to answer by itself
		ErrorLog:          slog.NewLogLogger(s.Logger.Handler(), slog.LevelWarn),
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(s.listener) }()
	select {
	case err := <-served:
		return fmt.Errorf("serving HTTP: %w", err)
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	err = srv.Shutdown(drain)
	if err != nil {
		err = errors.Join(fmt.Errorf("requests were cut off after %v: %w", drainTimeout, err), srv.Close())
	}
	if serveErr := <-served; !errors.Is(serveErr, http.ErrServerClosed) {
		err = errors.Join(err, serveErr)
	}
	return err
}

// Close gives the port back if Run was never called.
func (s *Server) Close() { _ = s.listener.Close() }
