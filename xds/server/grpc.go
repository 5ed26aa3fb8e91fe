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

// maxStreamsPerConnection bounds what one connection may ask for. A sidecar has one stream, and for a moment
// two, while its Envoy starts again; a replica has one, on a connection of its own.
const maxStreamsPerConnection = 8

// maxMessageBytes bounds what a client says at once. A sidecar with 1,000 captured ports that comes back in the
// middle of a split says some 600 KB.
const maxMessageBytes = 1 << 20

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
		grpc.MaxRecvMsgSize(maxMessageBytes),
		grpc.MaxConcurrentStreams(maxStreamsPerConnection),
	}
}
