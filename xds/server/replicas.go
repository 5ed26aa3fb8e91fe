// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const (
	// firstRetry and lastRetry bound the wait between attempts to reach a replica.
	firstRetry = 50 * time.Millisecond
	lastRetry  = time.Second
)

// ReplicasConfig is what a Replicas needs; all fields but OnChange are required.
type ReplicasConfig struct {
	// TLS makes the client side's configuration, for each connection, so that CA bundles can change.
	TLS func() (*tls.Config, error)
	// Token is this replica's own pod-bound token, read for each connection.
	Token func() (string, error)
	// OnChange is called when the acknowledgements of a key may have changed, or became unknown. It
	// must not block. The zero Key stands for all: a replica became known or unknown.
	OnChange func(Key)
}

// Replicas follows the acknowledgements of other replicas. It is the leader's view of sidecars that are
// not connected to itself.
type Replicas struct {
	cfg ReplicasConfig

	mu    sync.Mutex
	peers map[string]*replica
	done  sync.WaitGroup
}

type replica struct {
	cancel context.CancelFunc
	synced bool
	err    error
	acks   map[Key][]Ack
}

// NewReplicas follows nobody yet.
func NewReplicas(cfg ReplicasConfig) *Replicas {
	if cfg.OnChange == nil {
		cfg.OnChange = func(Key) {}
	}
	return &Replicas{cfg: cfg, peers: map[string]*replica{}}
}

// Follow makes addresses (host:port) the replicas to follow, until ctx ends or the next call. An address
// that stays keeps its connection.
func (r *Replicas) Follow(ctx context.Context, addresses []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for address, p := range r.peers {
		if !slices.Contains(addresses, address) {
			p.cancel()
			delete(r.peers, address)
		}
	}
	for _, address := range addresses {
		if _, ok := r.peers[address]; ok {
			continue
		}
		own, cancel := context.WithCancel(ctx)
		p := &replica{cancel: cancel}
		r.peers[address] = p
		r.done.Go(func() { r.follow(own, address, p) })
	}
}

// Close stops following and waits until that is done.
func (r *Replicas) Close() {
	r.Follow(context.Background(), nil)
	r.done.Wait()
}

// Acks are those that the other replicas report for key, by pod, and the reasons why replicas that can't
// be asked now can't, by address. What their sidecars acknowledged is not known then.
func (r *Replicas) Acks(key Key) (acks []Ack, unknown map[string]error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	unknown = map[string]error{}
	for address, p := range r.peers {
		if !p.synced {
			unknown[address] = p.err
			continue
		}
		acks = append(acks, p.acks[key]...)
	}
	return Latest(acks), unknown
}

// Latest keeps one acknowledgement for each pod, that of the newest stream: a sidecar that reconnects
// shows up at two replicas for a moment. The result is sorted by pod.
func Latest(acks []Ack) []Ack {
	out := slices.Clone(acks)
	slices.SortStableFunc(out, func(a, b Ack) int {
		if c := strings.Compare(a.Pod+"/"+a.UID, b.Pod+"/"+b.UID); c != 0 {
			return c
		}
		return b.Since.Compare(a.Since)
	})
	return slices.CompactFunc(out, func(a, b Ack) bool { return a.Pod == b.Pod && a.UID == b.UID })
}

// follow keeps one connection, with growing pauses while it fails.
func (r *Replicas) follow(ctx context.Context, address string, p *replica) {
	pause := firstRetry
	for {
		synced, err := r.watch(ctx, address, p)
		if synced {
			pause = firstRetry
		}
		r.lost(p, err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		pause = min(2*pause, lastRetry)
	}
}

func (r *Replicas) lost(p *replica, err error) {
	r.mu.Lock()
	p.synced, p.acks, p.err = false, nil, err
	r.mu.Unlock()
	r.cfg.OnChange(Key{})
}

// watch reads from one connection until it fails; it reports whether the replica was known in between.
func (r *Replicas) watch(ctx context.Context, address string, p *replica) (synced bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(3*heartbeat, func() { cancel(fmt.Errorf("silent for %s", 3*heartbeat)) })
	defer silence.Stop()
	conn, stream, err := r.open(ctx, address)
	if err != nil {
		return false, fmt.Errorf("asking replica %s: %w", address, err)
	}
	defer conn.Close()
	acks := map[Key][]Ack{}
	for {
		var m wrapperspb.BytesValue
		if err := stream.RecvMsg(&m); err != nil {
			if cause := context.Cause(ctx); cause != nil {
				err = cause
			}
			return synced, fmt.Errorf("following replica %s: %w", address, err)
		}
		silence.Reset(3 * heartbeat)
		var u update
		if err := json.Unmarshal(m.GetValue(), &u); err != nil {
			return synced, fmt.Errorf("reading from replica %s: %w", address, err)
		}
		r.take(p, acks, u)
		synced = synced || u.Synced
	}
}

func (r *Replicas) open(ctx context.Context, address string) (*grpc.ClientConn, grpc.ClientStream, error) {
	c, err := r.cfg.TLS()
	if err != nil {
		return nil, nil, err
	}
	token, err := r.cfg.Token()
	if err != nil {
		return nil, nil, err
	}
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(credentials.NewTLS(c)),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxUpdateBytes)))
	if err != nil {
		return nil, nil, err
	}
	ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{StreamName: "Watch", ServerStreams: true}, watchMethod)
	if err == nil {
		err = stream.SendMsg(&emptypb.Empty{})
	}
	if err == nil {
		err = stream.CloseSend()
	}
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	return conn, stream, nil
}

func (r *Replicas) take(p *replica, acks map[Key][]Ack, u update) {
	r.mu.Lock()
	if u.Key != nil {
		acks[*u.Key] = u.Acks
		if len(u.Acks) == 0 {
			delete(acks, *u.Key)
		}
	}
	if u.Synced {
		p.synced, p.acks, p.err = true, acks, nil
	}
	known := p.synced
	r.mu.Unlock()
	switch {
	case u.Synced:
		r.cfg.OnChange(Key{})
	case known && u.Key != nil:
		r.cfg.OnChange(*u.Key)
	}
}
