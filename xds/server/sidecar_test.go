// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"net"
	"slices"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statusv3 "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/test/bufconn"

	"github.com/headgate/headgate/xds"
)

// patience is how long a test waits for what must come. Nothing waits for it when all is well.
const patience = 10 * time.Second

// fixture is a served server whose clients are in this process.
type fixture struct {
	*Server
	listener *bufconn.Listener
	changed  chan Key
}

func serve(t testing.TB, cfg Config) *fixture {
	t.Helper()
	f := &fixture{listener: bufconn.Listen(1 << 20), changed: make(chan Key, 1<<16)}
	if cfg.Linger == 0 {
		cfg.Linger = 1
	}
	cfg.OnChange = func(k Key) { f.changed <- k }
	f.Server = New(t.Context(), cfg)
	g := grpc.NewServer()
	f.Register(g)
	go g.Serve(f.listener)
	t.Cleanup(g.Stop)
	return f
}

// until waits, from change to change, until the acknowledgements of key are as wanted.
func (f *fixture) until(t testing.TB, key Key, wanted func([]Ack) bool) []Ack {
	t.Helper()
	deadline := time.After(patience)
	for {
		if acks := f.Acks(key); wanted(acks) {
			return acks
		}
		select {
		case <-f.changed:
		case <-deadline:
			t.Fatalf("acknowledgements stay at %+v", f.Acks(key))
		}
	}
}

// haveWeight says that all sidecars have acknowledged this weight.
func haveWeight(weight uint32) func([]Ack) bool {
	return func(acks []Ack) bool {
		return len(acks) > 0 && !slices.ContainsFunc(acks, func(a Ack) bool { return !a.Known || a.State.PeerWeight != weight })
	}
}

// settled waits until all sidecars of key have acknowledged all that is wanted, endpoints included, and with it
// this weight.
func (f *fixture) settled(t testing.TB, key Key, weight uint32) []Ack {
	t.Helper()
	return f.until(t, key, func(acks []Ack) bool { return haveWeight(weight)(acks) && f.haveAll(key) })
}

func (f *fixture) haveAll(key Key) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for st := range f.byKey[key] {
		if st.target == nil || st.settled != st.target {
			return false
		}
	}
	return true
}

// sidecar is a client that says what a test makes it say.
type sidecar struct {
	t         testing.TB
	stream    discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
	responses chan *discoveryv3.DeltaDiscoveryResponse
	failed    chan error
	close     context.CancelFunc
	// has are the versions that were acknowledged.
	has map[xds.Type]map[string]string
}

func (f *fixture) connect(t testing.TB, token string) *sidecar {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///test",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return f.listener.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	ctx, cancel := context.WithCancel(t.Context())
	if token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", token)
	}
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	s := &sidecar{
		t: t, stream: stream, close: cancel, failed: make(chan error, 1),
		responses: make(chan *discoveryv3.DeltaDiscoveryResponse, 100), has: map[xds.Type]map[string]string{},
	}
	for _, typ := range xds.Types() {
		s.has[typ] = map[string]string{}
	}
	go s.receive()
	return s
}

func (s *sidecar) receive() {
	for {
		r, err := s.stream.Recv()
		if err != nil {
			s.failed <- err
			return
		}
		s.responses <- r
	}
}

func (s *sidecar) send(r *discoveryv3.DeltaDiscoveryRequest) {
	s.t.Helper()
	r.Node = &corev3.Node{Id: "somebody/else", Cluster: "forged"}
	_ = s.stream.Send(r) // a broken stream shows in failed
}

// ask subscribes; without names to everything. has are the versions from an earlier stream.
func (s *sidecar) ask(typ xds.Type, has map[string]string, names ...string) {
	s.t.Helper()
	s.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: typ.URL(), ResourceNamesSubscribe: names, InitialResourceVersions: has})
}

func (s *sidecar) next() *discoveryv3.DeltaDiscoveryResponse {
	s.t.Helper()
	select {
	case r := <-s.responses:
		return r
	case err := <-s.failed:
		s.t.Fatalf("the stream ended: %v", err)
	case <-time.After(patience):
		s.t.Fatal("no response")
	}
	return nil
}

// want takes the next response, which must be of this type and bring exactly these resources.
func (s *sidecar) want(typ xds.Type, names ...string) *discoveryv3.DeltaDiscoveryResponse {
	s.t.Helper()
	r := s.next()
	var got []string
	for _, x := range r.GetResources() {
		got = append(got, x.GetName())
	}
	if r.GetTypeUrl() != typ.URL() || !slices.Equal(got, names) {
		s.t.Fatalf("response brings %v of %s, want %s %v", got, r.GetTypeUrl(), typ, names)
	}
	return r
}

func (s *sidecar) ack(r *discoveryv3.DeltaDiscoveryResponse, subscribe ...string) {
	s.t.Helper()
	typ, _ := xds.TypeOf(r.GetTypeUrl())
	for _, x := range r.GetResources() {
		s.has[typ][x.GetName()] = x.GetVersion()
	}
	for _, n := range r.GetRemovedResources() {
		delete(s.has[typ], n)
	}
	s.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: r.GetTypeUrl(), ResponseNonce: r.GetNonce(), ResourceNamesSubscribe: subscribe})
}

func (s *sidecar) nack(r *discoveryv3.DeltaDiscoveryResponse, why string) {
	s.t.Helper()
	s.send(&discoveryv3.DeltaDiscoveryRequest{
		TypeUrl: r.GetTypeUrl(), ResponseNonce: r.GetNonce(), ErrorDetail: &statusv3.Status{Code: 13, Message: why},
	})
}

// fence proves that nothing else is on its way: it asks for something known again, and the answer must be
// the next response.
func (s *sidecar) fence() {
	s.t.Helper()
	s.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: xds.Routes.URL(), ResourceNamesUnsubscribe: []string{"peers"}})
	s.ask(xds.Routes, nil, "peers")
	s.ack(s.want(xds.Routes, "peers"))
}

// start does what Envoy does with everything it is given, until it has all of w.
func (s *sidecar) start(f *fixture, w xds.Workload) {
	s.t.Helper()
	s.ask(xds.Clusters, nil)
	s.ack(s.next())
	if w.Split != nil {
		s.ask(xds.Endpoints, nil, "peerconn|8080|b")
		s.ack(s.next())
	}
	s.ask(xds.Listeners, nil)
	s.ack(s.want(xds.Listeners, "capture"))
	s.ask(xds.Routes, nil, "capture|8080", "peers")
	s.ack(s.want(xds.Routes, "capture|8080", "peers"))
	weight := uint32(0)
	if w.Split != nil {
		weight = w.Split.PeerWeight
	}
	f.settled(s.t, KeyOf(w), weight)
}

// resume connects as a sidecar that has what the earlier one had.
func (s *sidecar) resume(has map[xds.Type]map[string]string) {
	s.t.Helper()
	for _, typ := range xds.Types() {
		s.has[typ] = has[typ]
	}
	s.ask(xds.Clusters, has[xds.Clusters])
	if len(has[xds.Endpoints]) > 0 {
		s.ask(xds.Endpoints, has[xds.Endpoints], slices.Sorted(keys(has[xds.Endpoints]))...)
	}
	s.ask(xds.Listeners, has[xds.Listeners])
	s.ask(xds.Routes, has[xds.Routes], slices.Sorted(keys(has[xds.Routes]))...)
}

func keys(m map[string]string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}
