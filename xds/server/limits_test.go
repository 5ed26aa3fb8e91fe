// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/prometheus/client_golang/prometheus"
	statusv3 "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/headgate/headgate/internal/playedsidecar"
	"github.com/headgate/headgate/xds"
)

func connected(n int) func([]Ack) bool { return func(a []Ack) bool { return len(a) == n } }

// ended waits for the end of a stream.
func (s *sidecar) ended() codes.Code {
	s.t.Helper()
	select {
	case err := <-s.failed:
		return status.Code(err)
	case <-time.After(patience):
		s.t.Fatal("the stream goes on")
	}
	return codes.OK
}

func TestTheNewestStreamsOfAPodStay(t *testing.T) {
	for name, asks := range map[string]bool{"streams that are served": true, "streams that say nothing": false} {
		t.Run(name, func(t *testing.T) {
			registry := prometheus.NewRegistry()
			m, err := NewMetrics(registry)
			if err != nil {
				t.Fatal(err)
			}
			f := serve(t, Config{Identify: Tokens(known, LocatorFunc(located)), Metrics: m})
			set(t, f.Server, atRest())
			other := f.connect(t, "Bearer web-2")
			other.start(f, atRest())
			const n = 20
			var streams []*sidecar
			for i := range n {
				s := f.connect(t, "Bearer web-1")
				if asks {
					s.ask(xds.Clusters, nil)
					s.want(xds.Clusters, restClusters...)
				}
				streams = append(streams, s)
				if i >= maxPodStreams {
					if got := streams[i-maxPodStreams].ended(); got != codes.ResourceExhausted {
						t.Fatalf("stream %d ended with %s, want ResourceExhausted", i-maxPodStreams, got)
					}
				}
				f.until(t, webKey, connected(1+min(i+1, maxPodStreams)))
			}
			for _, s := range streams[n-maxPodStreams:] {
				if !asks {
					s.ask(xds.Clusters, nil)
					s.want(xds.Clusters, restClusters...)
				}
				s.ask(xds.Listeners, nil)
				s.want(xds.Listeners, "capture")
			}
			other.fence()
			if got := gathered(t, registry); got["headgate_xds_rejected_streams_total{ResourceExhausted}"] != n-maxPodStreams || got["headgate_xds_streams"] != 1+maxPodStreams {
				t.Errorf("counted %v", got)
			}
		})
	}
}

// Nobody has noticed yet that the sidecar's earlier connections are dead.
func TestASidecarThatReconnectsIsServedAtOnce(t *testing.T) {
	f := serve(t, Config{Identify: Tokens(known, LocatorFunc(located))})
	set(t, f.Server, split(10, "10.0.0.1"))
	c := f.connect(t, "Bearer web-1")
	c.start(f, split(10, "10.0.0.1"))
	for range 3 {
		again := f.connect(t, "Bearer web-1")
		again.resume(c.has)
		again.ack(again.want(xds.Clusters))
		again.ack(again.want(xds.Listeners))
		f.until(t, webKey, func(a []Ack) bool { l := Latest(a); return haveWeight(10)(l) && l[0].Since.Equal(a[len(a)-1].Since) })
		c = again
	}
}

func TestStreamsOfThePodItselfAreNotCounted(t *testing.T) {
	f := serve(t, Config{Identify: Anyone(webKey)})
	for range maxPodStreams + 1 {
		f.connect(t, "")
	}
	f.until(t, webKey, connected(maxPodStreams+1))
}

// dial connects to a server with the options of the real one.
func dial(t *testing.T) discoveryv3.AggregatedDiscoveryServiceClient {
	t.Helper()
	cert, pool := playedsidecar.Certificate(t, serverName)
	g := grpc.NewServer(Options(&tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &cert, nil }})...)
	New(t.Context(), Config{Identify: Anyone(webKey)}).Register(g)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go g.Serve(l)
	t.Cleanup(g.Stop)
	conn, err := grpc.NewClient("passthrough:///"+l.Addr().String(),
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: pool, ServerName: serverName})))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return discoveryv3.NewAggregatedDiscoveryServiceClient(conn)
}

