// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package sidecar

import (
	"maps"
	"slices"
	"strconv"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"

	"github.com/headgate/headgate/xds"
)

// patience is how long an Envoy that is not live waits for the server before it gets the configuration
// at rest. A server that is there answers within a tenth of that, token review included; a pod that
// starts without one should not wait noticeably longer than its image takes to start.
const patience = time.Second

// relay is the state of Envoy's stream: what Envoy subscribed to, what it has, and which of the
// responses it has not answered yet. It makes messages, it sends none; it is not safe for concurrent
// use. The stream to the server is told apart by a number, because answers to a response of an earlier
// one may still arrive.
type relay struct {
	rest xds.Resources
	// node is what Envoy said of itself in its first request.
	node *corev3.Node
	// subscriptions are in the order in which Envoy asked first, which is the order in which it
	// waits: clusters, endpoints, listeners, routes.
	subscriptions []*subscription
	// flights are the responses that Envoy has not answered, by the nonce that Envoy was given.
	flights map[string]flight
	nonces  int
	// stream is the number of the present stream to the server; 0 when there is none.
	stream, streams int
	// waitingSince is when the server last said something, or Envoy began to ask.
	waitingSince time.Time
}

// subscription is what Envoy wants and has of one type.
type subscription struct {
	url string
	// wildcard is a first request without names: everything.
	wildcard bool
	names    map[string]bool
	// has are the versions that Envoy acknowledged; told those that it was sent, an empty version
	// for "does not exist".
	has, told map[string]string
	// answered is set by the first response.
	answered bool
}

// flight is one response under way to Envoy.
type flight struct {
	to *subscription
	// stream and nonce are the server's; 0 for a response at rest.
	stream   int
	nonce    string
	versions map[string]string
	removed  []string
}

func newRelay(rest xds.Resources, now time.Time) *relay {
	return &relay{rest: rest, flights: map[string]flight{}, waitingSince: now}
}

// fromEnvoy takes in what Envoy says, and returns what to tell the server; nil for nothing.
func (r *relay) fromEnvoy(req *discoveryv3.DeltaDiscoveryRequest) *discoveryv3.DeltaDiscoveryRequest {
	if r.node == nil {
		r.node = req.GetNode()
	}
	s, first := r.subscription(req.GetTypeUrl())
	if first {
		s.wildcard = len(req.GetResourceNamesSubscribe()) == 0
		maps.Copy(s.has, req.GetInitialResourceVersions())
		maps.Copy(s.told, req.GetInitialResourceVersions())
	}
	s.change(req)
	f, isAnswer := r.flights[req.GetResponseNonce()]
	if isAnswer {
		delete(r.flights, req.GetResponseNonce())
		if req.GetErrorDetail() == nil {
			f.acknowledged()
		}
	}
	if r.stream == 0 {
		return nil
	}
	if first {
		return r.firstRequest(s)
	}
	forward := proto.CloneOf(req)
	forward.Node = nil
	if !isAnswer || f.stream != r.stream {
		// The server of now never sent this. What remains may still be a changed subscription.
		forward.ResponseNonce, forward.ErrorDetail = "", nil
		if len(forward.GetResourceNamesSubscribe()) == 0 && len(forward.GetResourceNamesUnsubscribe()) == 0 {
			return nil
		}
		return forward
	}
	forward.ResponseNonce = f.nonce
	return forward
}

func (r *relay) subscription(url string) (s *subscription, first bool) {
	for _, s := range r.subscriptions {
		if s.url == url {
			return s, false
		}
	}
	s = &subscription{url: url, names: map[string]bool{}, has: map[string]string{}, told: map[string]string{}}
	r.subscriptions = append(r.subscriptions, s)
	return s, true
}

func (s *subscription) change(req *discoveryv3.DeltaDiscoveryRequest) {
	for _, name := range req.GetResourceNamesSubscribe() {
		s.names[name] = true
		// Asking again for a name means that it is wanted again, whatever was said.
		if s.told[name] == "" {
			delete(s.told, name)
		}
	}
	for _, name := range req.GetResourceNamesUnsubscribe() {
		delete(s.names, name)
		delete(s.has, name)
		delete(s.told, name)
	}
}

