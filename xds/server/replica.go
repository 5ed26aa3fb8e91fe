// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"encoding/json"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// heartbeat is how often a replica says that it is alive when nothing changes; silence for three of them
// makes its acknowledgements unknown.
const heartbeat = time.Second

// update is one message between replicas, as JSON: all acknowledgements of one key (see shortened), the end of the
// first full round, or (empty) a sign of life.
type update struct {
	Key    *Key  `json:"key,omitempty"`
	Acks   []Ack `json:"acks,omitempty"`
	Synced bool  `json:"synced,omitempty"`
}

const watchMethod = "/headgate.xds.v1alpha1.Acknowledgements/Watch"

// acknowledgementsService has one method, written by hand: a stream of update in a BytesValue. Both ends
// are the same binary, or its neighbour during an upgrade; JSON lets either add fields.
func acknowledgementsService() *grpc.ServiceDesc {
	return &grpc.ServiceDesc{
		ServiceName: "headgate.xds.v1alpha1.Acknowledgements",
		HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{{
			StreamName: "Watch", ServerStreams: true,
			Handler: func(srv any, stream grpc.ServerStream) error {
				return srv.(*ReplicaService).watch(stream)
			},
		}},
	}
}

// ReplicaService tells other replicas what the sidecars of this one have acknowledged.
type ReplicaService struct {
	// Server is this replica's.
	Server *Server
	// Authenticator checks the caller's token.
	Authenticator Authenticator
	// User is the only user that is answered: Headgate's own service account.
	User string
}

// Register adds the service to g.
func (r *ReplicaService) Register(g grpc.ServiceRegistrar) {
	g.RegisterService(acknowledgementsService(), r)
}

func (r *ReplicaService) watch(stream grpc.ServerStream) error {
	who, err := authenticate(stream.Context(), r.Authenticator)
	if err != nil {
		return err
	}
	if who.User != r.User {
		return status.Errorf(codes.PermissionDenied, "user %q is not a replica", who.User)
	}
	if err := stream.RecvMsg(&emptypb.Empty{}); err != nil {
		return err
	}
	changed := r.Server.changes.subscribe()
	defer r.Server.changes.unsubscribe(changed)
	if err := r.sendKeys(stream, r.Server.connectedKeys()); err != nil {
		return err
	}
	if err := send(stream, update{Synced: true}); err != nil {
		return err
	}
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for {
		select {
		case <-changed.wake:
			err = r.sendKeys(stream, r.Server.changes.take(changed))
		case <-beat.C:
			err = send(stream, update{})
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
		if err != nil {
			return err
		}
	}
}

func (r *ReplicaService) sendKeys(stream grpc.ServerStream, keys []Key) error {
	for _, key := range keys {
		if err := send(stream, update{Key: &key, Acks: shortened(r.Server.Acks(key))}); err != nil {
			return err
		}
	}
	return nil
}

func send(stream grpc.ServerStream, u update) error {
	b, err := json.Marshal(u)
	if err != nil {
		return fmt.Errorf("writing acknowledgements: %w", err)
	}
	return stream.SendMsg(wrapperspb.Bytes(b))
}