func TestOneConnectionHasFewStreams(t *testing.T) {
	client := dial(t)
	for i := range maxStreamsPerConnection {
		if _, err := client.DeltaAggregatedResources(t.Context()); err != nil {
			t.Fatalf("stream %d: %v", i+1, err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := client.DeltaAggregatedResources(ctx); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("stream %d: %v, want it to wait for the end of another", maxStreamsPerConnection+1, err)
	}
}

func TestALargeMessageEndsTheStream(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s, err := dial(t).DeltaAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	large := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: xds.Clusters.URL(), ErrorDetail: &statusv3.Status{Message: strings.Repeat("x", maxMessageBytes)}}
	if err := s.Send(large); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recv(); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("%v, want ResourceExhausted", err)
	}
}

// opening is what a sidecar names that comes back in the middle of a split.
func opening(r *xds.Resources) (subscribe []string, has map[string]string) {
	has = map[string]string{}
	for _, typ := range xds.Types() {
		for _, x := range r[typ] {
			has[typ.String()+x.Name] = x.Version
			if typ == xds.Endpoints || typ == xds.Routes {
				subscribe = append(subscribe, x.Name)
			}
		}
	}
	return subscribe, has
}

func TestASidecarMayNameWhatItNeeds(t *testing.T) {
	for name, tc := range map[string]struct {
		ports int
		// known: the configuration is there when the sidecar connects.
		known bool
	}{
		"100 ports":                         {100, true},
		"100 ports, before anything is set": {100, false},
		"1,000 ports":                       {1000, true},
	} {
		t.Run(name, func(t *testing.T) {
			rest := xds.Workload{Namespace: "shop", Name: "web", Revision: "a"}
			for i := range tc.ports {
				rest.Ports = append(rest.Ports, xds.Port{Number: uint32(1000 + i), Peer: 8080})
			}
			during := rest
			during.Split = &xds.Split{Peer: strings.Repeat("b", 63), PeerWeight: 10}
			inSplit, err := xds.Translate(during)
			if err != nil {
				t.Fatal(err)
			}
			atRest, err := xds.Translate(rest)
			if err != nil {
				t.Fatal(err)
			}
			st := newStream(1, webKey, Identity{}, &Config{})
			if tc.known { // the split is over by now
				st.target = &target{resources: atRest}
			}
			subscribe, has := opening(&inSplit)
			if err := st.admits(&discoveryv3.DeltaDiscoveryRequest{ResourceNamesSubscribe: subscribe, InitialResourceVersions: has}); err != nil {
				t.Fatalf("opening with %d names: %v", len(subscribe)+len(has), err)
			}
			for candidate := range 10 {
				var names []string
				for _, x := range inSplit[xds.Endpoints] {
					names = append(names, fmt.Sprint(x.Name[:len(x.Name)-1], candidate))
				}
				if err := st.admits(&discoveryv3.DeltaDiscoveryRequest{ResourceNamesSubscribe: names}); err != nil {
					t.Fatalf("candidate %d: %v", candidate+1, err)
				}
			}
		})
	}
}

func TestALongRefusalIsShortened(t *testing.T) {
	f := serve(t, Config{Identify: Anyone(webKey)})
	set(t, f.Server, atRest())
	c := f.connect(t, "")
	c.ask(xds.Clusters, nil)
	c.nack(c.want(xds.Clusters, restClusters...), strings.Repeat("€", 100<<10))
	a := f.until(t, webKey, func(a []Ack) bool { return len(a) == 1 && a[0].Refused != "" })
	if got := a[0].Refused; len(got) > maxReasonBytes || !slices.Contains([]rune(got), '€') || strings.Trim(got, "€") != "" {
		t.Errorf("kept %d bytes, ending in %q", len(got), got[len(got)-6:])
	}
}
