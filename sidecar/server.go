// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package sidecar

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
)

const (
	// keepaliveInterval and keepaliveTimeout notice within 15 s that a connection leads nowhere. The
	// interval is the shortest that grpc-go grants a client; the server must permit it.
	keepaliveInterval = 10 * time.Second
	keepaliveTimeout  = 5 * time.Second
	// retryLeast and retryMost bound the time between attempts to reach the server: fast enough that a
	// restart of the server is over in about a second, slow enough for thousands of sidecars.
	retryLeast = 100 * time.Millisecond
	retryMost  = time.Second
	// maxMessage is far above any configuration; the default of 4 MiB is not.
	maxMessage = 64 << 20
)

// dialServer prepares the connection to the xDS server. Nothing is dialled before it is needed; from
// then on it is dialled again by itself. It fails when the CA can't be read.
func dialServer(cfg Config) (*grpc.ClientConn, error) {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(cfg.CA) {
		return nil, errors.New("reading HEADGATE_CA: no certificate in it")
	}
	tlsConfig := &tls.Config{RootCAs: roots, ServerName: cfg.ServerName, MinVersion: tls.VersionTLS13}
	// The passthrough resolver leaves names to the dialer, anew for each attempt: grpc's own resolver
	// waits up to two minutes after a name that does not exist (yet).
	conn, err := grpc.NewClient("passthrough:///"+cfg.ServerAddress,
		grpc.WithTransportCredentials(credentials.NewTLS(tlsConfig)),
		grpc.WithPerRPCCredentials(tokenFile(cfg.TokenFile)),
		grpc.WithNoProxy(),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveInterval, Timeout: keepaliveTimeout}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: retryLeast, Multiplier: 1.6, Jitter: 0.2, MaxDelay: retryMost},
			MinConnectTimeout: 2 * time.Second,
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.WaitForReady(true)),
	)
	if err != nil {
		return nil, fmt.Errorf("preparing the connection to %s: %w", cfg.ServerAddress, err)
	}
	return conn, nil
}

// tokenFile presents the token in a file, read anew for each stream.
type tokenFile string

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (f tokenFile) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	token, err := os.ReadFile(string(f))
	if err != nil {
		return nil, fmt.Errorf("reading token: %w", err)
	}
	return map[string]string{"authorization": "Bearer " + strings.TrimSpace(string(token))}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials: never without TLS.
func (tokenFile) RequireTransportSecurity() bool { return true }

// serverStream is the client's end of a stream to the server.
type serverStream = grpc.BidiStreamingClient[discoveryv3.DeltaDiscoveryRequest, discoveryv3.DeltaDiscoveryResponse]

// serverEvent is what happened to the stream to the server: opened (stream is set), a response, or
// the end (err is set).
type serverEvent struct {
	stream   serverStream
	response *discoveryv3.DeltaDiscoveryResponse
	err      error
}

// watchServer keeps a stream to the server open until ctx ends, and tells what happens to it, in order.
func watchServer(ctx context.Context, client discoveryv3.AggregatedDiscoveryServiceClient, events chan<- serverEvent) {
	tell := func(e serverEvent) bool {
		select {
		case events <- e:
			return true
		case <-ctx.Done():
			return false
		}
	}
	delay := retryLeast
	for ctx.Err() == nil {
		answered, err := oneStream(ctx, client, tell)
		if answered {
			delay = retryLeast
		}
		if !tell(serverEvent{err: err}) {
			return
		}
		// Half of it is jitter, so that sidecars whose server died together don't come back together.
		sleep(ctx, delay/2+rand.N(delay/2))
		delay = min(2*delay, retryMost)
	}
}

// oneStream is one stream from opening to end; it reports whether the server said anything.
func oneStream(ctx context.Context, client discoveryv3.AggregatedDiscoveryServiceClient, tell func(serverEvent) bool) (answered bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.DeltaAggregatedResources(ctx)
	if err != nil {
		return false, fmt.Errorf("opening a stream to the server: %w", err)
	}
	tell(serverEvent{stream: stream})
	for {
		resp, err := stream.Recv()
		if err != nil {
			return answered, fmt.Errorf("receiving from the server: %w", err)
		}
		answered = true
		tell(serverEvent{response: resp})
	}
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
