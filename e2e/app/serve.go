// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/interop/grpc_testing"
)

// Where the app listens.
const (
	httpAddr = ":8080"
	grpcAddr = ":9090"
)

// finish is how long requests that were begun may take once draining is over.
const finish = 30 * time.Second

// serve answers until ctx ends, then drains.
func serve(ctx context.Context, b Behaviour) error {
	if b.CrashAfter > 0 {
		time.AfterFunc(b.CrashAfter, func() {
			fmt.Fprintln(os.Stderr, "app: crashing, as asked")
			os.Exit(1)
		})
	}
	if b.Deaf {
		<-ctx.Done()
		return nil
	}
	web, err := net.Listen("tcp", httpAddr)
	if err != nil {
		return fmt.Errorf("listening for HTTP: %w", err)
	}
	rpc, err := net.Listen("tcp", grpcAddr)
	if err != nil {
		return fmt.Errorf("listening for gRPC: %w", err)
	}
	if b.Hang {
		go swallow(web)
		go swallow(rpc)
		<-ctx.Done()
		return nil
	}
	return serveOn(ctx, b, web, rpc)
}

// serveOn serves on these listeners until ctx ends, drains, and closes them.
func serveOn(ctx context.Context, b Behaviour, web, rpc net.Listener) error {
	a := newApp(b, time.Now())
	webServer := &http.Server{Handler: a.handler(), ReadHeaderTimeout: 10 * time.Second, Protocols: new(http.Protocols)}
	webServer.Protocols.SetHTTP1(true)
	webServer.Protocols.SetUnencryptedHTTP2(true)
	rpcServer := grpc.NewServer()
	grpc_testing.RegisterTestServiceServer(rpcServer, &echo{app: a})
	grpc_health_v1.RegisterHealthServer(rpcServer, health.NewServer())

	failed := make(chan error, 2)
	go func() { failed <- webServer.Serve(web) }()
	go func() { failed <- rpcServer.Serve(rpc) }()
	fmt.Printf("serving version=%s http=%s grpc=%s\n", b.Version, web.Addr(), rpc.Addr())
	select {
	case err := <-failed:
		return fmt.Errorf("serving: %w", err)
	case <-ctx.Done():
	}
	a.draining.Store(true)
	fmt.Printf("draining for %v\n", b.Drain)
	timer := time.NewTimer(b.Drain)
	defer timer.Stop()
	select {
	case err := <-failed:
		return fmt.Errorf("draining: %w", err)
	case <-timer.C:
	}
	return shutDown(webServer, rpcServer)
}

// shutDown takes no new requests and returns when those that were begun are answered.
func shutDown(webServer *http.Server, rpcServer *grpc.Server) error {
	ctx, cancel := context.WithTimeout(context.Background(), finish)
	defer cancel()
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		rpcServer.GracefulStop()
	}()
	if err := webServer.Shutdown(ctx); err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("finishing requests: %w", err)
	}
	select {
	case <-stopped:
		return nil
	case <-ctx.Done():
		rpcServer.Stop()
		return fmt.Errorf("finishing calls: %w", ctx.Err())
	}
}

// swallow accepts connections, holds them open and never answers.
func swallow(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		// Read, so that it stays referenced and open; what it says is for nobody.
		go func() { _, _ = io.Copy(io.Discard, c) }()
	}
}
