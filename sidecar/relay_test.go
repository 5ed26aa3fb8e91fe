// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package sidecar

import (
	"slices"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/google/go-cmp/cmp"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/headgate/headgate/xds"
)

type (
	request  = discoveryv3.DeltaDiscoveryRequest
	response = discoveryv3.DeltaDiscoveryResponse
	versions = map[string]string
)

var refusal = &rpcstatus.Status{Message: "no"}

func restForTest(t *testing.T) xds.Resources {
	t.Helper()
	rest, err := xds.Translate(xds.Workload{Namespace: "shop", Name: "web", Revision: "v1", Ports: []xds.Port{{Number: 8080}}})
	if err != nil {
		t.Fatal(err)
	}
	return rest
}

func resources(vs versions) []*discoveryv3.Resource {
	var list []*discoveryv3.Resource
	for _, name := range []string{"a", "b"} {
		if v, ok := vs[name]; ok {
			list = append(list, &discoveryv3.Resource{Name: name, Version: v})
		}
	}
	return list
}

// TestRelayTellsANewServerWhatEnvoyHas: each case is a history with the first server, then a second
// one is connected; want is what it is told about clusters.
func TestRelayTellsANewServerWhatEnvoyHas(t *testing.T) {
	clusters := xds.Clusters.URL()
	tests := map[string]struct {
		history func(*relay, func(versions, ...string) string)
		want    versions
	}{
		"nothing was answered: nothing": {
			func(*relay, func(versions, ...string) string) {}, nil},
		"what was sent but not acknowledged does not count": {
			func(_ *relay, send func(versions, ...string) string) { send(versions{"a": "1"}) }, nil},
		"what was acknowledged counts": {
			func(r *relay, send func(versions, ...string) string) {
				r.fromEnvoy(&request{TypeUrl: clusters, ResponseNonce: send(versions{"a": "1", "b": "1"})})
			}, versions{"a": "1", "b": "1"}},
		"a refused version leaves the one before": {
			func(r *relay, send func(versions, ...string) string) {
				r.fromEnvoy(&request{TypeUrl: clusters, ResponseNonce: send(versions{"a": "1"})})
				r.fromEnvoy(&request{TypeUrl: clusters, ResponseNonce: send(versions{"a": "2"}), ErrorDetail: refusal})
			}, versions{"a": "1"}},
		"what was removed is gone": {
			func(r *relay, send func(versions, ...string) string) {
				r.fromEnvoy(&request{TypeUrl: clusters, ResponseNonce: send(versions{"a": "1", "b": "1"})})
				r.fromEnvoy(&request{TypeUrl: clusters, ResponseNonce: send(nil, "a")})
			}, versions{"b": "1"}},
		"what Envoy unsubscribed is gone": {
			func(r *relay, send func(versions, ...string) string) {
				r.fromEnvoy(&request{TypeUrl: clusters, ResponseNonce: send(versions{"a": "1", "b": "1"})})
				r.fromEnvoy(&request{TypeUrl: clusters, ResourceNamesUnsubscribe: []string{"b"}})
			}, versions{"a": "1"}},
		"an acknowledgement counts although its server is gone": {
			func(r *relay, send func(versions, ...string) string) {
				nonce := send(versions{"a": "1"})
				r.lost()
				r.fromEnvoy(&request{TypeUrl: clusters, ResponseNonce: nonce})
			}, versions{"a": "1"}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			r := newRelay(restForTest(t), time.Time{})
			node := &corev3.Node{Id: "shop/web-1"}
			r.fromEnvoy(&request{TypeUrl: clusters, Node: node})
			r.connected()
			tc.history(r, func(vs versions, removed ...string) string {
				resp := &response{TypeUrl: clusters, Resources: resources(vs), RemovedResources: removed}
				return r.fromServer(resp, time.Time{}).GetNonce()
			})
			r.lost()
			want := []*request{{TypeUrl: clusters, Node: node, InitialResourceVersions: tc.want}}
			if diff := cmp.Diff(want, r.connected(), protocmp.Transform()); diff != "" {
				t.Errorf("first requests (-want +got):\n%s", diff)
			}
		})
	}
}

func TestRelayPassesOnWhatConcernsTheServer(t *testing.T) {
	routes := xds.Routes.URL()
	tests := map[string]struct {
		say  func(r *relay, present, earlier string) *request
		want *request
	}{
		"an acknowledgement, with the server's own nonce": {
			func(_ *relay, present, _ string) *request { return &request{TypeUrl: routes, ResponseNonce: present} },
			&request{TypeUrl: routes, ResponseNonce: "server-2"}},
		"a refusal, with its reason": {
			func(_ *relay, present, _ string) *request {
				return &request{TypeUrl: routes, ResponseNonce: present, ErrorDetail: refusal}
			},
			&request{TypeUrl: routes, ResponseNonce: "server-2", ErrorDetail: refusal}},
		"a changed subscription": {
			func(*relay, string, string) *request {
				return &request{TypeUrl: routes, ResourceNamesSubscribe: []string{"b"}}
			},
			&request{TypeUrl: routes, ResourceNamesSubscribe: []string{"b"}}},
		"not an acknowledgement for an earlier server": {
			func(_ *relay, _, earlier string) *request { return &request{TypeUrl: routes, ResponseNonce: earlier} },
			nil},
		"but a subscription changed along with it": {
			func(_ *relay, _, earlier string) *request {
				return &request{TypeUrl: routes, ResponseNonce: earlier, ErrorDetail: refusal, ResourceNamesSubscribe: []string{"b"}}
			},
			&request{TypeUrl: routes, ResourceNamesSubscribe: []string{"b"}}},
		"nothing while there is no server": {
			func(r *relay, _, _ string) *request {
				r.lost()
				return &request{TypeUrl: routes, ResourceNamesSubscribe: []string{"b"}}
			},
			nil},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			r := newRelay(restForTest(t), time.Time{})
			r.fromEnvoy(&request{TypeUrl: routes, ResourceNamesSubscribe: []string{"a"}})
			r.connected()
			earlier := r.fromServer(&response{TypeUrl: routes, Nonce: "server-1"}, time.Time{}).GetNonce()
			r.lost()
			r.connected()
			present := r.fromServer(&response{TypeUrl: routes, Nonce: "server-2"}, time.Time{}).GetNonce()
			got := r.fromEnvoy(tc.say(r, present, earlier))
			if diff := cmp.Diff(tc.want, got, protocmp.Transform()); diff != "" {
				t.Errorf("to the server (-want +got):\n%s", diff)
			}
		})
	}
}

