package checkout

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/saga"
)

// An Engine runs checkouts.
type Engine = saga.Engine[Checkout]

// New returns the engine. Any number of processes may have one.
func New(cl *kgo.Client, p Pace, log *slog.Logger) *Engine {
	return &Engine{
		Client: cl, Definitions: []saga.Definition[Checkout]{Definition(p)},
		Topics: wherry.TopicSpec{Partitions: 4},
		OnStuck: func(ctx context.Context, s saga.Stuck) {
			log.WarnContext(ctx, "checkout: stuck", "id", s.ID, "step", s.Step, "since", s.Since, "error", s.Err)
		},
		Logger: log,
	}
}

// Handler answers
//
//	POST /checkouts                 starts a checkout
//	GET  /checkouts/{id}            shows it
//	GET  /checkouts/{id}/timeline   tells its story
//
// POST answers 202 when the checkout is sure to begin. With Prefer: wait=10 (RFC
// 7240) it waits at most so many seconds for its end: 201 is a checkout that is
// done, 409 one that was undone, and 202 one that has not ended. With an Idempotency-Key, which is the checkout's id
// then, the same may be asked again.
func Handler(e *Engine, log *slog.Logger) http.Handler {
	s := &server{e, log}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /checkouts", s.start)
	mux.HandleFunc("GET /checkouts/{id}", s.show)
	mux.HandleFunc("GET /checkouts/{id}/timeline", s.timeline)
	return mux
}

type server struct {
	engine *Engine
	log    *slog.Logger
}

// view is a checkout as it is shown.
type view struct {
	ID    string `json:"id"`
	Phase string `json:"phase"`
	Stuck bool   `json:"stuck,omitempty"`
	Why   string `json:"why"` // it is where it is
	Checkout
	Steps []step `json:"steps"`
}

type step struct {
	Step    string `json:"step"`
	Status  string `json:"status"`
	Attempt int    `json:"attempt,omitempty"`
}

func viewOf(in saga.Instance[Checkout]) view {
	v := view{
		ID: in.ID, Phase: in.Phase.String(), Stuck: in.Stuck, Why: in.Reason().String(),
		Checkout: in.State,
	}
	for _, s := range in.Steps {
		v.Steps = append(v.Steps, step{s.Step, s.Status, s.Attempt})
	}
	return v
}

func (s *server) start(w http.ResponseWriter, r *http.Request) {
	var c Checkout
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10))
	d.DisallowUnknownFields()
	if err := cmp.Or(d.Decode(&c), c.Validate()); err != nil {
		s.fail(w, r, http.StatusBadRequest, err)
		return
	}
	id := cmp.Or(r.Header.Get("Idempotency-Key"), rand.Text())
	if err := s.engine.Start(r.Context(), id, c); err != nil {
		s.fail(w, r, http.StatusServiceUnavailable, err)
		return
	}
	w.Header().Set("Location", "/checkouts/"+id)
	wait, ok := strings.CutPrefix(r.Header.Get("Prefer"), "wait=")
	if !ok {
		answer(w, http.StatusAccepted, map[string]string{"id": id})
		return
	}
	s.await(r.Context(), id, wait)
	in, ok := s.find(w, r, id)
	if !ok {
		return
	}
	var code int
	switch in.Phase {
	case saga.Done:
		code = http.StatusCreated
	case saga.Undone:
		code = http.StatusConflict
	default:
		code = http.StatusAccepted
	}
	answer(w, code, viewOf(in))
}

// await waits for the end of a checkout, at most as many seconds as the text says.
func (s *server) await(ctx context.Context, id, seconds string) {
	n, _ := strconv.Atoi(seconds)
	ctx, cancel := context.WithTimeout(ctx, time.Duration(n)*time.Second)
	defer cancel()
	_, _ = s.engine.Wait(ctx, id) // how it ended is asked for
}

func (s *server) show(w http.ResponseWriter, r *http.Request) {
	if in, ok := s.find(w, r, r.PathValue("id")); ok {
		answer(w, http.StatusOK, viewOf(in))
	}
}

func (s *server) timeline(w http.ResponseWriter, r *http.Request) {
	in, ok := s.find(w, r, r.PathValue("id"))
	if !ok {
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = io.WriteString(w, in.Timeline()) // who asked has gone
}

// find asks for a checkout.
func (s *server) find(w http.ResponseWriter, r *http.Request, id string) (in saga.Instance[Checkout], ok bool) {
	ctx, cancel := context.WithTimeout(r.Context(), 10*time.Second)
	defer cancel()
	in, err := s.engine.Get(ctx, id)
	switch {
	case errors.Is(err, saga.ErrNotFound):
		s.fail(w, r, http.StatusNotFound, err)
	case err != nil:
		s.fail(w, r, http.StatusServiceUnavailable, err)
	}
	return in, err == nil
}

func (s *server) fail(w http.ResponseWriter, r *http.Request, code int, err error) {
	if code >= http.StatusInternalServerError {
		s.log.ErrorContext(r.Context(), "checkout: request failed", "path", r.URL.Path, "error", err)
	}
	answer(w, code, map[string]string{"error": err.Error()})
}

func answer(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v) // who asked has gone
}
