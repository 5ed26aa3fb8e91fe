// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/headgate/headgate/e2e/load"
)

// maxTake bounds what a request may ask for.
const maxTake = 5 * time.Minute

// dependencyTimeout bounds what a request waits for the dependency.
const dependencyTimeout = time.Second

// errAsked is the failure that ERROR_RATE asks for.
var errAsked = errors.New("failing, as asked")

// app answers requests as its behaviour says.
type app struct {
	behaviour Behaviour
	start     time.Time
	draining  atomic.Bool
}

func newApp(b Behaviour, start time.Time) *app { return &app{behaviour: b, start: start} }

// identity is what an answer says.
type identity struct {
	Version  string `json:"version"`
	Pod      string `json:"pod"`
	Revision string `json:"revision"`
}

func (a *app) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/", a.asked(a.answer))
	mux.HandleFunc("/slow", a.asked(a.slow))
	mux.HandleFunc("/stream", a.asked(a.stream))
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !a.ready(time.Now()) {
			http.Error(w, "not ready", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	return mux
}

// ready does not depend on draining: a pod that is going away leaves the endpoints anyway.
func (a *app) ready(now time.Time) bool {
	return !a.behaviour.NeverReady && now.Sub(a.start) >= a.behaviour.ReadyDelay
}

// asked adds what all answers but those to probes have in common.
func (a *app) asked(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(load.VersionHeader, a.behaviour.Version)
		w.Header().Set(load.PodHeader, a.behaviour.Pod)
		if a.draining.Load() {
			w.Header().Set("Connection", "close") // HTTP/2: the server sends GOAWAY
		}
		if wait(r.Context(), a.behaviour.Latency) != nil {
			return
		}
		if err := a.fails(r.Context()); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		next(w, r)
	}
}

// fails is why a request fails, if it does.
func (a *app) fails(ctx context.Context) error {
	if a.behaviour.ErrorRate > 0 && rand.Float64() < a.behaviour.ErrorRate {
		return errAsked
	}
	if a.behaviour.Dependency != "" {
		return a.askDependency(ctx)
	}
	return nil
}

// askDependency fails where the dependency does not answer, or not well.
func (a *app) askDependency(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, dependencyTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, a.behaviour.Dependency, nil)
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return fmt.Errorf("the dependency: %w", err)
	}
	defer func() { _ = answer.Body.Close() }()
	if _, err := io.Copy(io.Discard, answer.Body); err != nil { // or the connection could not be used again
		return fmt.Errorf("the dependency: %w", err)
	}
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("the dependency answered %s", answer.Status)
	}
	return nil
}

func (a *app) answer(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(identity{a.behaviour.Version, a.behaviour.Pod, a.behaviour.Revision})
}

func (a *app) slow(w http.ResponseWriter, r *http.Request) {
	d, err := take(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if wait(r.Context(), d) == nil {
		a.answer(w, r)
	}
}

func (a *app) stream(w http.ResponseWriter, r *http.Request) {
	d, err := take(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	out := http.NewResponseController(w)
	for end := time.Now().Add(d); time.Now().Before(end); {
		_, _ = fmt.Fprintln(w, a.behaviour.Version, time.Now().Format(time.RFC3339Nano))
		if out.Flush() != nil || wait(r.Context(), 200*time.Millisecond) != nil {
			return
		}
	}
	_, _ = fmt.Fprintln(w, load.StreamEnd)
}

// take is how long the request asks for.
func take(r *http.Request) (time.Duration, error) {
	d, err := time.ParseDuration(r.URL.Query().Get("d"))
	if err != nil || d < 0 || d > maxTake {
		return 0, fmt.Errorf("d must be a duration from 0s to %v", maxTake)
	}
	return d, nil
}

// wait returns after d, or with an error when ctx ends before.
func wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// echo is the gRPC side: a call says who answered it.
type echo struct {
	grpc_testing.UnimplementedTestServiceServer
	app *app
}

// UnaryCall says in its trailers, whatever its status, which version and which pod answered.
func (e *echo) UnaryCall(ctx context.Context, _ *grpc_testing.SimpleRequest) (*grpc_testing.SimpleResponse, error) {
	b := e.app.behaviour
	if err := grpc.SetTrailer(ctx, metadata.Pairs(load.VersionHeader, b.Version, load.PodHeader, b.Pod)); err != nil {
		return nil, err
	}
	if err := wait(ctx, b.Latency); err != nil {
		return nil, status.FromContextError(err).Err()
	}
	if err := e.app.fails(ctx); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &grpc_testing.SimpleResponse{}, nil
}
