// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"slices"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	compositev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/composite/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// packed marshals deterministically, so that equal content has equal bytes. It panics on what can't be
// marshalled: all messages are made here, from validated input.
func packed(m proto.Message) *anypb.Any {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		panic(err)
	}
	return &anypb.Any{TypeUrl: "type.googleapis.com/" + string(m.ProtoReflect().Descriptor().FullName()), Value: b}
}

func duration(d time.Duration) *durationpb.Duration { return durationpb.New(d) }

func number(n uint32) *wrapperspb.UInt32Value { return wrapperspb.UInt32(n) }

// adsConfig waits for ever for the first answer: a sidecar without its server is served by `headgate
// run`, and an empty configuration would be worse than none.
func adsConfig() *corev3.ConfigSource {
	return &corev3.ConfigSource{
		ResourceApiVersion:    corev3.ApiVersion_V3,
		InitialFetchTimeout:   duration(0),
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
	}
}

func address(ip string, port uint32) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: ip, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port},
	}}}
}

// references finds the clusters and route configurations that m names, sorted, without duplicates.
func references(m proto.Message) (clusters, routes []string) {
	switch m := m.(type) {
	case *clusterv3.Cluster:
		clusters = clusterReferences(m)
	case *routev3.RouteConfiguration:
		clusters = routeReferences(m)
	case *listenerv3.Listener:
		clusters, routes = listenerReferences(m)
	}
	slices.Sort(clusters)
	slices.Sort(routes)
	return slices.Compact(clusters), slices.Compact(routes)
}

func clusterReferences(c *clusterv3.Cluster) (names []string) {
	var composite compositev3.ClusterConfig
	if c.GetClusterType() == nil || c.GetClusterType().GetTypedConfig().UnmarshalTo(&composite) != nil {
		return nil
	}
	for _, e := range composite.GetClusters() {
		names = append(names, e.GetName())
	}
	return names
}

func routeReferences(rc *routev3.RouteConfiguration) (names []string) {
	for _, vh := range rc.GetVirtualHosts() {
		for _, r := range vh.GetRoutes() {
			if c := r.GetRoute().GetCluster(); c != "" {
				names = append(names, c)
			}
			for _, c := range r.GetRoute().GetWeightedClusters().GetClusters() {
				names = append(names, c.GetName())
			}
		}
	}
	return names
}

func listenerReferences(l *listenerv3.Listener) (clusters, routes []string) {
	for _, chain := range append(slices.Clone(l.GetFilterChains()), l.GetDefaultFilterChain()) {
		for _, f := range chain.GetFilters() {
			var tcp tcpproxyv3.TcpProxy
			var http hcmv3.HttpConnectionManager
			if f.GetTypedConfig().UnmarshalTo(&tcp) == nil {
				clusters = append(clusters, tcp.GetCluster())
			}
			if f.GetTypedConfig().UnmarshalTo(&http) == nil {
				routes = append(routes, http.GetRds().GetRouteConfigName())
			}
		}
	}
	return clusters, routes
}
