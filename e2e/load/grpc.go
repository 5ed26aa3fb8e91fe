// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package load

import (
	"context"
	"fmt"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
)

// grpcSender makes unary calls over one connection for each address.
type grpcSender struct {
	targets   *Targets
	port      int
	authority string

	mu    sync.Mutex
	conns map[string]*grpc.ClientConn
}

func (s *grpcSender) send(ctx context.Context) Outcome {
	conn, err := s.conn(s.targets.Next())
	if err != nil {
		return Outcome{Class: ClassTransport, Detail: err.Error()}
	}
	var trailer metadata.MD
	_, err = grpc_testing.NewTestServiceClient(conn).UnaryCall(ctx, &grpc_testing.SimpleRequest{}, grpc.Trailer(&trailer))
	o := Outcome{Version: first(trailer.Get(VersionHeader)), Pod: first(trailer.Get(PodHeader))}
	if err != nil {
		o.Class, o.Detail = classOfGRPC(err), err.Error()
	} else if o.Version == "" {
		o.Class, o.Detail = ClassUnexpected, "an answer without "+VersionHeader
	}
	return o
}

func first(values []string) string {
	if len(values) == 0 {
		return ""
	}
	return values[0]
}

func (s *grpcSender) conn(addr string) (*grpc.ClientConn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.conns[addr]; c != nil {
		return c, nil
	}
	c, err := grpc.NewClient("passthrough:///"+hostPort(addr, s.port),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority(s.authority))
	if err != nil {
		return nil, fmt.Errorf("creating a client for %s: %w", addr, err)
	}
	s.conns[addr] = c
	return c, nil
}

func (s *grpcSender) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		_ = c.Close()
	}
}
