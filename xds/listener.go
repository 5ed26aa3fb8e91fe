// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"fmt"
	"time"

	xdscorev3 "github.com/cncf/xds/go/xds/core/v3"
	matcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	httpinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/http_inspector/v3"
	originaldstv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_dst/v3"
	tlsinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	networkrbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	inputsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/matching/common_inputs/network/v3"
	fractionv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/matching/input_matchers/runtime_fraction/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
)

// sniffTimeout is how long a silent client on an Auto port is waited for; then its connection is bytes,
// and local. It is the delay that a server-first protocol suffers when its port is not declared as TCP,
// and the longest that an HTTP client may keep a new connection silent and still be split when its port is
// not declared as HTTP.
const sniffTimeout = 2 * time.Second

// capture is the one listener for inbound traffic. nftables redirects to it, and the original
// destination chooses the chain:
//
//	15601           -> HTTP from a sidecar of the other revision: local, never split again (or handed on to stable)
//	an Auto port    -> HTTP: split by its routes; other bytes (TLS too): local
//	an HTTP port    -> TLS: local; all else: split by its routes
//	a TCP port      -> local
//	15600           -> closed: nobody was redirected, and "local" would be this listener itself
//	any other port  -> there
//
// Nothing in it varies during a rollout: a changed filter chain closes its connections.
func capture(w *Workload) *listenerv3.Listener {
	l := &listenerv3.Listener{
		Name:                             captureListener,
		StatPrefix:                       captureListener,
		Address:                          address("0.0.0.0", CapturePort),
		TrafficDirection:                 corev3.TrafficDirection_INBOUND,
		ListenerFilters:                  listenerFilters(w),
		ListenerFiltersTimeout:           duration(sniffTimeout),
		ContinueOnListenerFiltersTimeout: true,
		DefaultFilterChain:               &listenerv3.FilterChain{Name: passthroughCluster, Filters: toCluster(passthroughCluster)},
	}
	if w.IPv6 {
		l.AdditionalAddresses = []*listenerv3.AdditionalAddress{{Address: address("::", CapturePort)}}
	}
	for _, p := range w.Ports {
		l.FilterChains = append(l.FilterChains, chains(p)...)
	}
	l.FilterChains = append(l.FilterChains,
		&listenerv3.FilterChain{
			Name: "peers", FilterChainMatch: destination(PeerPort),
			Filters: []*listenerv3.Filter{httpManager(fromPeers())},
		},
		// A chain without filters closes the connection.
		&listenerv3.FilterChain{Name: "blackhole", FilterChainMatch: destination(CapturePort)},
	)
	return l
}

func chains(p Port) []*listenerv3.FilterChain {
	raw := &listenerv3.FilterChain{
		Name: fmt.Sprintf("bytes|%d", p.Number), FilterChainMatch: destination(p.Number),
		Filters: toCluster(localCluster(p.Number)),
	}
	if p.Protocol == TCP {
		return []*listenerv3.FilterChain{raw}
	}
	http := &listenerv3.FilterChain{
		Name: fmt.Sprintf("http|%d", p.Number), FilterChainMatch: destination(p.Number),
		Filters: []*listenerv3.Filter{refusedOnceEnded(p.Number), httpManager(fromClients(p.Number))},
	}
	if p.Protocol == HTTP {
		raw.FilterChainMatch.TransportProtocol = "tls"
		return []*listenerv3.FilterChain{http, raw}
	}
	http.FilterChainMatch.ApplicationProtocols = []string{"http/1.0", "http/1.1", "h2c"}
	return []*listenerv3.FilterChain{http, raw}
}

// refusedOnceEnded closes a new connection, without a word, once the app listens no more. Natively it would be refused, and
// the client would ask another pod; what Envoy answers itself, 503, it would keep. Streams that are open go on.
func refusedOnceEnded(port uint32) *listenerv3.Filter {
	ended := &matcherv3.Matcher_MatcherList_Predicate{MatchType: &matcherv3.Matcher_MatcherList_Predicate_SinglePredicate_{
		SinglePredicate: &matcherv3.Matcher_MatcherList_Predicate_SinglePredicate{
			// The matcher wants an input, and does not look at it.
			Input: typed("envoy.matching.inputs.destination_port", &inputsv3.DestinationPortInput{}),
			Matcher: &matcherv3.Matcher_MatcherList_Predicate_SinglePredicate_CustomMatch{
				CustomMatch: typed("envoy.matching.matchers.runtime_fraction", &fractionv3.RuntimeFraction{
					RuntimeFraction: &corev3.RuntimeFractionalPercent{DefaultValue: &typev3.FractionalPercent{}, RuntimeKey: EndedKey(port)},
				}),
			},
		},
	}}
	return filter("envoy.filters.network.rbac", &networkrbacv3.RBAC{StatPrefix: "ended", Matcher: &matcherv3.Matcher{
		MatcherType: &matcherv3.Matcher_MatcherList_{MatcherList: &matcherv3.Matcher_MatcherList{
			Matchers: []*matcherv3.Matcher_MatcherList_FieldMatcher{{Predicate: ended, OnMatch: verdict("ended", rbacv3.RBAC_DENY)}},
		}},
		OnNoMatch: verdict("runs", rbacv3.RBAC_ALLOW),
	}})
}

