// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/xds"
)

var webKey = Key{Namespace: "shop", Name: "web", Revision: "a"}

func atRest() xds.Workload {
	return xds.Workload{Namespace: "shop", Name: "web", Revision: "a", Ports: []xds.Port{{Number: 8080, Peer: 8080}}}
}

func split(weight uint32, endpoints ...string) xds.Workload {
	w := atRest()
	w.Split = &xds.Split{Peer: "b", PeerWeight: weight, Endpoints: endpoints}
	return w
}

func set(t testing.TB, s *Server, w xds.Workload) {
	t.Helper()
	if err := s.Set(w); err != nil {
		t.Fatal(err)
	}
}

var (
	restClusters = []string{"direct|8080", "inonce|8080", "in|8080", "local|8080", "passthrough"}
	peerClusters = []string{"peerconn|8080|b", "peer|8080|b"}
)

func sorted(names ...string) []string { return slices.Sorted(slices.Values(names)) }

func TestANewSidecarGetsEverything(t *testing.T) {
	f := serve(t, Config{Identify: Anyone(webKey)})
	set(t, f.Server, split(10, "10.0.0.1"))
	c := f.connect(t, "")
	c.ask(xds.Clusters, nil)
	c.ack(c.want(xds.Clusters, sorted(append(peerClusters, restClusters...)...)...))
	c.ask(xds.Endpoints, nil, "peerconn|8080|b")
	c.ack(c.want(xds.Endpoints, "peerconn|8080|b"))
	c.ask(xds.Listeners, nil)
	c.ack(c.want(xds.Listeners, "capture"))
	c.ask(xds.Routes, nil, "capture|8080", "peers")
	last := c.want(xds.Routes, "capture|8080", "peers")
	if a := f.Acks(webKey); len(a) != 1 || a[0].Known {
		t.Errorf("acknowledged before the last type is: %+v", a)
	}
	c.ack(last)
	a := f.settled(t, webKey, 10)
	if want := StateOf(split(10, "10.0.0.1")); a[0].State != want {
		t.Errorf("state %+v, want %+v", a[0].State, want)
	}
	c.fence()
}

func TestASplitIsMadeBeforeItIsUsedAndUnmadeAfter(t *testing.T) {
	f := serve(t, Config{Identify: Anyone(webKey)})
	set(t, f.Server, atRest())
	c := f.connect(t, "")
	c.start(f, atRest())

	set(t, f.Server, split(10, "10.0.0.1"))
	clusters := c.want(xds.Clusters, sorted(peerClusters...)...)
	c.fence() // no route yet
	c.ack(clusters)
	c.fence() // nor when the clusters are acknowledged
	c.ask(xds.Endpoints, nil, "peerconn|8080|b")
	endpoints := c.want(xds.Endpoints, "peerconn|8080|b")
	c.fence() // nor when the endpoints are sent
	c.ack(endpoints)
	c.ack(c.want(xds.Routes, "capture|8080"))
	f.settled(t, webKey, 10)

	set(t, f.Server, atRest())
	routes := c.want(xds.Routes, "capture|8080")
	if a := f.Acks(webKey); a[0].Known {
		t.Errorf("a weight counts while weight 0 is on its way: %+v", a)
	}
	c.ack(routes)
	f.settled(t, webKey, 0)
	removal := c.want(xds.Clusters)
	if want := sorted(peerClusters...); !slices.Equal(removal.GetRemovedResources(), want) {
		t.Errorf("removed %v, want %v", removal.GetRemovedResources(), want)
	}
	c.ack(removal)
}

func TestClustersLingerAfterTheirRoutes(t *testing.T) {
	f := serve(t, Config{Identify: Anyone(webKey), Linger: time.Hour})
	set(t, f.Server, split(10, "10.0.0.1"))
	c := f.connect(t, "")
	c.start(f, split(10, "10.0.0.1"))
	set(t, f.Server, atRest())
	c.ack(c.want(xds.Routes, "capture|8080"))
	f.settled(t, webKey, 0)
	c.fence() // no removal
	set(t, f.Server, split(20, "10.0.0.1"))
	c.ack(c.want(xds.Routes, "capture|8080")) // the clusters are still there
	f.settled(t, webKey, 20)
}

