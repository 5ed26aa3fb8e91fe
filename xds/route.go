// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"net/http"
	"strconv"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	previoushostsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// addressLiteral matches an authority that is an IP address, with or without a port. Such a request
// means this very pod: a Prometheus scrape, a person debugging, a load balancer's health check. (Which
// address it is can't be said: the configuration is the same for all pods.)
const addressLiteral = `(\d{1,3}(\.\d{1,3}){3}|\[[0-9A-Fa-f:.]+\])(:\d+)?`

// fullWeight is the sum of the weights of every split, so that a hash of the request keeps meaning the
// same revision as weights grow.
const fullWeight = 100

// captureRouteConfig decides about requests that clients sent to p. The first route that matches wins.
func captureRouteConfig(w *Workload, p Port) *routev3.RouteConfiguration {
	return routeConfig(captureRoutes(p.Number),
		&routev3.Route{
			Name: "address-literal", Match: authorityIsAddress(), Action: forward(to(directCluster(p.Number))),
			RequestBodyBufferLimit: wrapperspb.UInt64(keptBodyHere),
		},
		splitRoute(w, p),
	)
}

func splitRoute(w *Workload, p Port) *routev3.Route {
	r := &routev3.Route{
		Name: "split", Match: everything(), Action: forward(to(localCluster(p.Number))), RequestBodyBufferLimit: wrapperspb.UInt64(keptBodyHere),
	}
	if !splits(w, p) || w.Split.PeerWeight == 0 {
		return r
	}
	r.ResponseHeadersToRemove = []string{unreachedHeader}
	r.RequestBodyBufferLimit = wrapperspb.UInt64(keptBody)
	if onlyPeers(w.Split) {
		r.Action = forward(toOneOfPeers(peerConnCluster(p.Number, w.Split.Peer)))
		return r
	}
	shares := []*routev3.WeightedCluster_ClusterWeight{{
		Name: peerCluster(p.Number, w.Split.Peer), Weight: number(w.Split.PeerWeight),
	}}
	if w.Split.PeerWeight < fullWeight {
		shares = append(shares, &routev3.WeightedCluster_ClusterWeight{
			Name: localCluster(p.Number), Weight: number(fullWeight - w.Split.PeerWeight),
		})
	}
	if w.Split.PeerIsStable && len(shares) == 2 {
		shares[0], shares[1] = shares[1], shares[0]
	}
	a := toPeer("")
	a.ClusterSpecifier = &routev3.RouteAction_WeightedClusters{WeightedClusters: &routev3.WeightedCluster{Clusters: shares}}
	r.Action = forward(a)
	return r
}

// keptBody is how much of a request's body is kept for another attempt, until the answer begins. A request of which more has
// come before a peer could be connected to is lost with the first attempt: 503, or 507 where the peer refuses. It is what each upload
// may cost in memory while there is a split, whichever version answers. A gRPC message is at most 4 MiB by default; Envoy's
// own defaults are 1 MiB for HTTP/1, and 16 MiB for HTTP/2.
const keptBody = 5 << 20

// keptBodyHere is the same where only this pod's app can answer. Another connection to it is made at once or never, so little has
// come by then; and what is kept, an app of a thousand uploads that are answered at their end pays a thousand times.
const keptBodyHere = 64 << 10

// Where the candidate's own app must not answer, another stable pod is tried onlyPeersRetries times, and one that has been
// tried is not chosen again, if one of so many choices is another.
const (
	onlyPeersRetries = 3
	onlyPeersChoices = 10
)

func toOneOfPeers(cluster string) *routev3.RouteAction {
	a := toPeer(cluster)
	a.RetryPolicy.NumRetries = number(onlyPeersRetries)
	a.RetryPolicy.HostSelectionRetryMaxAttempts = onlyPeersChoices
	a.RetryPolicy.RetryHostPredicate = []*routev3.RetryPolicy_RetryHostPredicate{{
		Name:       "envoy.retry_host_predicates.previous_hosts",
		ConfigType: &routev3.RetryPolicy_RetryHostPredicate_TypedConfig{TypedConfig: packed(&previoushostsv3.PreviousHostsPredicate{})},
	}}
	return a
}

// onlyPeers: this is a candidate of weight 0. Not even a stable pod that can't be reached makes a request
// stay here, because nobody has judged this version, or somebody has and it failed. Without any stable
// pod there is nobody else to ask.
func onlyPeers(s *Split) bool {
	return s.PeerIsStable && s.PeerWeight == fullWeight && len(s.Endpoints) > 0
}

// peerRouteConfig takes requests from sidecars of the other revision. Only captured ports can be meant;
// anything else is 404. There is no split here, so a request makes one hop at most; or two, where what arrives is handed on.
func peerRouteConfig(w *Workload) *routev3.RouteConfiguration {
	routes := []*routev3.Route{notHere(w)}
	for _, p := range w.Ports {
		if handsOn(w, p) {
			routes = append(routes, handOn(w, p))
		}
		ending := meantFor(p)
		ending.RuntimeFraction = &corev3.RuntimeFractionalPercent{DefaultValue: &typev3.FractionalPercent{}, RuntimeKey: LeavingKey}
		for _, r := range []*routev3.Route{
			{Name: inOnceCluster(p.Number), Match: ending, Action: forward(to(inOnceCluster(p.Number)))},
			{Name: inCluster(p.Number), Match: meantFor(p), Action: forward(to(inCluster(p.Number)))},
		} {
			r.RequestHeadersToRemove = []string{PortHeader, forHeader, handedOnHeader}
			r.RequestBodyBufferLimit = wrapperspb.UInt64(keptBodyHere)
			r.ResponseHeadersToRemove = []string{unreachedHeader} // the app may not say that; what Envoy answers itself keeps it
			routes = append(routes, r)
		}
	}
	return routeConfig(peerRoutes, routes...)
}

