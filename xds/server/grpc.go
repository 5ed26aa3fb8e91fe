// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"crypto/tls"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
)

// maxConnectionAge makes every sidecar present a fresh token well within the life of a token (an hour).
// gRPC varies it by 10 % for each connection, so that sidecars don't come back all at once.
const maxConnectionAge = 30 * time.Minute

// Options are those of a gRPC server that sidecars and other replicas connect to. The certificate is asked
// for on each handshake (c.GetCertificate), so that it can be renewed.
func Options(c *tls.Config) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.Creds(credentials.NewTLS(c)),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionAge:      maxConnectionAge,
			MaxConnectionAgeGrace: 5 * time.Second,
			// A sidecar whose node is gone counts as connected for at most this long.
			Time:    10 * time.Second,
			Timeout: 5 * time.Second,
		}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		// 49 KB per stream are mostly buffers; sidecars' messages are small.
		grpc.ReadBufferSize(4 << 10),
		grpc.WriteBufferSize(4 << 10),
		grpc.MaxRecvMsgSize(1 << 20),
	}
}