// The endpoints of the same change are not acknowledged, nor is an earlier weight; the lower one goes out.
func TestALowerWeightWaitsForNothing(t *testing.T) {
	f := serve(t, Config{Identify: Anyone(webKey)})
	set(t, f.Server, split(50, "10.0.0.1"))
	c := f.connect(t, "")
	c.start(f, split(50, "10.0.0.1"))

	set(t, f.Server, split(0))
	c.want(xds.Endpoints, "peerconn|8080|b") // never acknowledged
	c.ack(c.want(xds.Routes, "capture|8080"))
	c.fence()
}

// The route back is what the sidecar confirmed long ago; but the route there is still on its way to it.
func TestAWeightTakenBackCountsOnlyWhenItIsGone(t *testing.T) {
	f := serve(t, Config{Identify: Anyone(webKey)})
	set(t, f.Server, split(0, "10.0.0.1"))
	c := f.connect(t, "")
	c.start(f, split(0, "10.0.0.1"))

	set(t, f.Server, split(10, "10.0.0.1"))
	there := c.want(xds.Routes, "capture|8080")
	set(t, f.Server, split(0, "10.0.0.1"))
	if a := f.Acks(webKey); a[0].Known {
		t.Errorf("weight 0 counts while weight 10 is on its way: %+v", a[0])
	}
	c.ack(there)
	back := c.want(xds.Routes, "capture|8080")
	if a := f.Acks(webKey); a[0].Known {
		t.Errorf("weight 0 counts while weight 10 is in force: %+v", a[0])
	}
	c.ack(back)
	f.settled(t, webKey, 0)
}

// This replica will not have heard yet that somebody wants the earlier weight again.
func TestAWeightCountsNoMoreOnceAnotherIsWanted(t *testing.T) {
	f := serve(t, Config{Identify: Anyone(webKey)})
	set(t, f.Server, split(0, "10.0.0.1"))
	c := f.connect(t, "")
	c.start(f, split(0, "10.0.0.1"))
	set(t, f.Server, split(10, "10.0.0.1"))
	if a := f.Acks(webKey); a[0].Known {
		t.Errorf("weight 0 counts while weight 10 is wanted: %+v", a[0])
	}
	for range 3 { // it goes to and fro, and counts as soon as nothing is on its way
		c.ack(c.want(xds.Routes, "capture|8080"))
		f.settled(t, webKey, 10)
		set(t, f.Server, split(0, "10.0.0.1"))
		c.ack(c.want(xds.Routes, "capture|8080"))
		f.settled(t, webKey, 0)
		set(t, f.Server, split(10, "10.0.0.1"))
	}
}

// Pods come and go while a weight is in force, and it stays so.
func TestEndpointsOnTheirWayLeaveTheWeightKnown(t *testing.T) {
	f := serve(t, Config{Identify: Anyone(webKey)})
	set(t, f.Server, split(10, "10.0.0.1"))
	c := f.connect(t, "")
	c.start(f, split(10, "10.0.0.1"))
	set(t, f.Server, split(10, "10.0.0.1", "10.0.0.2"))
	first := c.want(xds.Endpoints, "peerconn|8080|b")
	if a := f.Acks(webKey); !haveWeight(10)(a) {
		t.Errorf("while endpoints are on their way: %+v", a)
	}
	set(t, f.Server, split(10, "10.0.0.2"))
	c.ack(first)
	c.ack(c.want(xds.Endpoints, "peerconn|8080|b"))
	if a := f.settled(t, webKey, 10); !haveWeight(10)(a) {
		t.Errorf("after the endpoints: %+v", a)
	}
}

