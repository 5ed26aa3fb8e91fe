// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/delta/v3"
	"github.com/go-logr/logr"
	"google.golang.org/grpc"

	"github.com/headgate/headgate/xds"
)

// Key names a configuration: all sidecars of one revision of a workload share it.
type Key struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Revision  string `json:"revision"`
}

// String is namespace/name/revision.
func (k Key) String() string { return k.Namespace + "/" + k.Name + "/" + k.Revision }

// KeyOf is the key under which w is served.
func KeyOf(w xds.Workload) Key {
	return Key{Namespace: w.Namespace, Name: w.Name, Revision: w.Revision}
}

// Config is what a Server needs. Only Identify is required.
type Config struct {
	// Identify says, when a stream opens, who opened it and what it gets. See Tokens and Anyone.
	Identify Identify
	// OnChange is called after the acknowledgements of a key may have changed, once or several times,
	// from many goroutines and without any lock held. It must not block.
	OnChange func(Key)
	// Linger is how long clusters stay after the last route to them was confirmed to be gone; zero is
	// DefaultLinger.
	Linger time.Duration
	// Metrics may be nil.
	Metrics *Metrics
	// Log gets one line for each refused configuration. The zero value drops it.
	Log logr.Logger
}

// DefaultLinger is far more than what it must outlast:
//   - requests that were on their way to a peer when the weight became 0, and go local when it can't be
//     reached: connect timeout and back-off, some 0.3 s, or four times that where only peers may answer. Without the cluster
//     they would fail (503).
//   - Envoy's workers, which learn of a cluster later than its main thread confirms it. Removing a composite
//     cluster that a busy worker has not made yet crashes Envoy 1.40: its factory keeps a reference to
//     what the main thread has deleted. Seen within seconds when splits come and go as fast as they are
//     acknowledged.
const DefaultLinger = 30 * time.Second

// Server serves delta ADS and knows what each connected sidecar has acknowledged. Its methods may be
// called concurrently.
type Server struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
	cfg  Config
	done <-chan struct{}
	ids  atomic.Int64

	mu      sync.Mutex
	targets map[Key]*target
	streams map[int64]*stream
	byKey   map[Key]map[*stream]struct{}
	// byPod are the streams of each pod UID, oldest first.
	byPod   map[string][]*stream
	changes *changes
}

// target is a wanted configuration. It is immutable.
type target struct {
	workload  xds.Workload
	resources xds.Resources
	state     State
	// leaving says that it goes when the last sidecar that has it does.
	leaving bool
}

func newTarget(w xds.Workload) (*target, error) {
	r, err := xds.Translate(w)
	if err != nil {
		return nil, fmt.Errorf("setting configuration: %w", err)
	}
	return &target{workload: w, resources: r, state: StateOf(w)}, nil
}

// State is what a configuration means, as far as the controller cares. Endpoints are not part of it: pods come and go
// all the time, and a weight is as much in force with one of them more.
type State struct {
	// Peer is the other revision, empty at rest.
	Peer string `json:"peer,omitempty"`
	// PeerWeight is the share of requests for it, 0 to 100.
	PeerWeight uint32 `json:"peerWeight"`
	// Over says that what peers still send is handed on to them.
	Over bool `json:"over,omitempty"`
}

// StateOf is what w means.
func StateOf(w xds.Workload) State {
	if w.Split == nil {
		return State{}
	}
	return State{Peer: w.Split.Peer, PeerWeight: w.Split.PeerWeight, Over: w.Split.Over}
}

// New makes a server whose streams end when ctx does.
func New(ctx context.Context, cfg Config) *Server {
	if cfg.Linger == 0 {
		cfg.Linger = DefaultLinger
	}
	return &Server{
		cfg:     cfg,
		done:    ctx.Done(),
		targets: map[Key]*target{},
		streams: map[int64]*stream{},
		byKey:   map[Key]map[*stream]struct{}{},
		byPod:   map[string][]*stream{},
		changes: newChanges(),
	}
}

// Register adds the discovery service to g.
func (s *Server) Register(g grpc.ServiceRegistrar) {
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(g, s)
}

// DeltaAggregatedResources serves one sidecar until its stream ends. The other variant of the protocol is
// not served: there, one refused resource is sent again without end.
//
// It returns as soon as the stream is to end, and that is what ends it: the handler of a client that reads
// nothing is in the middle of a send, and would stay there.
func (s *Server) DeltaAggregatedResources(stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	ctx, end := context.WithCancelCause(stream.Context())
	defer end(nil)
	handler := delta.NewServer(ctx, watcher{s}, callbacks{Server: s, id: s.ids.Add(1), end: end})
	handled := make(chan error, 1)
	go func() { handled <- handler.DeltaStreamHandler(stream, resource.AnyType) }()
	var err error
	select {
	case err = <-handled:
	case <-ctx.Done():
	case <-s.done:
	}
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// Set makes w the wanted configuration of its key. Each connected sidecar goes there by its own stages,
// at its own pace, from what it is being served: none waits for another, and a lower weight waits for
// nobody. Equal content pushes nothing. It fails when w is not valid, and then changes nothing.
func (s *Server) Set(w xds.Workload) error {
	next, err := newTarget(w)
	if err != nil {
		return err
	}
	key := KeyOf(w)
	if s.set(key, next) {
		s.changed(key)
	}
	return nil
}

func (s *Server) set(key Key, next *target) (changed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.replace(key, next)
}

// replace is called with the lock.
func (s *Server) replace(key Key, next *target) (changed bool) {
	last := s.targets[key]
	s.targets[key] = next
	if last != nil && last.resources.Equal(&next.resources) {
		for st := range s.byKey[key] {
			st.rename(last, next)
		}
		return last.state != next.state
	}
	for st := range s.byKey[key] {
		st.retarget(next)
	}
	return true
}

// Remove forgets the wanted configuration of key, as soon as none of its sidecars is connected. Until then they are at rest: the
// pods of a revision of which nobody knows any more, because its Deployment or ReplicaSet was deleted and they were not, must not
// go on with a weight that nobody will ever take back, nor with the addresses of that moment.
func (s *Server) Remove(key Key) {
	if s.remove(key) {
		s.changed(key)
	}
}

func (s *Server) remove(key Key) (changed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := s.targets[key]
	if last == nil || len(s.byKey[key]) == 0 {
		delete(s.targets, key)
		return false
	}
	rest := last.workload
	rest.Split = nil
	next, err := newTarget(rest)
	if err != nil {
		return false // it can't be: that is less of what was translated before
	}
	next.leaving = true
	return s.replace(key, next)
}

// changed tells whoever wants to know. It must be called without the lock.
func (s *Server) changed(key Key) {
	s.changes.announce(key)
	if s.cfg.OnChange != nil {
		s.cfg.OnChange(key)
	}
}