// TestRelayAnswersAtRest plays an Envoy that starts without a server, in Envoy's own order.
func TestRelayAnswersAtRest(t *testing.T) {
	rest := restForTest(t)
	r := newRelay(rest, time.Time{})
	steps := []struct {
		ask     *request
		answers xds.Type
		want    []string
		removed []string
	}{
		{&request{TypeUrl: xds.Clusters.URL()}, xds.Clusters, names(rest[xds.Clusters]), nil},
		{&request{TypeUrl: xds.Endpoints.URL(), ResourceNamesSubscribe: []string{"peer|8080|old"}}, xds.Endpoints, nil, []string{"peer|8080|old"}},
		{&request{TypeUrl: xds.Listeners.URL()}, xds.Listeners, names(rest[xds.Listeners]), nil},
		{&request{TypeUrl: xds.Routes.URL(), ResourceNamesSubscribe: []string{"capture|8080"}}, xds.Routes, []string{"capture|8080"}, nil},
		{&request{TypeUrl: xds.Routes.URL(), ResourceNamesSubscribe: []string{"peers"}}, xds.Routes, []string{"peers"}, nil},
	}
	for _, step := range steps {
		if r.fromEnvoy(step.ask) != nil {
			t.Fatal("told a server that is not there")
		}
		answers := r.atRest()
		if len(answers) != 1 || answers[0].GetTypeUrl() != step.answers.URL() {
			t.Fatalf("asked for %s, answers = %v", step.answers, answers)
		}
		var got []string
		for _, x := range answers[0].GetResources() {
			got = append(got, x.GetName())
			if want, _ := rest.Get(step.answers, x.GetName()); want.Version != x.GetVersion() {
				t.Errorf("%s has version %q, want that of Translate, %q", x.GetName(), x.GetVersion(), want.Version)
			}
		}
		if !slices.Equal(got, step.want) || !slices.Equal(answers[0].GetRemovedResources(), step.removed) {
			t.Errorf("%s: got %v without %v, want %v without %v", step.answers, got, answers[0].GetRemovedResources(), step.want, step.removed)
		}
		if r.fromEnvoy(&request{TypeUrl: step.answers.URL(), ResponseNonce: answers[0].GetNonce()}) != nil || r.waiting() {
			t.Error("still waiting after the answer was acknowledged")
		}
	}
	first := r.connected()
	if diff := cmp.Diff(versionsOf(rest[xds.Clusters]), first[0].GetInitialResourceVersions()); diff != "" {
		t.Errorf("clusters told to the server (-want +got):\n%s", diff)
	}
}

func TestRelayPatience(t *testing.T) {
	at := func(s float64) time.Time { return time.Unix(1000, 0).Add(time.Duration(s * float64(time.Second))) }
	r := newRelay(restForTest(t), at(0))
	if r.waiting() {
		t.Error("waiting before Envoy asked for anything")
	}
	r.fromEnvoy(&request{TypeUrl: xds.Clusters.URL()})
	if !r.waiting() || !r.impatient().Equal(at(1)) {
		t.Errorf("waiting = %t until %v, want until a second after the start", r.waiting(), r.impatient())
	}
	r.connected()
	r.fromServer(&response{TypeUrl: xds.Clusters.URL()}, at(0.5))
	if r.waiting() {
		t.Error("waiting although the server answered, with nothing")
	}
	r.fromEnvoy(&request{TypeUrl: xds.Listeners.URL()})
	if !r.waiting() || !r.impatient().Equal(at(1.5)) {
		t.Errorf("waiting = %t until %v, want until a second after the server's last word", r.waiting(), r.impatient())
	}
}

func TestRelayIgnoresWhatEnvoyDidNotAskFor(t *testing.T) {
	r := newRelay(restForTest(t), time.Time{})
	r.connected()
	if got := r.fromServer(&response{TypeUrl: xds.Routes.URL()}, time.Time{}); got != nil {
		t.Errorf("passed on %v", got)
	}
	if len(r.connected()) != 0 {
		t.Error("subscribed to it")
	}
}

func names(list []xds.Resource) []string {
	var out []string
	for _, x := range list {
		out = append(out, x.Name)
	}
	return out
}

func versionsOf(list []xds.Resource) versions {
	out := versions{}
	for _, x := range list {
		out[x.Name] = x.Version
	}
	return out
}