// A port that has no peer is not split, so that another weight changes nothing: nothing is sent, and it is in
// force at once.
func TestAWeightWithoutContentIsInForceAtOnce(t *testing.T) {
	f := serve(t, Config{Identify: Anyone(webKey)})
	unsplit := func(weight uint32) xds.Workload {
		w := split(weight, "10.0.0.1")
		w.Ports[0].Peer = 0
		return w
	}
	set(t, f.Server, unsplit(0))
	c := f.connect(t, "")
	c.start(f, atRest())
	for _, weight := range []uint32{10, 0} {
		set(t, f.Server, unsplit(weight))
		if a := f.Acks(webKey); !haveWeight(weight)(a) {
			t.Errorf("after weight %d: %+v", weight, a)
		}
	}
	c.fence()
}

func TestASlowSidecarDelaysNoOther(t *testing.T) {
	f := serve(t, Config{Identify: Anyone(webKey)})
	set(t, f.Server, atRest())
	slow, fast := f.connect(t, ""), f.connect(t, "")
	slow.ask(xds.Clusters, nil)
	slow.want(xds.Clusters, restClusters...) // never acknowledged
	fast.ask(xds.Clusters, nil)
	fast.ack(fast.next())
	fast.ask(xds.Listeners, nil)
	fast.ack(fast.next())
	fast.ask(xds.Routes, nil, "capture|8080", "peers")
	fast.ack(fast.next())

	set(t, f.Server, split(10, "10.0.0.1"))
	fast.ack(fast.want(xds.Clusters, sorted(peerClusters...)...))
	fast.ask(xds.Endpoints, nil, "peerconn|8080|b")
	fast.ack(fast.want(xds.Endpoints, "peerconn|8080|b"))
	fast.ack(fast.want(xds.Routes, "capture|8080"))
	f.until(t, webKey, func(acks []Ack) bool {
		settled := 0
		for _, a := range acks {
			if a.Known && a.State.PeerWeight == 10 {
				settled++
			}
		}
		return len(acks) == 2 && settled == 1
	})
}

func TestARefusedClusterKeepsItsRouteBack(t *testing.T) {
	f := serve(t, Config{Identify: Anyone(webKey)})
	set(t, f.Server, atRest())
	c := f.connect(t, "")
	c.start(f, atRest())

	set(t, f.Server, split(10, "10.0.0.1"))
	c.nack(c.want(xds.Clusters, sorted(peerClusters...)...), "no such extension")
	a := f.until(t, webKey, func(a []Ack) bool { return a[0].Refused != "" })
	if a[0].Refused != "no such extension" || a[0].Known {
		t.Errorf("after a refusal: %+v", a[0])
	}
	c.fence() // no route

	set(t, f.Server, atRest())
	f.until(t, webKey, func(a []Ack) bool { return haveWeight(0)(a) && f.haveAll(webKey) && a[0].Refused == "" })
}

func TestEqualContentPushesNothingButIsAcknowledged(t *testing.T) {
	f := serve(t, Config{Identify: Anyone(webKey)})
	w := split(10, "10.0.0.1")
	set(t, f.Server, w)
	c := f.connect(t, "")
	c.start(f, w)
	set(t, f.Server, w)
	if a := f.Acks(webKey); !haveWeight(10)(a) || !f.haveAll(webKey) {
		t.Errorf("after equal content: %+v, want it settled", a)
	}
	c.fence()
}

func TestASidecarWithoutConfigurationWaits(t *testing.T) {
	f := serve(t, Config{Identify: Anyone(webKey)})
	set(t, f.Server, xds.Workload{Namespace: "shop", Name: "other", Revision: "a"})
	c := f.connect(t, "")
	c.ask(xds.Clusters, nil)
	f.until(t, webKey, func(a []Ack) bool { return len(a) == 1 && !a[0].Known })
	select {
	case r := <-c.responses:
		t.Fatalf("got a configuration of nobody: %v", r)
	default:
	}
	set(t, f.Server, atRest())
	c.ack(c.want(xds.Clusters, restClusters...))
}