func verdict(name string, action rbacv3.RBAC_Action) *matcherv3.Matcher_OnMatch {
	return &matcherv3.Matcher_OnMatch{OnMatch: &matcherv3.Matcher_OnMatch_Action{
		Action: typed("envoy.filters.rbac.action", &rbacv3.Action{Name: name, Action: action}),
	}}
}

func typed(name string, m proto.Message) *xdscorev3.TypedExtensionConfig {
	return &xdscorev3.TypedExtensionConfig{Name: name, TypedConfig: packed(m)}
}

func destination(port uint32) *listenerv3.FilterChainMatch {
	return &listenerv3.FilterChainMatch{DestinationPort: number(port)}
}

func toCluster(name string) []*listenerv3.Filter {
	return []*listenerv3.Filter{filter("envoy.filters.network.tcp_proxy", &tcpproxyv3.TcpProxy{
		StatPrefix:       name,
		IdleTimeout:      duration(0), // the app's own timeout holds
		ClusterSpecifier: &tcpproxyv3.TcpProxy_Cluster{Cluster: name},
	})}
}

// listenerFilters restore the original destination, and then look at the first bytes, but only on ports
// where they decide: a server-first protocol elsewhere must not wait for them.
func listenerFilters(w *Workload) []*listenerv3.ListenerFilter {
	out := []*listenerv3.ListenerFilter{
		listenerFilter("envoy.filters.listener.original_dst", &originaldstv3.OriginalDst{}),
	}
	out = append(out, inspector(w, HTTP, "envoy.filters.listener.tls_inspector", &tlsinspectorv3.TlsInspector{})...)
	return append(out, inspector(w, Auto, "envoy.filters.listener.http_inspector", &httpinspectorv3.HttpInspector{})...)
}

// inspector is a listener filter for the ports of one protocol alone; none where there is no such port.
func inspector(w *Workload, protocol Protocol, name string, m proto.Message) []*listenerv3.ListenerFilter {
	var ports []*listenerv3.ListenerFilterChainMatchPredicate
	for _, p := range w.Ports {
		if p.Protocol == protocol {
			ports = append(ports, onPort(p.Number))
		}
	}
	if len(ports) == 0 {
		return nil
	}
	f := listenerFilter(name, m)
	f.FilterDisabled = &listenerv3.ListenerFilterChainMatchPredicate{
		Rule: &listenerv3.ListenerFilterChainMatchPredicate_NotMatch{NotMatch: anyOf(ports)},
	}
	return []*listenerv3.ListenerFilter{f}
}

// anyOf exists because Envoy refuses an or_match of one.
func anyOf(rules []*listenerv3.ListenerFilterChainMatchPredicate) *listenerv3.ListenerFilterChainMatchPredicate {
	if len(rules) == 1 {
		return rules[0]
	}
	return &listenerv3.ListenerFilterChainMatchPredicate{Rule: &listenerv3.ListenerFilterChainMatchPredicate_OrMatch{
		OrMatch: &listenerv3.ListenerFilterChainMatchPredicate_MatchSet{Rules: rules},
	}}
}

func onPort(port uint32) *listenerv3.ListenerFilterChainMatchPredicate {
	return &listenerv3.ListenerFilterChainMatchPredicate{Rule: &listenerv3.ListenerFilterChainMatchPredicate_DestinationPortRange{
		DestinationPortRange: &typev3.Int32Range{Start: int32(port), End: int32(port) + 1},
	}}
}

func listenerFilter(name string, m proto.Message) *listenerv3.ListenerFilter {
	return &listenerv3.ListenerFilter{Name: name, ConfigType: &listenerv3.ListenerFilter_TypedConfig{TypedConfig: packed(m)}}
}