// acknowledged: what a response said is in force. After a refusal Envoy keeps what it had, so has
// stays as it is, and a later stream to the server tells the truth.
func (f flight) acknowledged() {
	maps.Copy(f.to.has, f.versions)
	for _, name := range f.removed {
		delete(f.to.has, name)
	}
}

// connected begins a new stream to the server; it returns the requests that open it: for each type what
// Envoy wants and has, so that the server sends only what differs.
func (r *relay) connected() []*discoveryv3.DeltaDiscoveryRequest {
	r.streams++
	r.stream = r.streams
	var requests []*discoveryv3.DeltaDiscoveryRequest
	for _, s := range r.subscriptions {
		requests = append(requests, r.firstRequest(s))
	}
	return requests
}

func (r *relay) firstRequest(s *subscription) *discoveryv3.DeltaDiscoveryRequest {
	return &discoveryv3.DeltaDiscoveryRequest{
		Node:                    r.node,
		TypeUrl:                 s.url,
		ResourceNamesSubscribe:  slices.Sorted(maps.Keys(s.names)),
		InitialResourceVersions: maps.Clone(s.has),
	}
}

// lost ends the stream to the server.
func (r *relay) lost() { r.stream = 0 }

// fromServer takes in a response of the present stream to the server, and returns what to tell Envoy;
// nil for a type that Envoy never asked for.
func (r *relay) fromServer(resp *discoveryv3.DeltaDiscoveryResponse, now time.Time) *discoveryv3.DeltaDiscoveryResponse {
	r.waitingSince = now
	s, first := r.subscription(resp.GetTypeUrl())
	if first {
		r.subscriptions = r.subscriptions[:len(r.subscriptions)-1]
		return nil
	}
	return r.toEnvoy(s, r.stream, resp)
}

// toEnvoy gives a response a nonce of this stream and remembers what it says.
func (r *relay) toEnvoy(s *subscription, stream int, resp *discoveryv3.DeltaDiscoveryResponse) *discoveryv3.DeltaDiscoveryResponse {
	f := flight{to: s, stream: stream, nonce: resp.GetNonce(), versions: map[string]string{}, removed: resp.GetRemovedResources()}
	for _, x := range resp.GetResources() {
		f.versions[x.GetName()] = x.GetVersion()
		s.told[x.GetName()] = x.GetVersion()
	}
	for _, name := range resp.GetRemovedResources() {
		s.told[name] = ""
	}
	s.answered = true
	r.nonces++
	out := proto.CloneOf(resp)
	out.Nonce = strconv.Itoa(r.nonces)
	r.flights[out.Nonce] = f
	return out
}

// waiting tells whether Envoy waits for an answer to anything.
func (r *relay) waiting() bool { return slices.ContainsFunc(r.subscriptions, (*subscription).waiting) }

func (s *subscription) waiting() bool {
	if s.wildcard && !s.answered {
		return true
	}
	for name := range s.names {
		if _, ok := s.told[name]; !ok {
			return true
		}
	}
	return false
}

// impatient is when Envoy, if it isn't live by then, gets the configuration at rest.
func (r *relay) impatient() time.Time { return r.waitingSince.Add(patience) }

// atRest answers everything that Envoy waits for with the configuration at rest. Names that it does not
// know do not exist.
func (r *relay) atRest() []*discoveryv3.DeltaDiscoveryResponse {
	var out []*discoveryv3.DeltaDiscoveryResponse
	for _, s := range r.subscriptions {
		if s.waiting() {
			out = append(out, r.toEnvoy(s, 0, s.atRest(&r.rest)))
		}
	}
	return out
}

func (s *subscription) atRest(rest *xds.Resources) *discoveryv3.DeltaDiscoveryResponse {
	resp := &discoveryv3.DeltaDiscoveryResponse{TypeUrl: s.url}
	t, known := xds.TypeOf(s.url)
	exists := map[string]bool{}
	if known {
		for _, x := range rest[t] {
			exists[x.Name] = true
			if (s.wildcard || s.names[x.Name]) && s.told[x.Name] != x.Version {
				resp.Resources = append(resp.Resources, &discoveryv3.Resource{Name: x.Name, Version: x.Version, Resource: x.Body})
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.names)) {
		if _, told := s.told[name]; !told && !exists[name] {
			resp.RemovedResources = append(resp.RemovedResources, name)
		}
	}
	return resp
}