func TestARestartedServerSendsNothingAgain(t *testing.T) {
	w := split(10, "10.0.0.1")
	before := serve(t, Config{Identify: Anyone(webKey)})
	set(t, before.Server, w)
	c := before.connect(t, "")
	c.start(before, w)
	c.close()
	before.until(t, webKey, func(a []Ack) bool { return len(a) == 0 })

	for name, order := range map[string]string{"configuration first": "set", "sidecar first": "connect"} {
		t.Run(name, func(t *testing.T) {
			after := serve(t, Config{Identify: Anyone(webKey)})
			if order == "set" {
				set(t, after.Server, w)
			}
			again := after.connect(t, "")
			again.resume(c.has)
			if order == "connect" {
				after.until(t, webKey, func(a []Ack) bool { return len(a) == 1 })
				set(t, after.Server, w)
			}
			// Envoy expects an answer to its first question for everything; both are empty.
			again.ack(again.want(xds.Clusters))
			again.ack(again.want(xds.Listeners))
			after.settled(t, webKey, 10)
			again.fence()
		})
	}
}

func TestAReconnectedSidecarIsStagedToo(t *testing.T) {
	before := serve(t, Config{Identify: Anyone(webKey)})
	set(t, before.Server, atRest())
	c := before.connect(t, "")
	c.start(before, atRest())

	after := serve(t, Config{Identify: Anyone(webKey)})
	set(t, after.Server, split(10, "10.0.0.1"))
	again := after.connect(t, "")
	again.resume(c.has)
	clusters := again.want(xds.Clusters, sorted(peerClusters...)...)
	again.ack(again.want(xds.Listeners))
	again.fence() // no route
	again.ack(clusters)
	again.ask(xds.Endpoints, nil, "peerconn|8080|b")
	again.ack(again.want(xds.Endpoints, "peerconn|8080|b"))
	again.ack(again.want(xds.Routes, "capture|8080"))
	after.settled(t, webKey, 10)
}

func TestAReconnectedSidecarLosesClustersLast(t *testing.T) {
	before := serve(t, Config{Identify: Anyone(webKey)})
	set(t, before.Server, split(10, "10.0.0.1"))
	c := before.connect(t, "")
	c.start(before, split(10, "10.0.0.1"))

	after := serve(t, Config{Identify: Anyone(webKey)})
	set(t, after.Server, atRest())
	again := after.connect(t, "")
	again.resume(c.has)
	clusters := again.want(xds.Clusters)
	if len(clusters.GetRemovedResources()) > 0 {
		t.Fatalf("removed %v before the routes", clusters.GetRemovedResources())
	}
	again.ack(clusters)
	again.ack(again.want(xds.Listeners))
	again.ack(again.want(xds.Routes, "capture|8080"))
	removal := again.want(xds.Clusters)
	if want := sorted(peerClusters...); !slices.Equal(removal.GetRemovedResources(), want) {
		t.Errorf("removed %v, want %v", removal.GetRemovedResources(), want)
	}
}

// The pods of a revision may live on when their Deployment is deleted. Nobody would take their weight back.
func TestSidecarsOfARemovedConfigurationAreAtRest(t *testing.T) {
	f := serve(t, Config{Identify: Anyone(webKey)})
	set(t, f.Server, split(50, "10.0.0.2"))
	c := f.connect(t, "")
	c.start(f, split(50, "10.0.0.2"))
	f.Remove(webKey)
	c.ack(c.want(xds.Routes, "capture|8080"))
	if a := f.settled(t, webKey, 0); a[0].State != (State{}) {
		t.Errorf("after Remove: %+v, want rest", a)
	}
	c.ack(c.want(xds.Clusters))
	c.close()
	f.until(t, webKey, func(acks []Ack) bool { return len(acks) == 0 })
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.targets[webKey] != nil {
		t.Error("the configuration is kept when its last sidecar is gone")
	}
}

func TestARemovedConfigurationThatComesBack(t *testing.T) {
	f := serve(t, Config{Identify: Anyone(webKey)})
	set(t, f.Server, atRest())
	c := f.connect(t, "")
	c.start(f, atRest())
	f.Remove(webKey)
	set(t, f.Server, atRest())
	f.settled(t, webKey, 0)
	c.fence()
	c.close()
	f.until(t, webKey, func(acks []Ack) bool { return len(acks) == 0 })
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.targets[webKey] == nil {
		t.Error("the configuration that came back is gone with its last sidecar")
	}
}

