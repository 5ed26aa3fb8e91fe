// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"github.com/headgate/headgate/e2e/load"
)

// runLoad is the client: reports go to the standard output, one line of JSON each second.
func runLoad(ctx context.Context, args []string) error {
	var c load.Config
	flags := flag.NewFlagSet("load", flag.ContinueOnError)
	flags.StringVar(&c.Host, "host", "", "name of a Service, or address")
	flags.IntVar(&c.HTTPPort, "http-port", 80, "port for HTTP")
	flags.IntVar(&c.GRPCPort, "grpc-port", 9090, "port for gRPC")
	flags.StringVar(&c.Authority, "authority", "", "Host header (default: the host)")
	rates := flags.String("rates", "http1=10", "requests per second by kind: http1, new, h2c, grpc, slow, stream")
	flags.DurationVar(&c.Duration, "duration", time.Minute, "how long to send")
	flags.Int64Var(&c.Requests, "requests", 0, "how many to send at most (0: no limit)")
	flags.DurationVar(&c.Timeout, "timeout", 15*time.Second, "granted to a request beyond what it is asked to take")
	flags.DurationVar(&c.SlowFor, "slow-for", 8*time.Second, "how long slow requests take")
	flags.DurationVar(&c.StreamFor, "stream-for", 5*time.Second, "how long streams take")
	control := flags.String("control", "", "address for GET /report and POST /stop (default: none)")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var err error
	if c.Rates, err = load.ParseRates(*rates); err != nil {
		return err
	}
	return runControlled(ctx, c, *control)
}

// runControlled runs the client with its control server, if an address is given.
func runControlled(ctx context.Context, c load.Config, control string) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	panel := &panel{stop: stop, ended: make(chan struct{})}
	server := &http.Server{Addr: control, Handler: panel.handler(), ReadHeaderTimeout: 10 * time.Second}
	if control != "" {
		go func() {
			if err := server.ListenAndServe(); err != http.ErrServerClosed {
				fmt.Fprintln(os.Stderr, "app: serving the control:", err)
				stop()
			}
		}()
	}
	lines := json.NewEncoder(os.Stdout)
	final, err := load.Run(ctx, c, func(r load.Report) {
		panel.last.Store(&r)
		_ = lines.Encode(r)
	})
	if err != nil {
		return err
	}
	panel.last.Store(&final)
	close(panel.ended)
	if err := lines.Encode(final); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	if control == "" {
		return nil
	}
	// Whoever asked to stop, or is about to, gets the final report before the process ends.
	linger, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := server.Shutdown(linger); err != nil {
		return fmt.Errorf("closing the control: %w", err)
	}
	return nil
}

// panel lets tests read the counts and end the run.
type panel struct {
	stop  context.CancelFunc
	ended chan struct{}
	last  atomic.Pointer[load.Report]
}

func (p *panel) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /report", func(w http.ResponseWriter, _ *http.Request) { p.write(w) })
	mux.HandleFunc("POST /stop", func(w http.ResponseWriter, r *http.Request) {
		p.stop()
		select {
		case <-p.ended:
			p.write(w)
		case <-r.Context().Done():
		}
	})
	return mux
}

func (p *panel) write(w http.ResponseWriter) {
	last := p.last.Load()
	if last == nil {
		http.Error(w, "nothing was sent yet", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(last)
}