// notHere answers what is meant for another workload or revision, which has had this pod's address before. Its sender sends
// it elsewhere, as long as it has all of it yet: of a body of more than keptBody it may not when the answer comes, and its
// client gets 503, or 507 (half of those of 8 MiB did). After one such answer it leaves this address out for a while.
func notHere(w *Workload) *routev3.Route {
	m, another := everything(), header(forHeader, exactly(w.identity(w.Revision)))
	another.InvertMatch = true
	m.Headers = []*routev3.HeaderMatcher{present(forHeader), another}
	return &routev3.Route{
		Name: "not-here", Match: m, ResponseHeadersToAdd: []*corev3.HeaderValueOption{saysUnreached()},
		Action: &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{Status: http.StatusServiceUnavailable}},
	}
}

// handsOn: what sidecars of stable still send here is for stable. Without any stable pod somebody must answer, and there
// is only this one.
func handsOn(w *Workload, p Port) bool {
	return splits(w, p) && w.Split.Over && onlyPeers(w.Split)
}

// handOn takes what nobody has handed on yet. What was stable when this sidecar last heard may be over itself by now, and its
// stable be this revision: two that are cut off would send a request to and fro for ever. So the second one answers it.
func handOn(w *Workload, p Port) *routev3.Route {
	m, handedOn := meantFor(p), present(handedOnHeader)
	handedOn.InvertMatch = true
	m.Headers = append(m.Headers, handedOn)
	return &routev3.Route{
		Name: peerConnCluster(p.Number, w.Split.Peer), Match: m, Action: forward(toOneOfPeers(peerConnCluster(p.Number, w.Split.Peer))),
		// The request keeps the header that names the port: unreached knows by it what was handed on.
		RequestHeadersToAdd: []*corev3.HeaderValueOption{{
			Header: &corev3.HeaderValue{Key: handedOnHeader, Value: "true"}, AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
		}},
		RequestBodyBufferLimit: wrapperspb.UInt64(keptBody),
	}
}

// toPeer tries somebody else, too, when the peer says that its app has seen nothing of the request.
func toPeer(cluster string) *routev3.RouteAction {
	a := to(cluster)
	a.RetryPolicy.RetryOn += ",retriable-headers"
	a.RetryPolicy.RetriableHeaders = []*routev3.HeaderMatcher{isUnreached()}
	return a
}

// isUnreached matches an answer that says that the request has reached nobody.
func isUnreached() *routev3.HeaderMatcher { return present(unreachedHeader) }

func present(name string) *routev3.HeaderMatcher {
	return &routev3.HeaderMatcher{Name: name, HeaderMatchSpecifier: &routev3.HeaderMatcher_PresentMatch{PresentMatch: true}}
}

func routeConfig(name string, routes ...*routev3.Route) *routev3.RouteConfiguration {
	return &routev3.RouteConfiguration{
		Name:         name,
		VirtualHosts: []*routev3.VirtualHost{{Name: name, Domains: []string{"*"}, Routes: routes}},
		// Clusters and routes change at different moments; Stages keeps them consistent.
		ValidateClusters: wrapperspb.Bool(false),
	}
}

func everything() *routev3.RouteMatch {
	return &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}}
}

// meantFor matches what a peer sends to p.
func meantFor(p Port) *routev3.RouteMatch {
	m := everything()
	m.Headers = []*routev3.HeaderMatcher{header(PortHeader, exactly(strconv.Itoa(int(p.Number))))}
	return m
}

func authorityIsAddress() *routev3.RouteMatch {
	m := everything()
	m.Headers = []*routev3.HeaderMatcher{header(":authority", &matcherv3.StringMatcher{MatchPattern: regex(addressLiteral)})}
	return m
}

func header(name string, value *matcherv3.StringMatcher) *routev3.HeaderMatcher {
	return &routev3.HeaderMatcher{
		Name: name, HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: value},
	}
}

func forward(a *routev3.RouteAction) *routev3.Route_Route { return &routev3.Route_Route{Route: a} }

// to has no timeouts (the app's and the client's hold) and one more attempt, but only for a request of
// which the target has certainly seen nothing: connection refused or timed out, reset before the request's
// headers were sent, or refused by the target itself in the words of HTTP/2 (REFUSED_STREAM: "not
// processed", RFC 9113 §8.7). So a POST is safe as well. On the way to a peer the other attempt goes local.
func to(cluster string) *routev3.RouteAction {
	return &routev3.RouteAction{
		ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: cluster},
		Timeout:          duration(0),
		IdleTimeout:      duration(0),
		RetryPolicy: &routev3.RetryPolicy{
			RetryOn:      "connect-failure,refused-stream,reset-before-request",
			NumRetries:   number(1),
			RetryBackOff: &routev3.RetryPolicy_RetryBackOff{BaseInterval: duration(time.Millisecond), MaxInterval: duration(time.Millisecond)},
		},
	}
}