func TestWhatAClientMayNotDo(t *testing.T) {
	for name, tc := range map[string]struct {
		req  *discoveryv3.DeltaDiscoveryRequest
		want string
	}{
		"ask for secrets": {&discoveryv3.DeltaDiscoveryRequest{
			TypeUrl: "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"}, "InvalidArgument"},
		"subscribe to very many names": {&discoveryv3.DeltaDiscoveryRequest{
			TypeUrl: xds.Routes.URL(), ResourceNamesSubscribe: slices.Repeat([]string{"x"}, maxNames+1)}, "ResourceExhausted"},
		"subscribe to a very long name": {&discoveryv3.DeltaDiscoveryRequest{
			TypeUrl: xds.Routes.URL(), ResourceNamesSubscribe: []string{strings.Repeat("x", maxNameBytes+1)}}, "InvalidArgument"},
		"have a very long name": {&discoveryv3.DeltaDiscoveryRequest{
			TypeUrl: xds.Routes.URL(), InitialResourceVersions: map[string]string{strings.Repeat("x", maxNameBytes+1): "1"}}, "InvalidArgument"},
		"have a very long version": {&discoveryv3.DeltaDiscoveryRequest{
			TypeUrl: xds.Routes.URL(), InitialResourceVersions: map[string]string{"x": strings.Repeat("1", maxNameBytes+1)}}, "InvalidArgument"},
	} {
		t.Run(name, func(t *testing.T) {
			f := serve(t, Config{Identify: Anyone(webKey)})
			c := f.connect(t, "")
			c.send(tc.req)
			if got := c.ended().String(); got != tc.want {
				t.Errorf("the stream ended with %s, want %s", got, tc.want)
			}
		})
	}
}

func TestSetRefusesWhatCantBeTranslated(t *testing.T) {
	s := New(t.Context(), Config{Identify: Anyone(webKey)})
	if err := s.Set(xds.Workload{}); err == nil {
		t.Error("Set of an empty workload: no error")
	}
}

func TestMetricsCount(t *testing.T) {
	registry := prometheus.NewRegistry()
	m, err := NewMetrics(registry)
	if err != nil {
		t.Fatal(err)
	}
	f := serve(t, Config{Identify: Anyone(webKey), Metrics: m})
	set(t, f.Server, atRest())
	c := f.connect(t, "")
	c.start(f, atRest())
	set(t, f.Server, split(10))
	c.nack(c.next(), "x")
	f.until(t, webKey, func(a []Ack) bool { return a[0].Refused != "" })
	got := gathered(t, registry)
	for metric, want := range map[string]float64{
		"headgate_xds_streams": 1, "headgate_xds_pushes_total{clusters}": 2, "headgate_xds_refusals_total{clusters}": 1,
	} {
		if got[metric] != want {
			t.Errorf("%s = %v, want %v", metric, got[metric], want)
		}
	}
	if _, err := NewMetrics(registry); err == nil {
		t.Error("registering twice: no error")
	}
}

func gathered(t *testing.T, g prometheus.Gatherer) map[string]float64 {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += "{" + l.GetValue() + "}"
			}
			out[name] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return out
}

func TestPortsAreThoseOfTheAPI(t *testing.T) {
	for name, tc := range map[string]struct {
		api int32
		xds uint32
	}{
		"capture": {v1alpha1.CapturePort, xds.CapturePort}, "peer": {v1alpha1.PeerPort, xds.PeerPort},
		"admin": {v1alpha1.AdminPort, xds.AdminPort}, "stats": {v1alpha1.StatsPort, xds.StatsPort},
	} {
		if fmt.Sprint(tc.api) != fmt.Sprint(tc.xds) {
			t.Errorf("%s port: %d in the API, %d here", name, tc.api, tc.xds)
		}
	}
}
